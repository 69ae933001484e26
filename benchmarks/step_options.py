"""What a training step keeps and takes: plain, with activation checkpointing, compiled.

    OMP_NUM_THREADS=1 python benchmarks/step_options.py

Writes benchmarks/step_options.md. Frames are noise: neither memory nor time depends on
what they are.
"""

import argparse
import functools
import tempfile
import time
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from machine import processor
from markdown_table import table_row
from throughput_measures import Trainer, medians_in_turn

from speechbrain_vae.nnet.recomputation import recompute_activations
from speechbrain_vae.pretraining import fast_cpu_steps

ROOT = Path(__file__).resolve().parents[1]
UTTERANCES = 6

HEAD = """# Options of a training step

`OMP_NUM_THREADS=1 python benchmarks/step_options.py` on one thread of {cpu}, torch
{torch}: batches of {utterances} utterances, as long together as the recipe's. *Kept*
is what a forward pass leaves for the backward pass, beside the weights; the step is the
median of calls that take turns; compiled is with `torch.compile`, for one shape.

| model | step | kept, MB | ms | first call, s |
|---|---|---|---|---|"""


class Frames:
    """A batch as the loaders of train.py give it."""

    def __init__(self, seconds, size):
        frames = round(100 * seconds / UTTERANCES)
        self.feats = torch.randn(UTTERANCES, frames, size), torch.ones(UTTERANCES)

    def to(self, device):
        """Itself: the CPU is the only device here."""
        return self


def trainer_of(name, change):
    """A trainer of a recipe whose autoencoder was changed, and a batch for it."""
    text = (ROOT / "hparams" / f"{name}.yaml").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        hparams = load_hyperpyyaml(text, {"output_folder": folder})
    features = hparams["features"]
    if features.needs_statistics:
        features.set_statistics(torch.zeros(features.size), torch.ones(features.size))
    hparams["autoencoder"] = change(hparams["autoencoder"])
    return Trainer(hparams, "cpu"), Frames(hparams["batch_seconds"], features.size)


def recomputing(model):
    """The model with activation checkpointing."""
    recompute_activations(model)
    return model


def kept_bytes(trainer, batch):
    """Bytes that a forward pass takes and does not give back."""
    trainer.model(*batch.feats)
    with torch.profiler.profile(profile_memory=True) as profile:
        output = trainer.model(*batch.feats)
    del output
    return sum(event.self_cpu_memory_usage for event in profile.key_averages())


def rows(name, budget):
    """Rows of one recipe."""
    changes = {
        "plain": lambda model: model,
        "activation checkpointing": recomputing,
        "compiled": torch.compile,
    }
    steps, kept, first = {}, {}, {}
    for what, change in changes.items():
        trainer, batch = trainer_of(name, change)
        if what != "compiled":
            kept[what] = kept_bytes(trainer, batch) / 1e6
        steps[what] = functools.partial(trainer.step, batch)
        start = time.perf_counter()
        steps[what]()
        first[what] = time.perf_counter() - start
    taken = medians_in_turn(tuple(steps.values()), time.process_time, budget)
    for what, seconds in zip(steps, taken, strict=True):
        memory = f"{kept[what]:.1f}" if what in kept else "-"
        yield name, what, memory, f"{1000 * seconds:.0f}", f"{first[what]:.1f}"


def main(recipes, budget, output):
    """Measure, and write the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    facts = {"cpu": processor(), "torch": torch.__version__, "utterances": UTTERANCES}
    lines = [HEAD.format(**facts)]
    with fast_cpu_steps():
        for name in recipes:
            lines += [table_row(cells, ROOT) for cells in rows(name, budget)]
    Path(output).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipes", nargs="+", default=["vae", "predictive_vae"])
    parser.add_argument("--budget", type=float, default=30, help="CPU seconds a recipe")
    parser.add_argument(
        "--output", default=Path(__file__).with_suffix(".md"), help="where to write"
    )
    arguments = parser.parse_args()
    main(arguments.recipes, arguments.budget, arguments.output)
