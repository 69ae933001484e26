"""Tar shards: the same corpus, once an epoch, whatever the processes."""

import io
import json
import os
import re
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import make_dataloader

from speechbrain_vae.dataio import sharded
from speechbrain_vae.dataio.audio import load_entry
from speechbrain_vae.dataio.feature_cache import ComputedFeatures
from speechbrain_vae.dataio.manifests import SPLITS, read_manifest
from speechbrain_vae.dataio.shard import main, shard_corpus, verify
from speechbrain_vae.dataio.sharded import (
    ShardBatchSampler,
    ShardedUtterances,
    ShardError,
)
from speechbrain_vae.lobes.features import LogMel


@pytest.fixture
def corpus(tmp_path, recording):
    """Five speakers, files of several kinds, one of them long."""
    folder = tmp_path / "corpus"
    for speaker in range(5):
        for number in range(4):
            path = folder / f"s{speaker}" / f"a.{number}.flac"
            recording(path, 0.3 + 0.1 * number, seed=10 * speaker + number)
    recording(folder / "s0" / "long.wav", 65, seed=77)
    recording(folder / "s1" / "float.wav", 65, seed=78, subtype="FLOAT")
    recording(folder / "s2" / "stereo.wav", 1, rate=8000, channels=2, seed=79)
    return folder


@pytest.fixture
def shards(corpus, tmp_path):
    """Its shards, of four utterances each."""
    shard_corpus("folder", corpus, tmp_path / "out", utterances=4, workers=1)
    return tmp_path / "out"


def contents(folder):
    """The bytes of every shard, and every index but for where it was made from."""
    found = {path.name: path.read_bytes() for path in folder.glob("*.tar")}
    for path in folder.glob("*.json"):
        found[path.name] = {**json.loads(path.read_text()), "source": None}
    return found


def test_shards_hold_the_audio_and_the_features_of_the_manifest(shards):
    features = LogMel()
    for split in SPLITS:
        entries = read_manifest(shards / "manifests" / f"{split}.json")
        computed = ComputedFeatures(entries, features)
        data = ShardedUtterances(shards, split, features)
        found = {data.utt_id(i): i for i in range(len(data))}
        assert found.keys() == entries.keys()
        for utt, index in found.items():
            wav = torch.from_numpy(data.audio(index))
            assert torch.equal(wav, load_entry(entries[utt])), utt
            assert torch.equal(data[index]["feats"], computed[utt]), utt
            seconds = entries[utt]["duration"]
            assert data.durations[index] == pytest.approx(seconds, abs=1e-5)


def test_a_shard_is_a_tar_of_samples_as_webdataset_reads_them(shards):
    entries = read_manifest(shards / "manifests" / "train.json")
    with tarfile.open(shards / "train-000000.tar") as tar:
        names = tar.getnames()
        assert len(names) == 8
        for audio, label in zip(names[::2], names[1::2], strict=True):
            assert audio.split(".")[0] == label.split(".")[0]
            facts = json.load(tar.extractfile(label))
            entry = entries[facts["id"]]
            assert facts["spk_id"] == entry["spk_id"]
            data = io.BytesIO(tar.extractfile(audio).read())
            assert soundfile.info(data).frames == entry["stop"] - entry["start"]


def test_ids_of_any_letters_are_kept_and_safe_names_inside_the_tar(
    tmp_path, recording, kaldi_corpus
):
    utts = ["../../victim", str(tmp_path / "victim"), "\u00fc", "\u00e4"]
    wavs = [recording(tmp_path / f"{n}.wav", seed=n) for n in range(4)]
    root = kaldi_corpus(dict(zip(utts, wavs, strict=True)))
    out = tmp_path / "out"
    shard_corpus("speechocean762", root, out, workers=1)
    members = []
    for path in out.glob("*.tar"):
        with tarfile.open(path) as tar:
            members += tar.getnames()
    assert len(set(members)) == 8
    assert all(re.fullmatch(r"[\w-]+\.\w+", name, re.ASCII) for name in members)
    data = [ShardedUtterances(out, split, LogMel()) for split in SPLITS]
    found = [part.utt_id(index) for part in data for index in range(len(part))]
    assert sorted(found) == sorted(utts)


def test_a_shard_is_closed_when_it_has_the_size(corpus, tmp_path):
    index = shard_corpus("folder", corpus, tmp_path / "out", "0.5MB", workers=1)
    shards = index["splits"]["train"]["shards"]
    assert len(shards) > 1
    assert all(shard["bytes"] > 5e5 for shard in shards[:-1])
    assert (
        sum(s["utterances"] for s in shards) == index["splits"]["train"]["utterances"]
    )
    assert sum(s["seconds"] for s in shards) == pytest.approx(
        index["splits"]["train"]["seconds"]
    )


def test_an_interrupted_writing_goes_on_and_ends_the_same(
    corpus, tmp_path, monkeypatch
):
    from speechbrain_vae.dataio import shard

    options = {"utterances": 4, "workers": 1}
    shard_corpus("folder", corpus, tmp_path / "calm", **options)
    add, done = shard._add, []

    def cut(tar, utt, *rest):
        done.append(utt)
        if len(done) == 7:
            raise KeyboardInterrupt
        return add(tar, utt, *rest)

    monkeypatch.setattr(shard, "_add", cut)
    with pytest.raises(KeyboardInterrupt):
        shard_corpus("folder", corpus, tmp_path / "cut", **options)
    with pytest.raises(ShardError, match="not finished"):
        ShardedUtterances(tmp_path / "cut", "train", LogMel())
    shard_corpus("folder", corpus, tmp_path / "cut", **options)
    assert done.count(done[0]) == 1 and done.count(done[5]) == 2
    assert contents(tmp_path / "calm") == contents(tmp_path / "cut")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"utterances": 2}, r"another shard_size or utterances, .*000000.tar\)"),
        ({"utterances": None}, r"another shard_size or utterances, .*000000.tar\)"),
        ({"sample_rate": 8000}, "another sample_rate"),
        ({"seed": 5}, "another seed"),
        ({"speaker": "none"}, "other corpus_options"),
        ({"max_seconds": 20}, "another max_seconds"),
        ({"corpus": "timit"}, "another corpus"),
        ({"data_folder": "moved"}, "another data_folder"),
        ({"change": "new"}, "before the files of the corpus changed"),
        ({"change": "gone"}, "before the files of the corpus changed"),
        ({"change": "unstamped"}, r"before files of the corpus changed \(.*tar\)"),
    ],
)
def test_shards_of_anything_else_are_refused_and_stay(
    options, message, corpus, shards, recording
):
    options = {"corpus": "folder", "data_folder": corpus, "utterances": 4} | options
    change = options.pop("change", None)
    if change == "unstamped":
        (shards / "manifests" / "prepare.json").unlink()
    if change:
        (corpus / "s3" / "a.0.flac").unlink()
        if change != "gone":
            recording(corpus / "s3" / "a.0.flac", 0.7)
    if options["corpus"] == "timit":
        for part in ("TRAIN", "TEST"):
            path = corpus / part / "DR1" / "FCJF0" / "SI1.WAV"
            recording(path, format="WAV")
    if options["data_folder"] == "moved":
        options["data_folder"] = corpus.rename(corpus.parent / "moved")
    before = contents(shards)
    with pytest.raises(ValueError, match=f"out holds shards made .*{message}; give an"):
        shard_corpus(**options, out=shards, workers=1)
    assert contents(shards) == before


@pytest.mark.parametrize("inside", [".", "s1", "library"])
def test_a_folder_of_other_files_is_refused_and_left_alone(inside, corpus):
    (corpus / "library").mkdir()
    (corpus / "library" / "index.json").write_text("[]")
    (corpus / "library" / "train-000000.tar").touch()
    (corpus / "library" / "books.txt").touch()
    before = sorted(corpus.rglob("*"))
    with pytest.raises(ValueError, match="is no folder of shards, it holds .*--out$"):
        shard_corpus("folder", corpus, corpus / inside, workers=1)
    assert sorted(corpus.rglob("*")) == before


def flip(path, position):
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_a_damaged_shard_is_named_in_one_line_and_made_again(corpus, shards):
    whole = contents(shards)
    data = ShardedUtterances(shards, "train", LogMel())
    path = shards / "train-000001.tar"
    flip(path, int(data.offsets[5]) + 200)
    with pytest.raises(ShardError) as caught:
        [data[i] for i in range(len(data))]
    line = str(caught.value)
    assert line.startswith(f"the shard {path} is damaged (utterance {data.utt_id(5)})")
    assert "delete it" in line and "\n" not in line
    # From a worker, torch sends the traceback in the message.
    loader = make_dataloader(
        data, batch_sampler=[[4, 5]], collate_fn=PaddedBatch, num_workers=1
    )
    with pytest.raises(ShardError) as caught:
        list(loader)
    assert str(caught.value) == line
    with pytest.raises(ShardError, match="train-000001.tar is damaged"):
        verify(shards)
    path.unlink()
    others = {path: path.stat().st_mtime_ns for path in shards.glob("*.tar")}
    shard_corpus("folder", corpus, shards, utterances=4, workers=1)
    assert contents(shards) == whole
    assert all(path.stat().st_mtime_ns == date for path, date in others.items())
    assert verify(shards) == len(list(shards.glob("*.tar")))


@pytest.mark.parametrize("change", ["cut", "remove", "index"])
def test_a_shard_that_is_not_whole_is_refused_before_training(shards, change):
    path = shards / "train-000001.tar"
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-512])
    elif change == "remove":
        path.unlink()
    else:
        path.with_suffix(".json").write_text("{")
    with pytest.raises(ShardError, match="train-000001.tar is damaged"):
        ShardedUtterances(shards, "train", LogMel())


@pytest.mark.parametrize("text", ["", "[]", "{", "7"])
def test_an_index_that_is_none_is_named_in_one_line(shards, text):
    (shards / "index.json").write_text(text)
    with pytest.raises(SystemExit, match=r"^error: .*index.json is damaged: delete it"):
        main(["--verify", str(shards)])


def test_an_index_of_a_shard_that_is_none_is_made_again(corpus, shards):
    whole = contents(shards)
    (shards / "train-000001.json").write_text("[]")
    with pytest.raises(ShardError, match="train-000001.tar is damaged"):
        ShardedUtterances(shards, "train", LogMel())
    shard_corpus("folder", corpus, shards, utterances=4, workers=1)
    assert contents(shards) == whole


def test_no_options_of_the_corpus_are_none(corpus, tmp_path):
    out = tmp_path / "out"
    arguments = ["--data_folder", str(corpus), "--out", str(out), "--workers", "1"]
    main([*arguments, "--corpus_options", ""])
    assert verify(out) > 0


def test_the_home_folder_is_known_after_an_equals_sign(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    main(["--data_folder", str(corpus), "--out=~/mine", "--workers", "1"])
    assert verify(tmp_path / "mine") > 0
    main(["--verify=~/mine"])


def test_shards_of_another_rate_are_refused(shards):
    with pytest.raises(ShardError, match="written at 16000 Hz, .* --sample_rate 8000"):
        ShardedUtterances(shards, "train", LogMel(sample_rate=8000))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_utterance_comes_once_an_epoch(shards, workers, processes):
    data = ShardedUtterances(shards, "train", LogMel())
    seen, steps = [], set()
    for rank in range(processes):
        sampler = ShardBatchSampler(
            data.durations, data.sizes, 8.0, 0, rank=rank, processes=processes
        )
        sampler.set_epoch(3)
        loader = make_dataloader(
            data, batch_sampler=sampler, collate_fn=PaddedBatch, num_workers=workers
        )
        ids = [batch.id for batch in loader]
        steps.add(len(ids))
        assert len(ids) == len(sampler)
        seen += [utt for batch in ids for utt in batch]
    assert len(steps) == 1, "a process would wait for the others for ever"
    entries = read_manifest(shards / "manifests" / "train.json")
    assert sorted(seen) == sorted(entries)


@pytest.fixture
def many(monkeypatch):
    """Durations of utterances in 40 shards, and a pool of two of them."""
    monkeypatch.setattr(sharded, "POOL", 200)
    durations = np.random.default_rng(0).gamma(4, 2, size=4000).clip(0.5, 30)
    return durations, np.full(40, 100)


def test_the_order_is_that_of_seed_and_epoch(many):
    def order(seed, epoch):
        sampler = ShardBatchSampler(*many, 120.0, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)
    first = {frozenset(batch) for batch in order(1, 1)}
    # Of the last batch of a pool, one utterance may be all.
    both = first & {frozenset(batch) for batch in order(1, 2)}
    assert all(len(batch) == 1 for batch in both)


def test_batches_are_of_like_length_and_keep_their_limit(many):
    durations, _ = many
    batches = list(ShardBatchSampler(*many, 120.0, 1))
    padded = [durations[batch].max() * len(batch) for batch in batches]
    assert max(padded) <= 120.0
    assert durations.sum() / sum(padded) > 0.9


def test_few_shards_are_open_at_a_time(many):
    sampler = ShardBatchSampler(*many, 120.0, 1)
    shards = [{index // 100 for index in batch} for batch in sampler]
    for start in range(len(shards) - 10):
        assert len(set.union(*shards[start : start + 10])) <= 4


def test_too_many_processes_are_refused():
    sampler = ShardBatchSampler([1.0], [1], 9.0, 0, processes=2)
    with pytest.raises(ValueError, match="1 utterances cannot be shared by 2"):
        len(sampler)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard_size", "big"], "error: shard_size is a size such as"),
        (["--shard_size", "500"], "error: shard_size is a size such as 500MB"),
        (["--shard_size", "5KB"], "error: shard_size is a size such as 500MB"),
        (["--corpus", "folders"], "error: unknown corpus 'folders'"),
        (["--data_folder", "/nowhere"], "/nowhere does not exist"),
        (["--utterances", "0"], "error: utterances must be 1 or more"),
        (["--corpus_options", "[1]"], "error: --corpus_options are names and values"),
        (["--corpus_options", "{a: "], "error: --corpus_options are names and values"),
        (["--corpus_options", "{seed: 1}"], "error: --corpus_options has seed, an"),
        (["--corpus_options", "{max_seconds: a}"], "max_seconds must be a number"),
        (["--corpus_options", "{valid_fraction: a}"], "valid_fraction must be a"),
        (["--workers", "-2"], "error: workers must be 0 or more; got -2"),
    ],
)
def test_a_wrong_command_ends_in_one_line(options, message, corpus, tmp_path):
    given = {"--data_folder": corpus, "--out": tmp_path / "out"}
    given |= dict([options])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "speechbrain_vae.dataio.shard"),
            *(str(part) for pair in given.items() for part in pair),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert message in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
