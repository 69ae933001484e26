import pytest

from speechbrain_vae.dataio import folder


def tree(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_every_extension_counts_in_any_case(tmp_path):
    names = ["a.wav", "b.FLAC", "c.Ogg", "d.opus", "e.mp3", "f.txt", "g.aac"]
    splits = folder.splits(tree(tmp_path, names))
    ids = {utt for entries in splits.values() for utt in entries}
    assert ids == set("abcde")


def test_recordings_in_formats_that_are_not_read_are_counted(tmp_path, caplog):
    names = ["a.wav", "b.m4a", "c/d.M4A", "c/e.sph", "c/f.txt", "c/.g.m4a"]
    folder.splits(tree(tmp_path, names))
    (message,) = (record.getMessage() for record in caplog.records)
    assert "3 files in formats that are not read (.m4a, .sph) are left out" in message


def test_splits_are_the_same_wherever_the_folder_lies(tmp_path):
    names = [f"s{index % 5}/{index}.wav" for index in range(30)]
    here = folder.splits(tree(tmp_path / "here", names))
    there = folder.splits(tree(tmp_path / "over" / "there", reversed(names)))
    assert {k: list(v) for k, v in here.items()} == {
        k: list(v) for k, v in there.items()
    }


def test_few_speakers_or_none_split_by_file(tmp_path):
    root = tree(tmp_path, [f"s{index % 2}/{index}.wav" for index in range(40)])
    by_file = folder.splits(root)
    assert [len(entries) for entries in by_file.values()] == [32, 4, 4]
    unknown = folder.splits(root, speaker="none")
    entries = [entry for part in unknown.values() for entry in part.values()]
    assert {entry["spk_id"] for entry in entries} == {"unknown"}


def test_books_of_a_speaker_stay_together(tmp_path):
    names = [
        f"{s}/book{s}{b}/{f}.flac" for s in range(9) for b in range(3) for f in "ab"
    ]
    root = tree(tmp_path / "top" / "small", names)
    for top in (root, root.parent):
        splits = folder.splits(top, speaker="grandparent")
        speakers = [{e["spk_id"] for e in part.values()} for part in splits.values()]
        assert [len(found) for found in speakers] == [7, 1, 1]
        assert set.union(*speakers) == set("012345678")
        for part in splits.values():
            assert all(e["wav"].split("/")[-3] == e["spk_id"] for e in part.values())


def test_a_file_without_a_grandparent_below_the_data_folder_is_named(tmp_path):
    tree(tmp_path, ["s/b/1.wav", "b/2.wav"])
    with pytest.raises(ValueError, match="SPEAKER/FOLDER/FILE .* found b/2.wav"):
        folder.splits(tmp_path, speaker="grandparent")


def test_parts_of_a_file_stay_together_where_there_are_files_enough():
    entries = {
        f"f{file}_{part}": {"wav": f"f{file}", "spk_id": "unknown"}
        for file in range(12)
        for part in range(5)
    }
    names = folder.assign(entries)
    assert {len({names[f"f{f}_{p}"] for p in range(5)}) for f in range(12)} == {1}


def test_the_same_stem_in_two_folders_gives_two_entries(tmp_path):
    splits = folder.splits(tree(tmp_path, ["a/1.wav", "b/1.wav", "c/1.wav", "c/1.mp3"]))
    assert sum(map(len, splits.values())) == 4


def test_fractions_are_kept_and_may_be_zero(tmp_path):
    root = tree(tmp_path, [f"s{index}/1.wav" for index in range(20)])
    splits = folder.splits(root, valid_fraction=0.2, test_fraction=0)
    assert [len(entries) for entries in splits.values()] == [16, 4, 0]


def test_a_folder_without_audio_ends_in_one_line(tmp_path):
    tree(tmp_path, ["notes.txt"])
    formats = "WAV, FLAC, OGG, Opus or MP3"
    with pytest.raises(
        ValueError, match=f"audio files anywhere.*{formats}.*found notes.txt"
    ):
        folder.splits(tmp_path)
    with pytest.raises(ValueError, match="parent, grandparent, none"):
        folder.splits(tmp_path, speaker="mother")
