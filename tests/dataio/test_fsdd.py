import pytest

from speechbrain_vae.dataio.fsdd import splits


@pytest.fixture
def digits(tmp_path):
    (tmp_path / "recordings").mkdir()
    for speaker in ("ann", "bob", "cid", "dan", "eve", "fay"):
        for digit in range(10):
            for take in range(12):
                (tmp_path / "recordings" / f"{digit}_{speaker}_{take}.wav").touch()
    return tmp_path


def test_four_speakers_train_and_one_each_is_held_out(digits):
    parts = splits(digits)
    speakers = [{e["spk_id"] for e in entries.values()} for entries in parts.values()]
    assert [len(names) for names in speakers] == [4, 1, 1]
    assert len(set.union(*speakers)) == 6


def test_takes_follow_the_convention_of_the_authors(digits):
    parts = splits(digits, split="takes")
    takes = [{int(utt.split("_")[-1]) for utt in part} for part in parts.values()]
    assert takes == [{10, 11}, {5, 6, 7, 8, 9}, {0, 1, 2, 3, 4}]
    assert parts["test"]["7_ann_3"]["words"] == "seven"


def test_the_wrong_folder_or_rule_ends_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="recordings/7_jackson_32.wav"):
        splits(tmp_path)
    with pytest.raises(ValueError, match="speakers, takes"):
        splits(tmp_path, split="digits")


def test_the_real_recordings(shared_data):
    parts = splits(shared_data("fsdd"))
    assert [len(entries) for entries in parts.values()] == [2000, 500, 500]
    parts = splits(shared_data("fsdd"), split="takes")
    assert [len(entries) for entries in parts.values()] == [2400, 300, 300]
