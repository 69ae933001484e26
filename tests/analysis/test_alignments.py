"""Phone times are the same from every format that holds them."""

import gzip
import json

import pytest

from speechbrain_vae.analysis.alignments import read_alignment, read_textgrid

TIMES = {"spk_one": [[0.0, 0.25, "sil"], [0.25, 0.5, "K"], [0.5, 1.125, "AE"]]}

LONG_TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.125
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "spk - words"
        xmin = 0
        xmax = 1.125
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 1.125
            text = "he said ""1 2"" 3"
    item [2]:
        class = "IntervalTier"
        name = "spk - phones"
        xmin = 0
        xmax = 1.125
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = "sil"
        intervals [2]:
            xmin = 0.25
            xmax = 0.5
            text = "K"
        intervals [3]:
            xmin = 0.5
            xmax = 1.125
            text = "AE"
        intervals [4]:
            xmin = 1.125
            xmax = 1.2
            text = ""
"""
SHORT_TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

0
1.125
<exists>
1
"IntervalTier"
"phones"
0
1.125
3
0
0.25
"sil"
0.25
0.5
"K"
0.5
1.125
"AE"
"""


def _manifest(folder):
    entry = {"wav": "{data_root}/a.wav", "phone_times": TIMES["spk_one"]}
    path = folder / "test.json"
    path.write_text(json.dumps({"spk_one": entry, "two": {"wav": "b.wav"}}))
    return path


def _ctm(folder):
    lines = [
        f"{utt} 1 {start} {end - start} {phone}"
        for utt, rows in TIMES.items()
        for start, end, phone in reversed(rows)
    ]
    path = folder / "phones.ctm"
    path.write_text(";; comment\n" + "\n".join(lines))
    return path


def _tsv(folder):
    path = folder / "alignment.tsv.gz"
    with gzip.open(path, "wt") as file:
        file.write("utt\tstart_s\tend_s\tphone\tspeaker\n")
        for utt, rows in TIMES.items():
            for start, end, phone in rows:
                file.write(f"{utt}\t{start}\t{end}\t{phone}\tspk\n")
    return path


def _phn(folder):
    (folder / "TRAIN" / "SPK").mkdir(parents=True)
    lines = [
        f"{round(start * 16000)} {round(end * 16000)} {phone}"
        for start, end, phone in TIMES["spk_one"]
    ]
    (folder / "TRAIN" / "SPK" / "ONE.PHN").write_text("\n".join(lines))
    return folder


def _long_textgrid(folder):
    (folder / "spk_one.TextGrid").write_text(LONG_TEXTGRID)
    return folder


def _short_textgrid(folder):
    (folder / "spk_one.TextGrid").write_bytes(SHORT_TEXTGRID.encode("utf-16"))
    return folder


@pytest.mark.parametrize(
    "write", [_manifest, _ctm, _tsv, _phn, _long_textgrid, _short_textgrid]
)
def test_every_format_gives_the_same_times(tmp_path, write):
    assert read_alignment(write(tmp_path)) == TIMES


def test_a_textgrid_without_phones_names_its_tiers(tmp_path):
    (tmp_path / "a.TextGrid").write_text(SHORT_TEXTGRID.replace("phones", "words"))
    with pytest.raises(ValueError, match="no interval tier 'phones'; it has words"):
        read_textgrid(tmp_path / "a.TextGrid")


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.ctm", "u 1 0.0 0.1\n", "line 1: 5 fields expected; got 4"),
        ("a.ctm", "u 1 0.0 x K\n", "line 1: times must be numbers; got 0.0 and x"),
        ("a.ctm", "", "holds no phone times"),
        ("a.tsv", "utt\tstart_s\tend_s\n", "column phone is missing"),
        ("a.wav", "", "an alignment is a .json manifest"),
    ],
)
def test_mistakes_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_alignment(tmp_path / name)


def test_a_missing_alignment_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no alignment"):
        read_alignment(tmp_path / "nowhere.ctm")


def test_the_shared_alignment_is_read(shared_data):
    times = read_alignment(shared_data / "speechocean762" / "alignment.tsv.gz")
    assert len(times) > 1000
    assert all(start < end for rows in times.values() for start, end, _ in rows)
