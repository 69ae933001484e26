"""Runs train.py as a user does, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

# One thread: threads of several processes that wait for each other are slow.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
ROOT = Path(__file__).resolve().parents[2]
TINY = ["--channels", "160", "--blocks", "1", "--latent_size", "8", "--noprogressbar"]


def command(recipe, folder, data_folder, *options):
    """The command line that trains ``hparams/<recipe>`` into ``folder``."""
    return [
        sys.executable,
        str(ROOT / "train.py"),
        str(ROOT / "hparams" / recipe),
        *("--output_folder", str(folder / "run")),
        *("--feature_cache", str(folder / "cache")),
        *("--data_folder", str(data_folder)),
        *map(str, options),
    ]


def _run(recipe, folder, data_folder, *options):
    return subprocess.run(
        command(recipe, folder, data_folder, *options),
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )


def train(recipe, folder, data_folder, *options):
    """Train, and return the report."""
    done = _run(recipe, folder, data_folder, *options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads((folder / "run" / "report.json").read_text())


def last_line(recipe, folder, data_folder, *options):
    """Train in vain, and return the last line that the user sees."""
    done = _run(recipe, folder, data_folder, *options)
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stderr.strip().splitlines()[-1]


def write_noise(path, seconds, seed, rate=16000, **options):
    """Noise that comes and goes like syllables, and differs by seed."""
    generator = np.random.default_rng(seed)
    samples = int(seconds * rate)
    envelope = 1 + np.sin(
        2 * np.pi * generator.uniform(2, 5) * np.arange(samples) / rate
    )
    noise = generator.normal(size=samples) * envelope / 50
    noise = np.convolve(noise, generator.normal(size=5), "same")
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(noise, -1, 1), rate, **options)


def noise_corpus(folder, speakers=6, utterances=4, seconds=2.0):
    """A folder of noise, a subfolder for each speaker."""
    for speaker in range(speakers):
        for number in range(utterances):
            write_noise(
                folder / f"s{speaker}" / f"{number}.flac",
                seconds + 0.25 * number,
                1000 * speaker + number,
            )
    return folder
