"""Section: ABX, how well the phones of minimal pairs are told apart."""

from matplotlib.figure import Figure

from .abx import abx_error
from .context import NotApplicable
from .items import items_from_alignment
from .report import Section, Table

CONTEXT = "manner"
"""Corpora of an hour have few equal triphones, but many of equal manner."""


def section(context) -> Section:
    """ABX errors of the features, of what goes in, and of the other exports.

    Arguments
    ---------
    context : speechbrain_vae.analysis.context.AnalysisContext
        On utterances with phone times and speakers.

    Returns
    -------
    Section
    """
    times = context.phone_times
    speakers = context.speakers
    items = items_from_alignment(
        {utt: rows for utt, rows in times.items() if utt in speakers}, speakers
    )
    if len(set(speakers.values())) < 2 or not items:
        raise NotApplicable("ABX needs phones of at least two speakers")
    numbers = {}
    for name, (features, shift, first) in representations(context).items():
        numbers[name] = abx_error(
            features, items, shift, first, CONTEXT, max_items_per_cell=5
        )
    rows = [
        [name, *(result[key] for key in ("within", "within_se", "across", "across_se"))]
        for name, result in numbers.items()
    ]
    triples = next(iter(numbers.values()))["triples"]
    return Section(
        "ABX phone discrimination",
        _TEXT.format(triples=triples),
        [("abx", draw(numbers), "Errors in percent; the lower the better.")],
        [
            Table(
                "ABX error in percent; chance is 50",
                ("representation", "within speakers", "±", "across speakers", "±"),
                rows,
            )
        ],
        numbers,
    )


_TEXT = """
X and A are the same phone, B is another, between phones of the same manner classes: an
error is when X is nearer to B, by dynamic time warping over the angle between frames
(Schatz et al. 2013; Kahn et al. 2020). **Within**: all three are of one speaker;
**across**: X is of another. {triples:,} triples, the same for every representation.

**What this does not show**: an angle weighs all dimensions as they come, so a
representation that holds the phone in few of its dimensions looks worse here than to a
recogniser that learns which. Other speakers would give other errors: ± is a standard
error, from leaving out one speaker at a time. Representations are measured on the same
speakers, so a difference between two of them is known better than that.
"""


def representations(context):
    """What is compared: frames by utterance, frame shift and first frame, in seconds.

    Arguments
    ---------
    context : speechbrain_vae.analysis.context.AnalysisContext

    Returns
    -------
    dict of str to tuple
    """
    utts = context.phone_times.keys() & context.speakers.keys()
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
    """Bars of the errors within and across speakers."""
    figure = Figure(figsize=(8, 1 + 0.55 * len(numbers)), layout="constrained")
    axis = figure.subplots()
    names = list(numbers)
    places = range(len(names))
    for shift, kind, grey in ((-0.2, "within", "0.25"), (0.2, "across", "0.65")):
        bars = axis.barh(
            [place + shift for place in places],
            [numbers[name][kind] for name in names],
            height=0.38,
            color=grey,
            label=f"{kind} speakers",
        )
        axis.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    axis.set_xlabel("ABX error (%)")
    axis.margins(x=0.12)
    axis.legend()
    return figure
