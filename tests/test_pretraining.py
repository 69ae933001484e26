"""Memory of training steps, the counter of epochs, and the corpus."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_vae.checkpoints import CheckpointError
from speechbrain_vae.dataio.manifests import SPLITS, write_json
from speechbrain_vae.dataio.sharded import FORMAT, INDEX
from speechbrain_vae.pretraining import (
    PatientEpochCounter,
    check_start,
    prepare_corpus,
)

HPARAMS = Path(__file__).resolve().parents[1] / "hparams"

STEPS = """
import resource, torch
from speechbrain_vae.pretraining import fast_cpu_steps

def faults_of_step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.zeros(100_000) for _ in range(100)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with fast_cpu_steps():
    print([faults_of_step() for _ in range(3)][-1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_step_uses_the_memory_of_the_one_before():
    command = [sys.executable, "-c", STEPS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # A step is 40 MB: nearly 10,000 pages of 4 KiB, mostly, without the context.
    assert int(done.stdout) < 100


def count_epochs(folder, scores, patience=2):
    """Count the epochs of these scores; the counter, with its checkpoints there."""
    counter = PatientEpochCounter(
        len(scores), patience, limit_warmup=0, direction="min"
    )
    checkpointer = Checkpointer(folder, {"counter": counter})
    checkpointer.recover_if_possible()
    for epoch in counter:
        counter.update_metric(scores[epoch - 1])
        checkpointer.save_checkpoint()
    return counter


def test_an_interrupted_run_stops_when_an_undisturbed_one_does(tmp_path):
    scores = [5.0, 1.0, 2.0, 3.0, 0.5]
    assert count_epochs(tmp_path / "calm", scores).current == 4
    assert count_epochs(tmp_path / "cut", scores[:3]).current == 3
    resumed = count_epochs(tmp_path / "cut", scores)
    assert (resumed.current, resumed.best_limit, resumed.best_score) == (4, 2, 1.0)
    assert resumed.should_stop


def test_a_run_that_stopped_early_goes_on_with_more_patience_alone(tmp_path):
    scores = [1.0, 2.0, 2.0, 2.0, 2.0]
    assert count_epochs(tmp_path, scores).current == 3
    assert count_epochs(tmp_path, scores).current == 3
    assert count_epochs(tmp_path, scores, patience=3).current == 4


def test_the_middle_of_an_epoch_is_that_epoch_again(tmp_path):
    counter = PatientEpochCounter(9, 2, limit_warmup=0, direction="min")
    for score in (1.0, 2.0):
        next(counter)
        counter.update_metric(score)
    next(counter)
    counter.save(tmp_path / "counter")
    resumed = PatientEpochCounter(9, 2, limit_warmup=0, direction="min")
    resumed.load(tmp_path / "counter", end_of_epoch=False)
    assert not resumed.should_stop
    assert next(resumed) == 3


def test_a_checkpoint_of_speechbrains_own_counter_is_read(tmp_path):
    (tmp_path / "counter").write_text("3")
    counter = PatientEpochCounter(9, 2, limit_warmup=0, direction="min")
    counter.load(tmp_path / "counter", end_of_epoch=True)
    assert next(counter) == 4
    counter.update_metric(7.0)
    assert (counter.best_limit, counter.best_score) == (4, 7.0)


def load(recipe, folder, **overrides):
    text = (HPARAMS / recipe).read_text()
    return load_hyperpyyaml(text, {"output_folder": str(folder), **overrides})


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("vae.yaml", {"channels": 128}, "got 128 channels; set linear_start: False"),
        ("vae.yaml", {"latent_size": 200}, "latent_size below 160 .*; got 200"),
        ("recurrent_vae.yaml", {"linear_start": True}, "set linear_start: False"),
        ("sfvq.yaml", {"linear_start": True}, "set linear_start: False"),
        ("vae.yaml", {"init_from": "./nowhere"}, "there is no export at ./nowhere"),
    ],
)
def test_a_start_that_no_data_could_make_possible_is_refused(
    recipe, overrides, message, tmp_path
):
    with pytest.raises(ValueError, match=message):
        check_start(load(recipe, tmp_path, **overrides))


def test_an_export_of_other_sizes_is_refused_to_start_from(tiny_export, tmp_path):
    hparams = load("vae.yaml", tmp_path, init_from=str(tiny_export))
    with pytest.raises(ValueError, match="of that export does not fit"):
        check_start(hparams)


def test_stages_that_name_no_part_are_refused(tmp_path):
    hparams = load("stacked_ae.yaml", tmp_path)
    hparams["training_stages"].stages[0]["train"] = ["encoder.cellar"]
    with pytest.raises(ValueError, match="training_stages names 'encoder.cellar'"):
        check_start(hparams)


@pytest.mark.parametrize("recipe", ["vae.yaml", "ae.yaml", "stacked_ae.yaml"])
def test_to_check_a_start_changes_nothing(recipe, tmp_path):
    hparams = load(recipe, tmp_path)
    seed = torch.get_rng_state()
    model = hparams["autoencoder"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_start(hparams)
    assert torch.equal(torch.get_rng_state(), seed)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def shards_of(folder, digest="a"):
    """Settings of a run on shards of which only the index is there."""
    splits = {split: {"shards": [{"sha256": digest}]} for split in SPLITS}
    write_json(folder / INDEX, {"format": FORMAT, "splits": splits})
    return {
        "corpus": "shards",
        "data_folder": folder,
        "corpus_options": {},
        "output_folder": folder / "run",
    }


def test_a_run_goes_on_with_its_own_shards_only(tmp_path):
    manifests = tmp_path / "run" / "manifests"
    prepare_corpus(shards_of(tmp_path), manifests)
    prepare_corpus(shards_of(tmp_path, "b"), manifests)
    (tmp_path / "run" / "save" / "CKPT+1").mkdir(parents=True)
    prepare_corpus(shards_of(tmp_path, "b"), manifests)
    with pytest.raises(ValueError, match="run was trained on other shards than those"):
        prepare_corpus(shards_of(tmp_path), manifests)
    moved = shards_of(tmp_path, "b") | {"data_folder": tmp_path / "moved"}
    (tmp_path / "moved").mkdir()
    (tmp_path / INDEX).rename(tmp_path / "moved" / INDEX)
    prepare_corpus(moved, manifests)


def test_a_run_cannot_have_fewer_epochs_than_it_has_had(tmp_path):
    counter = PatientEpochCounter(5, 9, limit_warmup=0, direction="min")
    counter.current = 3
    counter.save(tmp_path / "counter.ckpt")
    PatientEpochCounter(3, 9, 0, "min").load(tmp_path / "counter.ckpt", True)
    fewer = PatientEpochCounter(2, 9, 0, "min")
    fewer.load(tmp_path / "counter.ckpt", False)
    with pytest.raises(CheckpointError, match="give --number_of_epochs 3, or more"):
        fewer.load(tmp_path / "counter.ckpt", True)


def test_shards_take_no_options_of_a_corpus(tmp_path):
    hparams = shards_of(tmp_path)
    assert prepare_corpus(hparams, tmp_path / "run" / "manifests") is None
    hparams["corpus_options"] = {"speaker": "none", "foo": 1}
    with pytest.raises(ValueError, match="no corpus_options, got speaker, foo; give"):
        prepare_corpus(hparams, tmp_path)
