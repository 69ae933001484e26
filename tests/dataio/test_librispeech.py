import io
import tarfile

import pytest

from speechbrain_vae.dataio import librispeech, mini_librispeech
from speechbrain_vae.dataio.prepare import prepare


@pytest.fixture
def subset(recording):
    def write(root, name, speakers):
        for speaker in speakers:
            chapter = root / name / str(speaker) / "7"
            lines = []
            for number in range(2):
                utt = f"{speaker}-7-{number:04d}"
                recording(chapter / f"{utt}.flac", seed=speaker + number)
                lines.append(f"{utt} WELL NUMBER {number}")
            table = chapter / f"{speaker}-7.trans.txt"
            table.write_text("\n".join(lines) + "\n")
        return root

    return write


def test_official_subsets_become_the_splits(tmp_path, subset):
    root = tmp_path / "LibriSpeech"
    for name, speakers in (
        ("train-clean-100", (1, 2)),
        ("train-clean-360", (3,)),
        ("dev-clean", (4,)),
        ("test-clean", (5,)),
    ):
        subset(root, name, speakers)
    parts = librispeech.splits(tmp_path)
    assert [len(part) for part in parts.values()] == [4, 2, 2]
    assert parts["valid"]["4-7-0001"]["words"] == "WELL NUMBER 1"
    assert parts["valid"]["4-7-0001"]["spk_id"] == "4"
    more = librispeech.splits(root, train=["train-clean-100", "train-clean-360"])
    assert len(more["train"]) == 6
    assert len(librispeech.splits(root, train="train-clean-360")["train"]) == 2
    result = prepare("librispeech", tmp_path, tmp_path / "save", workers=1)
    assert result.entries == {"train": 4, "valid": 2, "test": 2}
    # A transcript says nothing about parts: the utterance stays whole.
    result = prepare("librispeech", tmp_path, tmp_path / "save", max_seconds=0.2)
    assert result.entries == {"train": 4, "valid": 2, "test": 2}


def test_a_missing_or_doubled_subset_is_named(tmp_path, subset):
    subset(tmp_path, "train-clean-100", (1,))
    with pytest.raises(ValueError, match="dev-clean.*found train-clean-100/"):
        librispeech.splits(tmp_path)
    with pytest.raises(ValueError, match="dev-clean named more than once"):
        librispeech.splits(tmp_path, train=["dev-clean"])


def test_speakers_of_the_mini_dev_set_are_divided(tmp_path, subset):
    root = tmp_path / "LibriSpeech"
    subset(root, "train-clean-5", (1, 2))
    subset(root, "dev-clean-2", (3, 4, 5, 6))
    parts = mini_librispeech.splits(tmp_path)
    assert [len(part) for part in parts.values()] == [4, 4, 4]
    speakers = [{e["spk_id"] for e in part.values()} for part in parts.values()]
    assert speakers[0] == {"1", "2"} and not speakers[1] & speakers[2]


def test_the_mini_corpus_says_how_to_download(tmp_path):
    with pytest.raises(ValueError, match="download: True"):
        mini_librispeech.splits(tmp_path)


def test_the_mini_corpus_downloads_what_is_missing(tmp_path, subset, monkeypatch):
    subset(tmp_path / "site" / "LibriSpeech", "train-clean-5", (1,))
    subset(tmp_path / "site" / "LibriSpeech", "dev-clean-2", (2, 3))
    for name in mini_librispeech.SUBSETS:
        with tarfile.open(tmp_path / "site" / f"{name}.tar.gz", "w:gz") as tar:
            tar.add(tmp_path / "site/LibriSpeech" / name, f"LibriSpeech/{name}")
    target = tmp_path / "data"
    mini_librispeech.fetch(target, (tmp_path / "site").as_uri())
    parts = mini_librispeech.splits(target)
    assert [len(part) for part in parts.values()] == [2, 2, 2]
    names = sorted(path.name for path in (target / "LibriSpeech").iterdir())
    assert names == sorted(mini_librispeech.SUBSETS)


def test_a_broken_download_leaves_no_half_corpus(tmp_path):
    (tmp_path / "site").mkdir()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(__file__, "LibriSpeech/train-clean-5/x")
    half = archive.getvalue()[: len(archive.getvalue()) // 2]
    (tmp_path / "site" / "train-clean-5.tar.gz").write_bytes(half)
    with pytest.raises(ValueError, match="could not be fetched.*by hand"):
        mini_librispeech.fetch(tmp_path / "data", (tmp_path / "site").as_uri())
    assert list((tmp_path / "data" / "LibriSpeech").iterdir()) == []
