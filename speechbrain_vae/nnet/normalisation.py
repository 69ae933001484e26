"""Normalisation layers that ignore padding and keep it at zero, on [B, C, T]."""

import torch

from speechbrain_vae.nnet.distributed import add_across, sum_across

NORMALISATIONS = ("none", "layer", "batch", "weight")


class FrameLayerNorm(torch.nn.LayerNorm):
    """Layer normalisation over the channels of each frame of [B, C, T].

    Example
    -------
    >>> FrameLayerNorm(8)(torch.randn(2, 8, 5), torch.ones(2, 1, 5)).shape
    torch.Size([2, 8, 5])
    """

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        # x: [B, C, T], mask: [B, 1, T]
        return super().forward(x.transpose(1, 2)).transpose(1, 2) * mask


class MaskedBatchNorm(torch.nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) over valid frames alone.

    Of several DDP processes, the frames of all are one batch.

    Arguments
    ---------
    channels : int
        Number of channels C.
    momentum : float
        Weight of the new batch in the running statistics.

    Example
    -------
    >>> norm = MaskedBatchNorm(8)
    >>> mask = torch.ones(2, 1, 5)
    >>> norm(torch.randn(2, 8, 5), mask).shape
    torch.Size([2, 8, 5])
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, channels: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.weight = torch.nn.Parameter(torch.ones(channels))
        self.bias = torch.nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: torch.Tensor, mask: torch.Tensor):
        # x: [B, C, T], mask: [B, 1, T]
        if self.training:
            n = sum_across(mask.sum()).clamp(min=1)
            mean = add_across((x * mask).sum((0, 2))) / n
            var = add_across((((x - mean[:, None]) * mask) ** 2).sum((0, 2))) / n
            self._follow(self.running_mean, mean)
            self._follow(self.running_var, var)
        else:
            mean, var = self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(var + 1e-5)
        return (x * scale[:, None] + (self.bias - mean * scale)[:, None]) * mask

    @torch.no_grad()
    def _follow(self, running, batch):
        # NaN of one batch would stay for good.
        batch = torch.where(batch.isfinite(), batch.float(), running)
        running.lerp_(batch, self.momentum)


class NoNorm(torch.nn.Module):
    """The identity, with the call of the other normalisations."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor):
        # x: [B, C, T], zero on padding
        return x


def make_normalisation(kind, channels):
    """The layer that ``kind`` names: "none", "layer", "batch" or "weight".

    Weight normalisation belongs to the convolutions; its layer is the identity.

    Example
    -------
    >>> make_normalisation("layer", 8)
    FrameLayerNorm((8,), eps=1e-05, elementwise_affine=True)
    """
    if kind not in NORMALISATIONS:
        raise ValueError(
            f"normalisation must be one of {', '.join(NORMALISATIONS)}; got {kind!r}"
        )
    if kind == "layer":
        return FrameLayerNorm(channels)
    if kind == "batch":
        return MaskedBatchNorm(channels)
    return NoNorm()


def mean_and_std(utterances) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each dimension over all frames, in float64.

    Arguments
    ---------
    utterances : iterable of torch.Tensor
        Each of shape [T, D].

    Returns
    -------
    mean, std : torch.Tensor
        Each of shape [D].

    Example
    -------
    >>> mean_and_std([torch.tensor([[1.0]]), torch.tensor([[3.0]])])
    (tensor([2.], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    count = 0
    total = squares = torch.zeros(())
    for x in utterances:
        x = x.double()
        count += x.shape[0]
        total = total + x.sum(0)
        squares = squares + (x**2).sum(0)
    mean = total / count
    return mean, (squares / count - mean**2).clamp(min=0).sqrt()
