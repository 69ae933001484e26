import pytest

from speechbrain_vae.dataio import timit
from speechbrain_vae.dataio.audio import load_entry
from speechbrain_vae.dataio.manifests import read_manifest
from speechbrain_vae.dataio.prepare import prepare

SPHERE = {"format": "NIST", "subtype": "PCM_16"}


@pytest.fixture
def tree(recording):
    """One train, one core-test, one development and one other test speaker."""

    def write(root, case, suffix=".wav", **options):
        speakers = ("train/dr1/fcjf0", "test/dr1/felc0", "test/dr1/faks0")
        for speaker in (*speakers, "test/dr1/mwbt9"):
            for sentence in ("sa1", "si648", "sx37"):
                stem = root / case(speaker) / case(sentence)
                name = stem.name + case(suffix)
                recording(stem.with_name(name), seconds=1.0, **options)
                phones = "0 3050 h#\n3050 4559 sh\n4559 16000 iy\n"
                stem.with_name(stem.name + case(".phn")).write_text(phones)
                words = "3050 16000 she\n"
                stem.with_name(stem.name + case(".wrd")).write_text(words)
        return root

    return write


@pytest.mark.parametrize("case", [str.upper, str.lower])
@pytest.mark.parametrize("options", [SPHERE, {}])
def test_trees_of_either_case_and_format(tmp_path, tree, case, options):
    tree(tmp_path / case("timit"), case, **options)
    parts = timit.splits(tmp_path)
    assert {name: list(part) for name, part in parts.items()} == {
        "train": ["fcjf0_si648", "fcjf0_sx37"],
        "valid": ["faks0_si648", "faks0_sx37"],
        "test": ["felc0_si648", "felc0_sx37"],
    }
    entry = parts["train"]["fcjf0_si648"]
    assert entry["phones"] == "h# sh iy" and entry["words"] == "she"
    assert entry["phone_times"][1] == [3050 / 16000, 4559 / 16000, "sh"]
    assert entry["word_times"] == [[3050 / 16000, 1.0, "she"]]
    result = prepare("timit", tmp_path, tmp_path / "save", workers=1)
    assert result.skipped == {"train": 0, "valid": 0, "test": 0}
    written = read_manifest(result.manifests["train"])["fcjf0_si648"]
    assert written["phone_times"] == entry["phone_times"]
    assert len(load_entry(written)) == 16000


def test_a_riff_copy_wins_over_the_sphere_file(tmp_path, tree):
    tree(tmp_path / "data", str.upper, **SPHERE)
    tree(tmp_path / "data", str.upper, suffix=".wav.wav", format="WAV")
    parts = timit.splits(tmp_path)
    assert [len(part) for part in parts.values()] == [2, 2, 2]
    assert parts["test"]["felc0_sx37"]["wav"].endswith("SX37.WAV.WAV")
    assert parts["test"]["felc0_sx37"]["phones"] == "h# sh iy"


def test_the_standard_sets_have_24_and_50_speakers():
    assert (len(timit.CORE_TEST), len(timit.DEVELOPMENT)) == (24, 50)
    assert not timit.CORE_TEST & timit.DEVELOPMENT
    # Two men and a woman of each of the eight dialect regions.
    assert sum(name.startswith("f") for name in timit.CORE_TEST) == 8


def test_the_wrong_folder_ends_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="TRAIN/DR1/FCJF0/SI648.WAV"):
        timit.splits(tmp_path)
