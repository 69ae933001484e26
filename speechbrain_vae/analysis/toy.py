"""The toy: what quantisers do to distributions in the plane, where it can be seen."""

import io

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from speechbrain_vae.nnet.quantisers import SpaceFillingVQ
from speechbrain_vae.nnet.quantisers.curve import project
from speechbrain_vae.nnet.quantisers.kmeans import kmeans
from speechbrain_vae.nnet.quantisers.nearest import nearest_indices

from .codebook_order import crossings, neighbour_ratio, order_correlation
from .report import Section, Table

BATCH = 2048
STAGE_STEPS = 300
"""Training steps of each stage of 4, 8, ... K corners."""


def uniform(number, generator):
    """Points of the square from -1 to 1, shape [N, 2]."""
    return 2 * torch.rand(number, 2, generator=generator) - 1


def gaussian(number, generator):
    """Points of a round normal distribution, shape [N, 2]."""
    return 0.5 * torch.randn(number, 2, generator=generator)


def pentagon(number, generator):
    """Points spread evenly over a regular pentagon, shape [N, 2].

    Example
    -------
    >>> points = pentagon(1000, torch.Generator().manual_seed(0))
    >>> points.shape, bool((points.norm(dim=1) <= 1).all())
    (torch.Size([1000, 2]), True)
    """
    corner = torch.arange(6) * 2 * torch.pi / 5 + torch.pi / 2
    corners = torch.stack([corner.cos(), corner.sin()], 1)
    side = torch.randint(5, (number,), generator=generator)
    weights = torch.rand(number, 2, generator=generator)
    # The half of the parallelogram that is no triangle is turned onto the other.
    weights = torch.where(weights.sum(1, keepdim=True) > 1, 1 - weights, weights)
    return weights[:, :1] * corners[side] + weights[:, 1:] * corners[side + 1]


def two_moons(number, generator):
    """Points of two half rings in each other, shape [N, 2]."""
    angle = torch.pi * torch.rand(number, generator=generator)
    points = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
    points[::2] = -points[::2]
    return 0.65 * (points + 0.1 * torch.randn(number, 2, generator=generator))


DISTRIBUTIONS = {
    "uniform": uniform,
    "Gaussian": gaussian,
    "pentagon": pentagon,
    "two moons": two_moons,
}


def hilbert(size: int, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Points evenly spaced along a Hilbert curve, scaled to a box.

    Hilbert, "Ueber die stetige Abbildung einer Linie auf ein Flächenstück",
    Mathematische Annalen 38, 1891.

    Arguments
    ---------
    size : int
        Number of points K; of the first order with as many cells.
    low, high : torch.Tensor
        Corners of the box, shape [2].

    Returns
    -------
    torch.Tensor
        Shape [K, 2].

    Example
    -------
    >>> hilbert(4, torch.zeros(2), torch.ones(2)).tolist()
    [[0.25, 0.25], [0.25, 0.75], [0.75, 0.75], [0.75, 0.25]]
    """
    cells = torch.full((1, 2), 0.5)
    while len(cells) < size:
        turned = cells.flip(1)
        back = 1 - turned
        cells = torch.cat(
            [
                turned / 2,
                cells / 2 + torch.tensor([0.0, 0.5]),
                cells / 2 + 0.5,
                back / 2 + torch.tensor([0.5, 0.0]),
            ]
        )
    place = torch.linspace(0, len(cells) - 1, size).round().long()
    return low + (high - low) * cells[place]


def grow(
    points: torch.Tensor, size: int, seed: int = 0, watch=lambda codes: None
) -> torch.Tensor:
    """Train a space-filling quantiser from 4 corners to ``size``.

    Arguments
    ---------
    points : torch.Tensor
        Shape [N, 2].
    size : int
        Corners K at the end.
    seed : int
        Of the batches and the dithering.
    watch : callable
        Called with the corners after every step.

    Returns
    -------
    torch.Tensor
        Shape [K, 2].
    """
    stages = max(1, int(np.ceil(np.log2(size / 4))) + 1)
    steps = STAGE_STEPS * (stages + 2)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        quantiser = SpaceFillingVQ(2, size, growth_steps=STAGE_STEPS, tension=0.3)
        optimiser = torch.optim.Adam(quantiser.parameters(), lr=1e-2)
        for step in range(steps):
            # The last stage, which has three times the steps, settles.
            rate = min(1.0, (steps - step) / (3 * STAGE_STEPS))
            optimiser.param_groups[0]["lr"] = 1e-2 * max(rate, 0.02)
            loss = quantiser(points[torch.randint(len(points), (1, BATCH))]).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            watch(quantiser.codebook.corners.detach())
    return quantiser.codebook.corners.detach()


def codebooks(
    points: torch.Tensor, size: int, seed: int = 0, watch=lambda codes: None
) -> dict[str, torch.Tensor]:
    """Codebooks of three methods for the same points.

    Arguments
    ---------
    points : torch.Tensor
        Shape [N, 2].
    size : int
        Number of codes K.
    seed : int
    watch : callable
        See :func:`grow`.

    Returns
    -------
    dict of str to torch.Tensor
        ``VQ``, ``SFVQ`` and ``Hilbert``, shape [K, 2].
    """
    return {
        "VQ": kmeans(points, size, iterations=50, seed=seed)[0],
        "SFVQ": grow(points, size, seed, watch),
        "Hilbert": hilbert(size, points.amin(0), points.amax(0)),
    }


def measure(codes, points):
    """Distortion and order of codes [K, 2] on points [N, 2] that they never saw."""
    nearest = nearest_indices(points, codes)
    return {
        "distortion": float((points - codes[nearest]).square().sum(1).mean()),
        "curve_distortion": float(
            (points - project(points, codes)[2]).square().sum(1).mean()
        ),
        "neighbour_ratio": neighbour_ratio(codes),
        "spearman": order_correlation(codes),
        "crossings": crossings(codes),
        "length": float(codes.diff(dim=0).norm(dim=1).sum()),
        "unused": int((torch.bincount(nearest, minlength=len(codes)) == 0).sum()),
    }


def section(
    size: int = 64, points: int = 20000, seed: int = 0, frames: int = 60
) -> Section:
    """The toy: three methods on four distributions, and how the curve grows.

    Arguments
    ---------
    size : int
        Number of codes K.
    points : int
        Of each distribution.
    seed : int
    frames : int
        Of the animation, about.

    Returns
    -------
    Section
    """
    found, shown, numbers, rows = {}, {}, {}, []
    for name, draw in DISTRIBUTIONS.items():
        generator = torch.Generator().manual_seed(seed)
        train, test = draw(points, generator), draw(points, generator)
        shown[name] = test[:1500]
        history: list[torch.Tensor] = []
        books = codebooks(
            train, size, seed, lambda codes, h=history: h.append(codes.clone())
        )
        found[name] = books, history
        numbers[name] = {
            method: measure(codes, test) for method, codes in books.items()
        }
        rows += [
            [f"{name}, {method}", *numbers[name][method].values()] for method in books
        ]
    columns = (
        "distribution, method",
        "squared error",
        "to the curve",
        "neighbours / random",
        "Spearman",
        "crossings",
        "length",
        "codes unused",
    )
    growth = animate({name: found[name][1] for name in found}, shown, frames)
    return Section(
        "The toy",
        _TEXT.format(size=size),
        [
            (
                "toy",
                draw_methods(
                    {name: books for name, (books, _) in found.items()}, shown
                ),
                f"{size} codes of each method, joined in the order of their indices, "
                "from dark (first) to light (last), on samples (grey).",
            )
        ],
        [Table(f"{size} codes on points they never saw", columns, rows)],
        numbers,
        [("toy_growth", growth, f"SFVQ in training, from 4 to {size} corners.")],
    )


_TEXT = """
Ordinary **VQ** (k-means) has the smallest error, and an order that means nothing: its
path jumps about the plane. **SFVQ** learns codes that are the corners of one curve: the
error is nearly that of VQ, and neighbours are neighbours. A **Hilbert** curve has the
best order there is in a square, but does not know the data: codes lie where no points
are. All have {size} codes.

**What this does not show**: in the plane a curve can be short and free of crossings;
in the 64 dimensions of a latent space neither is promised.
"""


def draw_methods(found, shown):
    """One row for each distribution, one column for each method."""
    methods = list(next(iter(found.values())))
    figure = Figure(
        figsize=(3.1 * len(methods), 3.1 * len(found)), layout="constrained"
    )
    axes = figure.subplots(
        len(found), len(methods), sharex="row", sharey="row", squeeze=False
    )
    for row, (name, books) in zip(axes, found.items(), strict=True):
        for axis, (method, codes) in zip(row, books.items(), strict=True):
            _path(axis, codes, shown[name])
            axis.set_title(f"{method}, {crossings(codes)} crossings", fontsize=10)
        row[0].set_ylabel(f"{name}\ncoordinate 2")
    for axis in axes[-1]:
        axis.set_xlabel("coordinate 1")
    return figure


def animate(
    histories: dict[str, list[torch.Tensor]],
    shown: dict[str, torch.Tensor],
    frames: int,
) -> bytes:
    """A GIF of curves in training, all distributions beside each other.

    Arguments
    ---------
    histories : dict of str to list of torch.Tensor
        Corners after every step, by distribution.
    shown : dict of str to torch.Tensor
        Samples, shape [N, 2].
    frames : int
        About how many pictures.

    Returns
    -------
    bytes
    """
    from PIL import Image

    steps = len(next(iter(histories.values())))
    # Early steps change most.
    chosen = np.unique((np.linspace(0, 1, frames) ** 1.5 * (steps - 1)).astype(int))
    figure = Figure(figsize=(3 * len(histories), 3.3), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(histories), squeeze=False)[0]
    pictures = []
    for step in chosen:
        for axis, (name, history) in zip(axes, histories.items(), strict=True):
            axis.clear()
            _path(axis, history[step], shown[name])
            axis.set(
                title=f"{name}: {len(history[step])} corners",
                xlabel="coordinate 1",
                xlim=_limits(shown[name][:, 0]),
                ylim=_limits(shown[name][:, 1]),
            )
        axes[0].set_ylabel("coordinate 2")
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        pictures.append(picture.quantize(48, dither=Image.Dither.NONE))
    stream = io.BytesIO()
    durations = [120] * (len(pictures) - 1) + [2500]
    pictures[0].save(
        stream,
        "GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=durations,
        loop=0,
        optimize=True,
    )
    return stream.getvalue()


def _limits(values):
    room = 0.05 * float(values.max() - values.min())
    return float(values.min()) - room, float(values.max()) + room


def _path(axis, codes, samples):
    axis.scatter(*samples.T.numpy(), s=2, color="0.8", linewidths=0, rasterized=True)
    axis.plot(*codes.T.numpy(), color="0.25", linewidth=0.9)
    axis.scatter(
        *codes.T.numpy(), c=np.arange(len(codes)), cmap="viridis", s=10, zorder=3
    )
    axis.set_aspect("equal", adjustable="box")
