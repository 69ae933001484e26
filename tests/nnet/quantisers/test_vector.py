"""VQ: its gradient, its codebook, and what must never move it."""

import copy
import io
from pathlib import Path

import pytest
import torch

from speechbrain_vae.nnet.quantisers import (
    NSVQ,
    BinaryQuantizer,
    DiVeQ,
    GumbelVQ,
    SFDiVeQ,
    SpaceFillingVQ,
    UsageMeter,
)
from speechbrain_vae.nnet.quantisers.codebook import Codebook
from speechbrain_vae.nnet.quantisers.vector import (
    ProductQuantizer,
    ResidualQuantizer,
    VectorQuantizer,
)
from tests.processes import run_two


def started(size, dim, **options):
    """A quantiser whose k-means start is behind it."""
    torch.manual_seed(0)
    quantiser = VectorQuantizer(dim, size, **options)
    quantiser(torch.randn(1, 10 * size, dim))
    assert quantiser.codebook.started
    return quantiser


def state(module):
    """A copy of the state dict."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same_state(first, second):
    first, second = first.state_dict(), second.state_dict()
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def mixture(frames, dim=64, clusters=40, spread=0.3, seed=0):
    """Frames [frames, dim] of isotropic clusters."""
    generator = torch.Generator().manual_seed(1234)
    centres = 3 * torch.randn(clusters, dim, generator=generator)
    generator.manual_seed(seed)
    which = torch.randint(clusters, (frames,), generator=generator)
    return centres[which] + spread * torch.randn(frames, dim, generator=generator)


# The loss and its gradient


def test_latent_is_the_nearest_code_and_lookup_gives_it_back():
    quantiser = started(8, 4).eval()
    x = torch.randn(2, 5, 4)
    out = quantiser(x)
    nearest = torch.cdist(x, quantiser.codebook.weight).argmin(-1, keepdim=True)
    assert torch.equal(out.indices, nearest)
    assert torch.equal(out.latent, quantiser.lookup(out.indices))
    assert torch.equal(out.features, out.latent)


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_loss_is_equation_3_and_its_gradient_that_of_autograd(update):
    quantiser = started(8, 4, codebook_update=update, commitment=0.3).eval()
    weight = quantiser.codebook.weight
    x = torch.randn(2, 5, 4, requires_grad=True)
    out = quantiser(x)
    upstream = torch.randn_like(out.latent)
    ((out.latent * upstream).sum() + 2 * out.loss).backward()

    plain = x.detach().clone().requires_grad_()
    codes = weight.detach().clone().requires_grad_()
    chosen = codes[out.indices.squeeze(-1)]
    loss = 0.3 * (plain - chosen.detach()).square().sum(-1).mean()
    if update == "gradient":
        loss = loss + (plain.detach() - chosen).square().sum(-1).mean()
    latent = plain + (chosen - plain).detach()
    ((latent * upstream).sum() + 2 * loss).backward()

    torch.testing.assert_close(out.loss, loss)
    torch.testing.assert_close(x.grad, plain.grad)
    if update == "gradient":
        torch.testing.assert_close(weight.grad, codes.grad)


def test_codes_learned_by_gradient_approach_their_frames():
    quantiser = started(16, 4, codebook_update="gradient")
    optimiser = torch.optim.Adam(quantiser.parameters(), 1e-2)
    x = torch.randn(1, 2000, 4)
    first = quantiser(x).stats["quantisation_error"]
    for _ in range(100):
        optimiser.zero_grad()
        quantiser(x).loss.backward()
        optimiser.step()
    assert quantiser(x).stats["quantisation_error"] < first


def test_cosine_picks_the_code_of_the_largest_cosine():
    quantiser = started(8, 4, metric="cosine")
    x = 5 * torch.randn(1, 50, 4)
    for _ in range(3):
        quantiser(x)
    weight = quantiser.codebook.weight
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(8))
    cosine = torch.nn.functional.cosine_similarity(x.unsqueeze(2), weight, dim=-1)
    out = quantiser.eval()(x)
    assert torch.equal(out.indices.squeeze(-1), cosine.argmax(-1))


def test_a_frame_of_zeros_has_no_direction_and_no_gradient():
    quantiser = started(8, 4, metric="cosine")
    x = torch.randn(1, 20, 4)
    x[0, 7] = 0
    x.requires_grad_()
    out = quantiser(x)
    (out.latent.sum() + out.loss).backward()
    assert (x.grad[0, 7] == 0).all()
    assert (x.grad.norm(dim=2) > 0).sum() == 19
    assert x.grad.isfinite().all() and x.grad.abs().max() < 100


# The codebook


def test_ema_codebook_follows_the_closed_form():
    """Two codes, two batches, by hand: appendix A.1, decay .5 from the first on."""
    codebook = Codebook(dim=1, codebook_size=2, decay=0.5, revive_below=0)
    codebook.started.fill_(True)
    codebook._place(slice(None), torch.tensor([[0.0], [10.0]]), torch.ones(2))
    codebook.update(torch.tensor([[1.0], [2.0], [9.0]]), torch.tensor([0, 0, 1]))
    assert codebook.counts.tolist() == [1.5, 1.0]
    assert codebook.weight.flatten().tolist() == pytest.approx([1.0, 9.5])
    codebook.update(torch.tensor([[3.0]]), torch.tensor([0]))
    assert codebook.counts.tolist() == [1.25, 0.5]
    assert codebook.weight.flatten().tolist() == pytest.approx([2.25 / 1.25, 9.5])


def test_first_batches_count_alike():
    codebook = Codebook(dim=1, codebook_size=1, decay=0.99)
    codebook.started.fill_(True)
    codebook._place(slice(None), torch.zeros(1, 1), torch.ones(1))
    for value in (1.0, 2.0, 3.0):
        codebook.update(torch.tensor([[value]]), torch.tensor([0]))
    assert codebook.weight.item() == pytest.approx((0 + 1 + 2 + 3) / 4)


def test_a_code_that_nothing_chooses_stays_where_it_is():
    codebook = Codebook(dim=1, codebook_size=2, decay=0.5, revive_below=0)
    codebook.started.fill_(True)
    codebook._place(slice(None), torch.tensor([[0.0], [7.0]]), torch.ones(2))
    for _ in range(300):
        codebook.update(torch.tensor([[1.0]]), torch.tensor([0]))
    assert codebook.weight[1].item() == 7.0


def test_start_is_at_the_data_whatever_its_scale():
    quantiser = VectorQuantizer(8, 16)
    x = 1e3 + 1e-2 * torch.randn(1, 200, 8)
    quantiser(x)
    spread = (x - x.mean(1, keepdim=True)).square().sum(-1).mean()
    assert quantiser(x).stats["quantisation_error"] < spread


def test_start_waits_for_enough_frames():
    quantiser = VectorQuantizer(4, 16)
    for _ in range(3):
        assert not quantiser.codebook.started
        assert len(quantiser(torch.randn(1, 50, 4)).indices.unique()) > 1
    quantiser(torch.randn(1, 50, 4))
    assert quantiser.codebook.started
    assert len(quantiser.codebook.waiting) == 0


def test_95_percent_of_the_codes_are_in_use_on_a_mixture_of_40_clusters():
    quantiser = VectorQuantizer(64, 256)
    for seed in range(100):
        quantiser(mixture(1000, seed=seed).unsqueeze(0))
    indices = quantiser.eval()(mixture(20_000, seed=1000).unsqueeze(0)).indices
    assert len(indices.unique()) >= 0.95 * 256


def test_dead_codes_split_live_ones_and_share_their_averages():
    quantiser = started(16, 4)
    codebook = quantiser.codebook
    codebook._place(slice(8, 16), torch.full((8, 4), 1e3), torch.zeros(8))
    # The second update after the start keeps 2/3 of the average.
    total = codebook.counts.sum() * 2 / 3 + 160 / 3
    out = quantiser(torch.randn(1, 160, 4))
    assert out.stats["revived_codes"] == 8
    assert codebook.weight.abs().max() < 10
    means = codebook.sums / codebook.counts.unsqueeze(1)
    torch.testing.assert_close(means, codebook.weight)
    torch.testing.assert_close(codebook.counts.sum(), total)


def test_revival_can_be_switched_off():
    quantiser = started(16, 4, revive_below=0)
    x = torch.zeros(1, 100, 4)
    for _ in range(20):
        assert quantiser(x).stats["revived_codes"] == 0


# What must not move it


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_nothing_updates_in_evaluation(update):
    quantiser = started(8, 4, codebook_update=update).eval()
    before = copy.deepcopy(quantiser)
    quantiser(torch.randn(2, 50, 4))
    assert_same_state(quantiser, before)


def test_nothing_starts_in_evaluation():
    quantiser = VectorQuantizer(4, 8).eval()
    before = copy.deepcopy(quantiser)
    quantiser(torch.randn(2, 500, 4))
    assert_same_state(quantiser, before)


@pytest.mark.parametrize("padding", [1e6, float("nan")])
def test_padding_does_not_change_the_codebook_the_loss_or_the_statistics(padding):
    torch.manual_seed(0)
    alone = VectorQuantizer(4, 8)
    padded = copy.deepcopy(alone)
    for _ in range(4):
        x = torch.randn(1, 60, 4)
        longer = torch.full((2, 80, 4), padding)
        longer[0, :60] = x[0]
        out = alone(x)
        other = padded(longer, torch.tensor([0.75, 0.0]))
        torch.testing.assert_close(out.loss, other.loss, rtol=0, atol=0)
        assert out.stats.keys() == other.stats.keys()
        for name in out.stats:
            assert torch.equal(out.stats[name], other.stats[name])
        assert torch.equal(out.latent[0], other.latent[0, :60])
        assert (other.latent[0, 60:] == 0).all() and (other.latent[1] == 0).all()
        assert (other.indices[0, 60:] == -1).all() and (other.indices[1] == -1).all()
    assert_same_state(alone, padded)


def test_no_gradient_reaches_padding():
    quantiser = started(8, 4)
    x = torch.randn(2, 10, 4, requires_grad=True)
    out = quantiser(x, torch.tensor([1.0, 0.5]))
    (out.latent.sum() + out.loss).backward()
    assert (x.grad[1, 5:] == 0).all() and (x.grad[1, :5] != 0).all()


# Hard cases


@pytest.mark.parametrize("size", [1, 2])
def test_one_or_two_codes_are_enough(size):
    quantiser = VectorQuantizer(4, size)
    for _ in range(30):
        out = quantiser(torch.randn(1, 40, 4))
    assert torch.isfinite(out.latent).all() and torch.isfinite(out.loss)
    assert int(out.indices.max()) == size - 1


def test_fewer_frames_than_codes():
    quantiser = VectorQuantizer(4, 64)
    for _ in range(300):
        out = quantiser(torch.randn(1, 3, 4))
    assert quantiser.codebook.started
    assert torch.isfinite(quantiser.codebook.weight).all() and torch.isfinite(out.loss)


@pytest.mark.parametrize("update", ["ema", "gradient"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_constant_batch_gives_finite_codes(update, metric):
    quantiser = VectorQuantizer(4, 16, codebook_update=update, metric=metric)
    x = torch.zeros(1, 50, 4, requires_grad=True)
    for _ in range(10):
        out = quantiser(x)
        (out.latent.sum() + out.loss).backward()
    assert torch.isfinite(quantiser.codebook.weight).all()
    assert torch.isfinite(x.grad).all()
    assert out.stats["perplexity"] == 1


@pytest.mark.parametrize("frames", [0, 20])
def test_a_batch_without_valid_frames_changes_no_code(frames):
    quantiser = started(8, 4)
    before = quantiser.codebook.weight.clone()
    out = quantiser(torch.randn(2, frames, 4), torch.zeros(2))
    assert out.loss == 0 and torch.equal(quantiser.codebook.weight, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_input_that_is_not_finite_names_the_module_and_spoils_nothing(value):
    quantiser = started(8, 4)
    before = copy.deepcopy(quantiser)
    x = torch.randn(1, 10, 4)
    x[0, 3, 1] = value
    with pytest.raises(ValueError, match=r"VectorQuantizer\(dim=4.*1 of 10 input fram"):
        quantiser(x)
    assert_same_state(quantiser, before)


def test_bfloat16_autocast_picks_the_codes_of_float32():
    quantiser = started(256, 32).eval()
    x = torch.randn(8, 500, 32)
    with torch.autocast("cpu", torch.bfloat16):
        out = quantiser(x)
    same = (out.indices == quantiser(x).indices).float().mean()
    assert same > 0.999
    assert out.latent.dtype == out.loss.dtype == torch.float32


def test_bfloat16_frames_get_a_bfloat16_gradient():
    quantiser = started(8, 4)
    x = torch.randn(1, 20, 4).bfloat16().requires_grad_()
    out = quantiser(x)
    (out.latent.sum() + out.loss).backward()
    assert x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "options, named",
    [
        ({"codebook_update": "sgd"}, "codebook_update"),
        ({"metric": "l1"}, "metric"),
        ({"commitment": -1}, "commitment"),
        ({"decay": 1.0}, "decay"),
        ({"revive_below": 1.5}, "revive_below"),
    ],
)
def test_wrong_options_are_named_at_construction(options, named):
    with pytest.raises(ValueError, match=named):
        VectorQuantizer(4, 8, **options)


@pytest.mark.parametrize("dim, size", [(0, 8), (4, 0), (4, 2.5)])
def test_wrong_sizes_are_refused(dim, size):
    with pytest.raises(ValueError, match="whole number of at least 1"):
        VectorQuantizer(dim, size)


def test_frames_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"VectorQuantizer\(dim=4.*\[B, T, 4\]"):
        VectorQuantizer(4, 8)(torch.zeros(1, 3, 5))


def test_another_seed_revives_other_codes():
    torch.manual_seed(0)
    x = torch.randn(1, 400, 4)
    first = VectorQuantizer(4, 16, revive_below=0.9)
    first(x)
    second = copy.deepcopy(first)
    second.codebook.seed = 1
    second_run = copy.deepcopy(second)
    for quantiser in (first, second, second_run):
        assert quantiser(x).stats["revived_codes"] > 0
    assert not torch.equal(first.codebook.weight, second.codebook.weight)
    assert_same_state(second, second_run)


# Checkpoints and processes


@pytest.mark.parametrize("stop", [1, 3, 6])
@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_a_resumed_run_equals_one_that_was_not_stopped(stop, update):
    """Before, at and after the start, with revival at work throughout."""
    torch.manual_seed(0)
    options = {"codebook_update": update, "revive_below": 0.5}
    batches = torch.randn(12, 1, 40, 4)
    straight = VectorQuantizer(4, 16, **options)
    stopped = copy.deepcopy(straight)
    for x in batches:
        straight(x)
    for x in batches[:stop]:
        stopped(x)
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    resumed = VectorQuantizer(4, 16, **options)
    resumed.load_state_dict(torch.load(file))
    for x in batches[stop:]:
        resumed(x)
    assert_same_state(resumed, straight)
    x = torch.randn(1, 50, 4)
    assert torch.equal(resumed.eval()(x).indices, straight.eval()(x).indices)


def _train(batches, weight, part, dim, size):
    quantiser = VectorQuantizer(dim, size, revive_below=0.3)
    quantiser.codebook.weight.copy_(weight)
    revived = 0
    for x, lengths in batches:
        out = quantiser(x[part], lengths[part])
        revived += int(out.stats["revived_codes"])
    assert revived > 0
    return quantiser.state_dict()


def _ddp_process(rank, folder, batches, weight, dim, size):
    half = len(batches[0][0]) // 2
    part = slice(half * rank, half * (rank + 1))
    torch.save(_train(batches, weight, part, dim, size), f"{folder}/{rank}.pt")


def test_two_processes_end_with_the_codebook_of_one_on_the_global_batch(tmp_path):
    torch.manual_seed(0)
    dim, size = 8, 32
    lengths = torch.tensor([1.0, 0.7, 0.4, 1.0])
    batches = [(mixture(80, dim, seed=i).view(4, 20, dim), lengths) for i in range(25)]
    weight = torch.randn(size, dim)
    run_two(_ddp_process, tmp_path, batches, weight, dim, size)
    first, second = (torch.load(Path(tmp_path, f"{rank}.pt")) for rank in (0, 1))
    single = _train(batches, weight, slice(None), dim, size)
    for name in single:
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], single[name], rtol=1e-4, atol=1e-4)


# Composition


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_product_groups_equal_quantisers_of_the_parts(groups):
    torch.manual_seed(0)
    quantiser = ProductQuantizer(8, 16, groups)
    for _ in range(5):
        quantiser(torch.randn(1, 100, 8))
    quantiser.eval()
    x = torch.randn(2, 30, 8)
    out = quantiser(x)
    parts = [
        q(p) for q, p in zip(quantiser.quantisers, x.chunk(groups, 2), strict=True)
    ]
    assert torch.equal(out.latent, torch.cat([part.latent for part in parts], 2))
    assert torch.equal(out.indices, torch.cat([part.indices for part in parts], 2))
    assert out.loss == pytest.approx(float(sum(part.loss for part in parts)))
    assert torch.equal(quantiser.lookup(out.indices), out.latent)


def test_residual_stages_reduce_the_error_and_pass_the_gradient_once():
    torch.manual_seed(0)
    quantiser = ResidualQuantizer(8, 16, stages=4)
    for _ in range(20):
        quantiser(torch.randn(1, 200, 8))
    quantiser.eval()
    x = torch.randn(2, 30, 8, requires_grad=True)
    out = quantiser(x)
    torch.testing.assert_close(quantiser.lookup(out.indices), out.latent)
    errors = [
        (x - sum(q.lookup(out.indices[..., i : i + 1]) for i, q in kept))
        .square()
        .mean()
        for kept in (list(enumerate(quantiser.quantisers))[:n] for n in (1, 2, 3, 4))
    ]
    assert errors == sorted(errors, reverse=True)
    upstream = torch.randn_like(x)
    out.latent.backward(upstream)
    torch.testing.assert_close(x.grad, upstream)


@pytest.mark.parametrize("cls", [ProductQuantizer, ResidualQuantizer])
def test_composed_quantisers_ignore_padding(cls):
    torch.manual_seed(0)
    alone = cls(4, 8, 2)
    padded = copy.deepcopy(alone)
    for _ in range(4):
        x = torch.randn(1, 60, 4)
        longer = torch.cat([x, torch.full((1, 20, 4), 1e6)], 1)
        out, other = alone(x), padded(longer, torch.tensor([0.75]))
        assert out.loss == other.loss
        assert (other.indices[0, 60:] == -1).all() and (other.latent[0, 60:] == 0).all()
    assert_same_state(alone, padded)


def test_groups_that_do_not_divide_the_frame_are_refused():
    with pytest.raises(ValueError, match="multiple of groups=3"):
        ProductQuantizer(8, 16, groups=3)


def test_statistics_of_product_groups_are_sums_means_or_common_to_all():
    torch.manual_seed(0)
    quantiser = ProductQuantizer(
        8, 32, quantiser=lambda *sizes: SpaceFillingVQ(*sizes, growth_steps=2)
    )
    x = torch.randn(1, 300, 8)
    for _ in range(3):
        quantiser(x)
    quantiser.eval()
    out = quantiser(x)
    first, second = (
        q(part).stats
        for q, part in zip(quantiser.quantisers, x.chunk(2, 2), strict=True)
    )
    assert out.stats["corners"] == first["corners"] == second["corners"] == 8
    for name, share in {"quantisation_error": 1, "mean_jump": 2}.items():
        expected = (first[name] + second[name]) / share
        torch.testing.assert_close(out.stats[name], expected)
    meter = UsageMeter(32, groups=2)
    meter.update(out.indices, out.stats["corners"])
    summary = meter.summary(frame_rate=50)
    assert summary["codes"] == 8 and summary["usage"] > 0.8
    assert summary["nominal_bitrate"] == 2 * 3 * 50


def test_the_temperature_of_product_groups_is_that_of_each():
    out = ProductQuantizer(8, 16, quantiser=GumbelVQ)(torch.randn(1, 20, 8))
    assert out.stats["temperature"] == 2.0


@pytest.mark.parametrize(
    "stage", [NSVQ, DiVeQ, SpaceFillingVQ, SFDiVeQ, GumbelVQ, BinaryQuantizer]
)
def test_residual_stages_that_could_not_learn_are_refused(stage):
    with pytest.raises(
        ValueError, match=f"VectorQuantizer alone; got {stage.__name__}"
    ):
        ResidualQuantizer(8, 16, quantiser=stage)
