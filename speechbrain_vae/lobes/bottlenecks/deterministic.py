"""The bottleneck of a plain autoencoder."""

import torch

from speechbrain_vae.nnet.bottleneck_output import BottleneckOutput
from speechbrain_vae.nnet.lengths import length_mask


class DeterministicBottleneck(torch.nn.Module):
    """A linear map, or nothing at all.

    Arguments
    ---------
    input_size : int
        Size of the encoder's output.
    latent_size : int, optional
        Size D of the latent; without it the encoder's output is the latent, as in
        predictive coding.

    Example
    -------
    >>> out = DeterministicBottleneck(32, 16)(torch.randn(2, 10, 32))
    >>> out.features.shape, float(out.loss)
    (torch.Size([2, 10, 16]), 0.0)
    """

    def __init__(self, input_size, latent_size=None):
        super().__init__()
        self.latent_size = latent_size or input_size
        self.linear = (
            torch.nn.Linear(input_size, latent_size)
            if latent_size
            else torch.nn.Identity()
        )

    def forward(self, x, lengths=None):
        """See :class:`~speechbrain_vae.nnet.bottleneck_output.BottleneckOutput`."""
        # x: [B, T, H]
        latent = self.linear(x) * length_mask(x, lengths).unsqueeze(-1)
        return BottleneckOutput(latent, latent, None, latent.new_zeros(()))
