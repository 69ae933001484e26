"""The bars of the quantisers, measured: speed, memory, distortion, usage, geometry.

    python benchmarks/quantisers.py [--data_folder D] [--only speed memory ...]

Prints each table as it is made and keeps them in benchmarks/quantisers.md and .json;
sections that are not asked for keep the numbers of their last run. One thread;
vector-quantize-pytorch, diveq and scikit-learn take part where they are installed.
"""

import argparse
import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from machine import processor
from markdown_table import table_row, write_page

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Section:
    """One table.

    Arguments
    ---------
    name : str
        For ``--only``.
    function : str
        ``module:function``, imported when the section runs. Called with the command
        line's arguments, it yields rows: dictionaries of one set of keys, which are
        the columns; numbers are printed with 4 digits.
    title : str
    note : str
        What is measured, on what, and the bar.
    """

    name: str
    function: str
    title: str
    note: str

    def rows(self, arguments):
        """The rows, one by one."""
        module, function = self.function.split(":")
        return getattr(importlib.import_module(module), function)(arguments)


# To add a table, add a line: nothing else here knows what a section measures.
SECTIONS = (
    Section(
        "speed",
        "quantiser_cost:speed",
        "Speed",
        "CPU time, one thread, float32, as multiples of the floor: one addmm of "
        "[N, D] x [D, K], an argmin and a gather. Medians of rounds in which the "
        "method and the floor take turns. A step is forward, backward and codebook "
        "update. Bars: VectorQuantizer step 1.5, SpaceFillingVQ step and eval 6.",
    ),
    Section(
        "memory",
        "quantiser_cost:memory",
        "Memory",
        "Peak resident MiB beyond inputs, codebook and loaded libraries, N = 16384, "
        "D = 128, K = 4096, each in a process of its own; output and gradient count. "
        "Bar: 64.",
    ),
    Section(
        "speech",
        "quantiser_quality:speech",
        "Distortion of speech, K = 256",
        "80 log-Mel bands at 10 ms, normalised per utterance, speechocean762; squared "
        "error per band on the held-out speakers of test/, of codes fitted to those of "
        "train/ (less the validation speakers); mean over 3 seeds. Ratio to "
        "scikit-learn's MiniBatchKMeans(256, batch_size=4096, n_init=3). "
        "Bar: VectorQuantizer 1.01.",
    ),
    Section(
        "mixture",
        "quantiser_quality:mixture",
        "Codes in use on a mixture of 40 clusters, K = 256",
        "64 dimensions, centres from N(0, 9), clusters N(0, .09), 300 batches of 2000 "
        "frames, share of codes used on 100,000 others, mean over 3 seeds. "
        "Bar: VectorQuantizer .95.",
    ),
    Section(
        "geometry",
        "quantiser_geometry:geometry",
        "The curve of SpaceFillingVQ",
        "Worst of 3 seeds. The projection: 4096 frames and 256 corners from N(0, 1) in "
        "64 dimensions. Trainings: 1500 batches of 512 points; no tuning but for the "
        "length of growth, a tenth of them a stage.",
    ),
)


def markdown(section, result):
    """A section as Markdown."""
    rows = result["rows"]
    columns = list(rows[0])
    lines = [f"## {section.title}", "", section.note, ""]
    lines += [table_row(columns), "|---" * len(columns) + "|"]
    lines += [table_row(_cell(row.get(c)) for c in columns) for row in rows]
    lines += ["", f"{result['machine']}; `{result['command']}`", ""]
    return "\n".join(lines)


def _cell(value):
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main():
    """The command line."""
    names = [section.name for section in SECTIONS]
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data_folder", help="root of speechocean762")
    parser.add_argument("--cache", help="folder where frames are kept")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--quick", action="store_true", help="few and small, not kept")
    parser.add_argument("--output", type=Path, default=HERE / "quantisers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    kept = arguments.output.with_suffix(".json")
    results = json.loads(kept.read_text()) if kept.is_file() else {}
    for section in SECTIONS:
        if section.name not in arguments.only:
            continue
        print(f"{section.title} ...", file=sys.stderr, flush=True)
        rows = list(section.rows(arguments))
        results[section.name] = {
            "rows": rows,
            "machine": f"torch {torch.__version__}, {processor()}",
            "command": f"python benchmarks/quantisers.py --only {section.name}",
        }
        print(markdown(section, results[section.name]), flush=True)
        if arguments.quick:
            continue
        kept.write_text(json.dumps(results, indent=1))
        tables = [markdown(s, results[s.name]) for s in SECTIONS if s.name in results]
        head = (
            "# Quantisers\n\nMade by `python benchmarks/quantisers.py`; the order of "
            "the codebook is in [quantiser_order.md](quantiser_order.md).\n"
        )
        write_page(arguments.output.with_suffix(".md"), "\n".join([head, *tables]))


if __name__ == "__main__":
    main()
