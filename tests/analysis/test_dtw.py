"""Batched DTW is the DTW of each pair, whatever the padding and the block."""

import itertools
import math

import pytest
import torch

from speechbrain_vae.analysis import dtw as module
from speechbrain_vae.analysis.dtw import (
    angular_distances,
    dtw,
    pair_distances,
    subsequence_dtw,
    unit_frames,
)


def brute_force_dtw(cost):
    """Mean cost along the cheapest path, by the recursion as it is written down."""
    total, length = {}, {}
    for i, row in enumerate(cost.tolist()):
        for j, here in enumerate(row):
            steps = [(i - 1, j - 1), (i, j - 1), (i - 1, j)]
            steps = [step for step in steps if step in total]
            best = min(steps, key=total.get, default=None)
            total[i, j] = here + (total[best] if best else 0)
            length[i, j] = 1 + (length[best] if best else 0)
    return total[i, j] / length[i, j]


def brute_force_distance(x, y):
    """DTW over angles, in float64 and a pair of frames at a time."""
    cost = [
        [
            math.acos(max(-1, min(1, float(torch.cosine_similarity(a, b, dim=0)))))
            for b in y.double()
        ]
        for a in x.double()
    ]
    return brute_force_dtw(torch.tensor(cost, dtype=torch.float64) / math.pi)


def test_batched_dtw_equals_the_recursion():
    torch.manual_seed(0)
    cost = torch.rand(200, 7, 11, dtype=torch.float64)
    n, m = torch.randint(1, 8, (200,)), torch.randint(1, 12, (200,))
    expected = [
        brute_force_dtw(matrix[:rows, :columns])
        for matrix, rows, columns in zip(cost, n, m, strict=True)
    ]
    torch.testing.assert_close(
        dtw(cost, n, m), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("rows, columns", [(1, 1), (1, 6), (6, 1), (9, 2)])
def test_single_rows_and_columns_have_one_path(rows, columns):
    cost = torch.rand(1, rows, columns)
    n, m = torch.tensor([rows]), torch.tensor([columns])
    expected = brute_force_dtw(cost[0])
    assert float(dtw(cost, n, m)) == pytest.approx(expected, abs=1e-6)


def test_what_lies_in_the_padding_is_never_read():
    cost = torch.rand(1, 4, 5)
    padded = torch.full((1, 9, 8), math.nan)
    padded[:, :4, :5] = cost
    sizes = torch.tensor([4]), torch.tensor([5])
    torch.testing.assert_close(dtw(padded, *sizes), dtw(cost, *sizes), rtol=0, atol=0)


def test_of_equal_paths_the_diagonal_one_is_chosen():
    # Every path costs one; the diagonal has three cells, the others up to five.
    cost = torch.zeros(1, 3, 3)
    cost[0, 0, 0] = 1
    size = torch.tensor([3])
    assert float(dtw(cost, size, size)) == pytest.approx(1 / 3)


def test_pairs_of_slices_equal_brute_force(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_PAIRS", 7)
    torch.manual_seed(0)
    frames = torch.randn(60, 6)
    starts = torch.tensor([0, 3, 10, 20, 21, 40, 59])
    counts = torch.tensor([3, 7, 10, 1, 12, 19, 1])
    pairs = torch.cartesian_prod(torch.arange(7), torch.arange(7))
    expected = [
        brute_force_distance(
            frames[starts[a] : starts[a] + counts[a]],
            frames[starts[b] : starts[b] + counts[b]],
        )
        for a, b in pairs
    ]
    result = pair_distances(frames, starts, counts, pairs)
    different = pairs[:, 0] != pairs[:, 1]
    assert (result[~different] == 0).all()
    torch.testing.assert_close(
        result[different], torch.tensor(expected)[different], rtol=0, atol=2e-6
    )


def test_zero_frames_are_at_a_right_angle_to_all_but_each_other():
    frames = unit_frames(torch.tensor([[0.0, 0.0], [-3.0, 4.0], [0.0, 0.0]]))
    distances = angular_distances(frames[None], frames[None])[0]
    assert distances.tolist() == [[0, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0]]


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_angles_do_not_depend_on_the_scale(scale):
    frames = torch.tensor([[1.0, 2.0, 3.0], [3.0, -1.0, 0.5]])
    torch.testing.assert_close(unit_frames(frames * scale), unit_frames(frames))


def test_a_sequence_without_frames_is_refused():
    with pytest.raises(ValueError, match="at least one frame"):
        pair_distances(
            torch.ones(2, 2),
            torch.tensor([0, 1]),
            torch.tensor([1, 0]),
            torch.tensor([[0, 1]]),
        )


def subsequence_by_hand(cost):
    """Least mean cost of all paths that stay, go on by one column or by two."""
    rows, columns = cost.shape
    best = math.inf
    for begin in range(columns):
        for steps in itertools.product((0, 1, 2), repeat=rows - 1):
            path = list(itertools.accumulate(steps, initial=begin))
            if path[-1] < columns:
                total = sum(float(cost[i, j]) for i, j in enumerate(path))
                best = min(best, total / rows)
    return best


def test_a_query_is_found_as_in_a_search_of_all_paths():
    torch.manual_seed(0)
    counts = [1, 2, 7, 3]
    starts = torch.tensor(counts).cumsum(0) - torch.tensor(counts)
    for rows in (1, 2, 4):
        cost = torch.rand(rows, sum(counts))
        mean, _ = subsequence_dtw(cost, starts)
        expected = [subsequence_by_hand(part) for part in cost.split(counts, dim=1)]
        torch.testing.assert_close(mean, torch.tensor(expected))


def test_a_path_never_crosses_into_another_sequence():
    cost = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    mean, end = subsequence_dtw(cost, torch.tensor([0, 1]))
    assert mean.tolist() == [0.5, 0.5]
    assert end.tolist() == [0, 1]
