"""A small training, over and over, and what became of it."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from markdown_table import table_row
from odd_audio import sound, write

from speechbrain_vae.weights import read_weights

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = {
    **{"channels": 160, "blocks": 1, "latent_size": 8},
    **{"number_of_epochs": 3, "batch_seconds": 4, "num_workers": 0},
    **{"ckpt_interval_minutes": 0, "ckpt_interval_steps": 2},
}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


class Laboratory:
    """A corpus, the weights of an undisturbed run, and a row for each fault."""

    def __init__(self, folder):
        self.folder = folder
        self.corpus = folder / "corpus"
        for speaker in range(5):
            for number in range(3):
                path = self.corpus / f"s{speaker}" / f"{number}.wav"
                write(path, sound(1.5 + number / 4, seed=3 * speaker + number))
        self.rows = []
        start = time.monotonic()
        self.train("calm")
        self.seconds = time.monotonic() - start
        self.weights = self.weights_of("calm")

    def command(self, name, **options):
        """The command that trains in a folder of this name."""
        values = {key: str(value) for key, value in (OPTIONS | options).items()}
        return [
            *(sys.executable, ROOT / "train.py", ROOT / "hparams" / "vae.yaml"),
            *("--data_folder", self.corpus, "--output_folder", self.folder / name),
            *("--feature_cache", self.folder / "cache", "--noprogressbar"),
            *(word for name, value in values.items() for word in (f"--{name}", value)),
        ]

    def start(self, name, limit=None, **options):
        """Start a training, maybe with something done in its process first."""
        return subprocess.Popen(
            self.command(name, **options),
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=limit,
        )

    def train(self, name, limit=None, **options):
        """Train to the end; what it said last where it failed."""
        process = self.start(name, limit, **options)
        _, said = process.communicate()
        return last_line(said) if process.returncode else None

    def weights_of(self, name):
        """The weights of the export of a run."""
        return read_weights(self.folder / name / "export" / "autoencoder.safetensors")

    def same(self, name):
        """Whether a run ended with the weights of the undisturbed one."""
        try:
            found = self.weights_of(name)
        except (OSError, ValueError):
            return False
        return found.keys() == self.weights.keys() and all(
            torch.equal(found[key], self.weights[key]) for key in found
        )

    def copy(self, name):
        """The undisturbed run, as it was before it wrote its export."""
        shutil.copytree(self.folder / "calm", self.folder / name)
        shutil.rmtree(self.folder / name / "export")
        (self.folder / name / "report.json").unlink()
        return sorted((self.folder / name / "save").glob("CKPT*"), key=os.path.getmtime)

    def row(self, what, happened, line, kept):
        """Note what became of a fault."""
        line = f"`{line}`" if line else ""
        cells = (what, happened, line, "yes" if kept else "NO")
        self.rows.append(table_row(cells, self.folder))
        print(self.rows[-1], flush=True)

    def again(self, name, what, line, settings=""):
        """Give the same command again, and note how it ended."""
        error = self.train(name)
        kept = error is None and self.same(name)
        end = "the same weights" if kept else f"other weights ({error})"
        self.row(what, f"{settings}the same command again: {end}", line, kept)


def last_line(said):
    """The line in which a failure ended; a traceback is no line."""
    lines = [line for line in said.strip().splitlines() if line.strip()]
    line = lines[-1] if lines else "(nothing)"
    return line if "Traceback" not in said else f"TRACEBACK ... {line}"


def cut(path):
    """Drop the second half of a file."""
    os.truncate(path, path.stat().st_size // 2)


@contextlib.contextmanager
def memory_disk(folder, size):
    """A file system of this size, or None where one may not make one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if subprocess.run(command, capture_output=True).returncode:
        yield None
        return
    try:
        yield lambda option: subprocess.run(
            ["mount", "-o", f"remount,{option}", folder], check=True
        )
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
