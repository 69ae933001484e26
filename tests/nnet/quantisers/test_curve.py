import pytest
import torch

from benchmarks.quantiser_geometry import brute_force
from speechbrain_vae.nnet.quantisers.curve import (
    insert_corners,
    nearest_segments,
    points_at,
    project,
    untangle,
)


@pytest.mark.parametrize("size,dim", [(2, 1), (3, 2), (64, 5), (300, 64)])
def test_projection_equals_brute_force_over_all_segments(size, dim):
    torch.manual_seed(0)
    x, corners = torch.randn(2000, dim), torch.randn(size, dim)
    _, position, points = project(x, corners)
    exact = brute_force(x, corners).min(1).values
    ours = (x.double() - points.double()).square().sum(1)
    assert torch.allclose(ours, exact, atol=1e-5, rtol=1e-5)
    assert abs(ours.mean() / exact.mean() - 1) < 1e-6
    assert position.min() >= 0 and position.max() <= 1


def test_an_offset_common_to_frames_and_corners_does_not_matter():
    torch.manual_seed(0)
    x, corners = torch.randn(500, 8), torch.randn(32, 8)
    near, _ = nearest_segments(x, corners)
    far, _ = nearest_segments(x + 256, corners + 256)
    assert (near == far).double().mean() > 0.995


def test_points_lie_where_segment_and_position_say():
    torch.manual_seed(0)
    x, corners = torch.randn(100, 3), torch.randn(9, 3)
    segment, position, points = project(x, corners)
    assert torch.allclose(points_at(corners, segment, position), points, atol=1e-6)


@pytest.mark.parametrize("corners", [torch.zeros(5, 3), torch.eye(3)[[0, 0, 1, 1, 1]]])
def test_coinciding_corners_give_the_nearest_point_and_no_nan(corners):
    x = torch.randn(50, 3)
    _, position, points = project(x, corners)
    assert torch.isfinite(position).all() and torch.isfinite(points).all()
    ours = (x - points).square().sum(1).double()
    assert torch.allclose(ours, brute_force(x, corners).min(1).values, atol=1e-5)


@pytest.mark.parametrize("tension", [0.0, 0.5, 1.0])
def test_the_dithered_segment_has_the_least_cost(tension):
    torch.manual_seed(0)
    x, corners, dither = torch.randn(500, 6), torch.randn(20, 6), torch.rand(19)
    _, chosen = nearest_segments(x, corners, dither, tension)
    points = points_at(corners, torch.arange(19), dither)
    cost = torch.cdist(x.double(), points.double()).square()
    cost += tension * dither * (1 - dither) * corners.diff(dim=0).square().sum(1)
    mine = cost.gather(1, chosen[:, None])[:, 0]
    assert torch.allclose(mine, cost.min(1).values, atol=1e-5)


def test_inserted_corners_leave_the_curve_and_its_order_as_they_were():
    torch.manual_seed(0)
    corners, load = torch.randn(7, 4), torch.tensor([0.0, 5, 1, 0, 9, 2])
    longer = insert_corners(corners, load, 10)
    assert len(longer) == 17
    _, _, points = project(longer, corners)
    assert torch.allclose(points, longer, atol=1e-5)
    kept = torch.cdist(corners, longer).argmin(1)
    assert (kept.diff() > 0).all() and kept[0] == 0 and kept[-1] == 16
    assert kept.diff()[4] == kept.diff().max()


def test_a_segment_without_length_is_not_split():
    corners = torch.tensor([[0.0], [0.0], [1.0]])
    longer = insert_corners(corners, torch.tensor([100.0, 1.0]), 2).flatten()
    assert longer.unique().numel() == 4


def test_one_corner_is_refused():
    with pytest.raises(ValueError, match="at least 2 corners; got 1"):
        project(torch.zeros(3, 2), torch.zeros(1, 2))


@pytest.mark.parametrize("size", [2, 3, 40, 700])
def test_untangling_shortens_the_curve_and_keeps_its_corners(size):
    torch.manual_seed(0)
    corners = torch.randn(size, 2)
    order = untangle(corners, moves=30)
    assert torch.equal(order.sort().values, torch.arange(size))

    def length(points):
        return points.diff(dim=0).norm(dim=1).sum()

    assert length(corners[order]) <= length(corners)
    if size > 3:
        assert length(corners[order]) < 0.9 * length(corners)
