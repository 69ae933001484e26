"""Section: ABX, how well the phones of minimal pairs are told apart."""

import logging
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .abx import abx_error
from .context import NotApplicable
from .items import Item, format_items, items_from_alignment, read_items
from .report import Section, Table

logger = logging.getLogger(__name__)

CONTEXT = "manner"
"""Corpora of an hour have few equal triphones, but many of equal manner."""

PER_CELL = 5
"""Items of one phone, context and speaker that are drawn at most."""

_CONTEXTS = {
    "triphone": "between the same two phones",
    "manner": "between phones of the same manner classes",
    "none": "whatever the phones beside them",
}


def section(
    context, items: list[Item] | None = None, abx_context: str = CONTEXT
) -> Section:
    """ABX errors of the features, of what goes in, and of the other exports.

    Arguments
    ---------
    context : speechbrain_vae.analysis.context.AnalysisContext
        On utterances with phone times and speakers, unless there are items.
    items : list of Item, optional
        Of these utterances; every phone by default, and in triphone context from the
        start of the phone before to the end of the phone after.
    abx_context : str
        What A, B and X have in common: one of
        :data:`speechbrain_vae.analysis.abx.CONTEXTS`.

    Returns
    -------
    Section
    """
    if items is None:
        items = items_of(context, "triphone" if abx_context == "triphone" else "phone")
    if len({item.speaker for item in items}) < 2:
        raise NotApplicable("ABX needs phones of at least two speakers")
    numbers = {}
    utts = sorted({item.utt for item in items})
    try:
        for name, (features, shift, first) in representations(context, utts).items():
            numbers[name] = abx_error(
                features, items, shift, first, abx_context, max_items_per_cell=PER_CELL
            )
    except ValueError as error:
        raise NotApplicable(str(error)) from error
    rows = [
        [name, *(result[key] for key in ("within", "within_se", "across", "across_se"))]
        for name, result in numbers.items()
    ]
    triples = next(iter(numbers.values()))["triples"]
    return Section(
        "ABX phone discrimination",
        _TEXT.format(context=_CONTEXTS[abx_context], triples=triples, most=PER_CELL),
        [
            (
                "abx",
                draw(numbers),
                "Errors in percent, the lower the better; to either side a standard "
                "error over speakers.",
            )
        ],
        [
            Table(
                "ABX error in percent; chance is 50",
                ("representation", "within speakers", "±", "across speakers", "±"),
                rows,
            )
        ],
        numbers,
        files={"abx.item": format_items(items)},
    )


_TEXT = """
X and A are the same phone, B is another, {context}: an error is when X is nearer
to B, by dynamic time warping over the angle between frames (Schatz et al. 2013; Kahn et
al. 2020). **Within**: all three are of one speaker; **across**: X is of another.
{triples:,} triples, the same for every representation, of at most {most} items of one
phone, context and speaker. All items are in `abx.item` beside this page, which
`fastabx` and the tools of ZeroSpeech read.

**What this does not show**: an angle weighs all dimensions as they come, so a
representation that holds the phone in few of its dimensions looks worse here than to a
recogniser that learns which. Other speakers would give other errors: ± is a standard
error, from leaving out one speaker at a time. Representations are measured on the same
speakers, so a difference between two of them is mostly known better than that.
"""


def items_of(context, span: str) -> list[Item]:
    """Items of every utterance that has phone times and a speaker.

    Arguments
    ---------
    context : speechbrain_vae.analysis.context.AnalysisContext
    span : str
        See :func:`speechbrain_vae.analysis.items.items_from_alignment`.

    Returns
    -------
    list of Item
    """
    # Item files have no room for white space in a name.
    speakers = {utt: "_".join(name.split()) for utt, name in context.speakers.items()}
    times = {utt: t for utt, t in context.phone_times.items() if utt in speakers}
    return items_from_alignment(times, speakers, span)


def open_items(path: str | Path, entries: dict[str, dict]) -> list[Item]:
    """Items of a file, of the utterances that are looked at.

    Arguments
    ---------
    path : str or Path
        See :func:`speechbrain_vae.analysis.items.read_items`.
    entries : dict of str to dict
        Manifest entries by utterance.

    Returns
    -------
    list of Item

    Raises
    ------
    ValueError
        There are none.
    """
    items = read_items(path)
    kept = [item for item in items if item.utt in entries]
    if not kept:
        raise ValueError(
            f"{path} has no items of the {len(entries)} utterances that are looked at; "
            f"one of these is {next(iter(entries))}, its own first one is "
            f"{items[0].utt if items else 'missing'}"
        )
    if len(kept) < len(items):
        logger.warning(
            "%d of the %d items of %s are of other utterances and are left out",
            len(items) - len(kept),
            len(items),
            path,
        )
    return kept


def representations(context, utts: list[str]):
    """What is compared: frames by utterance, frame shift and first frame, in seconds.

    Arguments
    ---------
    context : speechbrain_vae.analysis.context.AnalysisContext
    utts : list of str
        Utterances.

    Returns
    -------
    dict of str to tuple
    """
    log_mel = {utt: context[utt].log_mel for utt in utts}
    found = {"log-Mel, normalised": (log_mel, context.hop, 0.0)}
    for model in (context, *context.others):
        clock = model.frame_shift, model.first_frame
        found[model.name] = {utt: model[utt].features for utt in utts}, *clock
        if model.discrete:
            before = {utt: model[utt].before for utt in utts}
            found[f"{model.name}, before it quantises"] = before, *clock
    return found


def draw(numbers):
    """Bars of the errors within and across speakers, with their standard errors."""
    figure = Figure(figsize=(8, 1.4 + 0.55 * len(numbers)), layout="constrained")
    axis = figure.subplots()
    names = list(numbers)
    places = range(len(names))
    for shift, kind, grey in ((-0.2, "within", "0.5"), (0.2, "across", "0.8")):
        bars = axis.barh(
            [place + shift for place in places],
            [numbers[name][kind] for name in names],
            xerr=np.nan_to_num([numbers[name][f"{kind}_se"] for name in names]),
            error_kw={"elinewidth": 0.8, "capsize": 2},
            height=0.38,
            color=grey,
            label=f"{kind} speakers",
        )
        axis.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    axis.set_xlabel("ABX error (%)")
    axis.margins(x=0.12)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure
