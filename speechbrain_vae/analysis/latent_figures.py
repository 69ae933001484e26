"""Figures of a latent space: KL divergence, traversals, associations, maps."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .phones import PHONE_GROUPS, phone_group

STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Of a traversal, in standard deviations of the aggregate posterior."""

POINTS = 1200
"""Frames of a map."""

LEAST_POINTS = 20
"""With fewer frames neighbours mean nothing: PCA alone."""

SPEAKERS = 6
"""As many as markers can tell apart."""

# In print in grey neighbours differ in lightness, the rest in their markers.
_COLOURS = ("#00204d", "#c77f00", "#a01c3e", "#a6d3f2", "#00755e", "#7a3fb0", "#6b6b6b")
_MARKERS = ("o", "^", "x", "s", "+", "D", "v")
_LAYERS = 20


def draw_kl(kl):
    """Bars: KL divergence of each dimension [D] in nats, the largest first."""
    values = np.sort(kl)[::-1]
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    axes.bar(np.arange(len(values)), values, color="0.35", width=0.8)
    active = int((values > 0.01).sum())
    axes.set(
        xlabel="Dimension, by decreasing KL divergence",
        ylabel="KL divergence\n(nats per latent frame)",
        title=f"{values.sum():.1f} nats in all, {active} of {len(values)} dimensions "
        "above 0.01",
        xlim=(-0.7, len(values) - 0.3),
    )
    return figure


def draw_traversals(moved: np.ndarray, dimensions, hop: float):
    """Spectrograms of each dimension at each step, and the change of their mean.

    Arguments
    ---------
    moved : np.ndarray
        Normalised log-Mel frames, shape [dimensions, STEPS, T, F].
    dimensions : iterable of int
    hop : float
        From one frame to the next, in seconds.

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows, columns, frames, bands = moved.shape
    figure = Figure(figsize=(11, 1.6 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns + 1, squeeze=False)
    still = STEPS.index(0.0)
    means = moved.mean(2)
    change = means - means[:, still, None]
    most = 1.1 * max(float(np.abs(change[:, [0, -1]]).max()), 1e-3)
    for row, dimension in enumerate(dimensions):
        for column, step in enumerate(STEPS):
            place = axes[row, column]
            image = place.imshow(
                moved[row, column].T,
                aspect="auto",
                origin="lower",
                cmap="gray_r",
                vmin=-2,
                vmax=2,
                extent=(0, frames * hop, -0.5, bands - 0.5),
            )
            place.label_outer()
            if row == 0:
                place.set_title(f"{step:+.0f} sd" if step else "as encoded")
            if row == rows - 1:
                place.set_xlabel("Time (s)")
        axes[row, 0].set_ylabel(f"dimension {dimension}\nMel band")
        place = axes[row, columns]
        for step, line, grey in ((0, "--", "0.5"), (columns - 1, "-", "0")):
            label = f"{STEPS[step]:+.0f} sd"
            place.plot(change[row, step], range(bands), line, color=grey, label=label)
        place.axvline(0, color="0.8", linewidth=0.8, zorder=0)
        place.set(xlim=(-most, most), ylim=(-0.5, bands - 0.5), yticks=[])
        place.xaxis.set_major_locator(MaxNLocator(3, symmetric=True))
        if row == 0:
            place.set_title("change of mean")
            place.legend(fontsize=7, frameon=False, handlelength=1.5)
    axes[-1, -1].set_xlabel("sd of a band")
    label = "normalised log-Mel (sd of a band)"
    figure.colorbar(image, ax=axes, label=label, shrink=0.6, aspect=30)
    return figure


def draw_associations(found: dict[str, np.ndarray], order: np.ndarray, rank: str):
    """What goes with each dimension: rows of :func:`.latent_factors.associations`.

    Arguments
    ---------
    found : dict of str to np.ndarray
        Each [D], 0 to 1.
    order : np.ndarray
        Dimensions from left to right.
    rank : str
        What they are in the order of.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = Figure(figsize=(9, 0.4 * len(found) + 1.4), layout="constrained")
    axes = figure.subplots()
    rows = np.stack([row[order] for row in found.values()])
    image = axes.imshow(rows, aspect="auto", cmap="gray_r", vmin=0, vmax=1)
    axes.set(
        xlabel=f"Dimension, by decreasing {rank}",
        yticks=range(len(found)),
        yticklabels=list(found),
    )
    figure.colorbar(image, ax=axes, label="association (0 to 1)")
    return figure


def draw_maps(frames, seed: int = 0):
    """Latent frames in two dimensions, by PCA and by neighbours.

    Arguments
    ---------
    frames : speechbrain_vae.analysis.latent_factors.FrameTable
    seed : int
        Of the choice of frames and of the map.

    Returns
    -------
    figure : matplotlib.figure.Figure
    caption : str
    variance : np.ndarray
        Share of the variance of all frames on each of the two principal axes.
    """
    chosen = np.flatnonzero(frames.middle)
    what = "middles of phones"
    if not len(chosen):
        chosen, what = np.arange(len(frames.features)), "frames"
    rng = np.random.default_rng(seed)
    chosen = rng.choice(chosen, min(POINTS, len(chosen)), replace=False)
    x = frames.features - frames.features.mean(0)
    _, values, axes = np.linalg.svd(x.T @ x)
    variance = values[:2] / values.sum()
    x = x[chosen]
    name, near = _neighbours(x, seed)
    panels = {"PCA": x @ axes[:2].T} | ({name: near} if name else {})
    labels = {}
    if frames.phone is not None:
        groups = np.array([phone_group(p) for p in frames.phone[chosen]])
        labels["phone group"] = groups, [g for g in PHONE_GROUPS if g in groups]
    for key, column in (("speaker", frames.speaker), ("gender", frames.gender)):
        if column is not None:
            here = column[chosen]
            known, count = np.unique(here, return_counts=True)
            most = known[np.argsort(-count, kind="stable")[:SPEAKERS]]
            labels[key] = here, sorted(most)
    if not labels:
        labels["frame"] = np.full(len(x), "all"), ["all"]
    shape = len(panels), len(labels)
    figure = Figure(figsize=(4 * shape[1], 3.6 * shape[0] + 0.8), layout="constrained")
    places = figure.subplots(*shape, squeeze=False)
    for row, (method, points) in enumerate(panels.items()):
        for column, (key, (here, names)) in enumerate(labels.items()):
            _scatter(places[row, column], points, here, names, rng)
            axis = "principal axis {}" if method == "PCA" else method + " axis {}"
            places[row, column].set(
                xlabel=axis.format(1) + " (no unit)",
                ylabel=axis.format(2) + " (no unit)",
                title=f"{method}, by {key}",
            )
            if row == shape[0] - 1:
                places[row, column].legend(
                    loc="upper center",
                    bbox_to_anchor=(0.5, -0.1),
                    ncols=3,
                    fontsize=8,
                    frameon=False,
                    markerscale=1.6,
                )
    caption = (
        f"{len(chosen)} {what}, in the first two principal axes ({variance[0]:.0%} and "
        f"{variance[1]:.0%} of the variance)"
        + (f" and by {name}, which keeps neighbours together." if name else ".")
        + (f" Of the speakers, {SPEAKERS} are marked." if "speaker" in labels else "")
    )
    return figure, caption, variance


def _scatter(place, points, labels, names, rng):
    rest = ~np.isin(labels, names)
    place.scatter(*points[rest].T, s=3, color="0.88", zorder=0)
    looks = {
        name: {"s": 11, "marker": marker, "color": colour, "linewidths": 0.8}
        for name, marker, colour in zip(names, _MARKERS, _COLOURS, strict=False)
    }
    for name, look in looks.items():
        place.scatter([], [], label=name, **look)
    # A few points of every class in turn, or the last class would hide the others.
    for part in np.array_split(rng.permutation(len(points)), _LAYERS):
        for name, look in looks.items():
            place.scatter(*points[part[labels[part] == name]].T, alpha=0.7, **look)
    place.set(xticks=[], yticks=[])


def _neighbours(x, seed):
    """Name and points of a map that keeps neighbours, where a library makes one."""
    if len(x) < LEAST_POINTS:
        return None, None
    try:
        from umap import UMAP

        return "UMAP", UMAP(random_state=seed, n_jobs=1).fit_transform(x)
    except ImportError:
        pass
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        return None, None
    perplexity = min(30.0, (len(x) - 1) / 4)
    maps = TSNE(init="pca", random_state=seed, perplexity=perplexity, n_jobs=1)
    return "t-SNE", maps.fit_transform(x)
