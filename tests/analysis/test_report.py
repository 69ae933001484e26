"""A report is one file that needs nothing else."""

import json
import re

import pytest
import torch
from matplotlib.figure import Figure

from speechbrain_vae.analysis.report import Section, Table, write_report


def line(name="line"):
    figure = Figure(figsize=(2, 2))
    figure.subplots().plot([0, 1])
    return name, figure, "A <em>line</em>."


def test_a_report_loads_nothing_from_anywhere(tmp_path):
    section = Section("Part", "Text with `code`.", [line()])
    page = write_report(tmp_path, "Title & more", [section]).read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert "Title &amp; more" in page and "<code>code</code>" in page
    assert "prefers-color-scheme: dark" in page


def test_every_number_is_in_the_json(tmp_path):
    numbers = {"codes": torch.arange(2), "gap": float("nan"), "deep": {"x": 0.5}}
    write_report(tmp_path, "Title", [Section("First part", numbers=numbers)])
    found = json.loads((tmp_path / "numbers.json").read_text())
    assert found == {"first_part": {"codes": [0, 1], "gap": None, "deep": {"x": 0.5}}}


def test_cells_and_captions_are_text(tmp_path):
    table = Table("Of <i>", ("name", "value"), [["<b>", 0.12345], ["x", 7]])
    name, figure, _ = line()
    section = Section("A", "", [(name, figure, 'Of "<u>"')], [table])
    page = write_report(tmp_path, "Title", [section]).read_text()
    assert "<td>&lt;b&gt;</td><td>0.123</td>" in page
    assert "<caption>Of &lt;i&gt;</caption>" in page
    assert page.count("Of &quot;&lt;u&gt;&quot;") == 2


def test_a_second_report_removes_the_first_and_nothing_else(tmp_path):
    mine = [tmp_path / "figures/mine.png", tmp_path / "notes.item"]
    gif = [("growth", b"GIF89a", "It grows.")]
    first = Section("A", "", [line("old")], animations=gif, files={"abx.item": "#"})
    write_report(tmp_path, "First", [first])
    for path in mine:
        path.write_text("mine")
    assert len(list((tmp_path / "figures").iterdir())) == 4
    write_report(tmp_path, "Second", [Section("A", "", [line("new")])])
    left = {path.name for path in (tmp_path / "figures").iterdir()}
    assert left == {"mine.png", "new.png", "new.svg"}
    assert not (tmp_path / "abx.item").exists() and mine[1].exists()


def test_a_page_that_names_files_elsewhere_removes_nothing(tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "mine.txt").write_text("mine")
    names = f"../mine.txt {tmp_path}/mine.txt figures/../../mine.*"
    page = f'<meta name="files" content="{names}">'
    (tmp_path / "report/report.html").write_text(page)
    write_report(tmp_path / "report", "Second", [])
    assert (tmp_path / "mine.txt").exists()


def test_two_figures_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="names of their own"):
        write_report(tmp_path, "Title", [Section("A", "", [line(), line()])])
