"""Quantisers as bottlenecks."""

import pytest
import torch

from speechbrain_vae.lobes.autoencoder import Autoencoder
from speechbrain_vae.lobes.bottlenecks import QuantisedBottleneck
from speechbrain_vae.lobes.decoders import ConvDecoder
from speechbrain_vae.lobes.encoders import ConvEncoder
from speechbrain_vae.nnet import quantisers
from speechbrain_vae.nnet.likelihoods import GaussianLikelihood

NAMES = [
    "VectorQuantizer",
    "ProductQuantizer",
    "ResidualQuantizer",
    "NSVQ",
    "SpaceFillingVQ",
    "DiVeQ",
    "SFDiVeQ",
    "GumbelVQ",
    "BinaryQuantizer",
]


def build(name, normalisation="batch"):
    """A small autoencoder around a quantiser of 16 codes."""
    torch.manual_seed(0)
    quantiser = getattr(quantisers, name)(8, 16)
    return Autoencoder(
        ConvEncoder(6, 16, blocks=1),
        QuantisedBottleneck(16, quantiser, normalisation),
        ConvDecoder(8, 6, 16, blocks=1),
        GaussianLikelihood(6, "fixed"),
    )


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_neither_the_codes_nor_the_loss_nor_the_codebook(name):
    feats = torch.randn(1, 401, 6)
    padded = torch.cat([feats, torch.full((1, 90, 6), 9.0)], 1)
    results = []
    for inputs, lengths in ((feats, None), (padded, torch.tensor([401 / 491]))):
        model = build(name)
        torch.manual_seed(1)
        model(inputs, lengths)
        torch.manual_seed(2)
        out = model.eval()(inputs, lengths)
        results.append((model, out))
    (alone, one), (beside, two) = results
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(
            beside.state_dict()[key], value, atol=1e-5, rtol=1e-5, msg=key
        )
    frames = one.bottleneck.indices.shape[1]
    torch.testing.assert_close(one.loss, two.loss, atol=1e-4, rtol=1e-4)
    same = one.bottleneck.indices == two.bottleneck.indices[:, :frames]
    # A frame on the border of two codes may fall on either side.
    assert same.double().mean() > 0.99
    assert (two.bottleneck.indices[:, frames:] == -1).all()


@pytest.mark.parametrize("normalisation", ["weight", "bach"])
def test_normalisations_that_are_none_are_refused(normalisation):
    with pytest.raises(ValueError, match="batch, layer, none; got '"):
        build("VectorQuantizer", normalisation)


@pytest.mark.parametrize("name", NAMES)
def test_a_few_hundred_steps_learn_more_than_the_mean(name):
    model = build(name)
    feats = torch.randn(4, 60, 2) @ torch.randn(2, 6)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(300):
        loss = model(feats).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    error = model.eval()(feats).squared_error.item()
    assert error < 0.6 * feats.var().item()


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_models_give_the_same_codes(name):
    model = build(name)
    feats = torch.randn(2, 100, 6)
    for _ in range(3):
        model(feats)
    loaded = build(name)
    loaded.load_state_dict(model.state_dict())
    first = model.eval().encode(feats)[0]
    second = loaded.eval().encode(feats)[0]
    assert torch.equal(first.indices, second.indices)
    torch.testing.assert_close(first.features, second.features)
