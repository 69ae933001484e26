#!/usr/bin/env python3
"""What low precision of the encoder costs in phone error rate.

> python benchmarks/low_precision.py results/predictive_vae/1234/export \
>     --corpus speechocean762 --data_folder D

The linear CTC probe of recipes/PhoneRecognition is trained on features in fp32 and
tested on those of every precision. Prints a line for each, and writes --out.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from loading import RECIPES, load_recipe
from markdown_table import write_page

from speechbrain_vae.dataio.feature_cache import ComputedFeatures
from speechbrain_vae.dataio.manifests import read_manifests
from speechbrain_vae.dataio.prepare import prepare
from speechbrain_vae.downstream import labelled
from speechbrain_vae.errors import one_line_errors
from speechbrain_vae.inference.precision import PRECISIONS, lower_precision
from speechbrain_vae.lobes.front_ends import FrontEnd


def front_end_at(export, layer, precision):
    """The front end of an export, frozen, at a precision."""
    front_end = FrontEnd(export, layer)
    encoder = front_end.source.encoder
    encoder.autoencoder = lower_precision(encoder.autoencoder, precision)
    encoder.precision = precision
    return front_end


class TestedAt:
    """Opens the features of a front end; those of the test set at a precision.

    Arguments
    ---------
    front_end : FrontEnd
        Of full precision.
    low : FrontEnd
        The same at the precision.
    test : dict
        Entries of the test set.
    """

    def __init__(self, front_end, low, test):
        self.open_full, self.low, self.test = front_end.open, low, test

    def __call__(self, entries, cache=None, workers=0):
        """As ``FrontEnd.open``."""
        if entries is self.test:
            return ComputedFeatures(entries, self.low)
        return self.open_full(entries, cache, workers)


def phone_error_rates(args, work):
    """PER of the test set at every precision, and how near the features are."""
    recipe = load_recipe("PhoneRecognition")
    prepare(args.corpus, args.data_folder, work / "manifests")
    entries = labelled(read_manifests(work / "manifests"), "phones")
    reference = ComputedFeatures(
        entries["test"], front_end_at(args.export, args.layer, "fp32")
    )
    rows = []
    for precision in PRECISIONS:
        low = front_end_at(args.export, args.layer, precision)
        given = {"features": args.export, "layer": args.layer, "data_folder": "-"}
        given |= {"output_folder": str(work / "run"), "number_of_epochs": args.epochs}
        given |= {"feature_cache": str(work / "cache")}
        text = (RECIPES / "PhoneRecognition/hparams/linear.yaml").read_text()
        hparams = load_hyperpyyaml(text, given)
        # The first trains; the others find that done, and test.
        opened = TestedAt(hparams["front_end"], low, entries["test"])
        hparams["front_end"].open = opened
        results = recipe.run(hparams, {"device": "cpu", "noprogressbar": True}, entries)
        computed = ComputedFeatures(entries["test"], low)
        near = [
            torch.cosine_similarity(computed[utt], reference[utt], dim=-1).mean()
            for utt in list(entries["test"])[:20]
        ]
        rows.append(
            {
                "precision": precision,
                "per": results["test.PER"],
                "cosine": float(torch.stack(near).mean()),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def table(args, rows):
    """Markdown of the rows."""
    return "\n".join(
        [
            "# Low precision",
            "",
            f"Layer `{args.layer}` of an export: the linear CTC probe, trained for "
            f"{args.epochs} epochs on "
            "features in fp32, on test features of each precision; and the cosine of "
            "features and those in fp32, mean over frames of 20 test utterances. "
            "Speeds are in [throughput.md](throughput.md).",
            "",
            "```",
            f"python benchmarks/low_precision.py {args.export} --layer {args.layer} "
            f"--corpus {args.corpus} --data_folder D --epochs {args.epochs}",
            "```",
            "",
            "| precision | PER | cosine |",
            "|---|---|---|",
            *(
                f"| {row['precision']} | {row['per']:.2f} | {row['cosine']:.5f} |"
                for row in rows
            ),
            "",
        ]
    )


def main():
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export")
    parser.add_argument("--layer", default="encoder")
    parser.add_argument("--corpus", default="speechocean762")
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--out", default=Path(__file__).parent / "low_precision.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, one_line_errors():
        rows = phone_error_rates(args, Path(folder))
    write_page(args.out, table(args, rows))


if __name__ == "__main__":
    main()
