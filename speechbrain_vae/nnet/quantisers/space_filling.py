"""Quantisation on a curve that fills the space of the data."""

import torch

from speechbrain_vae.nnet.quantisers.base import Quantiser
from speechbrain_vae.nnet.quantisers.curve import (
    ROWS,
    points_at,
    project,
)
from speechbrain_vae.nnet.quantisers.curve_codebook import CurveCodebook
from speechbrain_vae.nnet.quantisers.nsvq import (
    ErrorAlong,
    add_to_codes,
    mean_squared_error,
    random_directions,
)
from speechbrain_vae.nnet.quantisers.vector import codes_or_zero


class CurveLoss(torch.autograd.Function):
    """What the corners of the curve learn from the frames.

    With p the dithered point at position t of a segment of length L, the loss of a
    frame is ``|x - p|^2 + tension t (1 - t) L^2``; tension 1 makes it
    ``(1 - t) |x - c_i|^2 + t |x - c_i+1|^2``, the pull of a self-organising map.
    Gradients go to the corners alone.

    The two ends are an exception: dithering would draw them inwards for ever, so they
    follow |x - projection|^2 of the frames nearest to their segments, which draws
    them to the frames beyond them.

    Call ``CurveLoss.apply(corners, x, dithered, dither, nearest, position, tension)``
    with corners [K, D], x [N, D], the segment [N] and position [N] of the dithered
    points, then those of the projections. It returns a scalar, the mean over frames.

    Example
    -------
    >>> corners = torch.tensor([[0.0], [1.0], [2.0]], requires_grad=True)
    >>> x, segment, half = torch.tensor([[1.2]]), torch.tensor([1]), torch.tensor([0.5])
    >>> loss = CurveLoss.apply(corners, x, segment, half, segment, x[0] - 1, 0.0)
    >>> loss.backward()
    >>> round(loss.item(), 4), round(corners.grad[1].item(), 4)
    (0.09, 0.3)
    """

    @staticmethod
    def forward(ctx, corners, x, dithered, dither, nearest, position, tension):
        """See the class."""
        # corners [K, D], x [N, D], all others [N]
        number = max(len(x), 1)
        grad = torch.zeros_like(corners)
        loss = corners.new_zeros(())
        for start in range(0, len(x), ROWS):
            rows = slice(start, start + ROWS)
            points = points_at(corners, dithered[rows], dither[rows])
            residual = torch.sub(x[rows], points, out=points)
            loss += residual.square().sum()
            add_to_codes(grad, dithered, dither, rows, residual, -2 / number)
        # Of each segment: the frames that chose it times t (1 - t).
        stretch = torch.zeros_like(corners[:, 0])
        stretch.index_add_(0, dithered, dither * (1 - dither))
        stretch = stretch[:-1].mul_(tension / number).unsqueeze(1)
        along = corners[1:] - corners[:-1]
        loss = loss / number + (stretch * along.square()).sum()
        pull = 2 * stretch * along
        grad[:-1] -= pull
        grad[1:] += pull
        last = len(corners) - 1
        for end, segment in ((0, 0), (last, last - 1)):
            mine = (nearest == segment).nonzero().squeeze(1)
            here = position[mine]
            residual = x[mine] - points_at(corners, nearest[mine], here)
            share = here if end else 1 - here
            grad[end] = (-2 / number) * (share @ residual)
        ctx.save_for_backward(grad)
        return loss

    @staticmethod
    def backward(ctx, grad_loss):
        """Gradient of the corners."""
        (grad,) = ctx.saved_tensors
        return grad * grad_loss, *(None,) * 6


class SpaceFillingVQ(Quantiser):
    """Space-filling vector quantisation (Vali and Bäckström, Interspeech 2023).

    Codes are the corners of a curve, so that neighbouring indices mean neighbouring
    vectors. In training each segment offers one point at a random position (section
    2.1); a frame takes the best of them, and the decoder sees noise of the length of
    that error in place of it, as in NSVQ. The curve starts with 4 corners and doubles
    (section 2.2).

    ``features``, and ``latent`` in evaluation, are the exact nearest point of the
    curve, over all segments. ``indices`` name the nearer end of its segment, and
    :meth:`lookup` gives that corner. ``loss`` is the squared error of the dithered
    points, summed over dimensions and averaged over frames, and teaches the corners
    alone; the ends of the curve learn from it alone
    (:class:`~speechbrain_vae.nnet.quantisers.space_filling.CurveLoss`).

    Arguments
    ---------
    dim : int
        Size D of the frames.
    codebook_size : int
        Corners K at the end of the growth, at least 2.
    growth_steps : int
        Training batches of each stage of 4, 8, 16, ... corners; 0 starts with all K,
        laid through the first batch by a self-organising map on a line.
    tension : float
        Resistance of segments to length. At 0, the loss of the paper, neighbours on
        the curve may be far apart; at 1 order weighs as in a self-organising map.
    revive_below : float
        A corner is unused below this multiple of the mean share 1/K; 0 never revives.

    Example
    -------
    >>> quantiser = SpaceFillingVQ(dim=8, codebook_size=16)
    >>> out = quantiser(torch.randn(4, 50, 8), torch.tensor([1.0, 1.0, 0.5, 0.5]))
    >>> out.latent.shape, out.indices.shape, int(out.indices.max()) < 4
    (torch.Size([4, 50, 8]), torch.Size([4, 50, 1]), True)
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        growth_steps: int = 200,
        tension: float = 0.75,
        revive_below: float = 0.1,
    ) -> None:
        super().__init__(dim, codebook_size)
        if not 0 <= tension <= 1:
            raise ValueError(f"tension must be between 0 and 1; got {tension}")
        self.tension = tension
        self.codebook = CurveCodebook(dim, codebook_size, growth_steps, revive_below)

    def project(
        self, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Nearest point of the curve to each frame, over all segments.

        Arguments
        ---------
        x : torch.Tensor
            Frames, shape [..., D].

        Returns
        -------
        segment : torch.Tensor
            Segment between corner i and corner i + 1, long, shape [...].
        position : torch.Tensor
            Where on it, from 0 to 1, shape [...].
        points : torch.Tensor
            Shape [..., D].
        """
        # x [..., D]
        flat = x.reshape(-1, self.dim).float()
        segment, position, points = project(flat, self.codebook.corners)
        shape = x.shape[:-1]
        return segment.view(shape), position.view(shape), points.view(x.shape)

    def quantise(self, x: torch.Tensor):
        """See :meth:`Quantiser.quantise`."""
        # x [N, D]
        revived = self.codebook.prepare(x) if self.training else 0
        corners = self.codebook.corners
        if self.training:
            dither = torch.rand(len(corners) - 1, device=x.device)
            segment, position, features, dithered = project(
                x, corners, dither, self.tension
            )
        else:
            segment, position, features = project(x, corners)
        indices = segment + (position > 0.5)
        stats = {
            "quantisation_error": mean_squared_error(x, features),
            "mean_jump": mean_jump(indices),
            "corners": self.codebook.stage.detach().clone(),
        }
        if not self.training:
            loss = stats["quantisation_error"].clone()
            return features, features, indices.unsqueeze(1), loss, stats
        stats["revived_codes"] = torch.tensor(revived)
        dither = dither[dithered]
        # The ends keep to CurveLoss: the length of dithered errors draws them inwards.
        ends = corners.detach()
        held = torch.cat([ends[:1], corners[1:-1], ends[-1:]])
        latent = self._error(x, held, dithered, dither).add_(x)
        loss = CurveLoss.apply(
            corners, x.detach(), dithered, dither, segment, position, self.tension
        )
        self.codebook.count(segment, position)
        return latent, features, indices.unsqueeze(1), loss, stats

    def lookup(self, indices: torch.Tensor):
        """See :meth:`Quantiser.lookup`."""
        return codes_or_zero(self.codebook.weight.detach(), indices.squeeze(-1))

    def _error(self, x, corners, segment, position):
        return ErrorAlong.apply(x, corners, segment, position, random_directions(x))


def mean_jump(indices: torch.Tensor) -> torch.Tensor:
    """Mean |i_t - i_t+1| along frames over that of random pairs of the same frames.

    Arguments
    ---------
    indices : torch.Tensor
        Indices in the order of time, long, shape [N].

    Returns
    -------
    torch.Tensor
        Scalar, detached; 1 where time leaves no trace, 0 where nothing moves.

    Example
    -------
    >>> mean_jump(torch.tensor([0, 0, 0, 3, 3, 3]))
    tensor(0.4000)
    """
    number = len(indices)
    if number < 2:
        return torch.zeros((), device=indices.device)
    steps = indices.diff().abs().double().mean()
    return (steps / random_jump(indices).clamp(min=1e-12)).float()


def random_jump(indices: torch.Tensor) -> torch.Tensor:
    """Mean |i - j| of random pairs of frames.

    Arguments
    ---------
    indices : torch.Tensor
        Long, shape [N].

    Returns
    -------
    torch.Tensor
        Scalar in fp64, detached.

    Example
    -------
    >>> random_jump(torch.tensor([0, 0, 3, 3])).item()
    1.5
    """
    # Of independent draws: twice the sum of F (1 - F) over the line.
    below = torch.bincount(indices).cumsum(0).double() / len(indices)
    return 2 * (below * (1 - below)).sum()
