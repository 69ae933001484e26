"""The Gaussian bottleneck of the variational autoencoder."""

import torch

from speechbrain_vae.nnet.bottleneck_output import BottleneckOutput
from speechbrain_vae.nnet.distributed import mean_over_frames
from speechbrain_vae.nnet.lengths import length_mask

PRIORS = ("standard", "learned")


class GaussianBottleneck(torch.nn.Module):
    """Diagonal Gaussian posterior (Kingma and Welling 2014).

    The loss is ``beta`` times the closed-form KL divergence from the prior
    (appendix B), summed over dimensions and averaged over valid frames, in training
    those of all DDP processes, in nats.

    Arguments
    ---------
    input_size : int
        Size of the encoder's output.
    latent_size : int
        Latent dimensions D.
    beta : float
        Weight of the KL divergence (Higgins et al. 2017).
    warmup_steps : int
        Training steps over which the weight grows from 0 to ``beta`` (Bowman et
        al. 2016); in evaluation mode it is ``beta``. The count is part of the
        checkpoint.
    free_bits : float
        KL divergence, in nats per dimension, that costs nothing more to use: each
        dimension's mean over the batch is counted as at least this (Kingma et al.
        2016, appendix C.8).
    prior : str
        "standard" for N(0, I) or "learned" for a learned diagonal N(m, S).
    logvar_range : tuple of float
        Bounds of the posterior's log-variance.

    Example
    -------
    >>> bottleneck = GaussianBottleneck(32, latent_size=16)
    >>> out = bottleneck(torch.randn(2, 10, 32), torch.tensor([1.0, 0.5]))
    >>> out.latent.shape, out.features.shape, out.stats["kl_per_dim"].shape
    (torch.Size([2, 10, 16]), torch.Size([2, 10, 16]), torch.Size([16]))
    """

    step: torch.Tensor

    def __init__(
        self,
        input_size: int,
        latent_size: int = 64,
        beta: float = 1.0,
        warmup_steps: int = 0,
        free_bits: float = 0.0,
        prior: str = "standard",
        logvar_range: tuple[float, ...] = (-12.0, 6.0),
    ) -> None:
        super().__init__()
        if prior not in PRIORS:
            raise ValueError(f"prior must be one of {', '.join(PRIORS)}; got {prior!r}")
        for name, value in {
            "beta": beta,
            "warmup_steps": warmup_steps,
            "free_bits": free_bits,
        }.items():
            if value < 0:
                raise ValueError(f"{name} must not be negative; got {value}")
        if not logvar_range[0] < logvar_range[1]:
            raise ValueError(
                f"logvar_range must be (low, high) with low < high; got {logvar_range}"
            )
        self.latent_size = latent_size
        self.beta = beta
        self.warmup_steps = warmup_steps
        self.free_bits = free_bits
        self.logvar_range = tuple(logvar_range)
        self.mean = torch.nn.Linear(input_size, latent_size)
        self.logvar = torch.nn.Linear(input_size, latent_size)
        # A posterior that starts narrow lets the decoder learn before the noise.
        torch.nn.init.zeros_(self.logvar.weight)
        torch.nn.init.constant_(self.logvar.bias, -3.0)
        shape = torch.zeros(latent_size)
        if prior == "learned":
            self.prior_mean = torch.nn.Parameter(shape)
            self.prior_logvar = torch.nn.Parameter(shape.clone())
        else:
            self.register_buffer("prior_mean", shape)
            self.register_buffer("prior_logvar", shape.clone())
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def posterior(self, x: torch.Tensor):
        """Mean and log-variance of the posterior, each [B, T, D], in float32."""
        # x: [B, T, H]
        return self.mean(x).float(), self.logvar(x).float().clamp(*self.logvar_range)

    def kl_divergence(self, mean, logvar):
        """KL divergence of each dimension from the prior, in nats [B, T, D]."""
        ratio = logvar - self.prior_logvar
        distance = (mean - self.prior_mean) ** 2 * torch.exp(-self.prior_logvar)
        return 0.5 * (torch.exp(ratio) + distance - 1 - ratio)

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> BottleneckOutput:
        """A sample in ``latent``, the posterior mean in ``features``.

        Arguments
        ---------
        x : torch.Tensor
            Encoder output, shape [B, T, H].
        lengths : torch.Tensor, optional
            Relative lengths, shape [B].

        Returns
        -------
        BottleneckOutput
            ``stats``: ``kl`` (nats per latent frame) and ``kl_per_dim`` [D].
        """
        mask = length_mask(x, lengths).unsqueeze(-1)
        mean, logvar = self.posterior(x)
        sample = mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)
        kl = self.kl_divergence(mean, logvar) * mask
        kl_per_dim = mean_over_frames(kl.sum((0, 1)), mask.sum(), self.training)
        if self.training:
            self.step += 1
        return BottleneckOutput(
            latent=sample * mask,
            features=mean * mask,
            indices=None,
            loss=self.cost(kl_per_dim),
            stats={
                "kl": kl_per_dim.sum().detach(),
                "kl_per_dim": kl_per_dim.detach(),
            },
        )

    def cost(self, kl_per_dim):
        """The loss, from the KL divergence of each dimension [D]."""
        beta = self.beta * self.progress(self.warmup_steps)
        return beta * kl_per_dim.clamp(min=self.free_bits).sum()

    def progress(self, steps):
        """Share of ``steps`` that are done; all of them in evaluation mode.

        Validation losses of a schedule that has not ended could not be compared:
        the smallest would be the first.
        """
        if steps == 0 or not self.training:
            return 1.0
        # A tensor, to spare a GPU's wait.
        return (self.step / steps).clamp(max=1.0)

    def sample(self, batch, frames):
        """Latents drawn from the prior, shape [batch, frames, D]."""
        shape = (batch, frames, self.latent_size)
        noise = torch.randn(shape, device=self.prior_mean.device)
        return self.prior_mean + noise * torch.exp(0.5 * self.prior_logvar)

    @torch.no_grad()
    def start_linear(self, analysis: torch.Tensor, logvar: torch.Tensor):
        """Start as a linear posterior of the first features of the encoder.

        Arguments
        ---------
        analysis : torch.Tensor
            Shape [D, W]: the mean from the first W channels of the input.
        logvar : torch.Tensor
            Log-variance, shape [D].
        """
        self.mean.weight.zero_()
        self.mean.bias.zero_()
        self.mean.weight[:, : analysis.shape[1]] = analysis
        self.logvar.weight.zero_()
        self.logvar.bias.copy_(logvar)


class CapacityGaussianBottleneck(GaussianBottleneck):
    """A Gaussian bottleneck held at a capacity that grows (Burgess et al. 2018).

    The loss is ``gamma * |KL - C|`` (equation 8), with C growing from 0 to
    ``capacity``: the latent takes up one factor of variation after the other.

    Arguments
    ---------
    input_size : int
        Size of the encoder's output.
    latent_size : int
        Latent dimensions D.
    capacity : float
        Final capacity C, in nats per latent frame.
    capacity_steps : int
        Training steps until then; in evaluation mode C is ``capacity``. The count is
        part of the checkpoint.
    gamma : float
        Weight of the distance from the capacity.
    prior : str
        "standard" or "learned".

    Example
    -------
    >>> bottleneck = CapacityGaussianBottleneck(32, 16, capacity=20.0)
    >>> bottleneck(torch.randn(2, 10, 32)).features.shape
    torch.Size([2, 10, 16])
    """

    def __init__(
        self,
        input_size: int,
        latent_size: int = 64,
        capacity: float = 50.0,
        capacity_steps: int = 2000,
        gamma: float = 10.0,
        prior: str = "standard",
    ) -> None:
        super().__init__(input_size, latent_size, prior=prior)
        if capacity <= 0 or capacity_steps < 0 or gamma <= 0:
            raise ValueError(
                "capacity and gamma must be positive and capacity_steps not negative; "
                f"got {capacity}, {gamma} and {capacity_steps}"
            )
        self.capacity = capacity
        self.capacity_steps = capacity_steps
        self.gamma = gamma

    def cost(self, kl_per_dim):
        """The loss, from the KL divergence of each dimension [D]."""
        capacity = self.capacity * self.progress(self.capacity_steps)
        return self.gamma * (kl_per_dim.sum() - capacity).abs()
