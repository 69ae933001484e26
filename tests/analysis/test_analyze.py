"""One command from an export to a report."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.loading import load_script
from speechbrain_vae.analysis import toy
from speechbrain_vae.analysis.items import read_items

RECIPES = Path(__file__).resolve().parents[2] / "recipes/Interpret"
SLUGS = {
    "overtime": "codes_over_time",
    "codes": "codes_and_phones",
    "order": "order_of_the_codebook",
    "latents": "continuous_latents",
    "discrimination": "abx_phone_discrimination",
}


@pytest.fixture
def analyze():
    return load_script(RECIPES / "analyze.py")


@pytest.fixture
def corpus(tmp_path):
    """A folder of noise by four speakers, two to train, and an alignment of it."""
    rng = np.random.default_rng(0)
    lines = []
    for speaker in "abcd":
        (tmp_path / "data" / speaker).mkdir(parents=True)
        for take in "12":
            noise = rng.normal(size=16000) / 10
            soundfile.write(tmp_path / f"data/{speaker}/{take}.wav", noise, 16000)
            for i, phone in enumerate(rng.permutation(["S", "F", "AA", "M"])):
                lines.append(f"{speaker}-{take} 1 {0.1 + 0.1 * i:.1f} 0.1 {phone}")
    alignment = tmp_path / "phones.ctm"
    alignment.write_text("\n".join(lines))
    return ["--corpus", "folder", "--data_folder", str(tmp_path / "data")], alignment


def test_a_discrete_export_gives_a_report(analyze, corpus, discrete_export, tmp_path):
    options, alignment = corpus
    output = tmp_path / "report"
    analyze.main(
        [str(discrete_export("SpaceFillingVQ")), *options]
        + ["--compare", str(discrete_export("VectorQuantizer"))]
        + ["--alignment", str(alignment), "--output", str(output)]
        + ["--sections", "overtime", "codes"]
    )
    numbers = json.loads((output / "numbers.json").read_text())
    assert list(numbers) == ["codes_over_time", "codes_and_phones"]
    for figure in (output / "figures").glob("*.png"):
        assert figure.with_suffix(".svg").is_file()


def test_sections_that_do_not_apply_are_named(analyze, corpus, tiny_export, tmp_path):
    options, _ = corpus
    output = tmp_path / "report"
    analyze.main(
        [str(tiny_export), *options, "--output", str(output)]
        + ["--sections", "codes", "discrimination"]
    )
    left_out = json.loads((output / "numbers.json").read_text())["left_out"]
    assert "continuous" in left_out["codes"]
    assert "--alignment" in left_out["discrimination"]


def test_a_folder_that_is_no_export_ends_in_one_line(analyze, corpus, tmp_path):
    with pytest.raises(SystemExit, match="error: .* is not an export"):
        analyze.main([str(tmp_path), *corpus[0], "--output", str(tmp_path / "out")])


def report(analyze, corpus, export, output, *options):
    """Numbers of a report on the two speakers of the train set."""
    where, alignment = corpus
    analyze.main(
        [str(export), *where, "--alignment", str(alignment), "--output", str(output)]
        + ["--split", "train", *map(str, options)]
    )
    return json.loads((output / "numbers.json").read_text())


@pytest.mark.parametrize("name", SLUGS)
def test_every_section_can_be_asked_for(
    analyze, corpus, discrete_export, tmp_path, name
):
    export = discrete_export("SpaceFillingVQ")
    options = "--abx_context", "none", "--sections", name
    numbers = report(analyze, corpus, export, tmp_path / "out", *options)
    assert list(numbers) == [SLUGS[name]]
    page = (tmp_path / "out/report.html").read_text()
    assert "does not show" in page
    assert "traversals</strong> decode" not in page.lower()
    assert "KL divergence</strong> says" not in page


def test_words_of_textgrids_are_retrieved(analyze, corpus, tiny_export, tmp_path):
    options, _ = corpus
    said = '"IntervalTier" "words" 0 1 2 0.1 0.3 "so" 0.4 0.6 "so" '
    heard = '"IntervalTier" "phones" 0 1 1 0.1 0.3 "S"'
    for wav in (tmp_path / "data").rglob("*.wav"):
        path = tmp_path / "mfa" / wav.parent.name / f"{wav.stem}.TextGrid"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(said + heard)
    aligned = options, tmp_path / "mfa"
    output = tmp_path / "out"
    sections = "--sections", "retrieval"
    numbers = report(analyze, aligned, tiny_export, output, *sections)
    assert list(numbers) == ["word_retrieval"]


def test_a_second_report_takes_the_place_of_the_first(
    analyze, corpus, discrete_export, tmp_path
):
    export, output = discrete_export("SpaceFillingVQ"), tmp_path / "out"
    options = "--abx_context", "none", "--sections", "discrimination"
    report(analyze, corpus, export, output, *options)
    assert (output / "figures/abx.png").is_file() and (output / "abx.item").is_file()
    report(analyze, corpus, export, output, "--sections", "order")
    kept = sorted(path.name for path in output.iterdir())
    assert kept == ["figures", "manifests", "numbers.json", "report.html"]
    assert {path.stem for path in (output / "figures").iterdir()} == {
        "order_paths",
        "order_distances",
    }


def test_abx_takes_items_and_a_context_and_writes_its_items(
    analyze, corpus, tiny_export, tmp_path
):
    section = "--sections", "discrimination"
    export, first, second = tiny_export, tmp_path / "first", tmp_path / "second"
    options = "--abx_context", "none", *section
    numbers = report(analyze, corpus, export, first, *options)
    items = read_items(first / "abx.item")
    assert len(items) == 16 and len({item.speaker for item in items}) == 2
    options = "--items", first / "abx.item", *options
    assert report(analyze, corpus, export, second, *options) == numbers
    some = tmp_path / "some.item"
    lines = (first / "abx.item").read_text().splitlines(keepends=True)
    some.write_text("".join([*lines[:13], "other 0 1 S AA M x\n"]))
    options = "--items", some, *options[2:]
    assert report(analyze, corpus, export, second, *options) != numbers
    assert len(read_items(second / "abx.item")) == 12


def test_items_without_a_triple_leave_the_section_out(
    analyze, corpus, tiny_export, tmp_path
):
    items = tmp_path / "two.item"
    items.write_text(
        "#file onset offset #phone prev-phone next-phone speaker\n"
        "u1 0 1 S AA M x\nu2 0 1 S AA M y\n"
    )
    options = "--sections", "discrimination", "--items", items
    with pytest.raises(SystemExit, match="two.item has no items of the 4 utterances"):
        report(analyze, corpus, tiny_export, tmp_path / "out", *options)
    utts = sorted(json.loads((tmp_path / "out/manifests/train.json").read_text()))
    text = items.read_text().replace("u1", utts[0]).replace("u2", utts[-1])
    items.write_text(text)
    found = report(analyze, corpus, tiny_export, tmp_path / "out", *options)
    assert "none of 2 items form a triple" in found["left_out"]["discrimination"]


@pytest.mark.parametrize(
    "phone, why", [("SIL", "no frame lies in a phone"), ("ʃ", "in neither ARPAbet nor")]
)
def test_phones_that_say_nothing_leave_the_section_out(
    analyze, corpus, discrete_export, tmp_path, phone, why
):
    lines = [line.split()[:-1] for line in corpus[1].read_text().splitlines()]
    corpus[1].write_text("\n".join(" ".join([*line, phone]) for line in lines))
    export = discrete_export("SpaceFillingVQ")
    options = "--sections", "overtime", "codes"
    numbers = report(analyze, corpus, export, tmp_path / "out", *options)
    assert list(numbers) == ["codes_over_time", "left_out"]
    assert why in numbers["left_out"]["codes"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--utterances", "-1"], "--utterances must be 0, for all, or more; got -1"),
        (["--alignment", "nowhere.ctm"], "there is no alignment nowhere.ctm"),
        (["--alignment", "{bad}"], "bad.ctm, line 1: a start at 0 s or later"),
        (["--alignment", "{late}"], "late.ctm has a phone of .* until 99.1 s"),
        (["--alignment", "{other}"], "none of the utterances of the train set"),
        (["--items", "nowhere.item"], "there is no item file nowhere.item"),
        (["--items", "{bad}"], "bad.ctm: the first line must name the columns"),
    ],
)
def test_what_cannot_be_used_ends_in_one_line(
    analyze, corpus, tiny_export, tmp_path, options, message
):
    names = [f"{speaker}-{take}" for speaker in "abcd" for take in "12"]
    texts = {"bad": "a-1 1 nan 1 K\n", "other": "elsewhere 1 0 1 K\n"}
    texts["late"] = "".join(f"{name} 1 99.0 0.1 K\n" for name in names)
    paths = {name: tmp_path / f"{name}.ctm" for name in texts}
    for name, path in paths.items():
        path.write_text(texts[name])
    options = [option.format(**paths) for option in options]
    with pytest.raises(SystemExit, match=f"^error: .*{message}") as error:
        report(analyze, corpus, tiny_export, tmp_path / "out", *options)
    assert "\n" not in str(error.value)


def test_the_toy_has_a_command_of_its_own(monkeypatch, tmp_path, capsys):
    animate = toy.animate
    monkeypatch.setattr(toy, "STAGE_STEPS", 5)
    monkeypatch.setattr(toy, "BATCH", 64)
    monkeypatch.setattr(toy, "DISTRIBUTIONS", {"uniform": toy.uniform})
    monkeypatch.setattr(toy, "animate", lambda *args: animate(*args[:2], frames=3))
    load_script(RECIPES / "toy.py").main(["--codes", "8", "--output", str(tmp_path)])
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert any(name.endswith(".gif") for name in names) and len(names) > 1
    with pytest.raises(SystemExit, match="--codes must be at least 4; got 2"):
        load_script(RECIPES / "toy.py").main(["--codes", "2"])
