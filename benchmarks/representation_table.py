"""The table and the chart of the representation benchmark."""

COLUMNS = {
    "frames": ("frame phone acc. (%)", "up"),
    "ABX within": ("ABX within (%)", "down"),
    "ABX across": ("ABX across (%)", "down"),
    "PER": ("PER, linear (%)", "down"),
    "PER BiLSTM": ("PER, BiLSTM (%)", "down"),
    "WER": ("WER (%)", "down"),
    "CER": ("CER (%)", "down"),
    "speaker": ("speaker-ID acc. (%)", "up"),
    "digits": ("digits acc. (%)", "up"),
}
"""Titles of the numbers, and which way is better."""

GREYS = {"up": "0.6", "down": "0.8"}


def numbers(row):
    """Mean and spread of every number of a row, by name."""
    return {
        name: (result["mean"][name], result["spread"][name])
        for result in row.values()
        if isinstance(result, dict)
        for name in result["mean"]
    }


def present(rows):
    """The columns that some row has a number for."""
    found = {name for row in rows.values() for name in numbers(row)}
    return [name for name in COLUMNS if name in found]


def table(rows, arguments):
    """The results as Markdown."""
    columns = present(rows)
    options = " ".join(f"'{f}'" if " " in f else f for f in arguments.features)
    command = (
        f"python benchmarks/representation.py --corpus {arguments.corpus} "
        f"--data_folder D --digits_folder F --budget {arguments.budget} "
        f"--seeds {' '.join(map(str, arguments.seeds))} \\\n    --features {options}"
    )
    titles = [COLUMNS[name][0] for name in columns]
    lines = [
        "# Representations",
        "",
        f"{arguments.corpus}: models and probes trained on the training speakers, "
        "learning rates and checkpoints chosen on the validation speakers, numbers on "
        "the test speakers, whom neither pretraining nor probes heard. Mean and "
        f"standard deviation of {len(arguments.seeds)} seeds of the probe, or of the "
        "choice of ABX triples; the encoders have one seed. Frame accuracy: linear "
        "probe of single frames, 39 phones. ABX: context matched by manner class, "
        "dimensions as they are or standardised over the training set or the "
        "utterance, whichever is best on the validation speakers. PER: linear layer "
        "with CTC. WER, CER: BiLSTM with CTC, no language model. "
        "Speaker-ID: all speakers of the corpus, other utterances of them; mean and "
        "deviation over time, linear. Digits: FSDD, each speaker unseen in turn, "
        "the same pooling of each third. Training: CPU time of one thread.",
        "",
        f"```\n{command}\n```",
        "",
        f"| features | dims | ms | training | {' | '.join(titles)} |",
        "|---" * (4 + len(columns)) + "|",
    ]
    for name, row in rows.items():
        found = numbers(row)
        cells = [
            f"{found[c][0]:.1f} ± {found[c][1]:.1f}" if c in found else ""
            for c in columns
        ]
        seconds = row.get("cpu_seconds")
        lines.append(
            f"| {name} | {row['size']} | {1000 * row['frame_shift']:.0f} | "
            f"{f'{seconds / 60:.0f} min' if seconds else ''} | {' | '.join(cells)} |"
        )
    return "\n".join([*lines, "", "![The same as bars](representation.png)", ""])


def draw(rows, path):
    """One panel of bars for each number."""
    from matplotlib.figure import Figure

    columns = present(rows)
    if not columns:
        return
    width = 3
    height = -(-len(columns) // width)
    size = (12, height * (0.8 + 0.24 * len(rows)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(height, width, squeeze=False, sharey=True).flat
    names = list(rows)
    for axis, column in zip(axes, columns, strict=False):
        title, better = COLUMNS[column]
        found = [numbers(row).get(column, (0.0, 0.0)) for row in rows.values()]
        axis.barh(
            range(len(names)),
            [mean for mean, _ in found],
            xerr=[spread for _, spread in found],
            color=GREYS[better],
        )
        for place, (mean, _) in enumerate(found):
            if mean:
                axis.text(0.02 * mean, place, f"{mean:.1f}", va="center", fontsize=8)
        arrow = "higher" if better == "up" else "lower"
        axis.set_title(f"{title}, {arrow} is better", fontsize=9)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.grid(axis="x", alpha=0.3)
    axes[0].invert_yaxis()
    for axis in list(axes)[len(columns) :]:
        axis.set_axis_off()
    figure.savefig(path, dpi=120)
