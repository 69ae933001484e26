"""Measures of order on codebooks whose order is known."""

import math

import pytest
import torch

from speechbrain_vae.analysis.codebook_order import (
    crossings,
    index_jump,
    opponents,
    order_of,
    tour,
)
from speechbrain_vae.nnet.quantisers.nearest import nearest_indices


def test_a_star_without_its_last_line_crosses_itself_three_times():
    angle = torch.arange(5) * 2 * 2 * math.pi / 5
    assert crossings(torch.stack([angle.cos(), angle.sin()], 1)) == 3


def test_a_tour_is_shorter_than_a_random_order_and_has_every_code():
    codes = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    order = tour(codes)
    assert sorted(order.tolist()) == list(range(64))
    length = [c.diff(dim=0).norm(dim=1).sum() for c in (codes[order], codes)]
    assert length[0] < 0.7 * length[1]


def test_the_jump_does_not_cross_from_one_utterance_to_the_next():
    sequences = [torch.tensor([0, 0]), torch.tensor([9, 9])]
    assert index_jump(sequences, 10) == 0
    codes = torch.arange(10.0).unsqueeze(1)
    frames = [codes[sequence] for sequence in sequences]
    assert order_of(codes, sequences, frames)["relative_jump"] == 0


def test_a_line_in_order_beats_itself_out_of_order():
    generator = torch.Generator().manual_seed(0)
    walk = (0.03 * torch.randn(500, 1, generator=generator)).cumsum(0) % 1
    codes = torch.linspace(0, 1, 32).unsqueeze(1)
    shuffled = codes[torch.randperm(32, generator=generator)]
    good, bad = (
        order_of(book, [nearest_indices(walk, book)], [walk])
        for book in (codes, shuffled)
    )
    assert good["distortion"] == pytest.approx(bad["distortion"])
    assert good["spearman"] > 0.99 and abs(bad["spearman"]) < 0.2
    assert good["index_jump"] < bad["index_jump"] / 3
    assert good["neighbour_ratio"] < bad["neighbour_ratio"] / 3


def test_the_tour_of_the_opponent_changes_the_order_alone():
    frames = [torch.randn(200, 4, generator=torch.Generator().manual_seed(0))]
    plain, toured = opponents(frames, 16).values()
    assert torch.equal(plain.sort(0).values, toured.sort(0).values)
