"""Long recordings in pieces."""

import numpy as np
import pytest
import torch

from conftest import tiny_model
from speechbrain_vae.inference import streaming
from speechbrain_vae.inference.streaming import encode_blocks, receptive_frames
from speechbrain_vae.lobes.autoencoder import Autoencoder
from speechbrain_vae.lobes.bottlenecks import QuantisedBottleneck
from speechbrain_vae.lobes.decoders import ConvDecoder
from speechbrain_vae.lobes.encoders import ConvEncoder, RecurrentEncoder
from speechbrain_vae.lobes.features import NORMALISATIONS
from speechbrain_vae.lobes.pooling import PoolingEncoder
from speechbrain_vae.lobes.two_way import TwoWayEncoder
from speechbrain_vae.nnet.likelihoods import GaussianLikelihood
from speechbrain_vae.nnet.quantisers import VectorQuantizer

RATE = 16000


def recording(seconds, silence=0.0):
    """Noise whose level changes a lot, and digital silence at its end."""
    generator = np.random.default_rng(0)
    samples = int(seconds * RATE)
    level = 10 ** generator.uniform(-5, 0, size=int(seconds) + 1)
    wav = generator.normal(size=samples) * np.repeat(level, RATE)[:samples] / 10
    return np.concatenate([wav, np.zeros(int(silence * RATE))]).astype(np.float32)


def model(normalisation="utterance", encoder=None):
    hparams, _ = tiny_model(normalisation)
    autoencoder = hparams["autoencoder"]
    if encoder is not None:
        autoencoder.encoder = encoder
    return hparams["features"], autoencoder.eval()


def in_pieces(wav, features, autoencoder, block=7001):
    blocks = [wav[i : i + block] for i in range(0, len(wav), block)]
    with torch.no_grad():
        return list(encode_blocks(blocks, features, autoencoder))


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize(("seconds", "silence"), [(0.001, 0), (6.3, 0), (5, 2.3)])
def test_features_in_pieces_are_those_of_the_whole(
    monkeypatch, normalisation, seconds, silence
):
    monkeypatch.setattr(streaming, "PIECE_FRAMES", 50)
    features, autoencoder = model(normalisation)
    wav = recording(seconds, silence)
    feats, lengths = features(torch.from_numpy(wav)[None])
    expected = autoencoder.encode(feats, lengths)[0].features[0]
    pieces = in_pieces(wav, features, autoencoder)
    assert len(pieces) == -(-len(expected) // 50)
    found = torch.cat([piece for piece, _ in pieces])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("kind", [RecurrentEncoder, TwoWayEncoder])
def test_an_encoder_that_remembers_gets_the_whole(monkeypatch, kind):
    monkeypatch.setattr(streaming, "PIECE_FRAMES", 50)
    encoder = kind(80, 6 if kind is TwoWayEncoder else 12, 1, stride=2)
    features, autoencoder = model(encoder=encoder)
    wav = recording(3)
    ((found, _),) = in_pieces(wav, features, autoencoder)
    feats, lengths = features(torch.from_numpy(wav)[None])
    expected = autoencoder.encode(feats, lengths)[0].features[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_tokens_in_pieces_are_those_of_the_whole(monkeypatch):
    monkeypatch.setattr(streaming, "PIECE_FRAMES", 50)
    torch.manual_seed(0)
    features, _ = model()
    autoencoder = Autoencoder(
        ConvEncoder(80, 12, 2),
        QuantisedBottleneck(12, VectorQuantizer(4, 16), normalisation="layer"),
        ConvDecoder(4, 80, 12),
        GaussianLikelihood(80, variance="fixed"),
    ).eval()
    wav = recording(4, silence=1)
    feats, lengths = features(torch.from_numpy(wav)[None])
    expected = autoencoder.encode(feats, lengths)[0].indices[0]
    found = torch.cat([i for _, i in in_pieces(wav, features, autoencoder)])
    assert found.shape == expected.shape and bool((found[-40:] == -1).all())
    # At the border of two codes rounding may decide.
    assert (found == expected).float().mean() > 0.98


@pytest.mark.parametrize(
    ("encoder", "frames"),
    [
        (ConvEncoder(8, 4, blocks=1, stride=1, kernel_size=1), 1),
        (ConvEncoder(8, 4, blocks=3, stride=1, kernel_size=5), 7),
        (ConvEncoder(8, 4, blocks=3, dilation_growth=2, stride=2), 8),
        (ConvEncoder(8, 4, blocks=6, dilation_growth=3, stride=2), 365),
        (PoolingEncoder(8, 4, blocks=1, stride=2), 2),
        (RecurrentEncoder(8, 4, 1, bidirectional=True), None),
        (TwoWayEncoder(8, 4, 1), None),
    ],
)
def test_how_far_encoders_see(encoder, frames):
    assert receptive_frames(encoder.eval(), 8) == frames


def test_gradients_are_as_before_while_pieces_are_consumed():
    for _ in encode_blocks([recording(1)], *model()):
        assert torch.is_grad_enabled()
