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


def strided_counts(counts: torch.Tensor, stride: int) -> torch.Tensor:
    """Frame counts after a layer of this stride: the ceiling of counts / stride."""
    return torch.div(counts + stride - 1, stride, rounding_mode="floor")
