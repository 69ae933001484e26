"""Section: the order of the codebook."""

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from speechbrain_vae.nnet.quantisers.nearest import nearest_indices

from .codebook_order import crossings, opponents, order_of, principal_plane
from .report import Section, Table

COLUMNS = {
    "neighbour_ratio": "neighbours / random",
    "spearman": "Spearman",
    "crossings_per_segment": "crossings a segment",
    "index_jump": "index jump",
    "relative_jump": "jump / random frames",
    "distortion": "squared error",
}


def section(context) -> Section:
    """How far the index of a code tells where it lies.

    Arguments
    ---------
    context : speechbrain_vae.analysis.context.AnalysisContext
        Of a model with one codebook.

    Returns
    -------
    Section
    """
    books, numbers = {}, {}
    models, note = context.coded()
    for model in models:
        codes = model.codebook
        encoded = [model[utt] for utt in model.entries]
        frames = [one.before for one in encoded]
        books[model.name] = codes
        sequences = [one.indices[:, 0] for one in encoded]
        numbers[model.name] = order_of(codes, sequences, frames)
        if model is not context:
            continue
        for name, rival in opponents(frames, len(codes)).items():
            books[name] = rival
            sequences = [nearest_indices(x, rival) for x in frames]
            numbers[name] = order_of(rival, sequences, frames)
    rows = [
        [name, *(measures[key] for key in COLUMNS)]
        for name, measures in numbers.items()
    ]
    columns = ("codebook", *COLUMNS.values())
    return Section(
        "Order of the codebook",
        _TEXT.format(name=context.name) + note,
        [
            (
                "order_paths",
                draw_paths(books),
                "Codewords on the two principal directions of each codebook, joined in "
                "the order of their indices, from dark (first) to light (last).",
            ),
            (
                "order_distances",
                draw_distances(books),
                "Distance of every two codewords. Dark near the diagonal alone: "
                "neighbours are alike and others are not.",
            ),
        ],
        [Table("Measures of order", columns, rows)],
        numbers,
    )


_TEXT = """
**Neighbours / random** is the mean distance of codewords with neighbouring indices over
that of random pairs; **Spearman** correlates distance of indices with distance of
vectors; **crossings** are those of the path through all codewords, in the plane of the
figure; the **index jump** is the mean |i(t) − i(t+1)| / K from one frame to the next,
also as a multiple of what frames in random order would give; the **squared error** is
that of the nearest codeword, summed over dimensions.

**k-means** is fitted to the frames of this very encoder, on the utterances analysed
here, which favours it; **k-means + tour** has the same codewords in the order of a
short path (nearest neighbour, then 2-opt): the order that can be had afterwards, at no
cost in distortion. Codebooks of other encoders live in other spaces, so squared errors
compare between {name} and the two k-means alone.

**What this does not show**: order in the plane of a figure is not order in all
dimensions, and a small jump is no merit of its own: a model that uses one code has
none.
"""


def draw_paths(books):
    """Paths through codebooks [K, D], side by side."""
    figure = Figure(figsize=(3.6 * len(books), 3.9), layout="constrained")
    for axis, (name, codes) in zip(
        np.atleast_1d(figure.subplots(1, len(books))), books.items(), strict=True
    ):
        points, share = principal_plane(codes)
        axis.plot(*points.T.numpy(), color="0.6", linewidth=0.6, zorder=1)
        axis.scatter(
            *points.T.numpy(), c=np.arange(len(points)), cmap="viridis", s=9, zorder=2
        )
        axis.set(
            title=f"{name}\n{crossings(points)} crossings",
            xlabel=f"direction 1 (both: {share:.0%} of variance)",
            ylabel="direction 2",
        )
    return figure


def draw_distances(books):
    """Distances between the codewords of codebooks [K, D], side by side."""
    figure = Figure(figsize=(3.6 * len(books), 3.9), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(books)))
    for axis, (name, codes) in zip(axes, books.items(), strict=True):
        distances = torch.cdist(codes, codes)
        image = axis.imshow(
            (distances / torch.pdist(codes).mean()).numpy(),
            cmap="gray",
            vmin=0,
            vmax=2,
            origin="lower",
        )
        axis.set(title=name, xlabel="code index", ylabel="code index")
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    figure.colorbar(image, ax=axes, label="distance / mean distance", shrink=0.8)
    return figure
