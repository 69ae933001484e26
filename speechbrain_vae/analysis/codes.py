"""Section: what codes tell of phones, and phones of codes."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .code_statistics import (
    SIMILAR_PAIRS,
    agreement,
    code_counts,
    distances_along,
    pair_name,
    shuffled_nmi,
    similar_pairs_test,
)
from .context import NotApplicable
from .phones import PHONE_GROUPS, SILENCE, phone_group
from .report import Section, Table

LEAST_FRAMES = 20
"""Phones with fewer frames are left out of figures and of the test."""

_BINS = 128

_MEASURES = {
    "phone_purity": "phone purity",
    "cluster_purity": "cluster purity",
    "nmi": "NMI",
    "nmi_shuffled": "NMI, codes shuffled",
    "pnmi": "PNMI",
    "phone_entropy_bits": "H(phone), bits",
    "conditional_entropy_bits": "H(phone | code), bits",
    "used_codes": "codes used",
    "perplexity": "perplexity",
}


def section(context) -> Section:
    """How codes and phones go together, and where phones lie along the codes.

    Arguments
    ---------
    context : speechbrain_vae.analysis.context.AnalysisContext
        Of a model with one codebook, on utterances with phone times.

    Returns
    -------
    Section
    """
    models, note = context.coded()
    numbers, rows, pair_rows = {}, [], []
    counted = {}
    for model in models:
        names, counts = counts_of(model)
        if not counts[_spoken(names)].any():
            raise NotApplicable("no frame lies in a phone")
        counted[model.name] = names, counts
        numbers[model.name] = result = measure(names, counts)
        for label, key in (("all frames", "all"), ("speech alone", "speech")):
            values = [result[key][measure] for measure in _MEASURES]
            rows.append([model.name, label, *values])
        for among, key in (("all phones", "similar"), ("fricatives", "fricatives")):
            pair_rows.append([model.name, among, *_pair_cells(result[key])])
    names, counts = counted[context.name]
    size = counts.shape[1]
    tables = [
        Table("Codes and phones", ("model", "over", *_MEASURES.values()), rows),
        Table(
            "Earth mover's distance of similar phones along the codes, as a share of K",
            ("model", "random among", "pairs", "left out", "mean", "random pairs", "p"),
            pair_rows,
        ),
        Table(
            f"Peak of each phone of {context.name}: the most frequent index and its "
            "share of the phone's frames",
            ("phone", "group", "frames", "peak index", "peak / K", "share"),
            [
                [
                    name,
                    phone_group(name),
                    int(row.sum()),
                    int(row.argmax()),
                    float(row.argmax() / size),
                    float(row.max() / row.sum()),
                ]
                for name, row in zip(names, counts, strict=True)
            ],
        ),
    ]
    figures = [
        (
            "codes_groups",
            draw_groups(counted),
            "Histograms of code indices for each phonetic group, each of area one.",
        ),
        (
            "codes_phones",
            draw_phones(counted),
            "Histograms of code indices for each phone, scaled to one height, by "
            "group. Triangle over a row: its highest bar. Left out: phones with "
            f"fewer than {LEAST_FRAMES} frames.",
        ),
    ]
    text = _TEXT.format(least=LEAST_FRAMES) + note
    return Section("Codes and phones", text, figures, tables, numbers)


def _pair_cells(test):
    """Cells of a row: pairs, those left out, their mean, that of others, p."""
    if test is None:
        every = ", ".join(pair_name(*pair) for pair in SIMILAR_PAIRS)
        return ["none", every, *3 * [float("nan")]]
    pairs = ", ".join(f"{pair} {d:.3f}" for pair, d in test["pairs"].items())
    left_out = ", ".join(test["left_out"]) or "none"
    return [pairs, left_out, test["mean"], test["random_mean"], test["p"]]


_TEXT = """
**Phone purity** is the share of frames whose phone is guessed right from the code,
**cluster purity** that of the code from the phone; **NMI** is the mutual information of
codes and phones over the mean of their entropies, **PNMI** over the entropy of the
phones; **H(phone | code)** is what is left to know of the phone. Time that no phone
covers is silence; all is given with and without it.

Phones that differ in voicing alone (f–v, th–dh, s–z, sh–zh) should lie close to each
other along the codes, if these have an order. Their distance is the earth mover's
distance of their histograms, how far an index must be moved on average; **p** is the
share of permutations of the phones' names, among all phones or among fricatives, that
bring the pairs as close. With few fricatives the second test cannot give a small p.
A pair with a phone of fewer than {least} frames is left out, and named.

**What this does not show**: purity grows with the number of codes, so it compares
codebooks of one size alone. Few frames make every NMI too large: compare it only over
the same utterances, and with what it is when the codes are shuffled over the frames,
which is chance alone. Frames that follow each other are alike, so in truth chance gives
more than that. Frames of one phone are not independent, and alignments
have errors of about a frame. Distances along the codes mean nothing where codes have no
order; they are given for these models as a check of the test.
"""


def counts_of(context) -> tuple[list[str], np.ndarray]:
    """Phones and their codes over all utterances of a context that have phone times.

    Arguments
    ---------
    context : speechbrain_vae.analysis.context.AnalysisContext
        Of a discrete model.

    Returns
    -------
    names : list of str
    counts : np.ndarray
        Shape [P, K].
    """
    size = len(context.codebook)
    phones, codes = [], []
    for utt in context.phone_times:
        phones += context.phones(utt)
        codes.append(context[utt].indices[:, 0].numpy())
    return code_counts(phones, np.concatenate(codes), size)


def measure(names: list[str], counts: np.ndarray) -> dict:
    """Every number of the section for one model.

    Arguments
    ---------
    names : list of str
        Phones.
    counts : np.ndarray
        Of each phone and code, shape [P, K].

    Returns
    -------
    dict
        ``all`` and ``speech``, see
        :func:`speechbrain_vae.analysis.code_statistics.agreement`, with the
        ``nmi_shuffled`` of ``shuffled_nmi``; ``similar`` and ``fricatives``, see
        ``similar_pairs_test``; ``peaks``; ``histograms``.
    """
    heard = counts[_spoken(names)]
    kept, distances = phone_distances(names, counts)
    fricatives = {name for name in kept if phone_group(name) == "fricative"}
    return {
        "all": agreement(counts) | {"nmi_shuffled": shuffled_nmi(counts)},
        "speech": agreement(heard) | {"nmi_shuffled": shuffled_nmi(heard)},
        "similar": similar_pairs_test(kept, distances),
        "fricatives": similar_pairs_test(kept, distances, among=fricatives),
        "peaks": dict(zip(names, counts.argmax(1).tolist(), strict=True)),
        "histograms": dict(zip(names, counts.tolist(), strict=True)),
    }


def phone_distances(
    names: list[str], counts: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """Distances along the codes of the phones that are tested.

    Arguments
    ---------
    names : list of str
        Phones.
    counts : np.ndarray
        Of each phone and code, shape [P, K].

    Returns
    -------
    kept : list of str
        The phones but for silence and those of fewer than ``LEAST_FRAMES`` frames.
    distances : np.ndarray
        Of every two of them, see
        :func:`speechbrain_vae.analysis.code_statistics.distances_along`.

    Example
    -------
    >>> counts = np.array([[9, 0], [30, 0], [0, 30]])
    >>> phone_distances(["F", "S", "AA"], counts)[0]
    ['S', 'AA']
    """
    often = _spoken(names) & (counts.sum(1) >= LEAST_FRAMES)
    kept = [name for name, keep in zip(names, often, strict=True) if keep]
    return kept, distances_along(counts[often])


def _spoken(names):
    return np.array([phone_group(name) != "silence" for name in names])


def draw_groups(counted):
    """Histograms of each group (rows) under each model (columns)."""
    figure = Figure(figsize=(5.2 * len(counted), 9), layout="constrained")
    axes = figure.subplots(
        len(PHONE_GROUPS), len(counted), sharex="col", sharey=True, squeeze=False
    )
    for column, (model, (names, counts)) in zip(axes.T, counted.items(), strict=True):
        for axis, group in zip(column, PHONE_GROUPS, strict=True):
            rows = [phone_group(name) == group for name in names]
            total = counts[rows].sum(0)
            edges, bars = _histogram(total)
            share = bars / max(total.sum(), 1) / np.diff(edges)
            axis.stairs(100 * share, edges, fill=True, color="0.25")
            axis.set_title(
                f"{group}, {total.sum():,} frames", fontsize=9, loc="left", pad=2
            )
        column[0].set_title(
            f"{model}\n{column[0].get_title(loc='left')}", fontsize=9, loc="left"
        )
        column[-1].set_xlabel("code index")
        column[-1].xaxis.set_major_locator(
            MaxNLocator(integer=True, steps=[1, 2, 5, 10])
        )
    figure.supylabel("share of the group's frames per code (%)", fontsize=9)
    return figure


def draw_phones(counted):
    """One row for each phone, models side by side."""
    figure = Figure(figsize=(5.2 * len(counted), 10), layout="constrained")
    axes = figure.subplots(1, len(counted), squeeze=False)[0]
    for axis, (model, (names, counts)) in zip(axes, counted.items(), strict=True):
        size = counts.shape[1]
        rows = [
            (group, name)
            for group in PHONE_GROUPS
            for name in names
            if phone_group(name) == group
            and counts[names.index(name)].sum() >= LEAST_FRAMES
        ]
        for height, (group, name) in enumerate(reversed(rows)):
            total = counts[names.index(name)]
            edges, bars = _histogram(total)
            top = height + 0.76 * bars / bars.max()
            axis.stairs(top, edges, baseline=height, fill=True, color="0.35")
            peak = bars.argmax()
            middle = (edges[peak] + edges[peak + 1]) / 2
            axis.plot(middle, height + 0.87, "v", color="black", ms=3)
            if height and group != rows[::-1][height - 1][0]:
                axis.axhline(height, color="black", linewidth=0.8)
        axis.set(
            title=model,
            xlabel="code index",
            xlim=(0, size),
            ylim=(0, len(rows)),
        )
        axis.set_yticks(
            np.arange(len(rows)) + 0.4,
            [name if name != SILENCE else "silence" for _, name in reversed(rows)],
            fontsize=8,
        )
        axis.tick_params(axis="y", length=0)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    groups = [group for group, _ in reversed(rows)]
    beside = axes[-1].secondary_yaxis("right")
    beside.set_yticks(
        [np.flatnonzero(np.equal(groups, one)).mean() + 0.5 for one in set(groups)],
        list(set(groups)),
    )
    beside.tick_params(length=0)
    axes[0].set_ylabel("phone")
    return figure


def _histogram(total):
    """Edges and counts of a histogram of at most so many bars, from counts [K]."""
    size = len(total)
    edges = np.unique(np.linspace(0, size, min(size, _BINS) + 1).round().astype(int))
    return edges, np.add.reduceat(total, edges[:-1])
