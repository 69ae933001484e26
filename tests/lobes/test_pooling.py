"""Pooling and unpooling."""

import math

import pytest
import torch

from speechbrain_vae.lobes.autoencoder import Autoencoder
from speechbrain_vae.lobes.bottlenecks import DeterministicBottleneck
from speechbrain_vae.lobes.pooling import PoolingEncoder, UnpoolingDecoder
from speechbrain_vae.nnet.likelihoods import GaussianLikelihood

F, H, D = 6, 12, 4
POOLINGS = [("max", "nearest"), ("average", "linear"), ("max", "linear")]
STRIDES = [1, 2, 3]


def autoencoder(pooling, unpooling, stride, **options):
    torch.manual_seed(0)
    model = Autoencoder(
        PoolingEncoder(F, H, stride=stride, pooling=pooling, **options),
        DeterministicBottleneck(H, D),
        UnpoolingDecoder(D, F, H, stride=stride, unpooling=unpooling, **options),
        GaussianLikelihood(F),
    )
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize(("pooling", "unpooling"), POOLINGS)
@pytest.mark.parametrize("frames", [1, 20, 21])
def test_a_padded_utterance_gives_the_numbers_of_the_utterance_alone(
    pooling, unpooling, stride, frames
):
    model = autoencoder(pooling, unpooling, stride, normalisation="batch")
    feats = torch.randn(1, frames, F)
    padded = torch.cat([feats, torch.full((1, 13, F), 7.0)], 1)
    lengths = torch.tensor([frames / (frames + 13)])
    alone, out = model(feats), model(padded, lengths)
    assert int(out.frames) == int(alone.frames)
    assert int(out.latent_frames) == int(alone.latent_frames)
    torch.testing.assert_close(out.loss, alone.loss)
    torch.testing.assert_close(out.squared_error, alone.squared_error)
    count = alone.bottleneck.features.shape[1]
    torch.testing.assert_close(
        out.bottleneck.features[:, :count], alone.bottleneck.features
    )
    assert not out.bottleneck.features[:, count:].any()


@pytest.mark.parametrize("stride", STRIDES)
def test_every_layer_has_one_frame_rate_and_the_last_is_the_output(stride):
    encoder = PoolingEncoder(F, H, stride=stride)
    x, lengths = torch.randn(2, 11, F), torch.tensor([1.0, 5 / 11])
    layers = encoder.layers(x, lengths)
    frames = math.ceil(11 / stride)
    assert {layer.shape for layer in layers} == {(2, frames, H)}
    torch.testing.assert_close(encoder(x, lengths), layers[-1])
    counts = encoder.output_lengths(x, lengths) * frames
    assert counts.round().tolist() == [frames, math.ceil(5 / stride)]


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_pooling_is_that_of_torch_on_whole_windows(pooling):
    encoder = PoolingEncoder(F, H, stride=3, pooling=pooling)
    h = torch.randn(2, 12, H)
    layer = {"max": torch.nn.MaxPool1d, "average": torch.nn.AvgPool1d}[pooling](3)
    expected = layer(h.transpose(1, 2)).transpose(1, 2)
    mask = torch.ones(2, 12, dtype=torch.bool)
    torch.testing.assert_close(encoder.pool(h, mask), expected)


def test_an_average_is_that_of_the_frames_there_are():
    encoder = PoolingEncoder(F, H, stride=3, pooling="average")
    pooled = encoder.pool(torch.ones(1, 4, H), torch.ones(1, 4, dtype=torch.bool))
    torch.testing.assert_close(pooled, torch.ones(1, 2, H))


def test_the_decoder_needs_the_latent_alone():
    model = autoencoder("max", "nearest", 2)
    first, second = torch.randn(1, 10, F), torch.randn(1, 10, F)
    latent = model.encode(first)[0].latent
    before = model.decode(latent)
    model(second)
    torch.testing.assert_close(model.decode(latent), before)
    assert model.decode(torch.randn(3, 7, D)).shape == (3, 14, F)


@pytest.mark.parametrize(("pooling", "unpooling"), POOLINGS)
def test_a_pooling_autoencoder_learns_to_reconstruct(pooling, unpooling):
    torch.manual_seed(1)
    model = autoencoder(pooling, unpooling, 2)
    feats = torch.randn(4, 20, 2) @ torch.randn(2, F)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(250):
        optimiser.zero_grad()
        model(feats).loss.backward()
        optimiser.step()
    assert model(feats).squared_error < 0.3 * feats.var()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PoolingEncoder(F, H, pooling="sum"), "max, average; got 'sum'"),
        (lambda: UnpoolingDecoder(D, F, H, unpooling="switches"), "nearest, linear"),
        (lambda: PoolingEncoder(F, H, stem_kernel_size=4), "odd; got 4"),
        (lambda: UnpoolingDecoder(D, F, H, stride=0), "stride must be at least 1"),
    ],
)
def test_bad_options_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
