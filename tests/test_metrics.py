"""Totals over an epoch."""

import pytest
import torch

from speechbrain_vae.lobes.autoencoder import Autoencoder
from speechbrain_vae.lobes.bottlenecks import (
    DeterministicBottleneck,
    QuantisedBottleneck,
)
from speechbrain_vae.lobes.decoders import ConvDecoder
from speechbrain_vae.lobes.encoders import ConvEncoder
from speechbrain_vae.lobes.penalties import SparsityPenalty, WeightPenalty
from speechbrain_vae.metrics import EpochTotals
from speechbrain_vae.nnet.likelihoods import GaussianLikelihood
from speechbrain_vae.nnet.quantisers import SpaceFillingVQ


def autoencoder(bottleneck, *penalties):
    torch.manual_seed(0)
    return Autoencoder(
        ConvEncoder(6, 8, blocks=1),
        bottleneck,
        ConvDecoder(bottleneck.latent_size, 6, 8, blocks=1),
        GaussianLikelihood(6, "fixed"),
        penalties=penalties,
    )


def test_penalties_are_averaged_over_the_frames_of_an_epoch():
    model = autoencoder(
        DeterministicBottleneck(8, 3), SparsityPenalty(0.5), WeightPenalty(l2=0.1)
    )
    totals = EpochTotals(50)
    short, long = (model(torch.randn(1, frames, 6)) for frames in (10, 30))
    totals.add_training(short)
    totals.add_training(long)
    means = totals.training_summary()
    assert means.keys() == {"SparsityPenalty", "WeightPenalty"}
    for name, mean in means.items():
        expected = (short.penalties[name] + 3 * long.penalties[name]) / 4
        assert mean == pytest.approx(float(expected), rel=1e-5)


def test_a_growing_codebook_is_measured_by_the_codes_it_has():
    quantiser = SpaceFillingVQ(4, 64, growth_steps=3)
    model = autoencoder(QuantisedBottleneck(8, quantiser))
    totals = EpochTotals(50, quantiser)
    for _ in range(6):
        totals.add_training(model(torch.randn(2, 100, 6)))
    stats = totals.training_summary()
    assert stats["codes"] == 8 and not stats["collapsed"]
    assert stats["dead_codes"] <= 1 and stats["nominal_bitrate"] == 150
