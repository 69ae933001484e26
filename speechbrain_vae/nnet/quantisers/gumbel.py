"""Categorical codes, sampled by their distance."""

import torch

from speechbrain_vae.nnet.distributed import mean_over_frames
from speechbrain_vae.nnet.quantisers.base import Quantiser
from speechbrain_vae.nnet.quantisers.codebook import Codebook
from speechbrain_vae.nnet.quantisers.nearest import score_blocks, smallest
from speechbrain_vae.nnet.quantisers.vector import codes_or_zero

BLOCK_BYTES = 2 * 2**20
"""Of the logits of a block; the gradient holds six matrices of this size."""


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
    probabilities averaged over the valid frames (of all DDP processes): zero where all
    codes are used alike.

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

    def quantise(self, x: torch.Tensor):
        """See :meth:`Quantiser.quantise`."""
        # x [N, D]
        if self.training:
            self.codebook.start(x)
        # A copy: reviving a code must not change what the gradient is taken of.
        codes = self.codebook.weight.clone()
        temperature = self.current_temperature()
        stats = {"temperature": temperature}
        seed = None
        if self.training:
            self.step += 1
            if self.noise:
                seed = int(torch.randint(2**62, ()))
        latent, mass, indices, nearest = SampledCodes.apply(
            x, codes, self.log_precision.exp(), temperature, seed
        )
        features = latent
        if self.training:
            features = codes[nearest]
            stats["revived_codes"] = self.codebook.update(x, nearest)
        mean = mean_over_frames(mass, x.new_tensor(len(x)), self.training)
        loss = self.diversity * _missing_entropy(mean)
        return latent, features, indices.unsqueeze(1), loss, stats

    def lookup(self, indices: torch.Tensor):
        """See :meth:`Quantiser.lookup`."""
        return codes_or_zero(self.codebook.weight, indices.squeeze(-1))


class SampledCodes(torch.autograd.Function):
    """Codes by logits and noise, with the gradient of a softmax.

    Call ``SampledCodes.apply(x, codes, precision, temperature, seed)`` with x [N, D],
    codes [K, D], two scalar tensors, and the seed of the Gumbel noise or None for none.
    It returns the codes of the largest noisy logits [N, D], the sum over frames of the
    probabilities of the codes [K], and the indices [N] with noise and without.

    With logits l = -precision |x - c|^2 and noise g, the gradient of what is returned
    first is that of the codes chosen and of softmax((l + g) / temperature) times the
    codes held fixed. Frames go in blocks; N x K logits are made again for the gradient
    instead of being kept, and so is the noise, but for that of the first block.

    Example
    -------
    >>> x, codes = torch.zeros(1, 2, requires_grad=True), torch.eye(2)
    >>> one = torch.tensor(1.0)
    >>> latent, mass, *_ = SampledCodes.apply(x, codes, one, one, None)
    >>> latent[0, 0].backward()
    >>> latent.tolist(), mass.tolist(), x.grad.tolist()
    ([[1.0, 0.0]], [0.5, 0.5], [[0.5, -0.5]])
    """

    @staticmethod
    def forward(ctx, x, codes, precision, temperature, seed):
        """See the class."""
        # x [N, D], codes [K, D]
        mass = torch.zeros_like(codes[:, 0])
        indices, nearest = torch.empty(2, len(x), dtype=torch.long, device=x.device)
        for rows, _, scores in score_blocks(x, codes, BLOCK_BYTES):
            nearest[rows] = smallest(scores)
            logits = scores.mul_(-2 * precision)
            mass += logits.softmax(1).sum(0)
            noise = _noise(logits, seed, rows)
            if rows.start == 0:
                ctx.first_noise = noise
            indices[rows] = smallest(logits.add_(noise).neg_())
        ctx.save_for_backward(x, codes, precision, temperature, indices)
        ctx.seed = seed
        ctx.mark_non_differentiable(indices, nearest)
        return codes.index_select(0, indices), mass, indices, nearest

    @staticmethod
    def backward(ctx, grad_latent, grad_mass, *_):
        """Gradients of the frames, of the codes and of the precision."""
        x, codes, precision, temperature, indices = ctx.saved_tensors
        centred = codes - codes.mean(0)
        grad_x = torch.empty_like(x)
        grad_codes = torch.zeros_like(codes).index_add_(0, indices, grad_latent)
        grad_precision = torch.zeros_like(precision)
        for rows, frames, scores in score_blocks(x, codes, BLOCK_BYTES):
            # Up to a constant a frame, to which a softmax is blind.
            closeness = scores.mul_(-2)
            logits = precision * closeness
            grad = _through_softmax(logits.softmax(1), grad_mass)
            first = rows.start == 0
            noise = ctx.first_noise if first else _noise(logits, ctx.seed, rows)
            soft = logits.add_(noise).div_(temperature).softmax(1)
            upstream = (grad_latent[rows] / temperature) @ centred.t()
            grad += _through_softmax(soft, upstream)
            grad_precision += (grad * closeness).sum()
            grad *= 2 * precision
            torch.mm(grad, centred, out=grad_x[rows])
            grad_codes.addmm_(grad.t(), frames)
            grad_codes.addcmul_(grad.sum(0).unsqueeze(1), centred, value=-1)
        return grad_x, grad_codes, grad_precision, None, None


def _noise(logits, seed, rows):
    """Gumbel noise of its own for each block, or none."""
    if seed is None:
        return 0.0
    generator = torch.Generator(logits.device).manual_seed(seed + rows.start)
    uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
    # Clamped away from 0 and 1, where the noise would be infinite.
    uniform.clamp_(1e-9, 1 - 1e-7)
    return uniform.log_().neg_().log_().neg_()


def _through_softmax(probabilities, upstream):
    """Gradient of logits, from that of their softmax."""
    weighted = probabilities * upstream
    return weighted.addcmul_(probabilities, weighted.sum(1, keepdim=True), value=-1)


def _missing_entropy(mean):
    # Mean probabilities [K], all zero of no frames, which lack nothing. A code far from
    # all frames has no probability left in float32: 0 log 0 is zero, and so is what its
    # gradient, which must be finite, is multiplied by.
    return (mean * (len(mean) * mean).clamp(min=1e-30).log()).sum()
