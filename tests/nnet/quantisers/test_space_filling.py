import copy
from pathlib import Path

import pytest
import torch

from speechbrain_vae.nnet.quantisers import NSVQ, DiVeQ, SFDiVeQ, SpaceFillingVQ
from speechbrain_vae.nnet.quantisers.space_filling import CurveLoss, mean_jump
from tests.processes import run_two

ALL = [NSVQ, DiVeQ, SFDiVeQ, SpaceFillingVQ]


def fit(quantiser, x, steps, rate=2e-2, batch=512):
    """Train on random batches of frames [N, D]; the rate falls to a fiftieth."""
    optimiser = torch.optim.Adam(quantiser.parameters(), lr=rate)
    for step in range(steps):
        share = min(1.0, max(0.02, 2 * (1 - step / steps)))
        optimiser.param_groups[0]["lr"] = rate * share
        loss = quantiser(x[torch.randint(len(x), (batch,))][None]).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return quantiser.eval()


def test_the_ends_of_the_curve_reach_the_ends_of_the_data():
    torch.manual_seed(0)
    quantiser = SpaceFillingVQ(1, 4)
    fit(quantiser, torch.rand(20_000, 1), 1000)
    corners = quantiser.codebook.corners.detach().flatten().sort().values
    assert corners[0] < 0.06 and corners[-1] > 0.94


def pentagon(number):
    angle = torch.arange(6) * (2 * torch.pi / 5)
    points = torch.stack([angle.cos(), angle.sin()], 1)
    which = torch.randint(5, (number,))
    share = torch.rand(number, 2).sort(1).values
    a, b = points[which], points[which + 1]
    weights = share.diff(dim=1), share[:, :1]
    return a * weights[0] + b * weights[1]


def crossings(corners):
    """Pairs of segments that cross, of a curve in the plane."""
    a, b = corners[:-1], corners[1:]

    def side(p, q, r):
        u, v = q - p, r - p
        return (u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]).sign()

    p, q = a[:, None], b[:, None]
    apart = side(p, q, a) * side(p, q, b) < 0
    return int((apart & apart.T).sum()) // 2


def test_the_curve_fills_a_pentagon_without_crossing_itself():
    torch.manual_seed(0)
    quantiser = SpaceFillingVQ(2, 32, growth_steps=150)
    fit(quantiser, pentagon(20_000), 1500)
    corners = quantiser.codebook.corners.detach()
    assert len(corners) == 32
    assert crossings(corners) == 0
    assert crossings(torch.tensor([[0.0, 0], [1, 1], [1, 0], [0, 1]])) == 1


def test_codes_are_in_use_on_a_mixture_of_clusters():
    torch.manual_seed(0)
    centres = 3 * torch.randn(40, 64)
    x = centres[torch.randint(40, (20_000,))] + torch.randn(20_000, 64)
    quantiser = SpaceFillingVQ(64, 256, growth_steps=40)
    fit(quantiser, x, 700, batch=1024)
    indices = quantiser(x[None]).indices
    assert len(indices.unique()) > 0.95 * 256


def test_the_curve_grows_and_keeps_its_stage():
    torch.manual_seed(0)
    quantiser, x = SpaceFillingVQ(3, 20, growth_steps=2), torch.randn(1, 300, 3)
    stages = [int(quantiser(x).stats["corners"]) for _ in range(8)]
    assert stages == [4, 4, 8, 8, 16, 16, 20, 20]
    assert len(quantiser.codebook.corners) == 20


def test_a_resumed_run_equals_one_that_was_not_stopped():
    torch.manual_seed(0)
    x = torch.randn(60, 1, 100, 3)
    quantiser = SpaceFillingVQ(3, 16, growth_steps=10)
    quantiser.codebook.REVIVE_EVERY = 7

    def go_on(model, batches):
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.manual_seed(1)
        for batch in batches:
            optimiser.zero_grad()
            model(batch).loss.backward()
            optimiser.step()

    go_on(quantiser, x[:25])
    saved = copy.deepcopy(quantiser.state_dict())
    go_on(quantiser, x[25:])
    resumed = SpaceFillingVQ(3, 16, growth_steps=10)
    resumed.codebook.REVIVE_EVERY = 7
    resumed.load_state_dict(saved)
    go_on(resumed, x[25:])
    assert torch.equal(resumed.codebook.weight, quantiser.codebook.weight)
    assert int(resumed.codebook.stage) == 16


def _train(batches, part, cls, wrap=lambda model: model):
    torch.manual_seed(0)
    quantiser = cls(4, 16, growth_steps=10, revive_below=0.5)
    quantiser.codebook.REVIVE_EVERY = 7
    model = wrap(quantiser)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    revived = 0
    for step, x in enumerate(batches):
        # One dither for all processes.
        torch.manual_seed(step)
        out = model(x[part])
        optimiser.zero_grad()
        out.loss.backward()
        optimiser.step()
        revived += int(out.stats["revived_codes"])
    assert revived > 0 and int(quantiser.codebook.stage) == 16
    return quantiser.state_dict()


def _ddp_process(rank, folder, batches, cls):
    part = slice(2 * rank, 2 * rank + 2)
    state = _train(batches, part, cls, torch.nn.parallel.DistributedDataParallel)
    torch.save(state, f"{folder}/{rank}.pt")


@pytest.mark.parametrize("cls", [SpaceFillingVQ, SFDiVeQ])
def test_two_processes_end_with_the_curve_of_one_on_the_global_batch(cls, tmp_path):
    torch.manual_seed(0)
    # Clusters of unequal weight, so that corners are revived.
    centres = 3 * torch.randn(6, 4)
    weights = torch.tensor([20.0, 10, 5, 2, 1, 1])
    which = torch.multinomial(weights, 45 * 4 * 100, replacement=True)
    batches = centres[which] + torch.randn(len(which), 4)
    batches = batches.view(45, 4, 100, 4)
    run_two(_ddp_process, tmp_path, batches, cls)
    first, second = (torch.load(Path(tmp_path, f"{rank}.pt")) for rank in (0, 1))
    single = _train(batches, slice(None), cls)
    for name in single:
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], single[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cls", ALL)
def test_a_saved_model_gives_the_same_indices(cls, tmp_path):
    torch.manual_seed(0)
    quantiser, x = cls(5, 8), torch.randn(2, 150, 5)
    for _ in range(3):
        quantiser(x)
    torch.save(quantiser.state_dict(), tmp_path / "model.pt")
    loaded = cls(5, 8)
    loaded.load_state_dict(torch.load(tmp_path / "model.pt"))
    assert torch.equal(quantiser.eval()(x).indices, loaded.eval()(x).indices)


def test_unused_corners_move_without_breaking_the_order():
    torch.manual_seed(0)
    quantiser = SpaceFillingVQ(1, 8, growth_steps=0)
    x = torch.rand(1, 400, 1)
    quantiser(x)
    away = torch.tensor([0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0, 50.0])
    quantiser.codebook.weight.data[:, 0] = away
    quantiser.codebook.counts.zero_()
    for _ in range(quantiser.codebook.REVIVE_EVERY + 1):
        quantiser(x)
    corners = quantiser.codebook.corners.detach().flatten()
    assert corners.max() <= 1 and (corners.diff() > 0).all()
    assert len(quantiser.eval()(x).indices.unique()) == 8


def test_gradients_of_the_loss_match_finite_differences_in_expectation():
    # Many dithers approach the mean over dither; the ends have their own rule.
    torch.manual_seed(0)
    corners = torch.tensor([[-2.0, 0], [-0.7, 0.4], [0.5, -0.3], [2, 0]]).double()
    x = torch.randn(300, 2).double()
    dithers = torch.rand(400, 3).double()
    tension = 0.3

    def loss(corners):
        t = dithers[..., None]
        points = corners[:-1] * (1 - t) + corners[1:] * t
        cost = torch.cdist(x, points).square()
        squares = corners.diff(dim=0).square().sum(1)
        cost = cost + tension * (dithers * (1 - dithers) * squares)[:, None]
        best = cost.min(2)
        return best.values.mean(), best.indices

    _, chosen = loss(corners)
    learned = corners.clone().requires_grad_()
    position = torch.zeros(len(x)).double()
    nowhere = torch.ones(len(x), dtype=torch.long)
    total = 0
    for dither, segment in zip(dithers, chosen, strict=True):
        total = total + CurveLoss.apply(
            learned, x, segment, dither[segment], nowhere, position, tension
        )
    (total / len(dithers)).backward()
    assert abs(total.item() / len(dithers) - loss(corners)[0].item()) < 1e-9
    for row, column in ((1, 0), (1, 1), (2, 0), (2, 1)):
        step = torch.zeros_like(corners)
        step[row, column] = 1e-4
        difference = (loss(corners + step)[0] - loss(corners - step)[0]) / 2e-4
        assert abs(difference - learned.grad[row, column]) < 1e-3


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("training", [True, False])
def test_a_padded_utterance_gives_the_numbers_of_the_utterance_alone(cls, training):
    torch.manual_seed(0)
    quantiser = cls(5, 8)
    quantiser(torch.randn(2, 200, 5))
    other = copy.deepcopy(quantiser)
    x = torch.randn(1, 30, 5)
    padded = torch.cat([x, 1e3 * torch.ones(1, 10, 5)], 1)
    torch.manual_seed(1)
    alone = quantiser.train(training)(x)
    torch.manual_seed(1)
    beside = other.train(training)(padded, torch.tensor([0.75]))
    assert torch.allclose(alone.latent, beside.latent[:, :30], atol=1e-6)
    assert torch.equal(alone.indices, beside.indices[:, :30])
    assert (beside.indices[:, 30:] == -1).all() and (beside.features[:, 30:] == 0).all()
    assert torch.allclose(alone.loss, beside.loss)
    for name, value in quantiser.state_dict().items():
        assert torch.allclose(value, other.state_dict()[name]), name


@pytest.mark.parametrize("cls", ALL)
def test_autocast_picks_the_same_codes(cls):
    torch.manual_seed(0)
    quantiser, x = cls(32, 64), torch.randn(4, 500, 32)
    quantiser(x)
    quantiser.eval()
    with torch.autocast("cpu", torch.bfloat16):
        low = quantiser(x).indices
    assert (low == quantiser(x).indices).double().mean() > 0.999


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("x", [torch.randn(1, 3, 4), torch.ones(2, 20, 4)])
def test_few_or_equal_frames_are_survived(cls, x):
    quantiser = cls(4, 16)
    x = x.clone().requires_grad_()
    for _ in range(3):
        out = quantiser(x)
        (out.latent.square().sum() + out.loss).backward()
        assert torch.isfinite(out.latent).all() and torch.isfinite(out.loss)
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(quantiser.eval()(x).features).all()


@pytest.mark.parametrize("cls", ALL)
def test_nan_input_is_an_error_that_names_the_module(cls):
    x = torch.randn(1, 10, 4)
    x[0, 3, 1] = float("nan")
    with pytest.raises(ValueError, match=f"{cls.__name__}.* 1 of 10 input frames"):
        cls(4, 8)(x)


@pytest.mark.parametrize("cls", [SpaceFillingVQ, SFDiVeQ])
def test_a_curve_of_one_corner_is_refused_and_small_ones_work(cls):
    with pytest.raises(ValueError, match="at least 2; got 1"):
        cls(4, 1)
    for size in (2, 3, 4, 5):
        quantiser, x = cls(4, size), torch.randn(2, 50, 4)
        quantiser(x).loss.backward()
        out = quantiser.eval()(x)
        assert out.indices.max() < size
        assert quantiser.lookup(out.indices).shape == x.shape


@pytest.mark.parametrize("cls", [NSVQ, DiVeQ])
@pytest.mark.parametrize("size", [1, 2])
def test_tiny_codebooks_work(cls, size):
    quantiser, x = cls(4, size), torch.randn(2, 50, 4)
    quantiser(x)
    assert quantiser.eval()(x).indices.max() < size


@pytest.mark.parametrize("cls", [SpaceFillingVQ, SFDiVeQ])
def test_features_in_training_are_those_of_evaluation(cls):
    torch.manual_seed(0)
    quantiser, x = cls(4, 16), torch.randn(2, 50, 4)
    quantiser(x)
    training = quantiser(x)
    assert torch.equal(training.features, quantiser.eval()(x).features)


def test_a_smooth_signal_jumps_less_than_its_frames_in_disorder():
    ramp = torch.arange(100)
    assert mean_jump(ramp) < 0.05
    assert 0.85 < mean_jump(ramp[torch.randperm(100)]) < 1.15
    assert mean_jump(torch.zeros(10, dtype=torch.long)) == 0


@pytest.mark.parametrize(
    "argument,message",
    [
        ({"tension": 2}, "tension must be between 0 and 1; got 2"),
        ({"growth_steps": -1}, "growth_steps .* got -1"),
        ({"revive_below": 1}, "revive_below .* got 1"),
    ],
)
def test_wrong_arguments_are_refused(argument, message):
    with pytest.raises(ValueError, match=message):
        SpaceFillingVQ(4, 8, **argument)
