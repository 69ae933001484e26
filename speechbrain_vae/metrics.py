"""Totals over an epoch, weighted by frames and not by batches."""

import torch

from speechbrain_vae.nnet.quantisers.usage import UsageMeter

ACTIVE_KL = 0.01
"""KL divergence, in nats, above which a latent dimension is active."""


class EpochTotals:
    """Collects :class:`~speechbrain_vae.lobes.autoencoder.AutoencoderOutput`.

    Arguments
    ---------
    frame_rate : float
        Latent frames a second, for the bitrates of discrete models.
    quantiser : torch.nn.Module, optional
        The quantiser of a discrete model.

    Example
    -------
    >>> totals = EpochTotals(frame_rate=50)
    >>> totals.summary()
    {}
    """

    def __init__(self, frame_rate: float, quantiser=None) -> None:
        self.frame_rate = frame_rate
        self.usage = None
        if quantiser is not None:
            self.usage = UsageMeter(quantiser.codebook_size, quantiser.groups)
        self.frames = 0.0
        self.latent_frames = 0.0
        self.training_frames = 0
        self.sums: dict[str, float] = {}
        self.penalties: dict[str, torch.Tensor] = {}
        self.kl_per_dim = None

    def add(self, output, **errors):
        """Add a batch.

        Arguments
        ---------
        output : AutoencoderOutput
            The model's output.
        **errors : torch.Tensor
            Further means over the batch's target frames.
        """
        frames, latent_frames = output.frames.item(), output.latent_frames.item()
        means = {
            "loss": output.loss,
            "reconstruction": output.reconstruction_loss,
            "mse": output.squared_error,
            **errors,
        }
        for name, mean in means.items():
            self.sums[name] = self.sums.get(name, 0.0) + mean.item() * frames
        self.frames += frames
        self.latent_frames += latent_frames
        if "kl_per_dim" in output.bottleneck.stats:
            kl = output.bottleneck.stats["kl_per_dim"].double().cpu() * latent_frames
            self.kl_per_dim = kl if self.kl_per_dim is None else self.kl_per_dim + kl
        self._add_usage(output)

    def add_training(self, output):
        """Add of a training batch what is not the same in evaluation.

        Its codes and its penalties: totals stay on the device, for reading them at
        every batch would make a GPU wait.
        """
        for name, penalty in output.penalties.items():
            total = self.penalties.get(name, 0.0)
            self.penalties[name] = total + penalty.float() * output.frames
        self.training_frames = self.training_frames + output.frames
        self._add_usage(output)

    def training_summary(self):
        """Means of the penalties over frames, and what ``usage_summary`` gives."""
        frames = max(float(self.training_frames), 1.0)
        means = {name: float(total) / frames for name, total in self.penalties.items()}
        return means | self.usage_summary()

    def _add_usage(self, output):
        if self.usage is not None:
            code = output.bottleneck
            self.usage.update(code.indices, code.stats.get("corners"))

    def usage_summary(self):
        """Perplexity, usage, dead codes and bitrates of a discrete model."""
        if self.usage is None:
            return {}
        stats = self.usage.summary(self.frame_rate)
        del stats["frames"]
        return stats

    def mean_kl_per_dim(self):
        """KL divergence of each dimension in nats per latent frame [D], or None."""
        if self.kl_per_dim is None:
            return None
        return self.kl_per_dim / max(self.latent_frames, 1.0)

    def summary(self) -> dict:
        """Means over the epoch, as floats.

        Returns
        -------
        dict
            ``loss``, ``reconstruction`` and ``kl`` in nats per input frame, ``mse``
            per bin; of a VAE ``elbo`` (of an unweighted KL) and ``active_units``; of a
            discrete model what :meth:`usage_summary` gives.
        """
        if not self.frames:
            return {}
        stats = {name: total / self.frames for name, total in self.sums.items()}
        if self.kl_per_dim is not None:
            stats["kl"] = float(self.kl_per_dim.sum()) / self.frames
            stats["elbo"] = -stats["reconstruction"] - stats["kl"]
            stats["active_units"] = int((self.mean_kl_per_dim() > ACTIVE_KL).sum())
        return stats | self.usage_summary()


def mean_error(prediction, target, mask):
    """Mean squared error per bin over the masked frames of [B, T, F].

    Example
    -------
    >>> frames, mask = torch.zeros(1, 2, 4), torch.tensor([[True, False]])
    >>> float(mean_error(frames + 2, frames, mask))
    4.0
    """
    error = ((prediction - target) ** 2).mean(-1) * mask
    return error.sum() / mask.sum().clamp(min=1)
