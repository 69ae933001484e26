"""The curve of a space-filling quantiser: exact, as long as the data, not crossed."""

import torch

from speechbrain_vae.analysis.codebook_order import crossings
from speechbrain_vae.analysis.toy import pentagon
from speechbrain_vae.nnet.quantisers import SpaceFillingVQ
from speechbrain_vae.nnet.quantisers.curve import project
from speechbrain_vae.nnet.quantisers.nearest import nearest_indices

SEEDS = (0, 1, 2)
BATCH = 512


def geometry(arguments):
    """A row for each property, worst of the seeds."""
    steps = 100 if arguments.quick else 1500
    exact, local = zip(*(projection_errors(seed) for seed in SEEDS), strict=True)
    yield _row("curve error over brute force of all segments, less 1", max(exact), 1e-6)
    yield _row("the same of the two segments beside the nearest corner", max(local))
    ends = [_fitted(1, 4, steps, _line, seed).flatten().sort()[0] for seed in SEEDS]
    yield _row("4 corners on U[0, 1], lowest", max(float(c[0]) for c in ends), 0.06)
    yield _row("4 corners on U[0, 1], highest", min(float(c[-1]) for c in ends), 0.94)
    curves = [_fitted(2, 32, steps, pentagon, seed) for seed in SEEDS]
    yield _row("32 corners on a pentagon, crossings", max(map(crossings, curves)), 0)


def _row(what, measured, bar=None):
    return {"what": what, "measured": measured, "bar": bar}


def projection_errors(seed, frames=4096, dim=64, size=256):
    """Excess of the mean squared error over that of all segments in float64.

    Of our projection, and of one that looks at the nearest corner's segments alone.
    """
    torch.manual_seed(seed)
    x, corners = torch.randn(frames, dim), torch.randn(size, dim)
    errors = torch.cat([brute_force(part, corners) for part in x.split(256)])
    best = errors.amin(1).mean()
    points = project(x, corners)[2].double()
    ours = (x.double() - points).square().sum(1).mean()
    beside = nearest_indices(x, corners)
    pairs = [(beside - 1).clamp(min=0), beside.clamp(max=size - 2)]
    local = torch.stack([errors.gather(1, i[:, None])[:, 0] for i in pairs]).amin(0)
    return float(ours / best - 1), float(local.mean() / best - 1)


def brute_force(x, corners):
    """Squared distance of each frame to each segment, float64, [N, K - 1]."""
    x, corners = x.double(), corners.double()
    first, along = corners[:-1], corners.diff(dim=0)
    offset = x[:, None] - first
    squares = along.square().sum(1)
    t = torch.where(squares > 0, (offset * along).sum(2) / squares, 0.0).clamp(0, 1)
    return (offset - t[..., None] * along).square().sum(2)


def _line(number, generator):
    return torch.rand(number, 1, generator=generator)


def _fitted(dim, size, steps, draw, seed):
    """Corners after a training, defaults but for the length of growth."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    quantiser = SpaceFillingVQ(dim, size, growth_steps=steps // 10)
    optimiser = torch.optim.Adam(quantiser.parameters(), lr=2e-2)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 2e-2 * min(1, 0.02 + 2 * (1 - step / steps))
        loss = quantiser(draw(BATCH, generator).unsqueeze(0)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return quantiser.codebook.corners.detach()
