"""Penalties of an autoencoder, of random batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_vae.lobes.autoencoder import Autoencoder
from speechbrain_vae.lobes.bottlenecks import DeterministicBottleneck
from speechbrain_vae.lobes.decoders import ConvDecoder
from speechbrain_vae.lobes.encoders import ConvEncoder
from speechbrain_vae.lobes.heads import FrameProjection
from speechbrain_vae.lobes.penalties import (
    ActivityPenalty,
    ContractivePenalty,
    SparsityPenalty,
    WeightPenalty,
    layer_weights,
)
from speechbrain_vae.nnet.likelihoods import GaussianLikelihood

from .batches import batches, randomised

SIZE = 5
PENALTIES = {
    "sparsity": SparsityPenalty,
    "activity": ActivityPenalty,
    "contractive": ContractivePenalty,
    "l1": lambda weight: WeightPenalty(l1=weight),
    "l2": lambda weight: WeightPenalty(l2=weight),
}
every_penalty = pytest.mark.parametrize("name", PENALTIES)


def model(penalty, encoder=None, latent=3, activation=torch.nn.Sigmoid):
    """An autoencoder with this penalty."""
    torch.manual_seed(0)
    encoder = encoder or ConvEncoder(SIZE, 6, 1, stride=2)
    autoencoder = Autoencoder(
        encoder,
        DeterministicBottleneck(6, latent, activation),
        ConvDecoder(latent, SIZE, 6, 1, stride=encoder.stride),
        GaussianLikelihood(SIZE),
        penalties=[penalty],
    )
    return randomised(autoencoder).train()


def value(autoencoder, x, lengths=None):
    """What the penalty adds to the loss."""
    torch.manual_seed(1)
    (found,) = autoencoder(x, lengths).penalties.values()
    return found


@every_penalty
@given(batch=batches(SIZE), weight=st.floats(1e-3, 1e3))
def test_a_penalty_is_positive_and_in_proportion_to_its_weight(name, batch, weight):
    unit = value(model(PENALTIES[name](1.0)), batch.x, batch.lengths)
    found = value(model(PENALTIES[name](weight)), batch.x, batch.lengths)
    assert unit.shape == () and unit.isfinite() and unit >= 0
    torch.testing.assert_close(found, weight * unit, rtol=1e-4, atol=1e-6)


@every_penalty
@given(batch=batches(SIZE))
def test_what_is_in_the_padding_changes_no_penalty(name, batch):
    autoencoder = model(PENALTIES[name](1.0))
    before = value(autoencoder, batch.x, batch.lengths)
    batch.x[~batch.mask] = 7.0
    torch.testing.assert_close(value(autoencoder, batch.x, batch.lengths), before)


@every_penalty
@given(batch=batches(SIZE))
def test_every_weight_gets_a_finite_gradient(name, batch):
    autoencoder = model(PENALTIES[name](1.0))
    autoencoder(batch.x, batch.lengths).loss.backward()
    for parameter in autoencoder.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


@every_penalty
@given(batch=batches(SIZE))
def test_evaluation_has_no_penalties(name, batch):
    autoencoder = model(PENALTIES[name](1.0)).eval()
    assert autoencoder(batch.x, batch.lengths).penalties == {}


def per_frame():
    """An encoder of single frames and one unit, of which the slope is known."""
    encoder = FrameProjection(SIZE, 6)
    penalties = SparsityPenalty(2.0), ContractivePenalty(2.0)
    return [model(p, encoder, 1, activation=torch.nn.Identity) for p in penalties]


@given(batch=batches(SIZE))
def test_penalties_of_frames_are_means_over_the_valid_ones(batch):
    for autoencoder in per_frame():
        together = value(autoencoder, batch.x, batch.lengths)
        apart = [value(autoencoder, alone) for alone in batch.alone()]
        mean = sum(v * n for v, n in zip(apart, batch.counts, strict=True))
        torch.testing.assert_close(
            together, mean / sum(batch.counts), atol=1e-5, rtol=1e-4
        )


@given(batch=batches(SIZE))
def test_the_contraction_of_a_linear_encoder_is_its_squared_slope(batch):
    _, autoencoder = per_frame()
    linear = autoencoder.encoder.linear, autoencoder.bottleneck.linear
    slope = linear[1].weight @ linear[0].weight
    expected = 2.0 * (slope**2).sum().detach()
    found = value(autoencoder, batch.x, batch.lengths)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@given(batch=batches(SIZE))
def test_activity_at_its_target_costs_nothing(batch):
    autoencoder = model(ActivityPenalty(1.0, target=0.3))
    output = autoencoder.bottleneck.linear
    torch.nn.init.zeros_(output.weight)
    torch.nn.init.constant_(output.bias, torch.logit(torch.tensor(0.3)).item())
    assert abs(value(autoencoder, batch.x, batch.lengths)) < 1e-5
    torch.nn.init.constant_(output.bias, 2.0)
    assert value(autoencoder, batch.x, batch.lengths) > 0.1


@given(factor=st.floats(-4, 4))
def test_norms_of_weights_are_homogeneous(factor):
    autoencoder = model(WeightPenalty(l1=1.0))
    x = torch.zeros(1, 4, SIZE)
    norms = [WeightPenalty(l1=1.0), WeightPenalty(l2=1.0)]
    before = [norm(autoencoder, x, None, None) for norm in norms]
    with torch.no_grad():
        for weight in layer_weights(autoencoder):
            weight *= factor
    after = [norm(autoencoder, x, None, None) for norm in norms]
    torch.testing.assert_close(after[0], abs(factor) * before[0])
    torch.testing.assert_close(after[1], factor**2 * before[1])
