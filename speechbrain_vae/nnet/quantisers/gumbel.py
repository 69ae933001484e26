"""Categorical codes, sampled by their distance."""

import math

import torch

from speechbrain_vae.nnet.quantisers.base import Quantiser
from speechbrain_vae.nnet.quantisers.codebook import Codebook
from speechbrain_vae.nnet.quantisers.vector import codes_or_zero


class GumbelVQ(Quantiser):
    """One code a frame, sampled by its distance, with a gradient through the softmax.

    Gumbel-softmax (Jang, Gu, Poole 2017; Maddison, Mnih, Teh 2017) as vq-wav2vec uses
    it (Baevski et al. 2020): in training a code is *sampled* by adding Gumbel noise to
    the logits and the gradient passes through the softmax at temperature tau; without
    noise, the code of the largest logit is taken and the gradient passes through the
    softmax (one-hot straight-through; Bengio et al. 2013). Evaluation takes the
    largest logit.

    The logits are ``-precision * |x - c|^2`` with a learned precision (Takida et al.
    2022), so that codes start by k-means and unused ones are revived as those of
    :class:`~speechbrain_vae.nnet.quantisers.vector.VectorQuantizer`, and the code of
    the largest logit is the nearest.

    The loss is ``diversity * (log K - H(p))``, with H the entropy in nats of the code
    probabilities averaged over the valid frames: zero where all codes are used alike.

    Arguments
    ---------
    dim : int
        Size D of the frames and of the codes.
    codebook_size : int
        Codes K.
    temperature : tuple of float
        Temperature tau at the first training step, and the lowest.
    anneal_steps : int
        Training steps from the first to the last temperature, in a geometric series.
        The step is part of the checkpoint.
    noise : bool
        Whether codes are sampled in training.
    diversity : float
        Weight of the entropy term.
    revive_below : float
        A code is dead below this multiple of the mean share 1/K; 0 never revives.
    seed : int
        Seed of the k-means start and of the revival.

    Example
    -------
    >>> quantiser = GumbelVQ(dim=8, codebook_size=16)
    >>> out = quantiser(torch.randn(4, 50, 8), torch.tensor([1.0, 1.0, 0.5, 0.5]))
    >>> out.latent.shape, out.indices.shape, float(out.stats["temperature"])
    (torch.Size([4, 50, 8]), torch.Size([4, 50, 1]), 2.0)
    """

    step: torch.Tensor

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        temperature: tuple[float, ...] = (2.0, 0.5),
        anneal_steps: int = 10_000,
        noise: bool = True,
        diversity: float = 1.0,
        revive_below: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(dim, codebook_size)
        first, last = temperature
        if not first >= last > 0:
            raise ValueError(
                "temperature must be (first, last) with first >= last > 0; "
                f"got {tuple(temperature)}"
            )
        if anneal_steps < 1:
            raise ValueError(f"anneal_steps must be at least 1; got {anneal_steps}")
        if diversity < 0:
            raise ValueError(f"diversity must not be negative; got {diversity}")
        self.temperature = (first, last)
        self.anneal_steps = anneal_steps
        self.noise = noise
        self.diversity = diversity
        self.log_precision = torch.nn.Parameter(torch.zeros(()))
        self.codebook = Codebook(
            dim, codebook_size, learned=True, revive_below=revive_below, seed=seed
        )
        self.register_buffer("step", torch.tensor(0))

    def current_temperature(self):
        """The temperature of the next training step, a scalar tensor."""
        first, last = self.temperature
        done = (self.step / self.anneal_steps).clamp(max=1.0)
        return first * (last / first) ** done

    def logits(self, x, codes):
        """Logits [N, K] of frames [N, D] for codes [K, D], up to a constant a frame."""
        closeness = 2 * x @ codes.T - codes.square().sum(1)
        return self.log_precision.exp() * closeness

    def quantise(self, x: torch.Tensor):
        """See :meth:`Quantiser.quantise`."""
        # x [N, D]
        if self.training:
            self.codebook.start(x)
        # A copy: reviving a code must not change what the gradient is taken of.
        codes = self.codebook.weight.clone()
        logits = self.logits(x, codes)
        probabilities = logits.softmax(1)
        temperature = self.current_temperature()
        stats = {"temperature": temperature}
        if self.training:
            self.step += 1
            if self.noise:
                # Clamped away from 0 and 1, where the noise would be infinite.
                uniform = torch.rand_like(logits).clamp_(1e-9, 1 - 1e-7)
                logits = logits - uniform.log_().neg_().log_()
        indices = logits.detach().argmax(1)
        hard = torch.nn.functional.one_hot(indices, self.codebook_size).to(x.dtype)
        soft = (logits / temperature).softmax(1)
        latent = (hard + soft - soft.detach()) @ codes
        features = latent
        if self.training:
            nearest = probabilities.detach().argmax(1)
            features = codes[nearest]
            stats["revived_codes"] = self.codebook.update(x, nearest)
        loss = self.diversity * (math.log(self.codebook_size) - _entropy(probabilities))
        return latent, features, indices.unsqueeze(1), loss, stats

    def lookup(self, indices: torch.Tensor):
        """See :meth:`Quantiser.lookup`."""
        return codes_or_zero(self.codebook.weight, indices.squeeze(-1))


def _entropy(probabilities):
    # [N, K]; an empty batch has the entropy of no information: log K.
    if len(probabilities) == 0:
        return math.log(probabilities.shape[1]) + probabilities.sum()
    mean = probabilities.mean(0)
    return -torch.xlogy(mean, mean).sum()
