"""Checkpoints that survive what happens to disks."""

import logging

import pytest
import torch

from speechbrain_vae.checkpoints import AtomicCheckpointer, CheckpointError
from speechbrain_vae.downstream import SameInput
from speechbrain_vae.pretraining import Stopwatch


class Run:
    """A model that changes from one checkpoint to the next."""

    def __init__(self, folder):
        self.folder = folder
        self.model = torch.nn.Linear(40, 40)
        self.watch = Stopwatch()
        recoverables = {"model": self.model, "watch": self.watch}
        self.checkpointer = AtomicCheckpointer(folder, recoverables)

    def save(self, value):
        """A checkpoint whose bias is ``value``, and so is its loss."""
        torch.nn.init.constant_(self.model.bias, value)
        self.watch.seconds = value
        return self.checkpointer.save_checkpoint({"loss": float(value)}).path

    def recovered(self, **keys):
        """The bias after a resume."""
        fresh = Run(self.folder)
        fresh.checkpointer.recover_if_possible(**keys)
        value = fresh.model.bias[0].item()
        assert fresh.watch.seconds == pytest.approx(value, abs=0.5)
        return value


@pytest.fixture
def run(tmp_path):
    """A run without checkpoints."""
    return Run(tmp_path)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def vanish(path):
    path.unlink()


@pytest.mark.parametrize("damage", [cut, flip, empty, vanish])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(run, damage, caplog):
    run.save(1)
    newest = run.save(2)
    assert run.recovered() == 2
    damage(newest / "model.ckpt")
    with caplog.at_level(logging.WARNING):
        assert run.recovered() == 1
    assert damage is vanish or f"{newest} is damaged" in caplog.text


def test_a_newest_checkpoint_that_is_the_best_as_well_is_not_the_only_one(run):
    for value in (5, 4, 3):
        torch.nn.init.constant_(run.model.bias, value)
        run.watch.seconds = value
        meta = {"loss": float(value)}
        run.checkpointer.save_and_keep_only(meta=meta, min_keys=["loss"])
    assert len(run.checkpointer.list_checkpoints()) == 2
    cut(run.checkpointer.find_checkpoint().path / "model.ckpt")
    assert run.recovered() == 4


@pytest.mark.parametrize("name", ["watch.ckpt", "CKPT.yaml"])
@pytest.mark.parametrize("content", [b"", b"[unclosed", b"\xff\xfe\x00"])
def test_damaged_text_files_are_passed_over_too(run, name, content):
    run.save(1)
    newest = run.save(2)
    (newest / name).write_bytes(content)
    assert run.recovered() == 1


def test_a_damaged_best_checkpoint_gives_way_to_the_second_best(run):
    run.save(3)
    best = run.save(1)
    run.save(2)
    assert run.recovered(min_key="loss") == 1
    cut(best / "model.ckpt")
    assert run.recovered(min_key="loss") == 2


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_anew_in_silence(run):
    for value in (1, 2):
        cut(run.save(value) / "model.ckpt")
    with pytest.raises(CheckpointError, match="no checkpoint .* can be read"):
        run.recovered()


def test_weights_of_another_model_are_an_error_and_no_damage(run, tmp_path):
    run.save(1)
    other = AtomicCheckpointer(tmp_path, {"model": torch.nn.Linear(3, 3)})
    message = "other parts or sizes .*size mismatch.*--output_folder"
    with pytest.raises(CheckpointError, match=message):
        other.recover_if_possible()


def full_for_tensors(obj, path):
    torch.save(obj.state_dict(), "/dev/full")


def full_for_text(obj, path):
    path.write_text("half of it")
    with open("/dev/full", "w", encoding="utf-8") as file:
        file.write("the other half")


@pytest.mark.parametrize("write", [full_for_tensors, full_for_text])
def test_a_full_disk_ends_in_one_line_and_leaves_the_older_checkpoint(run, write):
    older = run.save(1)
    run.checkpointer.custom_save_hooks["model"] = write
    with pytest.raises(CheckpointError) as error:
        run.save(2)
    assert f"{older} is whole" in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in run.folder.iterdir()] == [older.name]
    assert run.recovered() == 1


def test_an_error_that_is_not_of_the_disk_is_not_taken_for_one(run):
    def mistake(obj, path):
        raise RuntimeError("a bug")

    run.checkpointer.custom_save_hooks["model"] = mistake
    with pytest.raises(RuntimeError, match="a bug"):
        run.save(1)


def test_a_second_reader_leaves_a_checkpoint_that_is_being_written(run):
    run.save(1)
    unfinished = run.folder / "CKPT+unfinished"
    unfinished.mkdir()
    Run(run.folder)
    assert unfinished.exists() and run.recovered() == 1
    run.save(2)
    assert not unfinished.exists()


def test_what_is_optional_may_be_missing(run):
    run.save(1)
    scaler = torch.amp.GradScaler("cpu")
    # As SpeechBrain's Brain does for --precision fp16.
    run.checkpointer.add_recoverable("scaler", scaler, optional_load=True)
    with pytest.warns(UserWarning, match="optional"):
        assert run.checkpointer.recover_if_possible() is not None


def test_features_that_are_kept_in_a_damaged_file_are_damage(run):
    features = SameInput({"features": "fbank"})
    run.checkpointer.add_recoverable("same_features", features)
    run.save(1)
    cut(run.save(2) / "same_features.ckpt")
    assert run.checkpointer.recover_if_possible() is not None
    assert run.model.bias[0] == 1


def test_a_run_that_keeps_more_than_its_checkpoints_is_not_begun_anew(run):
    run.save(1)
    run.checkpointer.add_recoverable("other", torch.nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match="has other, which this run keeps"):
        run.checkpointer.recover_if_possible()
