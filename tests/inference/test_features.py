"""FeatureEncoder, from files and batches."""

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_vae.dataio.audio import AudioError
from speechbrain_vae.inference import FeatureEncoder


@pytest.fixture
def encoder(tiny_export):
    """A small untrained encoder."""
    return FeatureEncoder.from_hparams(str(tiny_export))


def test_stereo_mp3_at_another_rate_gives_features_at_the_models_rate(
    encoder, tmp_path
):
    path = tmp_path / "music.mp3"
    noise = np.random.default_rng(0).normal(size=(2 * 44100, 2)) / 20
    soundfile.write(path, noise, 44100)
    features = encoder.encode_file(path)
    assert features.shape == pytest.approx((101, 8), abs=4)
    assert features.shape[1] == encoder.feature_size
    assert features.isfinite().all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "missing file"), (b"", "empty file"), (b"no", "not decodable"), ([], "no")],
)
def test_a_file_that_cannot_be_used_is_named(content, reason, encoder, tmp_path):
    path = tmp_path / "a.wav"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        soundfile.write(path, np.array(content), 16000)
    with pytest.raises(AudioError) as caught:
        encoder.encode_file(path)
    assert str(caught.value).startswith(f"{path}: {reason}")
    assert caught.value.reason.startswith(reason)


def test_reconstructions_and_samples_have_the_shape_of_the_features(encoder):
    wavs = torch.randn(2, 16000)
    assert encoder.reconstruct_batch(wavs).shape == (2, 101, 80)
    assert encoder.sample(3, 7).shape == (3, 14, 80)


def test_calling_the_encoder_encodes(encoder):
    wavs = torch.randn(2, 16000)
    torch.testing.assert_close(encoder(wavs), encoder.encode_batch(wavs))


def test_a_continuous_model_has_no_tokens(encoder):
    with pytest.raises(ValueError, match="no tokens"):
        encoder.tokens_batch(torch.randn(1, 16000))


@pytest.mark.parametrize(
    ("wavs", "wav_lens", "message"),
    [
        (np.zeros((1, 400)), None, r"wavs must be .*\[B, S\].*; got ndarray"),
        ([[0.1] * 400], None, "wavs must be a torch.Tensor .*; got list"),
        (torch.ones(1, 400), [1.0], "wav_lens must be a torch.Tensor .*; got list"),
    ],
)
def test_what_is_no_tensor_is_refused_by_name(encoder, wavs, wav_lens, message):
    with pytest.raises(TypeError, match=message):
        encoder.encode_batch(wavs, wav_lens)


@pytest.mark.parametrize("length", [float("nan"), -0.1, 1.5])
def test_lengths_that_are_no_shares_are_refused(encoder, length):
    with pytest.raises(ValueError, match="wav_lens must be relative"):
        encoder.encode_batch(torch.randn(2, 400), torch.tensor([1.0, length]))


@pytest.mark.parametrize("size", [(1, 0), (-1, 3)])
def test_no_samples_are_no_request(encoder, size):
    with pytest.raises(ValueError, match="n and frames must be at least 1; got"):
        encoder.sample(*size)


def test_a_device_that_is_not_there_is_refused(tiny_export):
    with pytest.raises(ValueError, match="PyTorch cannot use the device 'banana' here"):
        FeatureEncoder.from_hparams(tiny_export, run_opts={"device": "banana"})


def test_the_home_folder_may_be_a_tilde(tiny_export, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_export.parent))
    encoder = FeatureEncoder.from_hparams(f"~/{tiny_export.name}")
    assert encoder.feature_size == 8
