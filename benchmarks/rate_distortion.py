#!/usr/bin/env python3
"""How large should the bottleneck be, and how well does it compress?

> python benchmarks/rate_distortion.py --data_folder D --recipes vae vqvae

trains every recipe at several sizes (``latent_size`` of continuous models,
``codebook_size`` of discrete ones), and draws the error of the reconstruction against
dimensions or bits a second, beside PCA and k-means of the same windows. The size is
chosen on validation speakers: the smallest after which the next one lowers the error
by less than 2 %. Runs that are done are kept; an interrupted sweep goes on.
"""

import argparse
import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import torch
from hyperpyyaml import resolve_references
from markdown_table import write_page
from ruamel.yaml import YAML
from sklearn.cluster import MiniBatchKMeans

from speechbrain_vae.dataio.feature_cache import open_features
from speechbrain_vae.dataio.manifests import read_manifests
from speechbrain_vae.lobes.features import LogMel
from speechbrain_vae.nnet.ppca import PPCA, windows
from speechbrain_vae.nnet.quantisers.nearest import nearest
from speechbrain_vae.pretraining import NormalisedFeatures

ROOT = Path(__file__).resolve().parents[1]
FRAME_SHIFT = 0.01
PCA_WINDOWS = (5, 20)
GAIN = 0.02


def parse_arguments(argv):
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--corpus", default="speechocean762")
    parser.add_argument("--data_folder", required=True)
    names = sorted(path.stem for path in (ROOT / "hparams").glob("*.yaml"))
    default = ["vae", "vqvae"]
    parser.add_argument("--recipes", nargs="+", choices=names, default=default)
    parser.add_argument("--latent_sizes", nargs="+", type=int, default=[8, 16, 32, 64])
    parser.add_argument(
        "--codebook_sizes", nargs="+", type=int, default=[32, 128, 512, 2048]
    )
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--runs", default="results/rate_distortion")
    parser.add_argument("--output", default=str(ROOT / "benchmarks/rate_distortion"))
    return parser.parse_args(argv)


def recipe_keys(recipe):
    """The keys of a recipe and their values."""
    with open(ROOT / "hparams" / f"{recipe}.yaml", encoding="utf-8") as file:
        return YAML().load(resolve_references(file))


def run(recipe, key, size, arguments):
    """Train one size, or read what the same call trained before; a row of the table."""
    recipe_file = ROOT / "hparams" / f"{recipe}.yaml"
    settings = [arguments.corpus, str(arguments.data_folder), recipe_file.read_text()]
    digest = hashlib.sha256("\n".join(settings).encode()).hexdigest()[:8]
    name = f"{recipe}-{key}-{size}-{arguments.epochs}-{digest}"
    folder = Path(arguments.runs) / name
    report = folder / "report.json"
    if not report.is_file():
        print(f"training {recipe} with {key} {size}", flush=True)
        command = [
            *(sys.executable, str(ROOT / "train.py")),
            str(recipe_file),
            *("--corpus", arguments.corpus, "--data_folder", arguments.data_folder),
            *("--output_folder", str(folder), f"--{key}", str(size)),
            *("--number_of_epochs", str(arguments.epochs)),
        ]
        subprocess.run(command, check=True)
    found = json.loads(report.read_text())
    discrete = key == "codebook_size"
    rate = 1 / found["frame_shift"]
    bits = found["test"]["nominal_bitrate"] if discrete else None
    error = "index_mse" if discrete else "reconstruction_mse"
    return {
        "model": recipe,
        "size": size,
        "rate": bits if discrete else found["latent_dim"] * rate,
        "unit": "bit/s" if discrete else "dims/s",
        "valid_mse": found["valid"][error],
        "test_mse": found["test"][error],
        "seconds": found["train"]["wall_seconds"],
        "entropy": found["test"]["entropy_bitrate"] if discrete else None,
        "run": folder.name,
    }


def choose(rows):
    """The smallest size after which the next gains less than :data:`GAIN`, or None."""
    rows = sorted(rows, key=lambda row: row["rate"])
    for row, larger in zip(rows, rows[1:], strict=False):
        if larger["valid_mse"] > (1 - GAIN) * row["valid_mse"]:
            return row
    return None


def references(manifests, codebook_sizes, latent_rates):
    """PCA and k-means of the training speakers' frames, tested on the others'."""
    features = LogMel()
    data = {}
    for split, entries in read_manifests(manifests).items():
        cached = open_features(entries, features, "results/feature_cache")
        data[split] = list(NormalisedFeatures(cached, entries, features))
    rows = []
    for width in PCA_WINDOWS:
        ppca = PPCA(width, data["train"])
        for rate in latent_rates:
            dims = max(1, round(rate * width * FRAME_SHIFT))
            rows.append(
                {
                    "model": f"PCA, {10 * width} ms",
                    "size": dims,
                    "rate": dims / (width * FRAME_SHIFT),
                    "unit": "dims/s",
                    "valid_mse": ppca.mse(data["valid"], dims),
                    "test_mse": ppca.mse(data["test"], dims),
                }
            )
    frames = {
        split: torch.cat([windows(x, 2) for x in items])
        for split, items in data.items()
    }
    for size in codebook_sizes:
        kmeans = MiniBatchKMeans(size, batch_size=8192, n_init=1, random_state=0)
        codes = torch.from_numpy(kmeans.fit(frames["train"].numpy()).cluster_centers_)
        error = {
            split: float(nearest(x, codes.float())[1].mean() / x.shape[1])
            for split, x in frames.items()
        }
        rows.append(
            {
                "model": "k-means, 20 ms",
                "size": size,
                "rate": math.log2(size) / (2 * FRAME_SHIFT),
                "unit": "bit/s",
                "valid_mse": error["valid"],
                "test_mse": error["test"],
            }
        )
    return rows


def draw(rows, path):
    """Error against rate, continuous and discrete models side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    units = [u for u in ("dims/s", "bit/s") if any(r["unit"] == u for r in rows)]
    axes = figure.subplots(1, len(units), squeeze=False)[0]
    names = {"dims/s": "Latent dimensions a second", "bit/s": "Bits a second"}
    for axis, unit in zip(axes, units, strict=True):
        of_unit = [row for row in rows if row["unit"] == unit]
        for number, model in enumerate(dict.fromkeys(row["model"] for row in of_unit)):
            points = sorted(
                (row["rate"], row["test_mse"])
                for row in of_unit
                if row["model"] == model
            )
            reference = "PCA" in model or "k-means" in model
            axis.plot(
                *zip(*points, strict=True),
                marker="osD^v<>"[number % 7],
                linestyle="--" if reference else "-",
                color="0.5" if reference else None,
                label=model,
            )
        rates = sorted({round(row["rate"]) for row in of_unit})
        axis.set_xscale("log")
        axis.set_xticks(rates, [f"{rate:,}" for rate in rates])
        axis.set_xticks([], minor=True)
        axis.set(
            xlabel=names[unit],
            ylabel="Mean squared error of a band\n(test speakers, variance is 1)",
        )
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=120)


def table(rows, chosen, arguments):
    """The rows as Markdown."""
    command = shell_command(arguments)
    lines = [
        "# Rate and distortion",
        "",
        f"{arguments.corpus}: trained on the training speakers, sizes chosen on the "
        "validation speakers, error on the test speakers; log-Mel frames of unit "
        f"variance, seed of the recipe, {arguments.epochs} epochs a model. Chosen is "
        f"the smallest size after which the next lowers the error by less than "
        f"{100 * GAIN:.0f} %; where none is, the largest that was tried still gains.",
        "",
        f"```\n{command}\n```",
        "",
        "| model | size | rate | entropy | valid MSE | test MSE | training |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda r: (r["unit"], r["model"], r["rate"])):
        mark = " (chosen)" if row in chosen else ""
        entropy = f"{row['entropy']:.0f} bit/s" if row.get("entropy") else ""
        seconds = f"{row['seconds']:.0f} s" if "seconds" in row else ""
        errors = f"{row['valid_mse']:.4f} | {row['test_mse']:.4f}"
        lines.append(
            f"| {row['model']}{mark} | {row['size']} | {row['rate']:.0f} {row['unit']} "
            f"| {entropy} | {errors} | {seconds} |"
        )
    figure = Path(arguments.output).with_suffix(".png").name
    return "\n".join([*lines, "", f"![Error against rate]({figure})", ""])


def shell_command(arguments):
    """The command that makes the table again."""
    return (
        f"python benchmarks/rate_distortion.py --corpus {arguments.corpus} "
        f"--data_folder D --recipes {' '.join(arguments.recipes)} "
        f"--latent_sizes {' '.join(map(str, arguments.latent_sizes))} "
        f"--codebook_sizes {' '.join(map(str, arguments.codebook_sizes))} "
        f"--epochs {arguments.epochs}"
    )


def main(argv):
    """Sweep, choose, draw, write."""
    arguments = parse_arguments(argv)
    rows, chosen = [], []
    for recipe in arguments.recipes:
        discrete = "codebook_size" in recipe_keys(recipe)
        key = "codebook_size" if discrete else "latent_size"
        sizes = arguments.codebook_sizes if discrete else arguments.latent_sizes
        found = [run(recipe, key, size, arguments) for size in sizes]
        rows += found
        chosen.append(choose(found))
    # Those of any run: all have one seed, and so one split.
    manifests = Path(arguments.runs) / rows[0]["run"] / "manifests"
    rates = [row["rate"] for row in rows if row["unit"] == "dims/s"]
    rows += references(manifests, arguments.codebook_sizes, sorted(set(rates)))
    output = Path(arguments.output)
    draw(rows, output.with_suffix(".png"))
    output.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    text = table(rows, chosen, arguments)
    write_page(output.with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
