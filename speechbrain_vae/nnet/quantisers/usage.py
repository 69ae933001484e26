"""How much of a codebook is used, over an epoch and over all processes."""

import math

import torch
from torch import distributed


def perplexity(counts: torch.Tensor) -> torch.Tensor:
    """Exponential of the entropy of code counts: how many codes carry the load.

    Arguments
    ---------
    counts : torch.Tensor
        Counts or probabilities, shape [..., K].

    Returns
    -------
    torch.Tensor
        Between 1 and K, shape [...]; 0 where there are no counts at all.

    Example
    -------
    >>> perplexity(torch.tensor([[5, 5, 0], [9, 0, 0]]))
    tensor([2., 1.])
    """
    total = counts.sum(-1, keepdim=True)
    probabilities = counts / total.clamp(min=torch.finfo(torch.float32).tiny)
    entropy = -torch.xlogy(probabilities, probabilities).sum(-1)
    return torch.where(total.squeeze(-1) > 0, entropy.exp(), 0.0)


class UsageMeter:
    """Code counts of one epoch, kept apart for each group of codes.

    A batch sees only some of the codes, so its perplexity says little. Feed the
    meter every batch, read :meth:`summary` at the end of the epoch, then
    :meth:`reset`. Of a codebook that grows, the frames since its last growth count.

    Arguments
    ---------
    codebook_size : int
        Codes K of each group, in the end.
    groups : int
        Groups G: product groups or residual stages.

    Example
    -------
    >>> meter = UsageMeter(codebook_size=4)
    >>> meter.update(torch.tensor([[[0], [1], [2], [-1]]]))
    >>> summary = meter.summary(frame_rate=100)
    >>> summary["dead_codes"], summary["usage"], summary["nominal_bitrate"]
    (1, 0.75, 200.0)
    """

    COLLAPSED_BELOW = 0.8
    FRAMES_PER_CODE = 10

    def __init__(self, codebook_size: int, groups: int = 1) -> None:
        if codebook_size < 1 or groups < 1:
            raise ValueError(
                "codebook_size and groups must be at least 1; "
                f"got {codebook_size} and {groups}"
            )
        self.codebook_size = codebook_size
        self.groups = groups
        self.reset()

    def reset(self):
        """Forget everything: call it at the start of an epoch."""
        self.codes = self.codebook_size
        self.counts = torch.zeros(self.groups, self.codebook_size, dtype=torch.long)

    @torch.no_grad()
    def update(self, indices: torch.Tensor, codes: int | None = None):
        """Count a batch.

        Arguments
        ---------
        indices : torch.Tensor
            Long, shape [B, T, G]; negative on padding.
        codes : int, optional
            Codes there are so far, of a codebook that grows; K by default.
        """
        # indices [B, T, G]
        if indices.ndim != 3 or indices.shape[2] != self.groups:
            raise ValueError(
                f"expected indices of shape [B, T, {self.groups}]; "
                f"got {list(indices.shape)}"
            )
        codes = self.codebook_size if codes is None else int(codes)
        if codes != self.codes:
            # Growth renumbers the codes.
            self.reset()
            self.codes = codes
        # Held on the device of the indices: reading counts at every batch would
        # make a GPU wait.
        self.counts = self.counts.to(indices.device)
        self.counts += count_codes(indices.reshape(-1, self.groups), self.codebook_size)

    def summary(self, frame_rate: float) -> dict:
        """Usage over everything counted, summed over all DDP processes.

        Call it on every process, as any collective.

        Arguments
        ---------
        frame_rate : float
            Frames a second, for the bitrates.

        Returns
        -------
        dict
            Plain numbers: ``perplexity`` (mean over groups), ``codes`` (of each group
            so far; K unless it grows), ``usage`` (share of them seen at least once,
            mean over groups), ``dead_codes`` (sum over groups), ``nominal_bitrate``
            and ``entropy_bitrate`` in bit/s (sums over groups; the second at the
            entropy of the counts, frames taken as independent), ``frames``, and
            ``collapsed``: whether any group used less than 80 % of its codes, of at
            least 10 frames a code.
        """
        counts = self.counts[:, : self.codes]
        if distributed.is_available() and distributed.is_initialized():
            counts = counts.clone()
            if distributed.get_backend() == "nccl":
                counts = counts.cuda()
            distributed.all_reduce(counts)
        counts = counts.cpu().double()
        used = (counts > 0).double().mean(1)
        by_group = perplexity(counts)
        frames = int(counts[0].sum())
        enough = frames >= self.FRAMES_PER_CODE * self.codes
        nominal = self.groups * math.log2(self.codes)
        entropy = by_group.clamp(min=1.0).log2().sum().item()
        return {
            "perplexity": by_group.mean().item(),
            "codes": self.codes,
            "usage": used.mean().item(),
            "dead_codes": int((counts == 0).sum()),
            "nominal_bitrate": frame_rate * nominal,
            "entropy_bitrate": frame_rate * entropy,
            "frames": frames,
            "collapsed": bool(enough and used.min() < self.COLLAPSED_BELOW),
        }


def count_codes(indices: torch.Tensor, codebook_size: int) -> torch.Tensor:
    """Counts of each code in each group, negative indices left out.

    Arguments
    ---------
    indices : torch.Tensor
        Long, shape [N, G].
    codebook_size : int
        Codes K.

    Returns
    -------
    torch.Tensor
        Long, shape [G, K].

    Example
    -------
    >>> count_codes(torch.tensor([[0, 1], [0, 2], [-1, -1]]), 3)
    tensor([[2, 0, 0],
            [0, 1, 1]])
    """
    # indices [N, G]
    groups = indices.shape[1]
    # Padding goes to one more bin at the end: picking valid entries out would
    # need their number, for which a GPU must be waited for.
    slots = indices
    if groups > 1:
        slots = slots + codebook_size * torch.arange(groups, device=indices.device)
    slots = torch.where(indices < 0, groups * codebook_size, slots)
    slots = slots.flatten()
    # For bincount, too, a GPU must be waited for.
    counts = slots.new_zeros(groups * codebook_size + 1)
    counts.scatter_add_(0, slots, torch.ones_like(slots))
    return counts[:-1].view(groups, codebook_size)
