"""Every section runs on what it is for, and says why it does not run on the rest."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from speechbrain_vae.analysis import codes, discrimination, order, overtime
from speechbrain_vae.analysis.context import AnalysisContext, NotApplicable


@pytest.mark.parametrize("module", [overtime, codes, order, discrimination])
def test_a_section_has_text_numbers_and_figures_with_named_axes(module, sfvq):
    section = module.section(sfvq)
    assert "does not show" in section.text and section.numbers and section.tables
    for name, figure, caption in section.figures:
        assert name and caption
        assert any(axis.get_xlabel() for axis in figure.axes), name
        labels = [axis.get_ylabel() for axis in figure.axes]
        assert any(labels) or figure._supylabel or module is discrimination, name


@pytest.mark.parametrize("module", [overtime, codes, order])
def test_codes_of_a_continuous_model_are_not_looked_at(module, tiny_export, entries):
    with pytest.raises(NotApplicable, match="continuous"):
        module.section(AnalysisContext(tiny_export, entries))


@pytest.mark.parametrize("module", [overtime, codes, order])
def test_a_model_of_several_codebooks_is_left_out_and_named(
    module, sfvq, discrete_export, entries
):
    product = AnalysisContext(discrete_export("ProductQuantizer"), entries)
    sfvq.others.insert(0, product)
    section = module.section(sfvq)
    assert "ProductQuantizer gives 2 indices a frame" in section.text
    assert "VectorQuantizer" in str(section.numbers)
    with pytest.raises(NotApplicable, match="2 indices a frame"):
        module.section(product)


def test_phones_need_phone_times(sfvq, entries):
    bare = {utt: {"wav": entry["wav"]} for utt, entry in entries.items()}
    with pytest.raises(NotApplicable, match="phone times"):
        codes.section(AnalysisContext(sfvq.source, bare))


def test_every_frame_of_every_utterance_is_counted(sfvq):
    names, counts = codes.counts_of(sfvq)
    assert counts.sum() == sum(len(sfvq[utt].indices) for utt in sfvq.entries)
    assert "SIL" in names and "AA" in names


def test_pairs_that_were_not_tested_are_named(sfvq):
    section = codes.section(sfvq)
    table = next(table for table in section.tables if "left out" in table.columns)
    column = table.columns.index("left out")
    assert all("sh-zh" in row[column] for row in table.rows)


def test_models_are_drawn_over_the_same_sentences(sfvq):
    section = overtime.section(sfvq)
    for by_model in section.numbers.values():
        assert list(by_model) == ["SpaceFillingVQ", "VectorQuantizer"]
    assert len(section.figures[0][1].axes) == 4


def test_names_of_phones_do_not_lie_over_each_other(sfvq, entries):
    times = [[0.3 + i / 100, 0.31 + i / 100, "NG"] for i in range(40)]
    entries["u0"]["phone_times"] = times
    figure = overtime.draw([sfvq], "u0")
    FigureCanvasAgg(figure).draw()
    texts = [text for text in figure.axes[0].texts if text.get_text() == "NG"]
    boxes = [text.get_window_extent() for text in texts]
    assert 5 < len(boxes) < len(times)
    assert all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False))


def test_a_peak_is_over_its_bar_and_in_the_figure():
    counts = np.ones((1, 512), dtype=int)
    # The highest bar is not the one of the most frequent code.
    counts[0, 100], counts[0, 300:304] = 30, 20
    axis = codes.draw_phones({"model": (["AA"], counts)}).axes[0]
    (peak,) = axis.lines
    assert 300 <= peak.get_xdata()[0] <= 304
    assert peak.get_ydata()[0] < axis.get_ylim()[1] - 0.1


def test_the_legend_of_abx_lies_outside_its_bars():
    bars = {"within": 40.0, "within_se": 1.0, "across": 49.0, "across_se": float("nan")}
    figure = discrimination.draw({f"model {i}": bars for i in range(7)})
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    axis = figure.axes[0].get_window_extent()
    assert not legend.get_window_extent().overlaps(axis)


def test_abx_compares_a_quantiser_with_what_it_quantises(sfvq):
    numbers = discrimination.section(sfvq).numbers
    assert "SpaceFillingVQ, before it quantises" in numbers
    assert len({result["triples"] for result in numbers.values()}) == 1


def test_order_holds_the_codebook_against_a_tour(sfvq):
    numbers = order.section(sfvq).numbers
    assert list(numbers)[:3] == ["SpaceFillingVQ", "k-means", "k-means + tour"]
    assert np.isfinite(list(numbers["k-means + tour"].values())).all()
    assert torch.isfinite(sfvq.codebook).all()
