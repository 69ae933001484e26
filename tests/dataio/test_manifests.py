import os
import random
import subprocess
import sys

import pytest

from speechbrain_vae.dataio import manifests


def test_splits_do_not_depend_on_order_or_on_the_hash_seed():
    speakers = [f"speaker{index}" for index in range(50)]
    expected = manifests.assign_splits(speakers, seed=7)
    shuffled = random.Random(0).sample(speakers, len(speakers))
    assert manifests.assign_splits(shuffled, seed=7) == expected
    program = (
        "from speechbrain_vae.dataio.manifests import assign_splits;"
        "names = assign_splits({f'speaker{i}' for i in range(50)}, seed=7);"
        "print(sorted(k for k, v in names.items() if v == 'test'))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "99"}
    output = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=manifests.__file__.split("speechbrain_vae")[0],
    ).stdout
    chosen = sorted(name for name, split in expected.items() if split == "test")
    assert output.strip() == str(chosen)


def test_a_split_for_another_seed_is_another():
    speakers = [f"speaker{index}" for index in range(50)]
    assert manifests.hold_out(speakers, 0.2, 1) != manifests.hold_out(speakers, 0.2, 2)


def test_composed_and_decomposed_names_are_one():
    assert manifests.stable_hash("Zo\u00eb") == manifests.stable_hash("Zoe\u0308")


def test_every_split_gets_a_unit_or_the_error_says_so():
    names = manifests.assign_splits(["a", "b", "c", "d"], 0.01, 0.01)
    assert sorted(names.values()) == ["test", "train", "train", "valid"]
    with pytest.raises(ValueError, match="cannot fill 3 splits"):
        manifests.assign_splits(["a", "b"])
    with pytest.raises(ValueError, match="leave something to train on"):
        manifests.assign_splits("abcd", 0.5, 0.5)
    assert set(manifests.assign_splits(["a"], 0, 0).values()) == {"train"}


def test_identifiers_are_unique_and_safe_even_when_case_is_ignored():
    paths = ["a/1.wav", "a/1.flac", "a-1.wav", "A/1.wav", "b/\u00fc x.wav", "b/_ x.wav"]
    ids = manifests.safe_ids(paths)
    assert len({name.lower() for name in ids.values()}) == len(paths)
    assert all(name.isascii() and " " not in name for name in ids.values())
    assert all("/" not in name for name in ids.values())
    reverse = manifests.safe_ids(reversed(paths))
    assert reverse == ids


def test_identifiers_are_unique_where_short_hashes_are_alike():
    alone = manifests.safe_ids(["\u4e02\u4e0f\u4e02\u4e04\u4e00.wav"])
    other = manifests.safe_ids(["\u4e07\u4e00\u4e04\u4e04\u4e00.wav"])
    assert list(alone.values()) == list(other.values())
    accents = ["\u0323\u0302.wav", "\u0302\u0323.wav"]
    paths = [*alone, *other, f"{alone[next(iter(alone))]}.wav", *accents, "a.wav"]
    ids = manifests.safe_ids(paths)
    assert len(set(ids.values())) == len(paths)
    assert ids["a.wav"] == "a"
    assert manifests.safe_ids(reversed(paths)) == ids


def test_long_paths_give_short_identifiers():
    paths = ["x" * 300 + f"/{index}.wav" for index in range(2)]
    ids = manifests.safe_ids(paths)
    assert len(set(ids.values())) == 2
    assert max(map(len, ids.values())) < 140


def test_links_do_not_loop_and_give_each_file_once(tmp_path, recording):
    path = recording(tmp_path / "a" / "1.wav")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "c.wav").symlink_to(path)
    elsewhere = recording(tmp_path / "elsewhere" / "2.wav")
    (tmp_path / "a" / "0").symlink_to(elsewhere.parent, target_is_directory=True)
    (tmp_path / "a" / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    found = [relative for _, relative in manifests.audio_files(tmp_path)]
    assert found == ["a/1.wav", "a/gone.wav", "elsewhere/2.wav"]
    below = [relative for _, relative in manifests.audio_files(tmp_path / "b")]
    assert "1.wav" in below and len(below) == 3


def test_hidden_files_are_not_audio(tmp_path, recording):
    recording(tmp_path / "1.WAV")
    (tmp_path / "._1.WAV").write_text("left by a Mac")
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "2.wav").touch()
    assert [rel for _, rel in manifests.audio_files(tmp_path)] == ["1.WAV"]


def test_a_json_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    manifests.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        manifests.write_json(path, {"a": object()})
    assert path.read_text() == '{\n"a": 1\n}\n'


@pytest.mark.parametrize("folder", ["missing", "file", "other"])
def test_a_wrong_folder_ends_in_one_line_with_the_layout(tmp_path, folder):
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "readme.txt").touch()
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        manifests.resolve_root(
            tmp_path / folder, "some", "wav/x.wav", lambda path: False
        )
    message = str(error.value)
    assert "wav/x.wav" in message and str(tmp_path / folder) in message
    assert "\n" not in message
    assert folder != "other" or "readme.txt" in message


def test_a_table_that_names_a_key_twice_is_refused_if_it_contradicts_itself(tmp_path):
    table = tmp_path / "wav.scp"
    table.write_text("a 1.wav\nb 2.wav\na 1.wav\n")
    assert manifests.read_kaldi_table(table) == {"a": "1.wav", "b": "2.wav"}
    table.write_text("a 1.wav\nb 2.wav\na 3.wav\n")
    with pytest.raises(ValueError, match=r"two lines for a, '1.wav' and '3.wav'"):
        manifests.read_kaldi_table(table)
