"""The one place where layers and quantisers talk to other DDP processes.

The frames of all processes, taken in the order of the ranks, are one global
batch; all functions give every process the same answer, and the answer a single
process gives when it holds the global batch.
"""

import gc

import torch
from torch import distributed

if distributed.is_available():
    # The functions of this module hold the process group that is there when it is
    # imported: before the first, there is none that could not be ended any more.
    from torch.distributed.nn.functional import all_reduce


def is_distributed():
    """Whether there are other processes to agree with."""
    return distributed.is_available() and distributed.is_initialized()


def leave_processes():
    """End the process group, once nothing is left to be told to the others.

    Gloo's threads, left to the end of the process, may abort it. They end with the
    last reference to the group, which models in DDP hold too: those must be out of
    scope.

    Example
    -------
    >>> leave_processes()
    """
    if is_distributed():
        gc.collect()
        distributed.destroy_process_group()


def sum_across(tensor):
    """Sum a tensor over processes, in place, and return it.

    Example
    -------
    >>> sum_across(torch.ones(2))
    tensor([1., 1.])
    """
    if is_distributed():
        distributed.all_reduce(tensor)
    return tensor


def add_across(x: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over processes, through which gradients pass.

    The gradient is that of the sum of the losses of all processes.

    Example
    -------
    >>> add_across(torch.ones(2))
    tensor([1., 1.])
    """
    if not is_distributed():
        return x
    return all_reduce(x)


def mean_across(value: float, device=None) -> float:
    """Mean of a number over processes.

    Arguments
    ---------
    value : float
        What this process has.
    device : torch.device, optional
        Where the processes talk.

    Example
    -------
    >>> mean_across(0.5)
    0.5
    """
    if not is_distributed():
        return value
    total = sum_across(torch.tensor(value, dtype=torch.float64, device=device))
    return total.item() / distributed.get_world_size()


def weight_of_process(frames):
    """What a mean over the frames of this process counts in DDP's mean over processes.

    Their number, over that of the average process: the gradient is then that of the
    mean over the global batch.

    Arguments
    ---------
    frames : torch.Tensor
        Number of frames, a scalar.

    Example
    -------
    >>> weight_of_process(torch.tensor(300))
    tensor(1.)
    """
    number = distributed.get_world_size() if is_distributed() else 1
    return frames * number / sum_across(frames.clone())


def mean_over_frames(total, frames, training):
    """Mean over valid frames, those of all processes in training.

    For losses that are no mean of losses of frames: those of several processes would
    not add up to that of their global batch.

    Arguments
    ---------
    total : torch.Tensor
        Sum over the frames of this process, through which gradients pass.
    frames : torch.Tensor
        Their number, a scalar.
    training : bool
        In evaluation, processes do not wait for each other.

    Returns
    -------
    torch.Tensor
        Of the shape of ``total``; zero where there are no frames.

    Example
    -------
    >>> mean_over_frames(torch.tensor([6.0]), torch.tensor(3), training=True)
    tensor([2.])
    """
    if training:
        total, frames = add_across(total), sum_across(frames.clone())
    return total / frames.clamp(min=1)


def share_from_first(*tensors):
    """Overwrite tensors, in place, by those of the process of rank 0."""
    if is_distributed():
        for tensor in tensors:
            distributed.broadcast(tensor, 0)


def place_in_global_batch(x: torch.Tensor) -> tuple[int, int]:
    """Where the rows of this process sit in the global batch.

    Arguments
    ---------
    x : torch.Tensor
        Rows of this process, shape [N, ...]; N may differ between processes.

    Returns
    -------
    offset : int
        Position of this process's first row.
    total : int
        Rows of all processes.

    Example
    -------
    >>> place_in_global_batch(torch.zeros(5, 2))
    (0, 5)
    """
    if not is_distributed():
        return 0, len(x)
    sizes = torch.zeros(distributed.get_world_size(), dtype=torch.long, device=x.device)
    rank = distributed.get_rank()
    sizes[rank] = len(x)
    distributed.all_reduce(sizes)
    counts = sizes.tolist()
    return sum(counts[:rank]), sum(counts)


def all_values(values: torch.Tensor, offset: int, total: int) -> torch.Tensor:
    """A vector of the global batch from the pieces that processes hold.

    Arguments
    ---------
    values : torch.Tensor
        This process's values, shape [N].
    offset, total : int
        From :func:`place_in_global_batch`.

    Returns
    -------
    torch.Tensor
        Shape [total].

    Example
    -------
    >>> all_values(torch.tensor([3.0, 4.0]), offset=0, total=2)
    tensor([3., 4.])
    """
    everything = values.new_zeros(total)
    everything[offset : offset + len(values)] = values
    return sum_across(everything)


def take_rows(x: torch.Tensor, positions: torch.Tensor, offset: int) -> torch.Tensor:
    """Rows of the global batch, on every process.

    Arguments
    ---------
    x : torch.Tensor
        Rows of this process, shape [N, D].
    positions : torch.Tensor
        Positions in the global batch, long, shape [M], the same everywhere.
    offset : int
        From :func:`place_in_global_batch`.

    Returns
    -------
    torch.Tensor
        Shape [M, D].

    Example
    -------
    >>> take_rows(torch.eye(3), torch.tensor([2]), offset=0)
    tensor([[0., 0., 1.]])
    """
    rows = x.new_zeros(len(positions), x.shape[1])
    mine = (positions >= offset) & (positions < offset + len(x))
    rows[mine] = x[positions[mine] - offset]
    return sum_across(rows)
