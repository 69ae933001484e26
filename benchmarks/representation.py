#!/usr/bin/env python3
"""What a representation is good for: phones, words, speakers and digits.

> python benchmarks/representation.py --data_folder D --digits_folder F \
>     --features fbank mfcc_cmvn pca results/vae/1234/export

runs the downstream recipes on each representation, with a learning rate chosen on the
validation set for each, and writes a table, a JSON and a chart. ``EXPORT@LAYER`` is a
layer of an export ("encoder", "layers", "tokens"; its features by default), and
``NAME=EXPORT@LAYER`` what the table calls it. Pretraining never heard the test
speakers; no learning rate is chosen on them. What is done is kept; an interrupted
benchmark goes on, and the time that is left is told.
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from pathlib import Path

import representation_tasks as tasks
from markdown_table import write_page
from representation_table import draw, table

from speechbrain_vae.errors import one_line_errors

ROOT = Path(__file__).resolve().parents[1]


def parse_arguments(argv):
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--features", nargs="+", default=["fbank", "mfcc_cmvn", "pca"])
    parser.add_argument("--corpus", default="speechocean762")
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--digits_folder", help="of FSDD; without it no digits")
    parser.add_argument(
        "--tasks", nargs="+", choices=list(tasks.TASKS), help="default: the budget's"
    )
    parser.add_argument("--budget", default="small", choices=list(tasks.BUDGETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--runs", default="results/representation")
    parser.add_argument(
        "--table", action="store_true", help="write the table of what is done, and stop"
    )
    parser.add_argument("--output", default=str(ROOT / "benchmarks/representation"))
    arguments = parser.parse_args(argv)
    of_budget = tasks.BUDGETS[arguments.budget]
    arguments.tasks = arguments.tasks or list(of_budget)
    for task in arguments.tasks:
        if task not in of_budget:
            parser.error(f"{task} is no task of --budget {arguments.budget}")
    return arguments


def results(feature, task, setup, arguments):
    """File of the results of a task on a feature."""
    seeds = ".".join(map(str, arguments.seeds))
    return setup.folder(feature) / f"{task}-{arguments.budget}-{seeds}.json"


def measure(task, feature, setup, arguments):
    """Results of a task on a feature, from an earlier call where there are any."""
    path = results(feature, task, setup, arguments)
    if path.is_file():
        return json.loads(path.read_text())
    log = path.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(log, "a", encoding="utf-8") as out,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
    ):
        run = Kept(
            tasks.TASKS[task](setup, feature, arguments.budget),
            path.with_name(f"{task}-{arguments.budget}"),
        )
        result = sweep(run, arguments) | run.seconds()
    path.write_text(json.dumps(result, indent=1) + "\n")
    return result


class Kept:
    """Results of the runs of a task, each kept as soon as it is there.

    Arguments
    ---------
    run : callable
        Of a learning rate and a seed, see :func:`sweep`.
    folder : Path
        Where the results are kept; an interrupted sweep goes on from them.
    """

    def __init__(self, run, folder):
        self.run, self.folder, self.rates = run, folder, run.rates

    def __call__(self, rate, seed):
        path = self.folder / f"{rate}-{seed}.json"
        if not path.is_file():
            wall, cpu = time.monotonic(), time.process_time()
            found = self.run(rate, seed)
            seconds = {
                "seconds": time.monotonic() - wall,
                "cpu_seconds": time.process_time() - cpu,
            }
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".part")
            partial.write_text(json.dumps({"found": found, **seconds}))
            partial.replace(path)
        return json.loads(path.read_text())["found"]

    def seconds(self):
        """Wall and CPU seconds of all runs together."""
        runs = [json.loads(path.read_text()) for path in self.folder.glob("*.json")]
        return {k: sum(one[k] for one in runs) for k in ("seconds", "cpu_seconds")}


def sweep(run, arguments):
    """Choose the learning rate by the validation set alone, and run every seed with it.

    Arguments
    ---------
    run : callable
        Of a learning rate and a seed; gives numbers of the test by name, and
        ``valid``, the lower the better. Its ``rates`` are the grid.
    arguments : argparse.Namespace

    Returns
    -------
    dict
        ``mean`` and ``spread`` (standard deviation over seeds) of every number of the
        test, the chosen ``rate`` and the ``grid`` of validation results.
    """
    first, *others = arguments.seeds
    grid = {rate: run(rate, first) for rate in run.rates}
    rate = min(grid, key=lambda one: grid[one]["valid"])
    found = [grid[rate], *(run(rate, seed) for seed in others)]
    names = [name for name in found[0] if name != "valid"]
    values = {name: [one[name] for one in found] for name in names}
    return {
        "mean": {name: statistics.mean(v) for name, v in values.items()},
        "spread": {
            name: statistics.stdev(v) if len(v) > 1 else 0.0
            for name, v in values.items()
        },
        "rate": rate,
        "grid": {str(key): one["valid"] for key, one in grid.items()},
    }


def main(argv):
    """Measure every task on every feature, and write the table."""
    arguments = parse_arguments(argv)
    chosen = [
        task for task in arguments.tasks if task != "digits" or arguments.digits_folder
    ]
    with one_line_errors():
        setup = tasks.Setup(arguments)
        facts = {feature: setup.facts(feature) for feature in arguments.features}
    pairs = [(feature, task) for feature in arguments.features for task in chosen]
    rows, spent = {}, {}
    if arguments.table:
        pairs = [pair for pair in pairs if results(*pair, setup, arguments).is_file()]
    for number, (feature, task) in enumerate(pairs):
        left = sum(
            spent.get(t, tasks.BUDGETS[arguments.budget][t]) for _, t in pairs[number:]
        )
        print(
            f"[{number + 1}/{len(pairs)}] {setup.name(feature)}: {task} "
            f"(about {left / 60:.0f} minutes left)",
            flush=True,
        )
        result = measure(task, feature, setup, arguments)
        spent[task] = result["seconds"]
        for name in result["mean"]:
            mean, spread = result["mean"][name], result["spread"][name]
            print(f"    {name}: {mean:.2f} +- {spread:.2f}", flush=True)
        rows.setdefault(setup.name(feature), facts[feature])[task] = result
    output = Path(arguments.output)
    output.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    write_page(output.with_suffix(".md"), table(rows, arguments))
    draw(rows, output.with_suffix(".png"))
    print(f"Wrote {output}.md, .json and .png")


if __name__ == "__main__":
    main(sys.argv[1:])
