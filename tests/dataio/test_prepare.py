import json
import logging
import re
import shutil

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.dataio.dataio import read_audio
from speechbrain.dataio.dataset import DynamicItemDataset

from speechbrain_vae.dataio import checks, prepare
from speechbrain_vae.dataio.audio import load_entry
from speechbrain_vae.dataio.manifests import SPLITS, read_manifest


@pytest.fixture
def corpus(tmp_path, recording):
    """Four speakers with four recordings each, and where to save."""
    for speaker in "abcd":
        for index in range(4):
            path = tmp_path / "data" / speaker / f"{index}.wav"
            recording(path, seed=ord(speaker) * 10 + index)
    return tmp_path / "data", tmp_path / "save"


def everything(result):
    return {
        utt: entry
        for name in SPLITS
        for utt, entry in read_manifest(result.manifests[name]).items()
    }


def run(corpus, **options):
    options.setdefault("workers", 1)
    return prepare.prepare("folder", *corpus, **options)


def test_speakers_are_in_one_split_only(corpus):
    result = run(corpus)
    assert result.entries == {"train": 8, "valid": 4, "test": 4}
    speakers = [
        {entry["spk_id"] for entry in read_manifest(path).values()}
        for path in result.manifests.values()
    ]
    assert set.union(*speakers) == set("abcd") and sum(map(len, speakers)) == 4


@pytest.mark.parametrize(
    ("speakers", "options", "words"),
    [
        ("ab", {}, "train and valid and test share"),
        ("a", {"test_fraction": 0}, "train and valid share"),
        ("abc", {}, None),
        ("ab", {"speaker": "none"}, None),
    ],
)
def test_splits_that_share_speakers_are_named_once(
    speakers, options, words, corpus, caplog
):
    for other in set("abcd") - set(speakers):
        shutil.rmtree(corpus[0] / other)
    run(corpus, valid_fraction=0.4, **options)
    found = [record.getMessage() for record in caplog.records]
    found = [message for message in found if "speakers" in message]
    assert len(found) == (words is not None)
    for message in found:
        assert words in message and '--corpus_options "{speaker: none}"' in message


def test_speechbrain_reads_the_manifests(corpus):
    result = run(corpus)
    data_root = {"data_root": str(corpus[0])}
    dataset = DynamicItemDataset.from_json(result.manifests["train"], data_root)
    dataset.set_output_keys(["id", "wav", "start", "stop", "duration", "spk_id"])
    for item in dataset:
        part = {"file": item["wav"], "start": item["start"], "stop": item["stop"]}
        assert torch.equal(read_audio(part), load_entry(item))
        assert len(load_entry(item)) == round(item["duration"] * 16000)
    written = json.loads((corpus[1] / "train.json").read_text())
    assert all(item["wav"].startswith("{data_root}/") for item in written.values())


def test_a_second_call_does_nothing(corpus, monkeypatch):
    first = run(corpus)
    assert not first.reused
    monkeypatch.setattr(prepare, "check_files", None)
    second = run(corpus)
    assert second.reused
    assert second.hours == first.hours and second.manifests == first.manifests


def spoil_file(data, save):
    soundfile.write(data / "a" / "0.wav", np.ones(9999) * np.arange(9999) / 1e5, 16000)


def spoil_new(data, save):
    shutil.copy(data / "a" / "0.wav", data / "a" / "9.wav")


def spoil_manifest(data, save):
    (save / "valid.json").write_text("{}")


def spoil_converted(data, save):
    next((save / "converted").glob("*.flac")).unlink()


def spoil_stamp(data, save):
    (save / "prepare.json").write_text("{")


@pytest.mark.parametrize(
    "spoil, why",
    [
        (spoil_file, "the files of the corpus changed"),
        (spoil_new, "the files of the corpus changed"),
        (spoil_manifest, "valid.json is missing or was edited"),
        (spoil_converted, r"converted/.* is missing"),
        (spoil_stamp, "prepare.json is not readable"),
    ],
)
def test_any_change_is_noticed_and_named(corpus, recording, caplog, spoil, why):
    recording(corpus[0] / "b" / "7.wav", rate=8000)
    run(corpus)
    spoil(*corpus)
    with caplog.at_level(logging.INFO):
        assert not run(corpus).reused
    assert re.search(why, caplog.text)
    assert run(corpus).reused
    assert all(len(load_entry(entry)) for entry in everything(run(corpus)).values())


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"max_seconds": 0.3}, {"speaker": "none"}]
)
def test_other_arguments_prepare_anew(corpus, change):
    run(corpus)
    assert not run(corpus, **change).reused


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def spoil_duration(data, save):
    signal, rate = soundfile.read(data / "a" / "0.wav")
    soundfile.write(data / "a" / "0.wav", signal[:-800], rate)


def spoil_speakers(data, save):
    for speaker in "efghij":
        shutil.copytree(data / "a", data / speaker)
    shutil.rmtree(data / "d")


@pytest.mark.parametrize(
    "spoil, what",
    [
        (spoil_new, "a-9 is new"),
        (lambda data, save: (data / "c" / "2.wav").unlink(), "c-2 is missing"),
        (lambda data, save: (data / "c" / "2.wav").write_bytes(b""), "c-2 is missing"),
        (spoil_duration, "a-0 is another recording, or has other labels"),
        (spoil_speakers, r"\w-0 of the \w+ set would be in the \w+ set"),
    ],
)
def test_a_corpus_that_is_trained_on_must_stay(corpus, spoil, what):
    run(corpus)
    shutil.copytree(corpus[0], corpus[0].parent / "copy")
    before = contents(corpus[1])
    spoil(*corpus)
    with pytest.raises(ValueError, match=f"{what}; make it what it was, or choose"):
        run(corpus, keep=True)
    assert contents(corpus[1]) == before
    shutil.rmtree(corpus[0])
    shutil.copytree(corpus[0].parent / "copy", corpus[0], copy_function=shutil.copy)
    assert not run(corpus, keep=True).reused
    assert contents(corpus[1]).keys() == before.keys()
    assert run(corpus).reused


@pytest.mark.parametrize("spoil", [spoil_manifest, spoil_converted, spoil_stamp])
def test_what_a_training_needs_is_made_again(corpus, recording, spoil):
    recording(corpus[0] / "b" / "7.wav", rate=8000)
    first = everything(run(corpus))
    spoil(*corpus)
    assert not run(corpus, keep=True).reused
    assert everything(run(corpus, keep=True)) == first


def test_a_corpus_that_is_trained_on_may_be_moved(corpus, recording):
    for index in range(3):
        recording(corpus[0] / f"{index}.wav", seed=index)
    entries = run(corpus).entries
    moved = shutil.move(corpus[0], corpus[0].parent / "moved")
    result = run((moved, corpus[1]), keep=True)
    assert not result.reused and result.entries == entries


def test_an_interruption_leaves_nothing_wrong(corpus, recording, monkeypatch):
    for index in range(3):
        recording(corpus[0] / "b" / f"r{index}.wav", rate=8000, seed=index)
    undisturbed = run((corpus[0], corpus[1].parent / "other"))
    calls = []

    def interrupted(job):
        calls.append(job)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return checks.check_file(job)

    def check_files(jobs, workers, progress):
        return checks.check_files(jobs, workers, progress, interrupted)

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "check_files", check_files)
        with pytest.raises(KeyboardInterrupt):
            run(corpus)
    assert not (corpus[1] / "prepare.json").exists()
    result = run(corpus)
    assert not result.reused and result.entries == undisturbed.entries
    names = {utt: entry["spk_id"] for utt, entry in everything(undisturbed).items()}
    assert names == {utt: entry["spk_id"] for utt, entry in everything(result).items()}


def test_an_interruption_between_the_manifests_is_repaired(corpus, monkeypatch):
    write, written = prepare.write_json, []

    def interrupted(path, content):
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt
        write(path, content)

    run(corpus)
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "write_json", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(corpus, seed=5)
    assert not run(corpus, seed=5).reused
    assert not run(corpus).reused


def test_what_is_skipped_is_counted_and_named(corpus, recording, caplog):
    data, save = corpus
    (data / "a" / "letter.wav").write_text("dear reader")
    (data / "a" / "nothing.wav").touch()
    soundfile.write(data / "b" / "still.wav", np.zeros(16000), 16000)
    result = run(corpus)
    assert sum(result.skipped.values()) == 3
    for name in (
        "letter.wav (not decodable",
        "nothing.wav (empty",
        "still.wav (silent",
    ):
        assert name in caplog.text
    skipped = json.loads((save / "skipped.json").read_text())["skipped"]
    assert {item["id"] for item in skipped} == {"a-letter", "a-nothing", "b-still"}


def test_the_folder_of_the_issue_is_prepared(tmp_path, recording, caplog):
    """A text file, a zero-byte file, silence, an 8 kHz file and a long file."""
    data = tmp_path / "data"
    recording(data / "long.wav", seconds=18.0)
    recording(data / "slow.wav", seconds=0.9, rate=8000)
    (data / "text.wav").write_text("hello")
    (data / "empty.wav").touch()
    soundfile.write(data / "silence.wav", np.zeros(16000), 16000)
    result = prepare.prepare("folder", data, tmp_path / "save", max_seconds=1.0)
    assert sum(result.entries.values()) == 19 and min(result.entries.values()) >= 1
    assert result.entries["train"] > 12
    assert sum(result.skipped.values()) == 3
    for entry in everything(result).values():
        wav = load_entry(entry)
        assert wav.ndim == 1 and len(wav) == entry["stop"] - entry["start"] <= 16000


def test_one_long_file_is_a_corpus(tmp_path, recording):
    recording(tmp_path / "data" / "a.flac", seconds=3.0)
    result = prepare.prepare(
        "folder", tmp_path / "data", tmp_path / "save", max_seconds=1.0
    )
    assert result.entries == {"train": 1, "valid": 1, "test": 1}
    with pytest.raises(ValueError, match="1 usable piece.*smaller max_seconds"):
        prepare.prepare("folder", tmp_path / "data", tmp_path / "save2")


def test_parts_do_not_take_the_name_of_another_file(tmp_path, recording):
    for name in ("a", "a_0001"):
        recording(tmp_path / "data" / f"{name}.wav", seconds=1.5)
    result = prepare.prepare(
        "folder", tmp_path / "data", tmp_path / "save", max_seconds=1.0
    )
    assert len(everything(result)) == 4


def test_other_rates_and_channels_are_converted_once(corpus, recording, monkeypatch):
    data, save = corpus
    recording(data / "a" / "s.mp3", rate=44100, channels=2, seconds=0.7)
    first = everything(run(corpus))["a-s"]
    assert first["wav"].startswith(str(save / "converted")) and first["stop"] == 11200
    monkeypatch.setattr("speechbrain_vae.dataio.audio._rewrite", None)
    assert everything(run(corpus, seed=3))["a-s"] == first


def test_converted_files_stay_in_their_folder_whatever_the_ids(
    tmp_path, recording, kaldi_corpus
):
    utts = ["../../../victim", str(tmp_path / "victim"), "a" * 300, "\u00fc", "u.4"]
    wavs = [recording(tmp_path / f"{n}.wav", rate=8000, seed=n) for n in range(5)]
    root = kaldi_corpus(dict(zip(utts, wavs, strict=True)))
    before = set(tmp_path.iterdir())
    result = prepare.prepare("speechocean762", root, tmp_path / "save", workers=1)
    assert set(tmp_path.iterdir()) - before == {tmp_path / "save"}
    assert everything(result).keys() == set(utts)
    files = [path.name for path in (tmp_path / "save" / "converted").glob("*.flac")]
    assert len(files) == 5
    assert all(re.fullmatch(r"[\w-]+\.flac", name, re.ASCII) for name in files)


def test_saving_inside_the_data_folder_does_not_feed_on_itself(corpus, recording):
    data, _ = corpus
    recording(data / "a" / "s.wav", rate=8000)
    first = run((data, data / "results"))
    assert sum(first.entries.values()) == 17
    assert run((data, data / "results")).reused


def test_names_with_spaces_braces_and_letters_of_any_script(tmp_path, recording):
    names = ["\u00fc ber/{a} b.wav", "\u00fc ber/{data_root}.wav", "\u65e5\u672c/1.wav"]
    names += ["c/1.wav", "d/1.wav"]
    for name in names:
        recording(tmp_path / "da{t}a" / name)
    result = run((tmp_path / "da{t}a", tmp_path / "save"))
    entries = everything(result)
    assert len(entries) == 5
    assert "\u65e5\u672c" in {entry["spk_id"] for entry in entries.values()}
    assert all(len(load_entry(entry)) == 8000 for entry in entries.values())


def test_nothing_usable_ends_in_one_line(tmp_path):
    for name in "abc":
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.wav").touch()
    with pytest.raises(ValueError, match="train split has no usable.*3 empty file"):
        run((tmp_path / "data", tmp_path / "save"))
    assert not (tmp_path / "save" / "prepare.json").exists()


def test_an_empty_split_is_an_error_unless_it_was_asked_for(corpus, recording):
    assert run(corpus, test_fraction=0).entries == {"train": 12, "valid": 4, "test": 0}
    data, save = corpus
    recording(data / "TRAIN" / "DR1" / "FCJF0" / "SI1.WAV", format="WAV")
    recording(data / "TEST" / "DR1" / "FELC0" / "SI1.WAV", format="WAV")
    with pytest.raises(ValueError, match="timit: the valid split .* holds none"):
        prepare.prepare("timit", data, save)


def test_an_unknown_corpus_or_option_ends_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="unknown corpus 'swbd'; known: folder, fsdd"):
        prepare.prepare("swbd", tmp_path, tmp_path)
    with pytest.raises(
        ValueError, match="no option 'speakr'.*: speaker, .*max_seconds$"
    ):
        prepare.prepare("folder", tmp_path, tmp_path, speakr="none")
    with pytest.raises(ValueError, match="min_seconds"):
        prepare.prepare("folder", tmp_path, tmp_path, min_seconds=40)


def test_labels_that_only_some_have_are_left_out(corpus, caplog, monkeypatch):
    from speechbrain_vae.dataio import folder

    original = folder.splits

    def splits(data_folder, seed=1234):
        result = original(data_folder, seed)
        for entry in result["train"].values():
            entry["gender"] = "f"
        return result

    monkeypatch.setattr(folder, "splits", splits)
    result = run(corpus)
    assert {frozenset(entry) for entry in everything(result).values()} == {
        frozenset({"wav", "start", "stop", "duration", "spk_id"})
    }
    assert "gender" in caplog.text
