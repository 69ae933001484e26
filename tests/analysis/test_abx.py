"""ABX by its definition, and what must not change it."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch

from speechbrain_vae.analysis.abx import abx_error
from speechbrain_vae.analysis.dtw import pair_distances
from speechbrain_vae.analysis.items import Item, items_from_alignment
from speechbrain_vae.analysis.phones import manner

SHIFT = 0.01


def corpus(speakers=3, utterances=3, phones=12, kinds=("S", "F", "M", "AA"), seed=0):
    """Phones at random, each 20 to 60 ms long, and their items."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high, (1,), generator=generator))

    times, speaker_of = {}, {}
    for speaker in range(speakers):
        for utterance in range(utterances):
            utt, end, rows = f"s{speaker}u{utterance}", 0, []
            for _ in range(phones):
                start, end = end, end + draw(2, 7)
                phone = kinds[draw(0, len(kinds))]
                rows.append([start * SHIFT, end * SHIFT, phone])
            times[utt], speaker_of[utt] = rows, f"speaker{speaker}"
    return times, items_from_alignment(times, speaker_of)


def random_features(times, size=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        utt: torch.randn(round(rows[-1][1] / SHIFT) + 1, size, generator=generator)
        for utt, rows in times.items()
    }


def brute_force(features, items, context):
    """Every triple by itself, then means as the definition says."""

    def key(item):
        names = (item.previous, item.following)
        if context == "manner":
            names = tuple(manner(name) for name in names)
        return None if context == "none" else names

    slices = []
    for item in items:
        centres = SHIFT * torch.arange(len(features[item.utt]), dtype=torch.float64)
        inside = (centres > item.start - 1e-9) & (centres < item.end + 1e-9)
        slices.append(features[item.utt][inside])
    counts = torch.tensor([len(part) for part in slices])
    everything = range(len(items))
    pairs = torch.tensor(list(itertools.product(everything, repeat=2)))
    distance = pair_distances(
        torch.cat(slices), counts.cumsum(0) - counts, counts, pairs
    ).view(len(items), len(items))

    within, across = defaultdict(list), defaultdict(list)
    number = 0
    for x, a, b in itertools.permutations(everything, 3):
        one, two, three = items[x], items[a], items[b]
        if not (key(one) == key(two) == key(three) and one.phone == two.phone):
            continue
        if two.phone == three.phone or two.speaker != three.speaker:
            continue
        difference = float(distance[x, a] - distance[x, b])
        error = 0.5 if abs(difference) < 1e-6 else float(difference > 0)
        cell = (two.phone, three.phone, two.speaker, key(one), one.speaker)
        (within if one.speaker == two.speaker else across)[cell].append(error)
        number += 1
    return {"within": _mean(within), "across": _mean(across), "triples": number}


def _mean(cells):
    """Over a cell, over contexts and speakers of X, over speakers, over phones."""
    for depth in (3, 2, 0):
        means = defaultdict(list)
        for cell, errors in cells.items():
            means[cell[:depth]].append(sum(errors) / len(errors))
        cells = means
    return 100 * sum(cells[()]) / len(cells[()])


@pytest.mark.parametrize("context", ["none", "manner", "triphone"])
def test_abx_equals_brute_force(context):
    times, items = corpus(speakers=3, utterances=2, phones=10)
    features = random_features(times)
    expected = brute_force(features, items, context)
    result = abx_error(
        features,
        items,
        SHIFT,
        context=context,
        max_items_per_cell=1000,
        max_x_speakers=1000,
    )
    found = {name: result[name] for name in expected}
    assert found == pytest.approx(expected, abs=1e-6)


def test_features_that_are_the_phone_make_no_error():
    times, items = corpus()
    kinds = sorted({item.phone for item in items})
    features = random_features(times, size=len(kinds))
    for utt, rows in times.items():
        for start, end, phone in rows:
            # The frame at a border is inside both phones.
            inside = slice(round(start / SHIFT), round(end / SHIFT) + 1)
            features[utt][inside] = torch.eye(len(kinds))[kinds.index(phone)]
    inner = [item._replace(start=item.start + 0.5 * SHIFT) for item in items]
    inner = [item._replace(end=item.end - 0.5 * SHIFT) for item in inner]
    result = abx_error(features, inner, SHIFT, context="none")
    assert result["within"] == result["across"] == 0


def test_frames_that_are_all_the_same_are_at_chance():
    times, items = corpus()
    features = {utt: torch.ones_like(x) for utt, x in random_features(times).items()}
    result = abx_error(features, items, SHIFT)
    assert result["within"] == result["across"] == 50


def test_zero_frames_are_at_chance():
    times, items = corpus()
    features = {utt: torch.zeros_like(x) for utt, x in random_features(times).items()}
    assert abx_error(features, items, SHIFT)["within"] == 50


def test_random_features_are_at_chance():
    # Items of one length: otherwise DTW finds cheaper paths between unequal ones.
    times, items = corpus(utterances=8, phones=20)
    items = [item._replace(end=item.start + 3 * SHIFT) for item in items]
    result = abx_error(random_features(times), items, SHIFT, context="none")
    assert result["within"] == pytest.approx(50, abs=4)
    assert result["across"] == pytest.approx(50, abs=4)


def test_exchanging_items_of_the_same_phone_changes_nothing():
    # One cell a phone, so that an item's name is all that its cell knows of it.
    kinds = ("S", "F", "M")
    frames = random_features({"a": [[0, 36 * 4 * SHIFT, "S"]]}, size=4)["a"]
    items = [
        Item("a", (4 * i + 0.5) * SHIFT, (4 * i + 3.5) * SHIFT, kinds[i % 3], *"FFx")
        for i in range(36)
    ]
    expected = abx_error({"a": frames}, items, SHIFT, max_items_per_cell=99)
    blocks = frames[: 36 * 4].view(12, 3, 4, 4)
    for kind in range(3):
        order = torch.randperm(12, generator=torch.Generator().manual_seed(kind))
        blocks[:, kind] = blocks[order, kind].clone()
    result = abx_error({"a": frames}, items, SHIFT, max_items_per_cell=99)
    assert result["within"] == pytest.approx(expected["within"], abs=1e-9)
    assert math.isnan(result["across"])


def test_the_order_of_the_items_changes_nothing():
    times, items = corpus(utterances=6)
    features = random_features(times)
    options = {"max_items_per_cell": 3, "max_x_speakers": 1, "context": "none"}
    expected = abx_error(features, items, SHIFT, **options)
    assert abx_error(features, items[::-1], SHIFT, **options) == expected
    assert abx_error(features, items, SHIFT, seed=1, **options) != expected


def test_leaving_out_one_speaker_gives_the_standard_error():
    times, items = corpus()
    features = random_features(times)
    options = {"max_items_per_cell": 99, "max_x_speakers": 99, "context": "none"}
    result = abx_error(features, items, SHIFT, **options)
    names = sorted({item.speaker for item in items})
    for kind in ("within", "across"):
        means = [
            abx_error(
                features, [i for i in items if i.speaker != name], SHIFT, **options
            )[kind]
            for name in names
        ]
        expected = np.std(means) * math.sqrt(len(names) - 1)
        assert result[f"{kind}_se"] == pytest.approx(expected)


def test_what_is_compared_does_not_depend_on_the_features():
    times, items = corpus(utterances=6)
    fine = random_features(times)
    coarse = {utt: frames[::4] for utt, frames in fine.items()}
    options = {"max_items_per_cell": 3, "context": "none"}
    triples = abx_error(fine, items, SHIFT, **options)["triples"]
    # Frames of 40 ms: some phones cover the centre of none.
    assert abx_error(coarse, items, 4 * SHIFT, **options)["triples"] == triples


def test_the_limits_bound_the_number_of_triples():
    times, items = corpus(speakers=4, utterances=8, kinds=("S", "F"))
    result = abx_error(
        random_features(times),
        items,
        SHIFT,
        context="none",
        max_items_per_cell=2,
        max_x_speakers=1,
    )
    # 4 speakers and 2 phones: 2 x 1 x 2 triples within, 2 x 2 x 2 across.
    assert result["triples"] == 4 * 2 * (4 + 8)


def test_the_time_of_the_first_frame_moves_the_frames():
    times, items = corpus()
    features = random_features(times)
    expected = abx_error(features, items, SHIFT)
    later = {utt: frames[2:] for utt, frames in features.items()}
    # The first two frames are missing: only items after them are the same.
    items = [item for item in items if item.start > 2 * SHIFT - 1e-9]
    moved = abx_error(later, items, SHIFT, first_frame=2 * SHIFT)
    assert moved == abx_error(features, items, SHIFT) != expected


@pytest.mark.parametrize(
    "change, message",
    [
        ({"context": "word"}, "context must be one of triphone, manner, none"),
        ({"max_items_per_cell": 0}, "max_items_per_cell must be at least 1"),
        ({"max_x_speakers": 0}, "max_x_speakers must be at least 1"),
        ({"frame_shift": 0}, "frame_shift must be positive"),
        ({"frame_shift": 0.001}, "is frame_shift right"),
        ({"items": []}, "none of 0 items form a triple"),
        ({"features": {}}, "has no features"),
    ],
)
def test_mistakes_are_named(change, message):
    times, items = corpus()
    arguments = {
        "features": random_features(times),
        "items": items,
        "frame_shift": SHIFT,
    }
    with pytest.raises(ValueError, match=message):
        abx_error(**(arguments | change))


def test_features_that_are_not_finite_are_refused():
    times, items = corpus()
    features = random_features(times)
    features["s1u0"][3] = math.nan
    with pytest.raises(ValueError, match="'s1u0' are not finite"):
        abx_error(features, items, SHIFT)
