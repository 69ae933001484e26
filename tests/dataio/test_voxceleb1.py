import pytest

from speechbrain_vae.dataio.voxceleb1 import splits


@pytest.fixture
def interviews(tmp_path):
    for number in (*range(10001, 10021), 10270, 10309):
        part = "test" if number >= 10270 else "dev"
        for video in ("aB-_1", "cD2"):
            folder = tmp_path / part / "wav" / f"id{number}" / video
            folder.mkdir(parents=True)
            for utterance in range(1, 4):
                (folder / f"{utterance:05d}.wav").touch()
    return tmp_path


def speakers(parts):
    return [{e["spk_id"] for e in part.values()} for part in parts.values()]


def test_the_speakers_of_the_official_trials_are_test(interviews):
    train, valid, test = speakers(splits(interviews))
    assert test == {"id10270", "id10309"}
    assert len(train) == 18 and len(valid) == 2 and not train & valid


def test_the_official_split_for_identification(interviews):
    table = interviews / "iden_split.txt"
    table.write_text(
        "1 id10001/aB-_1/00001.wav\n1 id10270/cD2/00002.wav\n"
        "2 id10001/aB-_1/00002.wav\n3 id10001/cD2/00001.wav\n"
    )
    parts = splits(interviews)
    assert {name: list(part) for name, part in parts.items()} == {
        "train": ["id10001-aB-_1-00001", "id10270-cD2-00002"],
        "valid": ["id10001-aB-_1-00002"],
        "test": ["id10001-cD2-00001"],
    }
    assert len(speakers(splits(interviews, split="verification"))[0]) == 18


def test_both_parts_may_lie_in_one_folder(interviews):
    one = interviews / "one"
    one.mkdir()
    (interviews / "dev" / "wav").rename(one / "wav")
    for folder in (interviews / "test" / "wav").iterdir():
        folder.rename(one / "wav" / folder.name)
    assert [len(names) for names in speakers(splits(one))] == [18, 2, 2]


def test_what_is_missing_is_named(interviews, tmp_path):
    with pytest.raises(FileNotFoundError, match="iden_split.txt"):
        splits(interviews, split="identification")
    with pytest.raises(ValueError, match="wav/id10001/1zcIwhmdeo4/00001.wav"):
        splits(interviews / "dev" / "wav" / "id10001" / "cD2")
