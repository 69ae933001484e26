"""Any quantiser as a bottleneck."""

import dataclasses

import torch

from speechbrain_vae.nnet.bottleneck_output import BottleneckOutput
from speechbrain_vae.nnet.lengths import length_mask
from speechbrain_vae.nnet.normalisation import make_normalisation
from speechbrain_vae.nnet.quantisers.base import Quantiser
from speechbrain_vae.nnet.quantisers.jitter import TimeJitter

NORMALISATIONS = ("batch", "layer", "none")


class QuantisedBottleneck(torch.nn.Module):
    """A projection, a normalisation and a quantiser.

    Normalising what is quantised keeps the frames where the codes are while the
    encoder moves (Lancucki et al. 2020).

    Arguments
    ---------
    input_size : int
        Size of the encoder's output.
    quantiser : speechbrain_vae.nnet.quantisers.base.Quantiser
        One of :mod:`speechbrain_vae.nnet.quantisers`; its ``dim`` is the size D of
        the latent.
    normalisation : str
        "batch", "layer" or "none", of the projected frames.
    jitter : float
        Probability that a latent frame is replaced by a neighbour in training.

    Example
    -------
    >>> from speechbrain_vae.nnet.quantisers import VectorQuantizer
    >>> bottleneck = QuantisedBottleneck(32, VectorQuantizer(dim=16, codebook_size=8))
    >>> out = bottleneck(torch.randn(2, 50, 32), torch.tensor([1.0, 0.5]))
    >>> out.features.shape, out.indices.shape
    (torch.Size([2, 50, 16]), torch.Size([2, 50, 1]))
    """

    def __init__(
        self,
        input_size: int,
        quantiser: Quantiser,
        normalisation: str = "batch",
        jitter: float = 0.0,
    ) -> None:
        super().__init__()
        if normalisation not in NORMALISATIONS:
            raise ValueError(
                f"normalisation must be one of {', '.join(NORMALISATIONS)}; "
                f"got {normalisation!r}"
            )
        self.latent_size = quantiser.dim
        self.linear = torch.nn.Linear(input_size, quantiser.dim)
        self.norm = make_normalisation(normalisation, quantiser.dim)
        self.quantiser = quantiser
        self.jitter = TimeJitter(jitter)

    def project(self, x: torch.Tensor, lengths: torch.Tensor | None = None):
        """The frames that are quantised, before they are: [B, T, H] to [B, T, D]."""
        mask = length_mask(x, lengths).unsqueeze(1)
        h = self.linear(x).transpose(1, 2)
        return (self.norm(h, mask) * mask).transpose(1, 2)

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> BottleneckOutput:
        """See :class:`~speechbrain_vae.nnet.bottleneck_output.BottleneckOutput`."""
        # x: [B, T, H]
        out = self.quantiser(self.project(x, lengths), lengths)
        return dataclasses.replace(out, latent=self.jitter(out.latent, lengths))
