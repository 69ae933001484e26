"""The digits recipe."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import speechbrain as sb

from benchmarks.loading import RECIPES, load_recipe
from speechbrain_vae.export import read_export, write_export

from .processes import in_two_processes
from .tone_corpus import results

recipe = load_recipe("Digits")
SPEAKERS = ("ann", "bob", "cid", "dan")
QUICK = ("--number_of_epochs", 4, "--lr", 0.05, "--batch_seconds", 4)


def digits(folder, speakers=SPEAKERS, words=4, takes=3):
    """The layout of the corpus; a word is two tones, and its reverse is another."""
    time = np.arange(2000) / 8000
    (folder / "recordings").mkdir(parents=True)
    for index, speaker in enumerate(speakers):
        for word in range(words):
            tones = (500 + 400 * (word // 2), 1500 + 400 * (word // 2))
            tones = tones[::-1] if word % 2 else tones
            wav = np.concatenate([np.sin(2 * np.pi * f * time) for f in tones]) / 4
            for take in range(takes):
                seed = 100 * index + 10 * word + take
                noise = np.random.default_rng(seed).normal(size=len(wav)) / 50
                name = f"{word}_{speaker}_{take}.wav"
                soundfile.write(folder / "recordings" / name, wav + noise, 8000)


def command(tmp_path, *options):
    """Arguments that train on the tones."""
    settings = {
        "--data_folder": tmp_path / "corpus",
        "--output_folder": tmp_path / "run",
        "--feature_cache": tmp_path / "cache",
        "--device": "cpu",
        **dict(zip(options[::2], options[1::2], strict=True)),
    }
    pairs = [str(text) for pair in settings.items() for text in pair]
    yaml = RECIPES / "Digits" / "hparams" / "linear.yaml"
    return [str(yaml), *pairs, "--noprogressbar"]


def test_every_speaker_is_left_out_once_and_the_mean_is_written(tmp_path, capsys):
    digits(tmp_path / "corpus")
    recipe.main(command(tmp_path, *QUICK))
    found = results(tmp_path / "run")
    folds = [results(tmp_path / "run" / f"fold{fold}") for fold in range(4)]
    accuracies = [fold["test.accuracy"] for fold in folds]
    assert found["test.accuracy"] == pytest.approx(np.mean(accuracies))
    assert found["test.accuracy.spread"] == pytest.approx(np.std(accuracies, ddof=1))
    assert f"accuracy {found['test.accuracy']:.1f} %" in capsys.readouterr().out


def test_an_interruption_and_what_came_before_change_no_number(tmp_path, monkeypatch):
    digits(tmp_path / "corpus")
    options = "--fold", 1, "--number_of_epochs", 4, "--batch_seconds", 2
    recipe.main(command(tmp_path, *options, "--output_folder", tmp_path / "whole"))
    end, run = recipe.DigitBrain.on_stage_end, command(tmp_path, *options)

    def interrupt(brain, stage, loss, epoch=None):
        end(brain, stage, loss, epoch)
        if epoch == 2 and stage == sb.Stage.VALID:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recipe.DigitBrain, "on_stage_end", interrupt)
        with pytest.raises(SystemExit):
            recipe.main(run)
    recipe.main(run)
    logs = [tmp_path / name / "train_log.txt" for name in ("whole", "run")]
    assert logs[0].read_text() == logs[1].read_text()
    everything = "--fold", "all", "--output_folder", tmp_path / "all"
    recipe.main(command(tmp_path, *options, *everything))
    assert results(tmp_path / "all" / "fold1") == results(tmp_path / "whole")


def test_words_that_differ_in_order_alone_are_told_apart(tmp_path):
    digits(tmp_path / "corpus")
    recipe.main(command(tmp_path, "--fold", 1, *QUICK))
    assert results(tmp_path / "run")["test.error"] == 0
    assert "two" in (tmp_path / "run" / "digits.txt").read_text()


def test_a_fold_keeps_its_speakers_apart():
    entries = {
        "train": {
            f"{s}{n}": {"spk_id": s, "words": "one"} for s in "abd" for n in "12"
        },
        "valid": {"c1": {"spk_id": "c", "words": "one"}},
    }
    tested = []
    for fold in range(4):
        divided = recipe.leave_one_out(entries, fold)
        speakers = {
            split: {entry["spk_id"] for entry in part.values()}
            for split, part in divided.items()
        }
        assert len(speakers["train"]) == 2
        assert set.union(*speakers.values()) == set("abcd")
        assert sum(map(len, speakers.values())) == 4
        tested += speakers["test"]
    assert tested == list("abcd")


def test_the_left_out_speaker_is_left_alone_when_rates_are_chosen(tmp_path):
    digits(tmp_path / "corpus")
    argv = command(tmp_path, "--fold", 0, "--number_of_epochs", 1)
    hparams, run_opts = recipe.open_experiment(argv)
    entries = recipe.open_corpus(hparams, "words")
    found = recipe.run(hparams, run_opts, entries, test=False)
    assert {name.split(".")[0] for name in found} == {"valid"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fold", 4), "fold is all or 0 to 3, got 4"),
        (("--fold", "george"), "fold is all or 0 to 3, got george"),
        (("--features", "/nowhere/export"), "/nowhere/export"),
        (("--segments", 0), "segments is a whole number from 1 on, got 0"),
        (
            ("--data_folder", "/nowhere"),
            "fsdd: the data folder /nowhere does not exist",
        ),
    ],
)
def test_bad_input_ends_in_one_line(options, message, tmp_path):
    digits(tmp_path / "corpus", takes=1)
    with pytest.raises(SystemExit, match=message) as end:
        recipe.main(command(tmp_path, *options))
    assert "\n" not in str(end.value)


def test_a_digit_that_training_never_heard_ends_in_one_line(tmp_path):
    digits(tmp_path / "corpus", takes=1)
    for path in (tmp_path / "corpus" / "recordings").glob("3_*"):
        if "ann" not in path.name:
            path.unlink()
    message = r"the train set has no digit three, the test set has \(3_ann_0\)"
    with pytest.raises(SystemExit, match=message):
        recipe.main(command(tmp_path, "--fold", 0))


def test_a_folder_with_the_run_of_other_features_ends_in_one_line(tmp_path):
    digits(tmp_path / "corpus", takes=1)
    options = ("--fold", 0, "--number_of_epochs", 1)
    recipe.main(command(tmp_path, *options))
    (tmp_path / "run" / "results.json").unlink()
    recipe.main(command(tmp_path, *options))
    assert "test.accuracy" in results(tmp_path / "run")
    message = "holds a run with features: fbank, this one has fbank_cmvn"
    with pytest.raises(SystemExit, match=message):
        recipe.main(command(tmp_path, *options, "--features", "fbank_cmvn"))


def test_two_speakers_are_too_few(tmp_path):
    digits(tmp_path / "corpus", takes=10)
    hparams, run_opts = recipe.open_experiment(command(tmp_path, "--fold", 0))
    entries = recipe.open_corpus(hparams, "words")
    few = {split: entries[split] for split in ("valid", "test")}
    with pytest.raises(ValueError, match="takes 3 speakers or more, there are 2"):
        recipe.run(hparams, run_opts, few)


def test_tokens_take_the_place_of_fbank(tiny_codec, tmp_path):
    digits(tmp_path / "corpus", takes=1)
    source = ("--features", tiny_codec, "--layer", "tokens", "--fold", 2)
    recipe.main(command(tmp_path, "--number_of_epochs", 1, *source))
    assert "test.accuracy" in results(tmp_path / "run")


def test_an_export_that_was_replaced_ends_in_one_line(tiny_codec, tmp_path):
    digits(tmp_path / "corpus", takes=1)
    run = command(
        tmp_path, "--number_of_epochs", 1, "--features", tiny_codec, "--fold", 2
    )
    recipe.main(run)
    export = read_export(tiny_codec)
    next(export.autoencoder.parameters()).data += 1
    text = (tiny_codec / "hyperparams.yaml").read_text()
    shutil.rmtree(tiny_codec)
    write_export(tiny_codec, text, export.features, export.autoencoder)
    with pytest.raises(SystemExit, match="is of other features") as end:
        recipe.main(run)
    assert "\n" not in str(end.value)


def test_the_yaml_of_another_script_ends_in_one_line(tmp_path):
    run = command(tmp_path)
    yaml = str(RECIPES.parent / "hparams" / "vae.yaml")
    with pytest.raises(SystemExit, match="has no front_end: it is for another"):
        recipe.main([yaml, *run[1:]])


def test_the_script_runs_by_itself(tmp_path):
    digits(tmp_path / "corpus")
    script = RECIPES / "Digits" / "train.py"
    done = subprocess.run(
        [sys.executable, str(script), *command(tmp_path, *QUICK, "--fold", "0")],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "test.accuracy" in results(tmp_path / "run")


def test_two_processes_leave_out_every_speaker(tmp_path):
    digits(tmp_path / "corpus")
    in_two_processes("Digits", command(tmp_path, *QUICK[:-1], 2))
    assert results(tmp_path / "run")["test.accuracy"] > 90
