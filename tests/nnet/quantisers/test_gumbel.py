"""Gumbel-softmax and one-hot straight-through codes."""

import copy
import math

import pytest
import torch

from speechbrain_vae.nnet.quantisers import gumbel
from speechbrain_vae.nnet.quantisers.gumbel import GumbelVQ, SampledCodes


def started(*sizes, **options):
    """A quantiser whose codes stay where they are until an optimiser moves them."""
    quantiser = GumbelVQ(*sizes, revive_below=0.0, **options)
    quantiser.codebook.started.fill_(True)
    return quantiser


def logits(quantiser, x):
    """The logits of its own codes, from the distances."""
    squared = torch.cdist(x, quantiser.codebook.weight.unsqueeze(0)).square()
    return -quantiser.log_precision.exp() * squared


@pytest.mark.parametrize("noise", [True, False])
def test_evaluation_takes_the_largest_logit(noise):
    torch.manual_seed(0)
    quantiser = started(4, 8, noise=noise).eval()
    x = torch.randn(2, 10, 4)
    out = quantiser(x)
    assert torch.equal(out.indices, logits(quantiser, x).argmax(-1, keepdim=True))
    torch.testing.assert_close(out.latent, quantiser.lookup(out.indices))
    assert torch.equal(out.features, out.latent)


def test_codes_are_sampled_from_the_softmax_of_the_logits():
    torch.manual_seed(0)
    quantiser = started(4, 5)
    x = torch.randn(1, 1, 4)
    expected = logits(quantiser, x).softmax(-1).flatten().detach()
    out = quantiser(x.expand(1, 50_000, 4))
    counts = torch.bincount(out.indices.flatten(), minlength=5) / 50_000
    torch.testing.assert_close(counts, expected, atol=0.01, rtol=0)


def test_the_latent_is_a_code_and_the_features_are_not_sampled():
    torch.manual_seed(0)
    quantiser = started(4, 8)
    x = torch.randn(1, 30, 4)
    first, second = quantiser(x), quantiser(x)
    assert not torch.equal(first.indices, second.indices)
    torch.testing.assert_close(first.latent, quantiser.lookup(first.indices))
    assert torch.equal(first.features, second.features)


def test_the_gradient_is_that_of_the_softmax():
    torch.manual_seed(0)
    quantiser = started(4, 8, temperature=(0.7, 0.7), noise=False, diversity=0.0)
    x = torch.randn(1, 6, 4, requires_grad=True)
    upstream = torch.randn(1, 6, 4)
    (quantiser(x).latent * upstream).sum().backward()
    plain = x.detach().clone().requires_grad_()
    codes = quantiser.codebook.weight.detach()
    soft = (logits(quantiser, plain) / 0.7).softmax(-1) @ codes
    (soft * upstream).sum().backward()
    torch.testing.assert_close(x.grad, plain.grad)


def test_the_noise_of_every_step_and_block_is_another(monkeypatch):
    monkeypatch.setattr(gumbel, "BLOCK_BYTES", 4 * 8 * 16)
    drawn = []
    draw = gumbel._noise

    def recorded(*args):
        drawn.append(draw(*args))
        return drawn[-1]

    monkeypatch.setattr(gumbel, "_noise", recorded)
    torch.manual_seed(0)
    quantiser = started(4, 8)
    for _ in range(3):
        quantiser(torch.zeros(1, 64, 4))
    noise = torch.cat(drawn).view(3 * 64, 8)
    assert len(drawn) > 3
    assert len(noise.unique(dim=0)) == 3 * 64


def dense(x, codes, precision, temperature, noise):
    """What SampledCodes does, with all logits at once and the gradient by autograd."""
    plain = -precision * torch.cdist(x, codes).square()
    noisy = plain + noise
    indices = noisy.argmax(1)
    soft = (noisy / temperature).softmax(1)
    latent = codes[indices] + (soft - soft.detach()) @ codes.detach()
    return latent, plain.softmax(1).sum(0), indices, plain.argmax(1)


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("rows", [7, 50])
def test_blocks_give_what_autograd_gives_of_all_logits_at_once(monkeypatch, rows, seed):
    torch.manual_seed(0)
    frames, size = 50, 6
    monkeypatch.setattr(gumbel, "BLOCK_BYTES", 4 * size * rows)
    noise = torch.zeros(frames, size)
    for first in range(0, frames, rows):
        part = slice(first, min(first + rows, frames))
        noise[part] = gumbel._noise(noise[part], seed, part)
    inputs = [torch.randn(frames, 3) + 2, torch.randn(size, 3) + 2, torch.tensor(0.7)]
    up = torch.randn(frames, 3), torch.randn(size)
    results = []
    for draw, last in ((SampledCodes.apply, seed), (dense, noise)):
        leaves = [value.clone().requires_grad_() for value in inputs]
        out = draw(*leaves, torch.tensor(0.8), last)
        torch.autograd.backward(out[:2], up)
        results.append([*out, *(leaf.grad for leaf in leaves)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_temperature_falls_geometrically_and_is_part_of_the_checkpoint():
    quantiser = GumbelVQ(4, 8, temperature=(2.0, 0.5), anneal_steps=4)
    seen = [float(quantiser(torch.randn(1, 9, 4)).stats["temperature"]) for _ in "1234"]
    assert seen == pytest.approx([2.0, 2**0.5, 1.0, 2**-0.5])
    resumed = GumbelVQ(4, 8, temperature=(2.0, 0.5), anneal_steps=4)
    resumed.load_state_dict(quantiser.state_dict())
    assert float(resumed.current_temperature()) == pytest.approx(0.5)
    resumed.eval()(torch.randn(1, 9, 4))
    assert resumed.step == 4


def test_diversity_is_zero_for_uniform_codes_and_log_k_for_one_code():
    quantiser = started(4, 8, diversity=2.0)
    torch.nn.init.zeros_(quantiser.codebook.weight)
    x = torch.randn(1, 20, 4)
    assert quantiser(x).loss.item() == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        quantiser.codebook.weight[torch.arange(8) != 3] = 100.0
    assert quantiser(x).loss.item() == pytest.approx(2 * math.log(8), rel=1e-5)


def test_codes_start_by_kmeans_and_unused_ones_are_revived():
    torch.manual_seed(0)
    quantiser = GumbelVQ(2, 8)
    x = torch.randn(1, 4000, 2) * 0.1 + torch.randint(-3, 4, (1, 4000, 2)) * 3
    for _ in range(20):
        quantiser(x)
    assert len(quantiser.eval()(x).indices.unique()) == 8
    with torch.no_grad():
        quantiser.codebook.weight[:4] = 1e3
    quantiser.train()
    for _ in range(300):
        out = quantiser(x)
    assert len(quantiser.eval()(x).indices.unique()) == 8
    assert out.stats["revived_codes"] >= 0


def test_padding_changes_neither_loss_nor_gradient():
    torch.manual_seed(0)
    alone = started(4, 8, noise=False)
    padded = copy.deepcopy(alone)
    x = torch.randn(1, 60, 4)
    out = alone(x)
    other = padded(torch.cat([x, torch.full((1, 20, 4), 1e3)], 1), torch.tensor([0.75]))
    for result in (out, other):
        (result.loss + result.latent.square().sum()).backward()
    assert out.loss == other.loss
    for p, q in zip(alone.parameters(), padded.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("size", [1, 2])
def test_one_or_two_codes_and_empty_batches_are_finite(size):
    quantiser = GumbelVQ(4, size)
    assert torch.isfinite(quantiser(torch.randn(1, 20, 4)).loss)
    assert quantiser(torch.randn(1, 20, 4), torch.zeros(1)).loss == 0


def test_a_code_far_from_all_frames_leaves_gradients_finite():
    torch.manual_seed(0)
    quantiser = started(4, 8)
    with torch.no_grad():
        quantiser.codebook.weight[5] = 1e4
    x = torch.randn(1, 20, 4, requires_grad=True)
    out = quantiser(x)
    (out.loss + out.latent.sum()).backward()
    for leaf in (x, *quantiser.parameters()):
        assert torch.isfinite(leaf.grad).all()


def test_nan_names_the_module():
    with pytest.raises(ValueError, match=r"GumbelVQ\(dim=4"):
        GumbelVQ(4, 8)(torch.full((1, 2, 4), float("nan")))


@pytest.mark.parametrize(
    "options, named",
    [
        ({"temperature": (0.5, 2.0)}, "temperature"),
        ({"temperature": (1.0, 0.0)}, "temperature"),
        ({"anneal_steps": 0}, "anneal_steps"),
        ({"diversity": -1}, "diversity"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        GumbelVQ(4, 8, **options)
