"""Features on disk: verified, never stale."""

import os
import pickle
import shutil

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_vae.dataio import feature_cache, open_files
from speechbrain_vae.dataio.feature_cache import CachedFeatures, ComputedFeatures
from speechbrain_vae.lobes.features import LogMel


@pytest.fixture
def entries(tmp_path):
    """A manifest of five short files, one of them a part of a file."""
    generator = np.random.default_rng(0)
    entries = {}
    for name in "abcde":
        path = tmp_path / f"{name}.wav"
        samples = generator.integers(3000, 9000)
        soundfile.write(path, generator.normal(size=samples) / 10, 16000)
        entries[name] = {"wav": str(path), "duration": samples / 16000}
    entries["e"] |= {"start": 500, "stop": 2500}
    return entries


def count_computed(monkeypatch):
    """A list that grows by every utterance whose features are computed."""
    done = []
    compute = ComputedFeatures.__getitem__
    monkeypatch.setattr(
        ComputedFeatures,
        "__getitem__",
        lambda self, utt_id: done.append(utt_id) or compute(self, utt_id),
    )
    return done


def test_cached_features_equal_computed_ones(entries, tmp_path):
    features = LogMel()
    cached = CachedFeatures(entries, features, tmp_path / "cache")
    computed = ComputedFeatures(entries, features)
    assert len(cached) == len(computed) == 5
    for name in entries:
        assert torch.equal(cached[name], computed[name])
        assert cached.frames(name) == len(cached[name])
    assert torch.equal(pickle.loads(pickle.dumps(cached))["a"], computed["a"])


def test_workers_give_the_same_cache(entries, tmp_path):
    one = CachedFeatures(entries, LogMel(), tmp_path / "one")
    two = CachedFeatures(entries, LogMel(), tmp_path / "two", workers=2)
    assert all(torch.equal(one[name], two[name]) for name in entries)


def test_a_second_use_computes_nothing(entries, tmp_path, monkeypatch):
    done = count_computed(monkeypatch)
    CachedFeatures(entries, LogMel(), tmp_path / "cache")
    assert sorted(done) == sorted(entries)
    CachedFeatures(entries, LogMel(), tmp_path / "cache")["a"]
    assert len(done) == 5


def test_changed_audio_and_changed_settings_are_never_stale(
    entries, tmp_path, monkeypatch
):
    CachedFeatures(entries, LogMel(), tmp_path / "cache")
    done = count_computed(monkeypatch)
    assert (
        CachedFeatures(entries, LogMel(n_mels=40), tmp_path / "cache")["a"].shape[1]
        == 40
    )
    assert len(done) == 5
    soundfile.write(entries["a"]["wav"], np.ones(4000) / 10, 16000)
    os.utime(entries["a"]["wav"], ns=(1, 1))
    changed = CachedFeatures(entries, LogMel(), tmp_path / "cache")
    assert len(done) == 10
    assert torch.equal(changed["a"], ComputedFeatures(entries, LogMel())["a"])


def test_an_interrupted_preparation_goes_on_from_its_last_chunk(
    entries, tmp_path, monkeypatch
):
    monkeypatch.setattr(feature_cache, "CHUNK", 2)
    compute = ComputedFeatures.__getitem__

    def fail_at_d(self, utt_id):
        if utt_id == "d":
            raise KeyboardInterrupt
        return compute(self, utt_id)

    monkeypatch.setattr(ComputedFeatures, "__getitem__", fail_at_d)
    with pytest.raises(KeyboardInterrupt):
        CachedFeatures(entries, LogMel(), tmp_path / "cache")
    monkeypatch.setattr(ComputedFeatures, "__getitem__", compute)
    done = count_computed(monkeypatch)
    CachedFeatures(entries, LogMel(), tmp_path / "cache")
    assert done == ["c", "d", "e"]
    assert not list((tmp_path / "cache").glob("*.tmp"))


def test_a_damaged_cache_is_noticed_and_computed_from_the_audio(
    entries, tmp_path, caplog
):
    cached = CachedFeatures(entries, LogMel(), tmp_path / "cache")
    right = cached["c"].clone()
    (data,) = (tmp_path / "cache").glob("*.f32")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 255
    data.write_bytes(content)
    opened = CachedFeatures(entries, LogMel(), tmp_path / "cache")
    assert all(
        torch.equal(opened[n], ComputedFeatures(entries, LogMel())[n]) for n in entries
    )
    assert torch.equal(opened["c"], right)
    assert "is damaged" in caplog.text
    data.write_bytes(content[:-4])
    again = CachedFeatures(entries, LogMel(), tmp_path / "cache")
    assert torch.equal(again["c"], right)
    data.unlink()
    assert torch.equal(again["a"], opened["a"])


@pytest.mark.parametrize("content", ["", '{"a": [0', "{}"])
def test_a_damaged_index_is_made_anew(entries, tmp_path, content):
    right = CachedFeatures(entries, LogMel(), tmp_path / "cache")["c"]
    (index,) = (tmp_path / "cache").glob("*.json")
    index.write_text(content)
    again = CachedFeatures(entries, LogMel(), tmp_path / "cache")
    assert torch.equal(again["c"], right) and len(again) == len(entries)


def test_few_files_are_open_at_a_time(entries, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "CHUNK", 1)
    monkeypatch.setattr(open_files, "LIMIT", 2)
    cached = CachedFeatures(entries, LogMel(), tmp_path / "cache")
    for _ in range(2):
        assert all(len(cached[name]) == cached.frames(name) for name in entries)
    assert len(cached._files._files) == 2


def test_a_full_disk_ends_in_one_line(entries, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="Free some space"):
        CachedFeatures(entries, LogMel(), tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
