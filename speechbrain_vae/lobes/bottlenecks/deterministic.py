"""The bottleneck of a plain autoencoder."""

import torch

from speechbrain_vae.nnet.bottleneck_output import BottleneckOutput
from speechbrain_vae.nnet.lengths import length_mask


class DeterministicBottleneck(torch.nn.Module):
    """A linear map and an activation, or nothing at all.

    Arguments
    ---------
    input_size : int
        Size of the encoder's output.
    latent_size : int, optional
        Size D of the latent; without it the encoder's output is the latent, as in
        predictive coding.
    activation : type
        Class of the activation of the latent; none by default.

    Example
    -------
    >>> out = DeterministicBottleneck(32, 16)(torch.randn(2, 10, 32))
    >>> out.features.shape, float(out.loss)
    (torch.Size([2, 10, 16]), 0.0)
    """

    def __init__(
        self,
        input_size: int,
        latent_size: int | None = None,
        activation: type = torch.nn.Identity,
    ) -> None:
        super().__init__()
        self.latent_size = latent_size or input_size
        self.linear = (
            torch.nn.Linear(input_size, latent_size)
            if latent_size
            else torch.nn.Identity()
        )
        self.activation = activation()

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> BottleneckOutput:
        """See :class:`~speechbrain_vae.nnet.bottleneck_output.BottleneckOutput`."""
        # x: [B, T, H]
        mask = length_mask(x, lengths).unsqueeze(-1)
        latent = self.activation(self.linear(x)) * mask
        return BottleneckOutput(latent, latent, None, latent.new_zeros(()))

    @torch.no_grad()
    def start_linear(self, analysis: torch.Tensor, logvar: torch.Tensor):
        """Start as the principal components of the first features of the encoder.

        Arguments
        ---------
        analysis : torch.Tensor
            Shape [D, W]: the posterior mean of probabilistic PCA from the first W
            channels of the input.
        logvar : torch.Tensor
            Its posterior log-variance, shape [D].
        """
        linear = isinstance(self.linear, torch.nn.Linear)
        if not (linear and isinstance(self.activation, torch.nn.Identity)):
            raise ValueError(
                "a linear start needs a bottleneck with a latent_size and without an "
                "activation; set linear_start: False"
            )
        # The mean of a noisy latent is shrunk; without noise that is only an error.
        shrinkage = (1 - torch.exp(logvar)).clamp(min=1e-6)
        self.linear.weight.zero_()
        self.linear.bias.zero_()
        self.linear.weight[:, : analysis.shape[1]] = analysis / shrinkage[:, None]
