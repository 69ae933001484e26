"""Labels of the frame probe of benchmarks/representation.py."""

import pytest

from benchmarks.frame_phones import frame_labels, phone_classes


def utterance(*phones):
    return {"phone_times": [[0.1 * i, 0.1 * (i + 1), p] for i, p in enumerate(phones)]}


def test_a_phone_has_one_number_in_all_splits():
    entries = {
        "train": {"a": utterance("SIL", "K", "AE")},
        "test": {"b": utterance("T")},
    }
    assert phone_classes(entries) == {"AE": 0, "K": 1, "SIL": 2, "T": -1}
    timit = {"train": {"a": utterance("h#", "ix", "ih", "q", "tcl")}}
    assert phone_classes(timit) == {"h#": 1, "tcl": 1, "ix": 0, "ih": 0, "q": -1}


@pytest.mark.parametrize("shift", [10, 20, 40])
def test_a_centre_on_a_border_is_of_the_phone_that_begins(shift):
    """Exactly, in whole milliseconds, as alignments of 5 ms steps have borders."""
    borders = [*range(0, 6000, 45), 6000]
    spans = list(zip(borders, borders[1:], strict=False))
    times = [[start / 1000, end / 1000, i % 2] for i, (start, end) in enumerate(spans)]
    first, count = (shift - 10) // 2, 5900 // shift
    centres = [first + shift * frame for frame in range(count)]
    exact = [max(i for i, b in enumerate(borders) if b <= c) % 2 for c in centres]
    found = frame_labels(times, count, shift / 1000, first / 1000, {0: 0, 1: 1})
    assert found.tolist() == exact
