"""Time jitter."""

import pytest
import torch

from speechbrain_vae.nnet.quantisers.jitter import TimeJitter


def test_frames_are_replaced_by_either_neighbour_as_often_as_asked():
    torch.manual_seed(0)
    x = torch.arange(20_000.0).view(1, -1, 1)
    moved = (TimeJitter(0.12)(x) - x).flatten()
    assert set(moved.tolist()) == {-1, 0, 1}
    for step in (-1, 1):
        assert (moved == step).float().mean() == pytest.approx(0.06, abs=0.01)


def test_nothing_comes_from_padding_and_nothing_goes_there():
    torch.manual_seed(0)
    x = torch.arange(10.0).repeat(50, 1).unsqueeze(-1)
    out = TimeJitter(1.0)(x, torch.full((50,), 0.6))
    assert out[:, :6].max() == 5
    assert torch.equal(out[:, 6:], x[:, 6:])


def test_evaluation_changes_nothing():
    x = torch.randn(2, 10, 3)
    assert torch.equal(TimeJitter(1.0).eval()(x), x)


def test_a_probability_above_one_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1; got 1.5"):
        TimeJitter(1.5)
