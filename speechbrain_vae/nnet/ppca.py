"""Probabilistic PCA (Tipping and Bishop 1999) of windows of frames.

The optimal linear VAE: a yardstick for every model here, and a place to start.
"""

import math

import torch


def windows(feats, width):
    """Disjoint windows of ``width`` frames: [T, F] -> [T // width, width * F]."""
    count = feats.shape[0] // width
    return feats[: count * width].reshape(count, width * feats.shape[1])


class PPCA:
    """PCA and its Gaussian density, fitted to windows of the training set.

    Arguments
    ---------
    width : int
        Frames of a window.
    utterances : iterable of torch.Tensor
        Normalised features, each [T, F].

    Example
    -------
    >>> utterances = [torch.randn(50, 4) for _ in range(3)]
    >>> ppca = PPCA(2, utterances)
    >>> ppca.log_likelihood(utterances, dims=3) < 0
    True
    >>> ppca.mse(utterances, dims=8) < 1e-6
    True
    """

    def __init__(self, width: int, utterances) -> None:
        self.width = width
        count = 0
        total = scatter = torch.zeros(())
        for feats in utterances:
            x = windows(feats, width).double()
            count += x.shape[0]
            total = total + x.sum(0)
            scatter = scatter + x.T @ x
        if count == 0:
            raise ValueError(f"no utterance has a window of {width} frames")
        self.mean = total / count
        covariance = scatter / count - torch.outer(self.mean, self.mean)
        values, vectors = torch.linalg.eigh(covariance)
        self.values = values.flip(0).clamp(min=0)
        self.vectors = vectors.flip(1)

    def noise_variance(self, dims):
        """Mean of the discarded eigenvalues (equation 8)."""
        self._check(dims, self.values.numel() - 1)
        return self.values[dims:].mean().clamp(min=1e-12)

    def log_likelihood(self, utterances, dims):
        """Exact log-likelihood in nats per frame with this many dimensions."""
        noise = self.noise_variance(dims)
        kept = self.values[:dims]
        size = self.values.numel()
        logdet = kept.log().sum() + (size - dims) * noise.log()
        total, count = 0.0, 0
        for energy, scores in self._scores(utterances, dims):
            inside = (scores**2 / kept).sum()
            outside = (energy - (scores**2).sum()) / noise
            total += -0.5 * (inside + outside).item()
            count += scores.shape[0]
        constant = -0.5 * (size * math.log(2 * math.pi) + logdet.item())
        return (total / count + constant) / self.width

    def mse(self, utterances, dims):
        """Mean squared error of the reconstruction from this many dimensions."""
        self._check(dims, self.values.numel())
        total, count = 0.0, 0
        for energy, scores in self._scores(utterances, dims):
            total += (energy - (scores**2).sum()).item()
            count += scores.shape[0]
        return total / (count * self.values.numel())

    def linear_vae(
        self, dims
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
        """The linear VAE that equals this model (Lucas et al. 2019).

        Returns
        -------
        analysis : torch.Tensor
            Posterior mean from a window, shape [dims, width * F].
        logvar : torch.Tensor
            Posterior log-variance, shape [dims].
        synthesis : torch.Tensor
            Window from a latent, shape [dims, width * F].
        noise : float
            Variance of the likelihood.
        """
        noise = self.noise_variance(dims)
        kept = self.values[:dims].clamp(min=noise)
        scale = (kept - noise).sqrt()
        synthesis = scale[:, None] * self.vectors[:, :dims].T
        analysis = synthesis / kept[:, None]
        logvar = (noise / kept).log()
        return analysis.float(), logvar.float(), synthesis.float(), noise.item()

    def _scores(self, utterances, dims):
        for feats in utterances:
            x = windows(feats, self.width).double() - self.mean
            if x.shape[0]:
                yield (x**2).sum(), x @ self.vectors[:, :dims]

    def _check(self, dims, largest):
        if not 1 <= dims <= largest:
            raise ValueError(f"dims must be from 1 to {largest}; got {dims}")
