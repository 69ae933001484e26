import gzip

import pytest

from speechbrain_vae.dataio.prepare import prepare
from speechbrain_vae.dataio.speechocean762 import splits


@pytest.fixture
def official(tmp_path, recording):
    """The layout of the release: WAV files, tables with tabs."""
    root = tmp_path / "speechocean762"
    phones = []
    for part, speakers in (("train", range(1, 21)), ("test", range(21, 24))):
        (root / part).mkdir(parents=True)
        tables = {name: [] for name in ("wav.scp", "text", "utt2spk", "spk2gender")}
        for speaker in speakers:
            name = f"{speaker:04d}"
            utt = f"{speaker:05d}0011"
            relative = f"WAVE/SPEAKER{name}/{utt}.WAV"
            recording(root / relative, seed=speaker)
            tables["wav.scp"].append(f"{utt}\t{relative}")
            tables["text"].append(f"{utt}\tWE CALL")
            tables["utt2spk"].append(f"{utt}\t{name}")
            tables["spk2gender"].append(f"{name}\tf")
            phones += [f"{utt}.0\tW_B IY0_E", f"{utt}.1\tK_B AO1_I L_E"]
        for name, lines in tables.items():
            (root / part / name).write_text("\n".join(lines) + "\n")
    (root / "resource").mkdir()
    (root / "resource" / "text-phone").write_text("\n".join(phones) + "\n")
    return root


def test_the_official_layout(official, tmp_path):
    parts = splits(official)
    assert [len(entries) for entries in parts.values()] == [18, 2, 3]
    assert parts["test"]["000210011"] == {
        "wav": str(official / "WAVE/SPEAKER0021/000210011.WAV"),
        "spk_id": "0021",
        "words": "WE CALL",
        "phones": "W IY K AO L",
        "gender": "f",
    }
    assert splits(official.parent) == parts
    result = prepare("speechocean762", official, tmp_path / "save", workers=1)
    assert result.speakers == {"train": 18, "valid": 2, "test": 3}


def test_words_begin_and_end_with_their_phones(official):
    times = ["utt\tstart_s\tend_s\tphone\tspeaker"]
    for start, phone in enumerate(["W", "IY", "K", "AO", "L"]):
        start = start / 10 + (0.2 if phone in "K AO L" else 0)
        times.append(f"000210011\t{start:.2f}\t{start + 0.1:.2f}\t{phone}\t0021")
    # Of another utterance the aligner found less than what the transcript says.
    times += [f"000220011\t0.0\t0.1\t{phone}\t0022" for phone in "W IY"]
    with gzip.open(official / "alignment.tsv.gz", "wt") as file:
        file.write("\n".join(times) + "\n")
    entries = splits(official)["test"]
    assert entries["000210011"]["word_times"] == [[0.0, 0.2, "WE"], [0.4, 0.7, "CALL"]]
    assert "word_times" not in entries["000220011"]


def test_tables_may_name_wav_where_flac_lies(official, recording):
    path = official / "WAVE/SPEAKER0021/000210011.WAV"
    recording(path.with_suffix(".flac"))
    path.unlink()
    assert splits(official)["test"]["000210011"]["wav"].endswith(".flac")


def test_another_seed_holds_out_others(official):
    chosen = {tuple(splits(official, seed=seed)["valid"]) for seed in range(6)}
    assert len(chosen) > 1


def test_the_real_subset(shared_data):
    parts = splits(shared_data("speechocean762"))
    assert [len(entries) for entries in parts.values()] == [1440, 160, 400]
    speakers = [{e["spk_id"] for e in entries.values()} for entries in parts.values()]
    assert [len(names) for names in speakers] == [72, 8, 20]
    assert len(set.union(*speakers)) == 100
    entry = parts["train"]["000050003"]
    assert entry["words"] == "MIKE LIKES THE WHITE ONE"
    assert entry["phones"] == "M AY K L AY K S DH AH W AY T W AH N"
    assert entry["phone_times"][0] == [0.455, 0.535, "M"]
    assert [label for _, _, label in entry["phone_times"]] == entry["phones"].split()
    for part in parts.values():
        for entry in part.values():
            words = [word for _, _, word in entry["word_times"]]
            assert words == entry["words"].split()
            edges = {
                edge for start, end, _ in entry["phone_times"] for edge in (start, end)
            }
            assert edges.issuperset(t for *span, _ in entry["word_times"] for t in span)
    phones = {
        p for part in parts.values() for e in part.values() for p in e["phones"].split()
    }
    assert len(phones) == 39


def test_the_wrong_folder_ends_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="train/wav.scp.*found an empty folder"):
        splits(tmp_path)
