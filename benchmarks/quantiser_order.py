"""Order of a codebook at equal distortion: does a small step of the index mean a small
step in the data?

    python benchmarks/quantiser_order.py --data_folder ../shared/data/speechocean762

80 log-Mel bands at 10 ms, normalised per utterance, of 10 speakers spread evenly over
those that are not test speakers; the last fifth of each speaker's utterances is held
out. Means over seeds. Prints a Markdown table; --output also writes the rows as JSON.

- mse: to the nearest code, per band; ratio: over that of k-means
- curve: to the nearest point of the curve
- adjacent: mean distance of neighbouring codes over that of random pairs
- spearman: rank correlation of index distance and distance of codes, over pairs
- topo: share of frames whose two nearest codes are no neighbours (topographic error)
- jump: mean |i_t - i_t+1| over that of random pairs of frames
"""

import argparse
import json
import re
import time
from pathlib import Path

import torch
from frames import load_frames
from markdown_table import table_row
from sklearn.cluster import KMeans

from speechbrain_vae.analysis.codebook_order import (
    neighbour_ratio,
    order_correlation,
    tour,
)
from speechbrain_vae.nnet.quantisers import SFDiVeQ, SpaceFillingVQ
from speechbrain_vae.nnet.quantisers.curve import project
from speechbrain_vae.nnet.quantisers.line_som import line_som
from speechbrain_vae.nnet.quantisers.nearest import score_blocks
from speechbrain_vae.nnet.quantisers.space_filling import mean_jump
from speechbrain_vae.nnet.quantisers.usage import perplexity

COLUMNS = (
    "mse",
    "ratio",
    "curve",
    "perplexity",
    "adjacent",
    "spearman",
    "topo",
    "jump",
)


def order_split(splits, speakers=10):
    """Fitting and held-out frames of some speakers: ([N, 80], [M, 80]).

    From the training and validation speakers together, evenly in the order of their
    names; of the test speakers none.
    """
    pairs = [
        pair
        for name in ("train", "valid")
        for pair in zip(
            splits[name].speakers,
            splits[name].features.split(splits[name].counts),
            strict=True,
        )
    ]
    names = sorted({speaker for speaker, _ in pairs})
    step = max(len(names) // speakers, 1)
    train, held_out = [], []
    for name in names[::step][:speakers]:
        own = [utterance for speaker, utterance in pairs if speaker == name]
        cut = int(0.8 * len(own))
        train += own[:cut]
        held_out += own[cut:]
    return torch.cat(train), torch.cat(held_out)


def measure(x, codes):
    """Columns of the table for frames [N, D], in order of time, and codes [K, D]."""
    best = torch.empty(len(x), 2, dtype=torch.long)
    for rows, _, scores in score_blocks(x, codes):
        best[rows] = scores.topk(2, 1, largest=False).indices
    indices = best[:, 0]
    counts = torch.bincount(indices, minlength=len(codes)).double()
    return {
        "mse": float((x - codes[indices]).square().mean()),
        "curve": float((x - project(x, codes)[2]).square().mean()),
        "perplexity": float(perplexity(counts)),
        "adjacent": neighbour_ratio(codes),
        "spearman": order_correlation(codes),
        "topo": float((best.diff(dim=1).abs() != 1).double().mean()),
        "jump": float(mean_jump(indices)),
    }


def kmeans_codes(x, size, seed):
    """scikit-learn's k-means, in no order."""
    model = KMeans(size, n_init=1, max_iter=40, random_state=seed).fit(x.numpy())
    return torch.from_numpy(model.cluster_centers_).float()


def toured(codes):
    """Codes in the order of a short tour."""
    return codes[tour(codes)]


def train_curve(quantiser, x, steps, batch, rate, seed):
    """Corners after training a curve quantiser on frames [N, D] by Adam.

    The learning rate falls linearly to a fiftieth over the last 60 % of the steps.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(quantiser.parameters(), lr=rate)
    for step in range(steps):
        share = min(1.0, max(0.02, (1 - step / steps) / 0.6))
        optimiser.param_groups[0]["lr"] = rate * share
        chosen = torch.randint(len(x), (batch,), generator=generator)
        loss = quantiser(x[chosen][None]).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return quantiser.codebook.corners.detach()


def diveq_reference(x, size, steps, batch, rate, seed):
    """Codebook of the ``diveq`` package's SF-DiVeQ, its own start."""
    from diveq import SFDIVEQ

    skip = 20
    model = SFDIVEQ(
        size, x.shape[1], skip_iters=skip, avg_iters=skip - 1, allow_warning=False
    )
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    for step in range(steps + skip):
        chosen = torch.randint(len(x), (batch,), generator=generator)
        loss = (model(x[chosen])[0] - x[chosen]).square().mean()
        optimiser.param_groups[0]["lr"] = rate * min(
            1.0, max(0.02, (1 - step / (steps + skip)) / 0.6)
        )
        if step >= skip:
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.codebook.detach()


def methods(size, quick=False):
    """Name to a function from frames and a seed to codes."""
    steps = 300 if quick else 2000
    run = {"steps": steps, "batch": 4096, "rate": 1e-2}

    def curve(tension, growth_steps=0, cls=SpaceFillingVQ):
        def fit(x, seed):
            quantiser = cls(
                x.shape[1], size, growth_steps=growth_steps, tension=tension
            )
            return train_curve(quantiser, x, **run, seed=seed)

        return fit

    def som(width):
        return lambda x, seed: line_som(x, size, width=width)

    return {
        "k-means": lambda x, seed: kmeans_codes(x, size, seed),
        "k-means, tour": lambda x, seed: toured(kmeans_codes(x, size, seed)),
        "line SOM .35": som(0.35),
        "line SOM .5": som(0.5),
        "line SOM .7": som(0.7),
        "SF-DiVeQ, diveq package": lambda x, seed: diveq_reference(
            x, size, **run, seed=seed
        ),
        "SFDiVeQ": curve(0.75, cls=SFDiVeQ),
        "SpaceFillingVQ, tension 0": curve(0.0),
        "SpaceFillingVQ, tension .5": curve(0.5),
        "SpaceFillingVQ": curve(0.75),
        "SpaceFillingVQ, tension 1": curve(1.0),
        "SpaceFillingVQ, grown": curve(0.75, growth_steps=steps // 16),
    }


DETERMINISTIC = ("line SOM .35", "line SOM .5", "line SOM .7")


def order_rows(splits, size=256, seeds=3, only=None, quick=False):
    """Rows of the table, means over seeds.

    Arguments
    ---------
    splits : dict of str to Frames
        From ``load_frames``.
    size : int
        Codes K.
    seeds : int
        Seeds of the methods that have one.
    only : str, optional
        Leave out the methods whose name does not match this regular
        expression, k-means excepted.
    quick : bool
        A tenth of the training, to see that it runs.

    Yields
    ------
    dict
        ``method``, the columns, ``cpu_seconds``, and ``topo_seeds``.
    """
    train, held_out = order_split(splits)
    base = []
    for name, fit in methods(size, quick).items():
        if only and not re.search(only, name) and name != "k-means":
            continue
        results, seconds = [], []
        for seed in range(1 if name in DETERMINISTIC else seeds):
            torch.manual_seed(seed)
            begin = time.process_time()
            codes = fit(train, seed)
            seconds.append(time.process_time() - begin)
            results.append(measure(held_out, codes))
            if name == "k-means":
                base.append(results[-1]["mse"])
        for result in results:
            result["ratio"] = result["mse"] * len(base) / sum(base)
        yield {
            "method": name,
            **{c: sum(r[c] for r in results) / len(results) for c in COLUMNS},
            "cpu_seconds": sum(seconds) / len(seconds),
            "mse_seeds": [round(r["mse"], 4) for r in results],
            "topo_seeds": [round(r["topo"], 3) for r in results],
        }


def markdown(rows):
    """The rows as a Markdown table; printed while they come."""
    columns = ("method", *COLUMNS, "cpu_seconds")
    yield table_row(columns)
    yield "|---" * len(columns) + "|"
    for row in rows:
        cells = [row["method"]]
        for column in columns[1:]:
            digits = {"mse": 4, "curve": 4, "perplexity": 0, "cpu_seconds": 0}
            cells.append(f"{row[column]:.{digits.get(column, 3)}f}")
        yield table_row(cells)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data_folder", help="root of speechocean762")
    parser.add_argument("--size", type=int, default=256, help="codes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="regular expression of method names")
    parser.add_argument("--quick", action="store_true", help="a tenth of the training")
    parser.add_argument("--output", type=Path, help="JSON file for the rows")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    splits = load_frames(arguments.data_folder)
    rows = []

    def kept():
        for row in order_rows(
            splits, arguments.size, arguments.seeds, arguments.only, arguments.quick
        ):
            rows.append(row)
            yield row

    for line in markdown(kept()):
        print(line, flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
