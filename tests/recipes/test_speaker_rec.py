"""The speaker recognition recipe."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from benchmarks.loading import RECIPES, load_recipe
from speechbrain_vae.lobes.front_ends import FrontEnd

from .processes import in_two_processes
from .tone_corpus import results

recipe = load_recipe("SpeakerRec")
QUICK = ("--number_of_epochs", 4, "--lr", 0.05, "--batch_seconds", 8)
TINY_XVECTOR = (
    *("--number_of_epochs", 10, "--lr", 0.01, "--batch_seconds", 3),
    *("--channels", 16, "--embedding_size", 16),
)


def voices(folder, speakers=10, utterances=6):
    """A folder a speaker, who is a colour of noise."""
    for speaker in range(speakers):
        colour = np.random.default_rng(speaker).normal(size=8)
        for number in range(utterances):
            noise = np.random.default_rng(100 * speaker + number).normal(size=6000)
            path = folder / f"s{speaker}" / f"{number}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            wav = np.convolve(noise, colour / np.linalg.norm(colour), "same")
            soundfile.write(path, wav / 10, 16000)


def command(yaml, tmp_path, *options):
    """Arguments that train ``hparams/<yaml>`` on the voices."""
    settings = {
        "--data_folder": tmp_path / "corpus",
        "--corpus": "folder",
        "--corpus_options": "{test_fraction: 0.3}",
        "--output_folder": tmp_path / "run",
        "--feature_cache": tmp_path / "cache",
        "--device": "cpu",
        **dict(zip(options[::2], options[1::2], strict=True)),
    }
    pairs = [str(text) for pair in settings.items() for text in pair]
    return [str(RECIPES / "SpeakerRec" / "hparams" / yaml), *pairs, "--noprogressbar"]


def entries(tmp_path, *options):
    """The command's hparams, run options and entries."""
    hparams, run_opts = recipe.open_experiment(
        command("linear.yaml", tmp_path, *options)
    )
    return hparams, run_opts, recipe.open_corpus(hparams, "spk_id")


@pytest.mark.parametrize(
    ("yaml", "options"), [("linear.yaml", QUICK), ("xvector.yaml", TINY_XVECTOR)]
)
def test_speakers_are_identified(yaml, options, tmp_path):
    voices(tmp_path / "corpus")
    recipe.main(command(yaml, tmp_path, *options))
    found = results(tmp_path / "run")
    assert found["test.error"] <= 10
    assert found["test.error"] + found["test.accuracy"] == pytest.approx(100)
    assert found["test.unheard_accuracy"] >= 90
    assert "Overall Accuracy" in (tmp_path / "run" / "speakers.txt").read_text()


@pytest.mark.parametrize(
    ("yaml", "options"), [("linear.yaml", QUICK), ("xvector.yaml", TINY_XVECTOR)]
)
def test_strangers_are_told_apart(yaml, options, tmp_path):
    voices(tmp_path / "corpus")
    recipe.main(command(yaml, tmp_path, "--task", "verification", *options))
    found = results(tmp_path / "run")
    assert found["test.EER"] <= 15
    assert 0 <= found["test.minDCF"] <= 1
    assert "test.error" not in found


def test_verification_never_learns_from_test_speakers(tmp_path):
    voices(tmp_path / "corpus")
    options = ("--task", "verification", "--number_of_epochs", 1)
    hparams, run_opts, parts = entries(tmp_path, *options)
    for entry in parts["test"].values():
        # Audio that cannot be standardised away, were it part of the statistics.
        path = tmp_path / "loud" / entry["wav"].rpartition("/")[2]
        path.parent.mkdir(exist_ok=True)
        wav, rate = soundfile.read(entry["wav"])
        soundfile.write(path, wav * 1e-3, rate, subtype="PCM_24")
        entry["wav"] = str(path)
    recipe.run(hparams, run_opts, parts)
    train = hparams["front_end"].open(parts["train"])
    mean = sum(vector[0] for vector in train.values()) / len(train)
    # A sixth of the utterances of each speaker is there for validation.
    assert (hparams["adapter"].mean - mean).abs().max() < 1


def test_every_split_has_every_speaker_and_no_utterance_twice():
    items = {f"s{s}u{u}": {"spk_id": f"s{s}"} for s in range(5) for u in range(10)}
    divided = recipe.divide(items, seed=1)
    assert {name: len(part) for name, part in divided.items()} == {
        "train": 30,
        "valid": 10,
        "test": 10,
    }
    for part in divided.values():
        assert {entry["spk_id"] for entry in part.values()} == {
            f"s{s}" for s in range(5)
        }
    assert len({utt for part in divided.values() for utt in part}) == 50
    assert recipe.divide(dict(reversed(items.items())), seed=1) == divided
    assert recipe.divide(items, seed=2) != divided


def test_a_speaker_with_too_few_utterances_is_left_out(caplog):
    items = {f"s{s}u{u}": {"spk_id": f"s{s}"} for s in range(3) for u in range(s + 2)}
    divided = recipe.divide(items, seed=1)
    assert {e["spk_id"] for e in divided["train"].values()} == {"s1", "s2"}
    assert "1 speakers have fewer than 3 utterances" in caplog.text
    with pytest.raises(ValueError, match="1 speakers have 3 utterances or more"):
        recipe.divide({utt: e for utt, e in items.items() if utt[1] != "1"}, seed=1)


def test_features_are_computed_once_for_every_division(tmp_path, monkeypatch):
    voices(tmp_path / "corpus")
    hparams, run_opts, parts = entries(tmp_path, "--number_of_epochs", 1)
    recipe.run(hparams, run_opts, parts)
    argv = command("linear.yaml", tmp_path, "--number_of_epochs", 1)
    changes = {"output_folder": str(tmp_path / "other"), "seed": 5}
    hparams, run_opts = recipe.open_experiment(argv, **changes)
    monkeypatch.setattr(FrontEnd, "raw", None)
    assert recipe.run(hparams, run_opts, parts)["test.error"] <= 100


@pytest.mark.parametrize(
    ("layer", "options"),
    [("tokens", ()), ("features", ("--freeze", False)), ("encoder", ())],
)
def test_exports_take_the_place_of_fbank(layer, options, tiny_codec, tmp_path):
    voices(tmp_path / "corpus")
    source = ("--features", tiny_codec, "--layer", layer, *options)
    short = ("--number_of_epochs", 1, "--batch_seconds", 8)
    recipe.main(command("linear.yaml", tmp_path, *short, *source))
    assert "test.accuracy" in results(tmp_path / "run")


def test_the_division_of_a_corpus_is_kept_where_it_shares_its_speakers(tmp_path):
    voices(tmp_path / "corpus")
    hparams, run_opts, parts = entries(tmp_path, *QUICK, "--split", "corpus")
    everything = {utt: e for part in parts.values() for utt, e in part.items()}
    found = recipe.run(hparams, run_opts, recipe.divide(everything, seed=1))
    assert found["test.error"] <= 10
    assert "test.unheard_accuracy" not in found


def test_the_test_speakers_are_left_alone_when_rates_are_chosen(tmp_path):
    voices(tmp_path / "corpus")
    for task in recipe.TASKS:
        folder = ("--output_folder", tmp_path / task)
        options = ("--task", task, "--number_of_epochs", 1, *folder)
        found = recipe.run(*entries(tmp_path, *options), test=False)
        assert {name.split(".")[0] for name in found} == {"valid"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "diarisation"), "task is one of identification, verification"),
        (("--split", "speakers"), "split is one of utterances, corpus, got speakers"),
        (("--split", "corpus"), "the train set has no speaker s[0-9]"),
        (("--features", "/nowhere/export"), "/nowhere/export"),
        (("--features", "fbank", "--layer", "tokens"), "fbank has one layer"),
        (
            ("--task", "verification", "--trials", "missing.txt"),
            "there is no trial list missing.txt",
        ),
        (
            ("--task", "verification", "--corpus_options", "{test_fraction: 0.1}"),
            "of one kind only",
        ),
    ],
)
def test_bad_input_ends_in_one_line(options, message, tmp_path):
    voices(tmp_path / "corpus")
    with pytest.raises(SystemExit, match=message) as end:
        recipe.main(command("linear.yaml", tmp_path, *options))
    assert "\n" not in str(end.value)


def test_a_list_of_trials_is_scored(tmp_path):
    voices(tmp_path / "corpus")
    _, _, parts = entries(tmp_path)
    utts = sorted(parts["test"])
    path = tmp_path / "trials.txt"
    lines = [
        f"{int(a[:2] == b[:2])} {a.replace('-', '/')}.wav {b.replace('-', '/')}.wav"
        for a in utts[:3]
        for b in utts
        if a != b
    ]
    path.write_text("\n".join(lines))
    options = ("--task", "verification", "--trials", path, *QUICK)
    recipe.main(command("linear.yaml", tmp_path, *options))
    assert results(tmp_path / "run")["test.EER"] <= 15
    assert f"trials: {len(lines)}" in (tmp_path / "run" / "train_log.txt").read_text()


def test_the_script_runs_by_itself(tmp_path):
    voices(tmp_path / "corpus", speakers=4)
    script = RECIPES / "SpeakerRec" / "train.py"
    done = subprocess.run(
        [sys.executable, str(script), *command("linear.yaml", tmp_path, *QUICK)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "test.accuracy" in results(tmp_path / "run")


@pytest.mark.parametrize("task", ["identification", "verification"])
def test_two_processes_know_speakers(task, tmp_path):
    voices(tmp_path / "corpus")
    options = ("--task", task, *QUICK[:-1], 4)
    in_two_processes("SpeakerRec", command("linear.yaml", tmp_path, *options))
    found = results(tmp_path / "run")
    assert found.get("test.error", found.get("test.EER")) <= 15
