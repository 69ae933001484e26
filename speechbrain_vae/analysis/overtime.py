"""Section: codes over time, drawn over the spectrogram of a sentence."""

from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from .phones import plain
from .report import Section, Table

SECONDS = (2.0, 4.0)
"""Length of a sentence that fills a figure and can still be read."""

SENTENCES = 2


def section(context) -> Section:
    """The code of every frame over the spectrogram, for the same sentences.

    Arguments
    ---------
    context : speechbrain_vae.analysis.context.AnalysisContext
        Of a model with one codebook; those of ``context.others`` that have one are
        drawn below it.

    Returns
    -------
    Section
    """
    models, note = context.coded()
    figures, rows = [], []
    numbers: dict[str, dict] = {}
    for number, utt in enumerate(sentences(context), start=1):
        entry = context.entries[utt]
        said = f": “{entry['words'].lower()}”" if entry.get("words") else ""
        figures.append(
            (
                f"overtime_{number}",
                draw(models, utt),
                f"Utterance {utt} of speaker {entry.get('spk_id', 'unknown')}{said}. "
                "Grey: normalised log-Mel spectrogram, dark where there is energy. "
                "Line: index of the code of each frame. Dotted: phone boundaries; a "
                "name without room is left out.",
            )
        )
        numbers[utt] = {}
        for model in models:
            indices = model[utt].indices[:, 0]
            numbers[utt][model.name] = indices
            steps = indices.diff().abs().double() / len(model.codebook)
            kept = (steps == 0).double().mean()
            rows.append([utt, model.name, float(steps.mean()), float(kept)])
    columns = ("utterance", "model", "index jump", "share of frames that keep the code")
    return Section(
        "Codes over time",
        _TEXT + note,
        figures,
        [Table("Of these sentences alone", columns, rows)],
        numbers,
    )


_TEXT = """
Each frame of the model has one code. Where codes have an order, the index moves slowly
within a phone and sounds that are alike lie at similar heights; without an order the
line jumps over the whole range, although the codes may tell as much of the phones.

**What this does not show**: these are a few sentences, chosen for their length; how
steady the index is over all utterances stands under the order of the codebook.
"""


def sentences(context, number: int = SENTENCES) -> list[str]:
    """Utterances that fill a figure well: 2 to 4 seconds, the most phones.

    Arguments
    ---------
    context : speechbrain_vae.analysis.context.AnalysisContext
    number : int
        How many, of different speakers.

    Returns
    -------
    list of str
    """

    def rank(utt):
        entry = context.entries[utt]
        fits = SECONDS[0] <= entry.get("duration", 0) <= SECONDS[1]
        return not fits, -len(entry.get("phone_times") or ()), utt

    chosen, seen = [], set()
    for utt in sorted(context.entries, key=rank):
        speaker = context.entries[utt].get("spk_id")
        if speaker is None or speaker not in seen:
            seen.add(speaker)
            chosen.append(utt)
        if len(chosen) == number:
            break
    return chosen


def draw(models, utt: str):
    """One sentence under several models, one below the other.

    Arguments
    ---------
    models : list of speechbrain_vae.analysis.context.AnalysisContext
        Discrete.
    utt : str
        The utterance.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = Figure(figsize=(10, 3.1 * len(models) + 0.3), layout="constrained")
    axes = figure.subplots(len(models), 1, sharex=True, squeeze=False)[:, 0]
    for axis, model in zip(axes, models, strict=True):
        encoded = model[utt]
        bands = encoded.log_mel.shape[1]
        seconds = len(encoded.log_mel) * model.hop
        axis.imshow(
            encoded.log_mel.T.numpy(),
            cmap="gray_r",
            vmin=-1.5,
            vmax=3.5,
            aspect="auto",
            origin="lower",
            # A frame is drawn around its centre.
            extent=(-model.hop / 2, seconds - model.hop / 2, -0.5, bands - 0.5),
        )
        axis.set(title=model.name, ylabel="Mel band", xlim=(-model.hop / 2, seconds))
        times = model.times(len(encoded.indices)).numpy()
        codes = axis.twinx()
        (line,) = codes.plot(
            times,
            encoded.indices[:, 0].numpy(),
            color="#b3001b",
            linewidth=1.2,
            marker="o",
            markersize=2.2,
        )
        line.set_path_effects([Stroke(linewidth=3.2, foreground="white"), Normal()])
        size = len(model.codebook)
        codes.yaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        codes.set(ylabel=f"code index (of {size})", ylim=(-0.03 * size, 1.03 * size))
    # Names need this many seconds a letter.
    letter = 0.0095 * seconds
    _phones(axes, models[0].entries[utt].get("phone_times") or (), letter)
    axes[-1].set_xlabel("time (s)")
    return figure


def _phones(axes, times, letter):
    """Boundaries of phones on every axis, above the first the names that find room."""
    previous, taken = None, 0.0
    for start, end, phone in times:
        for axis in axes:
            for border in {start, end} - {previous}:
                axis.axvline(border, color="black", linewidth=0.7, linestyle=":")
        previous = end
        middle, name = (start + end) / 2, plain(phone)
        if middle - letter * len(name) / 2 < taken:
            continue
        taken = middle + letter * (len(name) / 2 + 0.3)
        axes[0].text(
            middle,
            1.01,
            name,
            transform=axes[0].get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=7,
        )
    if times:
        # Room for the names between the axis and its title.
        axes[0].set_title(axes[0].get_title(), pad=16)
