"""Does the index of a space-filling codebook mean something, and what does that cost?

    python benchmarks/interpretability.py EXPORT ... --data_folder D

The encoder of each export is frozen, and codebooks of one size are fitted to what it
gives on training speakers, before any quantiser of its own; everything is measured on
speakers that took no part, unless --split says train. An SFVQ that was trained together
with the encoder is shown beside them where it has as many codes. Means over seeds.
Prints a Markdown table of each encoder and how it stands with the bars; --output also
writes every number as JSON.

- jump: mean |i_t - i_t+1| / K; relative: over that of frames in random order
- nmi: of codes and phones, silence among them; speech nmi: without
- purity: phone purity; error: squared, to the nearest code, over that of VQ
- similar, p: earth mover's distance of f-v, th-dh, s-z and sh-zh along the codes, over
  that of random pairs; p of its permutation test, and of that among fricatives alone,
  the largest of the seeds. Pairs with too few frames are left out, and named
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from frames import DATA_FOLDER
from markdown_table import table_row
from quantiser_order import train_curve

from speechbrain_vae.analysis.code_statistics import code_counts, similar_pairs_test
from speechbrain_vae.analysis.codebook_order import order_of, tour
from speechbrain_vae.analysis.codes import measure as measure_phones
from speechbrain_vae.analysis.codes import phone_distances
from speechbrain_vae.analysis.context import AnalysisContext, open_entries
from speechbrain_vae.errors import one_line_errors
from speechbrain_vae.nnet.quantisers import SpaceFillingVQ, VectorQuantizer

COLUMNS = (
    "jump",
    "relative",
    "neighbours",
    "spearman",
    "error",
    "nmi",
    "speech nmi",
    "purity",
    "similar",
    "p",
    "fricatives p",
)
STEPS, BATCH = 1500, 2048
JOINT = "SFVQ, trained with the encoder"


def fit(x, size, seed):
    """Fitted quantisers of frames [N, D]: VQ, its codes on a tour, and SFVQ.

    Returns
    -------
    dict of str to tuple
        Codes [K, D] and a function from frames [N, D] to their indices.
    """
    torch.manual_seed(seed)
    vq = VectorQuantizer(x.shape[1], size, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        vq(x[torch.randint(len(x), (1, BATCH), generator=generator)])
    curve = SpaceFillingVQ(x.shape[1], size, growth_steps=STEPS // 16)
    train_curve(curve, x, STEPS, BATCH, rate=1e-2, seed=seed)
    codes = vq.codebook.weight.detach()
    # k-means++ begins in the densest region: shuffled, so that no order is left.
    shuffled = codes[torch.randperm(size, generator=generator)]
    toured = codes[tour(codes)]

    def nearest(book):
        return lambda frames: torch.cdist(frames, book).argmin(1)

    return {
        "VQ": (shuffled, nearest(shuffled)),
        "VQ + tour": (toured, nearest(toured)),
        "SFVQ": (curve.codebook.corners.detach(), along(curve)),
    }


def along(curve):
    """What gives frames [T, D] their indices [T] on a curve."""
    curve.eval()
    return lambda frames: curve(frames[None]).indices[0, :, 0]


def evaluate(codes, assign, frames, phones):
    """Columns of the table for one codebook.

    Arguments
    ---------
    codes : torch.Tensor
        Shape [K, D].
    assign : callable
        From frames [T, D] to indices [T].
    frames : list of torch.Tensor
        Of each utterance, shape [T, D].
    phones : list of list of str
        Phone of each frame.

    Returns
    -------
    dict
    """
    sequences = [assign(x) for x in frames]
    order = order_of(codes, sequences, frames)
    names, counts = code_counts(
        [phone for utterance in phones for phone in utterance],
        torch.cat(sequences).numpy(),
        len(codes),
    )
    tell = measure_phones(names, counts)
    similar = tell["similar"]
    return {
        "jump": order["index_jump"],
        "relative": order["relative_jump"],
        "neighbours": order["neighbour_ratio"],
        "spearman": order["spearman"],
        "error": order["distortion"],
        "nmi": tell["all"]["nmi"],
        "speech nmi": tell["speech"]["nmi"],
        "purity": tell["all"]["phone_purity"],
        "similar": similar["mean"] / similar["random_mean"],
        "p": similar["p"],
        "fricatives p": tell["fricatives"]["p"],
        "pairs": similar["pairs"],
        "pairs left out": similar["left_out"],
        "pnmi": tell["all"]["pnmi"],
        "used": tell["all"]["used_codes"],
        "counts": (names, counts),
    }


def similar_in_all(counted):
    """The test of similar phones for several encoders together.

    Their distances, each over its mean, are averaged: a permutation gives the pairs
    the same other phones in all of them.

    Arguments
    ---------
    counted : list of tuple
        Of each encoder, phones and how often each had each code; the same phones.

    Returns
    -------
    dict
        See ``similar_pairs_test``.
    """
    found = [phone_distances(*each) for each in counted]
    distances = [each / each.mean() for _, each in found]
    return similar_pairs_test(found[0][0], np.mean(distances, axis=0))


def encoder_rows(source, train, test, size, seeds):
    """Rows of the table of one encoder, means over seeds.

    Arguments
    ---------
    source : str
        An export.
    train, test : dict of str to dict
        Entries to fit to and to measure on.
    size : int
        Codes K.
    seeds : int

    Returns
    -------
    dict of str to dict
    """
    fitting = AnalysisContext(source, train)
    x = torch.cat([fitting[utt].before for utt in train])
    context = AnalysisContext(source, test)
    frames = [context[utt].before for utt in context.phone_times]
    phones = [context.phones(utt) for utt in context.phone_times]
    runs = {}
    for seed in range(seeds):
        for name, book in fit(x, size, seed).items():
            runs.setdefault(name, []).append(evaluate(*book, frames, phones))
    if isinstance(context.quantiser, SpaceFillingVQ) and len(context.codebook) == size:
        own = context.codebook, along(context.quantiser)
        runs[JOINT] = [evaluate(*own, frames, phones)]
    rows = {}
    for name, results in runs.items():
        mean = {c: sum(r[c] for r in results) / len(results) for c in COLUMNS}
        for p in ("p", "fricatives p"):
            mean[p] = max(result[p] for result in results)
        rows[name] = {**mean, "seeds": results}
    base = rows["VQ"]["error"]
    for row in rows.values():
        row["error"] /= base
    return rows


def bars(rows, name):
    """How one SFVQ stands with each bar."""
    sfvq, vq, toured = (rows[row] for row in (name, "VQ", "VQ + tour"))
    return {
        "jump of VQ / SFVQ, at least 3": vq["jump"] / sfvq["jump"],
        "jump of VQ + tour / SFVQ, above 1": toured["jump"] / sfvq["jump"],
        "nmi of SFVQ / VQ, at least 0.95": sfvq["nmi"] / vq["nmi"],
        "speech nmi of SFVQ / VQ": sfvq["speech nmi"] / vq["speech nmi"],
        "similar phones: largest p, below 0.01": sfvq["p"],
        "the same among fricatives": sfvq["fricatives p"],
    }


def markdown(rows):
    """The rows as a Markdown table."""
    lines = [table_row(("codebook", *COLUMNS)), "|---" * (len(COLUMNS) + 1) + "|"]
    for name, row in rows.items():
        lines.append(table_row((name, *(f"{row[c]:.3g}" for c in COLUMNS))))
    return "\n".join(lines)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("exports", nargs="+", help="whose encoders to use")
    parser.add_argument("--data_folder", default=DATA_FOLDER, help="speechocean762")
    parser.add_argument("--codes", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--split",
        default="test",
        choices=("train", "valid", "test"),
        help="to measure on; the others are there to choose settings by",
    )
    parser.add_argument(
        "--split_seed",
        type=int,
        default=1234,
        help="that the encoders were trained with: it chose the validation speakers",
    )
    parser.add_argument(
        "--utterances",
        type=int,
        help="of the training set, of all speakers alike; all by default",
    )
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    numbers, counted = {}, []
    with one_line_errors(), tempfile.TemporaryDirectory() as folder:
        where = "speechocean762", arguments.data_folder, folder
        seed = arguments.split_seed
        limit = arguments.utterances
        train = open_entries(*where, split="train", limit=limit, seed=seed)
        test = train
        if arguments.split != "train":
            test = open_entries(*where, split=arguments.split, seed=seed)
        for source in arguments.exports:
            rows = encoder_rows(source, train, test, arguments.codes, arguments.seeds)
            for name, row in rows.items():
                found = [result.pop("counts") for result in row["seeds"]]
                if name == JOINT:
                    counted += found
            reached = {name: bars(rows, name) for name in rows if "SFVQ" in name}
            numbers[source] = {"rows": rows, "bars": reached}
            print(f"\n## Encoder of {source}\n\n{markdown(rows)}\n", flush=True)
            missing = rows["VQ"]["seeds"][0]["pairs left out"]
            print(f"- pairs left out: {', '.join(missing) or 'none'}", flush=True)
            for name, values in reached.items():
                for bar, value in values.items():
                    print(f"- {name}: {bar}: {value:.3g}", flush=True)
    if len(counted) > 1:
        found = similar_in_all(counted)
        print(f"\nSimilar phones in all {JOINT}: p {found['p']:.3g}")
        numbers["all"] = {"similar": found}
    if arguments.output:
        arguments.output.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
