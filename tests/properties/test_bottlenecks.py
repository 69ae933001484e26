"""Bottlenecks and quantisers, of random batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_vae.lobes.bottlenecks import (
    CapacityGaussianBottleneck,
    DeterministicBottleneck,
    GaussianBottleneck,
    QuantisedBottleneck,
)
from speechbrain_vae.nnet import quantisers
from speechbrain_vae.nnet.quantisers import TimeJitter, UsageMeter
from speechbrain_vae.nnet.quantisers.usage import perplexity

from .batches import DTYPES, assert_zero, batches, randomised

SIZE, CODES = 4, 16
QUANTISERS = {
    "ema": lambda: quantisers.VectorQuantizer(SIZE, CODES),
    "cosine": lambda: quantisers.VectorQuantizer(SIZE, CODES, metric="cosine"),
    "gradient": lambda: quantisers.VectorQuantizer(SIZE, CODES, "gradient"),
    "product": lambda: quantisers.ProductQuantizer(SIZE, CODES, 2),
    "residual": lambda: quantisers.ResidualQuantizer(SIZE, CODES, 3),
    "nsvq": lambda: quantisers.NSVQ(SIZE, CODES),
    "diveq": lambda: quantisers.DiVeQ(SIZE, CODES),
    "curve": lambda: quantisers.SpaceFillingVQ(SIZE, CODES, growth_steps=2),
    "sfdiveq": lambda: quantisers.SFDiVeQ(SIZE, CODES, growth_steps=2),
    "gumbel": lambda: quantisers.GumbelVQ(SIZE, CODES),
    "sign": lambda: quantisers.BinaryQuantizer(SIZE, CODES),
    "bernoulli": lambda: quantisers.BinaryQuantizer(SIZE, 2 * CODES, "bernoulli"),
}
CURVES = ("curve", "sfdiveq")
BOTTLENECKS = {
    "deterministic": lambda: DeterministicBottleneck(SIZE, 3, torch.nn.Tanh),
    "identity": lambda: DeterministicBottleneck(SIZE),
    "gaussian": lambda: GaussianBottleneck(SIZE, 3, free_bits=0.1),
    "learned prior": lambda: GaussianBottleneck(SIZE, 3, prior="learned"),
    "capacity": lambda: CapacityGaussianBottleneck(SIZE, 3),
} | {
    f"{norm} {name}": lambda q=build, n=norm: QuantisedBottleneck(SIZE, q(), n)
    for norm, (name, build) in zip(
        ["batch", "layer", "none"] * 4, QUANTISERS.items(), strict=True
    )
}
every_bottleneck = pytest.mark.parametrize("name", BOTTLENECKS)
every_quantiser = pytest.mark.parametrize("name", QUANTISERS)


def trained(build):
    """A module with a started codebook, in evaluation."""
    torch.manual_seed(0)
    module = randomised(build())
    for _ in range(8):
        module(torch.randn(2, 150, SIZE))
    return module.eval()


@pytest.fixture(scope="module")
def modules():
    """Every module under its name; the properties leave them as they are."""
    return {k: trained(build) for k, build in (BOTTLENECKS | QUANTISERS).items()}


@every_bottleneck
@given(batch=batches(SIZE), training=st.booleans())
def test_the_contract_of_a_bottleneck_holds(name, batch, training):
    torch.manual_seed(0)
    bottleneck = BOTTLENECKS[name]().train(training)
    out = bottleneck(batch.x, batch.lengths)
    shape = (*batch.x.shape[:2], bottleneck.latent_size)
    assert out.latent.shape == out.features.shape == shape
    assert out.latent.isfinite().all() and out.features.isfinite().all()
    assert_zero(out.latent[~batch.mask])
    assert_zero(out.features[~batch.mask])
    assert out.loss.shape == () and out.loss.isfinite()
    assert not any(value.requires_grad for value in out.stats.values())
    if out.indices is not None:
        assert out.indices.dtype == torch.long
        assert (out.indices[~batch.mask] == -1).all()
        assert (out.indices[batch.mask] >= 0).all()
        assert (out.indices < bottleneck.quantiser.codebook_size).all()


@pytest.mark.parametrize("name", [*BOTTLENECKS, *QUANTISERS])
@given(batch=batches(SIZE))
def test_company_and_padding_do_not_change_features_and_codes(modules, name, batch):
    module = modules[name]
    together = module(batch.x, batch.lengths)
    for row, alone in enumerate(batch.alone()):
        single, count = module(alone), alone.shape[1]
        torch.testing.assert_close(
            together.features[row, :count], single.features[0], atol=1e-5, rtol=1e-4
        )
        if single.indices is not None:
            assert torch.equal(together.indices[row, :count], single.indices[0])
    if len(batch.counts) == 1:
        torch.testing.assert_close(together.loss, single.loss, atol=1e-5, rtol=1e-4)


@every_bottleneck
@given(batch=batches(SIZE, dtypes=DTYPES))
def test_every_number_type_gives_finite_features(name, batch):
    torch.manual_seed(0)
    bottleneck = BOTTLENECKS[name]().eval().to(batch.x.dtype)
    out = bottleneck(batch.x, batch.lengths)
    expected = torch.float32 if "tic" not in name else batch.x.dtype
    if name == "identity":
        expected = batch.x.dtype
    assert out.features.dtype == expected and out.features.isfinite().all()


@every_bottleneck
@given(batch=batches(SIZE), bad=st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_what_is_not_finite_is_never_passed_over(modules, name, batch, bad):
    # Either the loss or the features say so, or the quantiser by name.
    bottleneck = modules[name]
    batch.x[0, 0, 0] = bad
    try:
        out = bottleneck(batch.x, batch.lengths)
    except ValueError as error:
        kind = type(bottleneck.quantiser).__name__
        assert str(error).startswith(kind) and "NaN or infinity" in str(error)
    else:
        squashed = name == "deterministic" and bad == bad
        assert squashed or not out.features.isfinite().all()


@every_quantiser
@given(batch=batches(SIZE, dtypes=DTYPES, spread=1e3), training=st.booleans())
def test_quantisers_answer_in_float32_whatever_they_are_asked_in(name, batch, training):
    torch.manual_seed(0)
    quantiser = QUANTISERS[name]().train(training)
    with torch.autocast("cpu", torch.bfloat16):
        out = quantiser(batch.x, batch.lengths)
    assert out.latent.dtype == out.features.dtype == out.loss.dtype == torch.float32
    assert out.latent.isfinite().all() and out.loss.isfinite()


@every_quantiser
@given(batch=batches(SIZE))
def test_features_are_those_of_the_indices_and_quantise_to_themselves(
    modules, name, batch
):
    quantiser = modules[name]
    out = quantiser(batch.x, batch.lengths)
    looked_up = quantiser.lookup(out.indices)
    assert looked_up.shape == out.features.shape
    assert_zero(looked_up[~batch.mask])
    if name not in CURVES:
        torch.testing.assert_close(looked_up, out.features, atol=1e-5, rtol=1e-4)
    if name not in ("sign", "bernoulli", "residual", "gumbel"):
        again = quantiser(out.features, batch.lengths)
        torch.testing.assert_close(again.features, out.features, atol=1e-4, rtol=1e-4)


@given(batch=batches(SIZE))
def test_the_code_of_a_frame_is_the_nearest_one(modules, batch):
    quantiser = modules["ema"]
    out = quantiser(batch.x, batch.lengths)
    distances = torch.cdist(batch.x, quantiser.codebook.weight)
    chosen = distances.gather(2, out.indices.clamp(min=0))
    excess = (chosen.squeeze(2) - distances.amin(2))[batch.mask]
    assert (excess < 1e-4).all()


@given(batch=batches(2, frames=30), probability=st.floats(0, 1))
def test_jitter_takes_only_neighbours_of_the_same_utterance(batch, probability):
    jittered = TimeJitter(probability)(batch.x, batch.lengths)
    for row, (x, count) in enumerate(zip(batch.x, batch.counts, strict=True)):
        for t in range(count):
            near = x[max(t - 1, 0) : min(t + 2, count)]
            assert (near == jittered[row, t]).all(1).any()


@given(st.lists(st.integers(0, 100), min_size=1, max_size=20))
def test_perplexity_is_between_one_and_the_number_of_codes_in_use(counts):
    value = float(perplexity(torch.tensor(counts)))
    used = sum(count > 0 for count in counts)
    assert value == 0 if not used else 1 - 1e-5 <= value <= used + 1e-4


@given(st.lists(st.integers(-1, 7), min_size=1, max_size=40), st.integers(1, 39))
def test_usage_does_not_depend_on_the_batches(indices, cut):
    indices = torch.tensor(indices).view(1, -1, 1)
    whole, parts = UsageMeter(8), UsageMeter(8)
    whole.update(indices)
    for part in (indices[:, :cut], indices[:, cut:]):
        parts.update(part)
    assert whole.summary(50) == parts.summary(50)
