"""DiVeQ: noise substitution whose noise points to the code."""

import torch

from speechbrain_vae.nnet.quantisers.nsvq import NSVQ, ErrorAlong
from speechbrain_vae.nnet.quantisers.space_filling import SpaceFillingVQ


def noisy_directions(x, codes, noise_variance):
    """Unit vectors from frames to codes, after isotropic noise was added.

    Example
    -------
    >>> noisy_directions(torch.zeros(1, 2), torch.tensor([[0.0, 5.0]]), 0.0)
    tensor([[0., 1.]])
    """
    direction = torch.randn(x.shape, device=x.device).mul_(noise_variance**0.5)
    direction.add_(codes).sub_(x.detach())
    return direction.div_(direction.norm(dim=1, keepdim=True).clamp_(min=1e-12))


def _check(noise_variance):
    if noise_variance < 0:
        raise ValueError(f"noise_variance must not be negative; got {noise_variance}")
    return noise_variance


class DiVeQ(NSVQ):
    """Differentiable vector quantisation (Vali, Bäckström, Solin, ICLR 2026).

    As :class:`~speechbrain_vae.nnet.quantisers.nsvq.NSVQ`, but the error that the
    decoder sees in training points to the code, up to a little noise:

        latent = x + |x - c| sg(v / |v|),    v ~ N(c - x, noise_variance I)

    With little noise the decoder trains on what it sees in evaluation; the gradient
    of the length moves codes as in NSVQ.

    Arguments
    ---------
    dim : int
        Size D of the frames.
    codebook_size : int
        Codes K.
    noise_variance : float
        Variance of the directional noise, per dimension; 0 is the deterministic
        variant of the paper.
    revive_below : float
        A code is unused below this multiple of the mean share 1/K; 0 never replaces.
    seed : int
        Seed of the start and of the replacement.

    Example
    -------
    >>> quantiser = DiVeQ(dim=8, codebook_size=16, noise_variance=0.0)
    >>> out = quantiser(torch.randn(4, 50, 8))
    >>> torch.allclose(out.latent, out.features, atol=1e-5)
    True
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        noise_variance: float = 1e-3,
        revive_below: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(dim, codebook_size, revive_below, seed)
        self.noise_variance = _check(noise_variance)

    def _directions(self, x, codes):
        return noisy_directions(x, codes, self.noise_variance)


class SFDiVeQ(SpaceFillingVQ):
    """DiVeQ on a space-filling curve (Vali, Bäckström, Solin, ICLR 2026).

    As :class:`~speechbrain_vae.nnet.quantisers.space_filling.SpaceFillingVQ`, but the
    decoder sees in training the dithered point itself, up to a little noise: with t
    its position between corners a and b, the errors to both in proportion,

        latent = x + (1 - t) |x - a| sg(v_a / |v_a|) + t |x - b| sg(v_b / |v_b|)

    All corners are there from the start, laid through the first batch.

    Arguments
    ---------
    dim : int
        Size D of the frames.
    codebook_size : int
        Corners K, at least 2.
    noise_variance : float
        Variance of the directional noise, per dimension; 0 is the deterministic
        variant of the paper.
    growth_steps, tension, revive_below
        As for the base class.

    Example
    -------
    >>> quantiser = SFDiVeQ(dim=8, codebook_size=16)
    >>> quantiser(torch.randn(4, 50, 8)).indices.shape
    torch.Size([4, 50, 1])
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        noise_variance: float = 1e-3,
        growth_steps=0,
        tension=0.75,
        revive_below=0.1,
    ) -> None:
        super().__init__(dim, codebook_size, growth_steps, tension, revive_below)
        self.noise_variance = _check(noise_variance)

    def _error(self, x, corners, segment, position):
        errors = []
        for index, share in ((segment, 1 - position), (segment + 1, position)):
            codes = corners.detach().index_select(0, index)
            direction = noisy_directions(x, codes, self.noise_variance)
            direction.mul_(share.unsqueeze(1))
            errors.append(ErrorAlong.apply(x, corners, index, None, direction))
        return errors[0].add_(errors[1])
