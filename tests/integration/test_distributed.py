"""train.py in two processes of distributed data parallel (DDP)."""

import json

import pytest

from speechbrain_vae.inference import FeatureEncoder
from tests.processes import under_torchrun

from .training import TINY, command, noise_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Noise that comes and goes."""
    return noise_corpus(tmp_path_factory.mktemp("corpus"))


def two_processes(recipe, folder, corpus, *options):
    """Run train.py under torchrun."""
    _, script, *rest = command(recipe, folder, corpus, *TINY, *options)
    return under_torchrun(script, rest, folder)


# Of each way to learn a codebook, one; of a stopped run, the second half.
@pytest.mark.parametrize(
    ("recipe", "where"),
    [
        ("vqvae.yaml", []),
        ("sfvq.yaml", ["--distributed_backend", "gloo", "--device", "cpu"]),
    ],
)
def test_two_processes_train_resume_and_export(recipe, where, corpus, tmp_path):
    options = [*where, "--codebook_size", 16, "--batch_seconds", 5]
    for epochs in (1, 2):
        done = two_processes(
            recipe, tmp_path, corpus, *options, "--number_of_epochs", epochs
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["train"]["epochs"] == 2
    assert report["test"]["mse"] < 1.5
    assert FeatureEncoder.from_hparams(report["export"]).feature_size == 8
    log = (tmp_path / "run" / "train_log.txt").read_text()
    assert [line[:8] for line in log.splitlines() if "valid" in line] == [
        "epoch: 1",
        "epoch: 2",
    ]


def test_too_few_batches_for_the_processes_are_refused(corpus, tmp_path):
    options = ["--batch_seconds", 1000, "--device", "cpu"]
    done = two_processes("vqvae.yaml", tmp_path, corpus, *options)
    assert done.returncode != 0
    assert "2 processes need at least 3: lower batch_seconds" in done.stderr


def test_nccl_without_gpus_ends_in_one_line(corpus, tmp_path):
    done = two_processes("vqvae.yaml", tmp_path, corpus, "--distributed_backend=nccl")
    assert done.returncode != 0
    assert "error: there are 0 GPUs for process 1 of this machine" in done.stderr
