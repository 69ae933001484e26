"""train.py on tar shards, alone and in two processes."""

import json
import os
import re
import signal
import subprocess
import time

import torch

from speechbrain_vae.dataio.shard import shard_corpus

from .test_distributed import two_processes
from .test_train import checkpoints, weights
from .training import ENVIRONMENT, TINY, command, last_line, noise_corpus, train

OPTIONS = ["--corpus", "shards", "--batch_seconds", 2.5, "--num_workers", 0]


def make_shards(folder):
    """Noise in shards of five utterances."""
    corpus = noise_corpus(folder / "corpus")
    shard_corpus("folder", corpus, folder / "shards", utterances=5, workers=1)
    return folder / "shards"


def test_a_killed_run_goes_on_in_the_middle_of_an_epoch(tmp_path):
    shards = make_shards(tmp_path)
    often = ["--ckpt_interval_minutes", 0, "--ckpt_interval_steps", 3]
    options = [*TINY, *OPTIONS, *often, "--number_of_epochs", 2]
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    calm.mkdir()
    killed.mkdir()
    report = train("vae.yaml", calm, shards, *options)
    assert report["corpus"] == "shards"
    assert report["train"]["utterances"] == 16 and report["train"]["speakers"] == 4
    process = subprocess.Popen(
        command("vae.yaml", killed, shards, *options),
        cwd=killed,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(checkpoints(killed / "run")) == 0:
        assert process.poll() is None, "ended before it was killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    train("vae.yaml", killed, shards, *options)
    expected, resumed = weights(calm), weights(killed)
    for name in expected:
        assert torch.equal(expected[name], resumed[name]), name


def test_two_processes_share_the_shards_out(tmp_path):
    shards = make_shards(tmp_path)
    options = [*OPTIONS, "--codebook_size", 16, "--number_of_epochs", 2]
    done = two_processes("vqvae.yaml", tmp_path, shards, *options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["train"]["epochs"] == 2


def test_a_damaged_shard_ends_training_in_one_line(tmp_path):
    shards = make_shards(tmp_path)
    path = shards / "train-000001.tar"
    data = bytearray(path.read_bytes())
    for place in range(2000, len(data) - 2000, 1000):
        data[place] ^= 255
    path.write_bytes(data)
    options = [*TINY, *OPTIONS[:-1], 1, "--linear_start", False]
    last = last_line("vae.yaml", tmp_path, shards, *options)
    assert re.match(r"error: the shard .*train-000001.tar is damaged \(utt", last)
