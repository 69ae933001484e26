"""Noise substitution: an error of the right size instead of the error itself."""

import torch

from speechbrain_vae.nnet.quantisers.base import Quantiser
from speechbrain_vae.nnet.quantisers.codebook import Codebook
from speechbrain_vae.nnet.quantisers.curve import ROWS, points_at
from speechbrain_vae.nnet.quantisers.vector import codes_or_zero


class ErrorAlong(torch.autograd.Function):
    """|x - p| times a given direction, differentiable in frames and codes.

    The gradient of the length alone: directions are constants. It moves the points p
    by the decoder's loss without any further term. Where a frame coincides with its
    point, the length has no gradient and zero is given.

    Call ``ErrorAlong.apply(x, codebook, indices, position, direction)`` with x and
    direction [N, D], codebook [K, D] and indices [N]. Without a position, p is the
    code; with one, shape [N], p is that point of the segment between the code and the
    next one. It returns the errors [N, D].

    Example
    -------
    >>> x = torch.tensor([[3.0, 4.0]], requires_grad=True)
    >>> codebook, index = torch.zeros(1, 2), torch.tensor([0])
    >>> direction = torch.tensor([[0.0, 1.0]])
    >>> error = ErrorAlong.apply(x, codebook, index, None, direction)
    >>> error.sum().backward()
    >>> error.tolist(), x.grad.tolist()
    ([[0.0, 5.0]], [[0.6000000238418579, 0.800000011920929]])
    """

    @staticmethod
    def forward(ctx, x, codebook, indices, position, direction):
        """See the class."""
        # x [N, D], codebook [K, D], indices [N], position [N], direction [N, D]
        error = torch.empty_like(direction)
        for rows, residual in _residuals(x, codebook, indices, position):
            length = residual.norm(dim=1, keepdim=True)
            torch.mul(direction[rows], length, out=error[rows])
        ctx.save_for_backward(x, codebook, indices, position, direction)
        return error

    @staticmethod
    def backward(ctx, grad):
        """Gradients of frames and codebook."""
        x, codebook, indices, position, direction = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        grad_codebook = torch.zeros_like(codebook)
        for rows, residual in _residuals(x, codebook, indices, position):
            length = residual.norm(dim=1)
            along = torch.linalg.vecdot(grad[rows], direction[rows])
            along = torch.where(length > 0, along / length, 0)
            torch.mul(residual, along.unsqueeze(1), out=grad_x[rows])
            add_to_codes(grad_codebook, indices, position, rows, grad_x[rows], -1)
        return grad_x, grad_codebook, None, None, None


def _residuals(x, codebook, indices, position):
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        if position is None:
            points = codebook.index_select(0, indices[rows])
        else:
            points = points_at(codebook, indices[rows], position[rows])
        yield rows, torch.sub(x[rows], points, out=points)


def add_to_codes(codes, indices, position, rows, values, scale):
    """Add a multiple of values [R, D] to the codes [K, D] that made their points."""
    if position is None:
        codes.index_add_(0, indices[rows], values, alpha=scale)
        return
    here = position[rows].unsqueeze(1)
    codes.index_add_(0, indices[rows], values * (1 - here), alpha=scale)
    codes.index_add_(0, indices[rows] + 1, values * here, alpha=scale)


def random_directions(x):
    """Unit vectors, uniform on the sphere, one for each frame of ``x`` [N, D].

    Example
    -------
    >>> random_directions(torch.zeros(3, 8)).norm(dim=1).round(decimals=4)
    tensor([1., 1., 1.])
    """
    noise = torch.randn(x.shape, device=x.device)
    return noise.div_(noise.norm(dim=1, keepdim=True).clamp_(min=1e-12))


class NSVQ(Quantiser):
    """Noise substitution in vector quantisation (Vali and Bäckström 2022).

    In training, the decoder sees the frame plus noise that is as long as the
    quantisation error and points anywhere (equation 4):

        latent = x + |x - c| v / |v|,    v ~ N(0, I)

    so the decoder's own loss moves encoder and codes, and no further loss is needed:
    ``loss`` is zero. In evaluation it sees the nearest code c; ``features`` are that
    code always. Codes start by k-means and unused ones are replaced, as told in
    :class:`~speechbrain_vae.nnet.quantisers.codebook.Codebook`.

    Arguments
    ---------
    dim : int
        Size D of the frames.
    codebook_size : int
        Codes K.
    revive_below : float
        A code is unused below this multiple of the mean share 1/K; 0 never replaces.
    seed : int
        Seed of the start and of the replacement.

    Example
    -------
    >>> quantiser = NSVQ(dim=8, codebook_size=16)
    >>> x = torch.randn(4, 50, 8)
    >>> out = quantiser(x, torch.tensor([1.0, 1.0, 0.5, 0.5]))
    >>> noise, error = out.latent[0] - x[0], out.features[0] - x[0]
    >>> torch.allclose(noise.norm(dim=1), error.norm(dim=1), atol=1e-5)
    True
    """

    def __init__(
        self, dim: int, codebook_size: int, revive_below: float = 0.1, seed: int = 0
    ) -> None:
        super().__init__(dim, codebook_size)
        self.codebook = Codebook(
            dim, codebook_size, learned=True, revive_below=revive_below, seed=seed
        )

    def quantise(self, x: torch.Tensor):
        """See :meth:`Quantiser.quantise`."""
        # x [N, D]
        if self.training:
            self.codebook.start(x)
        indices = self.codebook.search(x)
        codes = self.codebook.weight.detach().index_select(0, indices)
        stats = {"quantisation_error": mean_squared_error(x, codes)}
        if not self.training:
            return codes, codes, indices.unsqueeze(1), x.new_zeros(()), stats
        # A copy for the backward pass: the update may replace codes in place.
        weight = self.codebook.weight.clone()
        direction = self._directions(x, codes)
        latent = ErrorAlong.apply(x, weight, indices, None, direction).add_(x)
        stats["revived_codes"] = self.codebook.update(x, indices)
        return latent, codes, indices.unsqueeze(1), x.new_zeros(()), stats

    def lookup(self, indices: torch.Tensor):
        """See :meth:`Quantiser.lookup`."""
        return codes_or_zero(self.codebook.weight.detach(), indices.squeeze(-1))

    def _directions(self, x, codes):
        return random_directions(x)


def mean_squared_error(x, points):
    """Squared error summed over dimensions, averaged over frames, detached.

    Example
    -------
    >>> mean_squared_error(torch.ones(3, 4), torch.zeros(3, 4))
    tensor(4.)
    """
    return torch.dist(x.detach(), points).square() / max(len(x), 1)
