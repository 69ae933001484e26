"""Phone times are the same from every format that holds them."""

import gzip
import json

import pytest

from speechbrain_vae.analysis.alignments import (
    read_alignment,
    read_textgrid,
    read_times,
)
from speechbrain_vae.dataio.manifests import safe_ids

TSV = "utt\tstart_s\tend_s\tphone\n"
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
        ("a.ctm", "\nu 1 nan 0.1 K\n", "line 2: a start at 0 s or later.*got nan"),
        ("a.ctm", "u 1 0.3 -0.1 K\n", "line 1: .* got 0.3 to 0.2 s"),
        ("a.ctm", b"u 1 0.3 0.1 K\nu 1 0.4 0.1 \xe9\n", "line 2: not UTF-8"),
        ("a.tsv", TSV + "u\t-1\t0\tK\n", "line 2: .* got -1 to 0 s"),
        ("a.tsv", TSV + "u\t0\t1\n", "line 2: fewer fields"),
        ("a.tsv.gz", TSV, "is not a whole gzip file"),
        (
            "a.tsv.gz",
            gzip.compress(TSV.encode(), mtime=0)[:-9],
            "is not a whole gzip file",
        ),
        ("a.json", '{"u": {"wav": "", "phone_times": [[2, 1, "K"]]}}', "utterance u"),
    ],
)
def test_mistakes_are_named(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as error:
        read_alignment(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no interval tier 'phones'; it has none"),
        (SHORT_TEXTGRID[:-6], "line 8: this tier has not as many intervals"),
        (SHORT_TEXTGRID[:90], "line 8: this tier has not as many intervals"),
        (SHORT_TEXTGRID.replace("0.25\n0.5", "0.5\n0.25"), "line 16: .* got 0.5 to"),
        (SHORT_TEXTGRID.replace('0.5\n"K"', '"K"\n0.5'), "line 16: times must be"),
    ],
)
def test_a_damaged_textgrid_is_named(tmp_path, text, message):
    (tmp_path / "a.TextGrid").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_alignment(tmp_path)
    assert str(error.value).startswith(str(tmp_path / "a.TextGrid"))


def _mirror(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(LONG_TEXTGRID)


def test_textgrids_that_mirror_a_corpus_are_named_as_its_utterances(tmp_path):
    _mirror(tmp_path, "ann/00.TextGrid", "bob/00.TextGrid", "bob/b 1.TextGrid")
    names = ["ann/00.flac", "bob/00.flac"]
    assert read_alignment(tmp_path).keys() > set(safe_ids(names).values())
    assert safe_ids(["bob/b 1.wav"])["bob/b 1.wav"] in read_alignment(tmp_path)


def test_a_textgrid_goes_by_its_bare_name_where_that_is_the_only_one(tmp_path):
    _mirror(tmp_path, "ann/00.TextGrid", "bob/00.TextGrid", "bob/01.TextGrid")
    assert set(read_alignment(tmp_path)) == {"ann-00", "bob-00", "bob-01", "01"}


def test_words_are_read_from_the_tier_that_mfa_writes(tmp_path):
    _mirror(tmp_path, "ann/00.TextGrid")
    assert read_times(tmp_path)[1]["ann-00"] == [[0.0, 1.125, 'HE SAID "1 2" 3']]
    (tmp_path / "ann/00.TextGrid").write_text(SHORT_TEXTGRID)
    assert read_times(tmp_path)[1] == {}
    assert read_times(_ctm(tmp_path))[1] == {}


def test_a_missing_alignment_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no alignment"):
        read_alignment(tmp_path / "nowhere.ctm")


def test_the_shared_alignment_is_read(shared_data):
    times = read_alignment(shared_data / "speechocean762" / "alignment.tsv.gz")
    assert len(times) > 1000
    assert all(start < end for rows in times.values() for start, end, _ in rows)
