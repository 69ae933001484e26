"""Items come from alignments and survive a ZeroSpeech item file."""

import pytest

from speechbrain_vae.analysis.items import (
    HEADER,
    Item,
    items_from_alignment,
    read_items,
    write_items,
)

TIMES = {
    "u1": [
        [0.0, 0.1, "sil"],
        [0.1, 0.2, "k"],
        [0.2, 0.3, "ae1"],
        [0.3, 0.4, "t"],
        [0.6, 0.7, "s"],
    ]
}


def test_silence_is_a_context_and_no_item():
    items = items_from_alignment(TIMES, {"u1": "Ann"})
    assert [(i.previous, i.phone, i.following) for i in items] == [
        ("SIL", "K", "AE"),
        ("K", "AE", "T"),
        ("AE", "T", "SIL"),
        ("SIL", "S", "SIL"),
    ]
    assert {item.speaker for item in items} == {"Ann"}


@pytest.mark.parametrize("start", [0.1, 0.5, 1.1, 2.3])
@pytest.mark.parametrize("gap, previous", [(0.02, "K"), (0.025, "SIL")])
def test_a_short_gap_is_no_silence_wherever_it_is(start, gap, previous):
    times = [[start - 0.1, start, "K"], [start + gap, start + 0.1, "T"]]
    items = items_from_alignment({"u1": times}, {"u1": "Ann"})
    assert items[1].previous == previous


def test_triphone_items_span_their_neighbours():
    (item,) = items_from_alignment(TIMES, {"u1": "Ann"}, span="triphone")
    assert item == Item("u1", 0.1, 0.4, "AE", "K", "T", "Ann")


def test_an_item_file_is_read_as_it_was_written(tmp_path):
    items = items_from_alignment(TIMES, {"u1": "Ann"})
    write_items(tmp_path / "a.item", items)
    assert read_items(tmp_path / "a.item") == items


def test_columns_of_an_item_file_may_come_in_any_order(tmp_path):
    (tmp_path / "a.item").write_text(
        "#file speaker onset offset next-phone prev-phone #phone\nu Ann 0 1 T K AE\n"
    )
    (item,) = read_items(tmp_path / "a.item")
    assert item == Item("u", 0.0, 1.0, "AE", "K", "T", "Ann")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "#file.* is missing"),
        ("#file onset offset #phone prev-phone next-phone\n", "speaker is missing"),
        (f"{HEADER}\nu 0 1 AE K T\n", "line 2: 6 fields instead of 7"),
        (f"{HEADER}\n\nu 0 x AE K T Ann\n", "line 3: times must be seconds"),
        (f"{HEADER}\nu nan 1 AE K T Ann\n", "line 2: times must be seconds"),
        (f"{HEADER}\nu 2 1 AE K T Ann\n", "line 2: .* got 2 and 1"),
    ],
)
def test_a_broken_item_file_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / "a.item").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_items(tmp_path / "a.item")


def test_names_with_spaces_cannot_be_written(tmp_path):
    item = Item("my file", 0.0, 1.0, "AE", "K", "T", "Ann")
    with pytest.raises(ValueError, match="no white space"):
        write_items(tmp_path / "a.item", [item])


@pytest.mark.parametrize(
    "speakers, span, message",
    [({}, "phone", "has no speaker"), ({"u1": "Ann"}, "word", "span must be one of")],
)
def test_mistakes_are_named(speakers, span, message):
    with pytest.raises(ValueError, match=message):
        items_from_alignment(TIMES, speakers, span)
