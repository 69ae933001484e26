"""The one place that turns relative lengths into frame counts and masks.

SpeechBrain passes lengths relative to the longest item of the batch. Every
module here converts them with :func:`frame_counts` and nowhere else, so that
an item has the same number of valid frames alone and in a padded batch.
"""

import torch


def frame_counts(
    lengths: torch.Tensor | None,
    batch: int,
    frames: int,
    device: torch.device | None = None,
) -> torch.Tensor:
    """Absolute number of valid frames of each item.

    Arguments
    ---------
    lengths : torch.Tensor or None
        Relative lengths in (0, 1], shape [B]; ``None`` means no padding.
    batch : int
        Number of items B.
    frames : int
        Number of frames T of the padded batch.
    device : torch.device, optional
        Where the result lives when ``lengths`` is ``None``.

    Returns
    -------
    torch.Tensor
        Integer frame counts, shape [B].

    Example
    -------
    >>> frame_counts(torch.tensor([1.0, 0.5]), 2, 10)
    tensor([10,  5])
    """
    if lengths is None:
        return torch.full((batch,), frames, dtype=torch.long, device=device)
    if lengths.shape != (batch,):
        raise ValueError(
            f"lengths must have shape [{batch}], one for each item of the batch; "
            f"got {list(lengths.shape)}"
        )
    if not lengths.is_floating_point():
        raise ValueError(
            "lengths must be relative, a share of the longest item each; "
            f"got whole numbers ({lengths.dtype}): divide them by the longest"
        )
    counts = torch.round(lengths.double() * frames).long()
    return counts.clamp(min=0, max=frames)


def count_mask(counts: torch.Tensor, frames: int) -> torch.Tensor:
    """Boolean mask [B, T], True on the first ``counts[b]`` frames of each item.

    Example
    -------
    >>> count_mask(torch.tensor([2, 1]), 3)
    tensor([[ True,  True, False],
            [ True, False, False]])
    """
    return torch.arange(frames, device=counts.device) < counts.unsqueeze(1)


def length_mask(x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """Boolean mask [B, T] of the valid frames of ``x`` [B, T, ...].

    Example
    -------
    >>> length_mask(torch.zeros(2, 4, 8), torch.tensor([1.0, 0.5])).sum(1)
    tensor([4, 2])
    """
    counts = frame_counts(lengths, x.shape[0], x.shape[1], x.device)
    return count_mask(counts.to(x.device), x.shape[1])


def strided_counts(counts: torch.Tensor, stride: int | torch.Tensor) -> torch.Tensor:
    """Frame counts after a layer of this stride: the ceiling of counts / stride."""
    return torch.div(counts + stride - 1, stride, rounding_mode="floor")


def cut(
    x: torch.Tensor, lengths: torch.Tensor | None, frames: int, stride: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut each item into the fewest pieces of at most ``frames`` frames.

    The pieces of an item are of one size, a multiple of the stride, but for its last,
    and do not depend on what else is in the batch.

    Arguments
    ---------
    x : torch.Tensor
        Shape [B, T, F].
    lengths : torch.Tensor or None
        Relative lengths, shape [B].
    frames : int
        At least the stride; of a number between its multiples, the lower one counts.
    stride : int
        Frames that stay together.

    Returns
    -------
    pieces : torch.Tensor
        One item after the other, shape [N, P, F]. Past the end of a piece they mean
        nothing.
    lengths : torch.Tensor
        Relative lengths, shape [N].

    Example
    -------
    >>> x = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]]).unsqueeze(-1)
    >>> pieces, lengths = cut(x, None, frames=3)
    >>> pieces.squeeze(-1), lengths * 3
    (tensor([[1., 2., 3.],
            [4., 5., 5.]]), tensor([3., 2.]))
    """
    counts = frame_counts(lengths, len(x), x.shape[1], x.device).to(x.device)
    numbers = strided_counts(counts, frames - frames % stride).clamp(min=1)
    sizes = strided_counts(counts, numbers * stride) * stride
    items = torch.arange(len(x), device=x.device).repeat_interleave(numbers)
    first = numbers.cumsum(0) - numbers
    starts = (torch.arange(len(items), device=x.device) - first[items]) * sizes[items]
    parts = torch.minimum(sizes[items], counts[items] - starts)
    size = max(int(parts.max()), 1)
    places = starts.unsqueeze(1) + torch.arange(size, device=x.device)
    places = places.clamp(max=x.shape[1] - 1) + x.shape[1] * items.unsqueeze(1)
    pieces = x.flatten(0, 1).index_select(0, places.flatten())
    return pieces.view(len(items), size, -1), parts / size
