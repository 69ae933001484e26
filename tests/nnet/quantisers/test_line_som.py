import pytest
import torch

from speechbrain_vae.nnet.quantisers.line_som import line_som


def test_neighbours_on_the_line_are_neighbours_in_the_data():
    torch.manual_seed(0)
    angle = 3 * torch.rand(2000, 1)
    x = torch.cat([angle.cos(), angle.sin()], 1) + 0.02 * torch.randn(2000, 2)
    codes = line_som(x, 20)
    steps = torch.atan2(codes[:, 1], codes[:, 0]).diff()
    assert (steps > 0).all() or (steps < 0).all()


def test_a_narrow_neighbourhood_costs_less_distortion_than_a_wide_one():
    torch.manual_seed(0)
    x = torch.randn(3000, 8)
    errors = [
        torch.cdist(x, line_som(x, 32, width=w)).min(1).values.square().mean()
        for w in (0.3, 2.0)
    ]
    assert errors[0] < 0.95 * errors[1]


@pytest.mark.parametrize("x", [torch.randn(3, 4), torch.ones(10, 4)])
def test_few_or_equal_frames_give_finite_codes(x):
    codes = line_som(x, 16)
    assert codes.shape == (16, 4) and torch.isfinite(codes).all()


def test_it_is_deterministic():
    x = torch.randn(200, 4)
    assert torch.equal(line_som(x, 8), line_som(x, 8))


def test_no_frames_and_a_width_of_zero_are_refused():
    with pytest.raises(ValueError, match="at least one frame"):
        line_som(torch.zeros(0, 4), 8)
    with pytest.raises(ValueError, match="width must be above 0"):
        line_som(torch.zeros(5, 4), 8, width=0)
