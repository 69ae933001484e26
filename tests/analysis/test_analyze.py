"""One command from an export to a report."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

RECIPE = Path(__file__).resolve().parents[2] / "recipes/Interpret/analyze.py"


@pytest.fixture
def analyze():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("analyze", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def corpus(tmp_path):
    """A folder of noise by three speakers, and an alignment of it."""
    rng = np.random.default_rng(0)
    lines = []
    for speaker in "abc":
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
