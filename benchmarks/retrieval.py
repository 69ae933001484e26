#!/usr/bin/env python3
"""Which utterances contain a spoken word? Query by example on frames alone.

> python benchmarks/retrieval.py --data_folder D \
>     --features mfcc_cmvn fbank_cmvn results/predictive_vae/1234/export@encoder

ranks the utterances of the other speakers for every word that is said at least five
times, chooses the normalisation of each representation on the validation speakers and
writes what it gives on the test speakers. ``EXPORT@LAYER`` is a layer of an export, its
features by default; ``NAME=EXPORT@LAYER`` what the table calls it.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from markdown_table import write_page

from speechbrain_vae.analysis.retrieval import retrieval_scores
from speechbrain_vae.analysis.word_search import WordSearch, spoken_words
from speechbrain_vae.dataio.manifests import read_manifests
from speechbrain_vae.dataio.prepare import prepare
from speechbrain_vae.errors import one_line_errors
from speechbrain_vae.lobes.front_ends import FrontEnd

ROOT = Path(__file__).resolve().parents[1]

SHRINKAGES = (0.1, 0.3, 1.0)
CHOICES = (("none", 0.0), ("utterance", 0.0)) + tuple(
    (name, shrinkage) for name in ("whitened", "speaker") for shrinkage in SHRINKAGES
)
"""Normalisations of the frames, and shrinkage, among which the validation chooses."""


def parse_arguments(argv):
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--features", nargs="+", default=["mfcc_cmvn", "fbank_cmvn"])
    parser.add_argument("--corpus", default="speechocean762")
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--queries", type=int, default=10, help="of one word, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of queries")
    parser.add_argument("--runs", default="results/retrieval")
    parser.add_argument("--output", default=str(ROOT / "benchmarks/retrieval"))
    return parser.parse_args(argv)


def measure(feature, entries, arguments):
    """Choose the normalisation on valid, and score the test with it."""
    source, _, layer = feature.split("=", 1)[-1].partition("@")
    front_end = FrontEnd(source, layer or "features")
    row = {"size": front_end.size, "frame_shift": front_end.frame_shift}
    begin = time.process_time()
    found = {
        choice: score(front_end, entries["valid"], choice, arguments)["others"]["MAP"]
        for choice in CHOICES
    }
    chosen = max(found, key=found.get)
    row["valid"] = {_named(choice): found[choice] for choice in CHOICES}
    row["normalisation"] = _named(chosen)
    row["test"] = score(front_end, entries["test"], chosen, arguments)
    row["cpu_seconds"] = time.process_time() - begin
    return row


def _named(choice):
    name, shrinkage = choice
    return f"{name}, {shrinkage}" if shrinkage else name


def score(front_end, entries, choice, arguments):
    """Scores among other speakers' utterances, and among everybody's."""
    cached = front_end.open(entries, Path(arguments.runs) / "cache")
    search = WordSearch(
        {utt: cached[utt] for utt in entries},
        front_end.frame_shift,
        front_end.first_frame,
        *choice,
        speakers={utt: entry["spk_id"] for utt, entry in entries.items()},
    )
    words = spoken_words(entries, most=arguments.queries, seed=arguments.seed)
    return {
        "others": retrieval_scores(search, words, entries),
        "all": retrieval_scores(search, words, entries, same_speaker=True),
    }


def interval(words, others, draws=4000):
    """What 95 % of bootstrap samples of words say of the difference of two MAPs.

    Arguments
    ---------
    words, others : dict of str to float
        Average precision of each word.
    draws : int

    Returns
    -------
    tuple of float
        Its lower and its upper end, of ``words`` less ``others``.
    """
    differences = np.array([words[word] - others[word] for word in others])
    rng = np.random.default_rng(0)
    samples = rng.choice(differences, (draws, len(differences))).mean(1)
    return tuple(np.percentile(samples, [2.5, 97.5]))


def table(rows, arguments):
    """The results as Markdown."""
    first = next(iter(rows.values()))["test"]
    options = " ".join(f'"{f}"' if " " in f else f for f in arguments.features)
    lines = [
        "# Retrieval: query by example",
        "",
        f"**Task.** {arguments.corpus}. A word is cut out of an utterance at the times "
        "of the alignment; utterances are ranked by subsequence DTW of its frames "
        "(angular distance), the nearest first. Words that are said at least five "
        f"times in the split, at most {arguments.queries} queries of each: "
        f"{first['others']['queries']} queries of {len(first['others']['words'])} "
        "words on the test speakers. The query's own utterance is never ranked, in the "
        "main columns nor are those of its speaker. Mean average precision (MAP) and "
        "precision of the first N, where N utterances have the word (P@N), in percent: "
        "means over the queries of a word, then over words. How frames are normalised "
        "is chosen on the validation speakers, for each representation: not at all, to "
        "zero mean and unit variance over the utterance, or to zero mean over the "
        "utterance and then decorrelated over all utterances (whitened) or over those "
        "of each speaker (speaker), with so much of the mean variance added to every "
        f"direction: {', '.join(map(str, SHRINKAGES))}. Neither "
        "training nor choice heard the test speakers; a frame outside the word is "
        "never compared, but recurrent and convolutional features have seen it. The "
        "difference is that of MAP, test, from the first row's: 95 % of bootstrap "
        "samples of words.",
        "",
        "```",
        f"python benchmarks/retrieval.py --data_folder D --queries {arguments.queries} "
        f"\\\n    --features {options}",
        "```",
        "",
        "| representation | size | ms | normalisation | MAP, valid | **MAP, test** "
        "| difference | P@N, test | MAP, any speaker | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        others, everybody = row["test"]["others"], row["test"]["all"]
        low, high = interval(others["words"], first["others"]["words"])
        lines.append(
            f"| {name} | {row['size']} | {1000 * row['frame_shift']:.0f} "
            f"| {row['normalisation']} | {row['valid'][row['normalisation']]:.1f} "
            f"| **{others['MAP']:.1f}** | {low:.1f} to {high:.1f} "
            f"| {others['P@N']:.1f} "
            f"| {everybody['MAP']:.1f} | {row['cpu_seconds']:.0f} |"
        )
    others, everybody = first["others"], first["all"]
    lines.append(
        f"| order by chance | | | | | {others['chance']:.1f} | "
        f"| {others['chance_P@N']:.1f} | {everybody['chance']:.1f} | |\n"
    )
    return "\n".join(lines)


def main(argv):
    """Measure every representation, and write the table."""
    arguments = parse_arguments(argv)
    with one_line_errors():
        folder = Path(arguments.runs) / "manifests"
        prepare(arguments.corpus, arguments.data_folder, folder)
        entries = read_manifests(folder, ("valid", "test"))
        rows = {}
        for feature in arguments.features:
            name = feature.split("=", 1)[0]
            rows[name] = measure(feature, entries, arguments)
            scores = rows[name]["test"]["others"]
            print(f"{name}: MAP {scores['MAP']:.2f}", flush=True)
        output = Path(arguments.output)
        output.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
        write_page(output.with_suffix(".md"), table(rows, arguments))
    print(f"Wrote {output}.md and .json")


if __name__ == "__main__":
    main(sys.argv[1:])
