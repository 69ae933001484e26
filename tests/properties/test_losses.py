"""Likelihoods, targets, totals and the whole autoencoder, of random batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from speechbrain.augment.freq_domain import SpectrogramDrop

from speechbrain_vae.lobes.autoencoder import Autoencoder
from speechbrain_vae.lobes.bottlenecks import (
    DeterministicBottleneck,
    GaussianBottleneck,
    QuantisedBottleneck,
)
from speechbrain_vae.lobes.decoders import ConvDecoder
from speechbrain_vae.lobes.encoders import ConvEncoder
from speechbrain_vae.lobes.targets import (
    AdditiveNoise,
    Augmented,
    Denoising,
    FramesAhead,
    FrequencyWarp,
    Reconstruction,
)
from speechbrain_vae.metrics import EpochTotals, mean_error
from speechbrain_vae.nnet.likelihoods import (
    VARIANCES,
    GaussianLikelihood,
    LaplaceLikelihood,
)
from speechbrain_vae.nnet.mmd import mmd
from speechbrain_vae.nnet.quantisers import VectorQuantizer

from .batches import DTYPES, batches, randomised

SIZE = 5
TARGETS = {
    "reconstruction": Reconstruction,
    "denoising": lambda: Denoising([AdditiveNoise(0.5), SpectrogramDrop(1, 2)]),
    "ahead": lambda: FramesAhead(3),
    "augmented": lambda: Augmented(FramesAhead(1), [FrequencyWarp(0.2)]),
}
MODELS = {
    "ae": lambda: DeterministicBottleneck(6, 3),
    "vae": lambda: GaussianBottleneck(6, 3),
    "vq": lambda: QuantisedBottleneck(6, VectorQuantizer(3, 8)),
}


def autoencoder(name):
    torch.manual_seed(0)
    model = Autoencoder(
        ConvEncoder(SIZE, 6, 1),
        MODELS[name](),
        ConvDecoder(3, SIZE, 6, 1),
        GaussianLikelihood(SIZE),
    )
    randomised(model)(torch.randn(2, 400, SIZE))
    return model.eval()


@pytest.fixture(scope="module")
def models():
    """An autoencoder of each kind."""
    return {name: autoencoder(name) for name in MODELS}


@pytest.mark.parametrize("variance", VARIANCES)
@given(batch=batches(SIZE, dtypes=DTYPES), value=st.floats(0.01, 100))
def test_the_gaussian_is_that_of_pytorch(variance, batch, value):
    likelihood = randomised(GaussianLikelihood(SIZE, variance, value))
    torch.manual_seed(0)
    shape = (*batch.x.shape[:2], likelihood.prediction_size)
    prediction = torch.randn(shape).to(batch.x.dtype)
    nll = likelihood(prediction, batch.x)
    assert nll.shape == shape[:2]
    assert nll.dtype == torch.promote_types(torch.float32, batch.x.dtype)
    mean, logvar = likelihood.parameters_of(prediction.float())
    density = torch.distributions.Normal(mean, torch.exp(0.5 * logvar))
    expected = -density.log_prob(batch.x.float()).sum(-1)
    torch.testing.assert_close(nll.float(), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("learned", [True, False])
@given(batch=batches(SIZE, dtypes=DTYPES), value=st.floats(0.1, 100))
def test_the_laplacian_is_that_of_pytorch(learned, batch, value):
    likelihood = randomised(LaplaceLikelihood(SIZE, learned, value))
    prediction = torch.zeros_like(batch.x)
    scale = likelihood.log_scale.exp()
    density = torch.distributions.Laplace(torch.zeros(SIZE), scale)
    expected = -density.log_prob(batch.x.float()).sum(-1)
    nll = likelihood(prediction, batch.x).float()
    torch.testing.assert_close(nll, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("build", [GaussianLikelihood, LaplaceLikelihood])
@given(batch=batches(SIZE), bad=st.sampled_from([torch.nan, torch.inf]))
def test_what_is_not_finite_costs_its_own_frame(build, batch, bad):
    likelihood = build(SIZE)
    batch.x[0, 0, 0] = bad
    finite = likelihood(torch.zeros_like(batch.x), batch.x).isfinite()
    assert not finite[0, 0] and finite.flatten()[1:].all()


@pytest.mark.parametrize("build", TARGETS.values(), ids=TARGETS)
@given(batch=batches(SIZE, dtypes=DTYPES), training=st.booleans())
def test_targets_leave_the_features_alone_and_padding_out(build, batch, training):
    target = build().train(training)
    before = batch.x.clone()
    inputs, frames, mask = target(batch.x, batch.lengths)
    assert torch.equal(batch.x, before)
    assert inputs.shape == frames.shape == batch.x.shape
    assert inputs.dtype == frames.dtype == batch.x.dtype
    assert mask.shape == batch.x.shape[:2] and mask.dtype == torch.bool
    assert not (mask & ~batch.mask).any()
    assert inputs.isfinite().all()
    if not training:
        assert torch.equal(inputs, batch.x)


@given(batch=batches(SIZE), shift=st.integers(1, 15))
def test_frames_ahead_are_valid_frames_of_the_same_utterance(batch, shift):
    _, target, mask = FramesAhead(shift)(batch.x, batch.lengths)
    for row, count in enumerate(batch.counts):
        left = max(count - shift, 0)
        assert mask[row].tolist() == [t < left for t in range(batch.x.shape[1])]
        assert torch.equal(target[row, :left], batch.x[row, shift : shift + left])


@pytest.mark.parametrize("name", MODELS)
@given(batch=batches(SIZE, frames=30))
def test_the_loss_of_a_batch_is_that_of_its_utterances(models, name, batch):
    model = models[name]
    together = model(batch.x, batch.lengths)
    apart = [model(alone) for alone in batch.alone()]
    assert int(together.frames) == sum(batch.counts)
    total = together.bottleneck.loss * together.latent_frames
    expected = sum(out.bottleneck.loss * out.latent_frames for out in apart)
    torch.testing.assert_close(total, expected, atol=1e-4, rtol=1e-4)
    if name != "vae":  # whose latents are samples
        total = together.loss * together.frames
        expected = sum(out.loss * out.frames for out in apart)
        torch.testing.assert_close(total, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
@given(batch=batches(SIZE, frames=30), bad=st.sampled_from([torch.nan, torch.inf]))
def test_no_broken_frame_leaves_the_loss_finite(models, name, batch, bad):
    batch.x[-1, 0, 0] = bad
    try:
        loss = models[name](batch.x, batch.lengths).loss
    except ValueError as error:
        assert str(error).startswith("VectorQuantizer")
    else:
        assert not loss.isfinite()


@pytest.mark.parametrize("name", MODELS)
@given(batch=batches(SIZE, frames=30))
def test_every_weight_gets_a_finite_gradient(name, batch):
    model = autoencoder(name).train()
    model.zero_grad()
    model(batch.x, batch.lengths).loss.backward()
    for parameter in model.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


@given(batch=batches(SIZE), scale=st.floats(-3, 3))
def test_the_mean_error_is_that_of_the_valid_frames(batch, scale):
    prediction = batch.x + scale
    error = mean_error(prediction, batch.x, batch.mask)
    expected = ((prediction - batch.x) ** 2)[batch.mask].mean()
    torch.testing.assert_close(error, expected)


@given(batch=batches(SIZE, frames=40))
def test_totals_do_not_depend_on_how_an_epoch_is_cut_into_batches(models, batch):
    model = models["ae"]
    together, apart = EpochTotals(50), EpochTotals(50)
    together.add(model(batch.x, batch.lengths))
    for alone in batch.alone():
        apart.add(model(alone))
    expected = pytest.approx(together.summary(), rel=1e-4, abs=1e-5)
    assert apart.summary() == expected


@given(st.integers(2, 20), st.integers(2, 20), st.integers(1, 4))
def test_the_discrepancy_of_two_sets_is_symmetric(n, m, dim):
    torch.manual_seed(0)
    x, y = torch.randn(n, dim), torch.randn(m, dim)
    assert mmd(x, y) == pytest.approx(mmd(y, x), abs=1e-5)
