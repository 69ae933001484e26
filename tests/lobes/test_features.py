"""log-Mel features and their normalisation."""

import pytest
import torch

from speechbrain_vae.lobes.features import LogMel


def batch(lengths=(16000, 7321, 4000)):
    """Noise of these lengths, padded with zeros, and the relative lengths."""
    generator = torch.Generator().manual_seed(0)
    wavs = torch.zeros(len(lengths), max(lengths))
    for row, length in zip(wavs, lengths, strict=True):
        row[:length] = torch.randn(length, generator=generator) / 10
    return wavs, torch.tensor(lengths) / max(lengths)


@pytest.mark.parametrize("normalisation", ["utterance", "global", "none"])
def test_padding_and_missing_lengths_do_not_change_features(normalisation):
    features = LogMel(normalisation=normalisation)
    if normalisation == "global":
        features.set_statistics(torch.full((80,), -20.0), torch.full((80,), 9.0))
    wavs, wav_lens = batch()
    with_lengths, lengths = features(wavs, wav_lens)
    without, inferred = features(wavs)
    assert torch.equal(lengths, inferred)
    torch.testing.assert_close(with_lengths, without)
    for row, relative in enumerate(wav_lens):
        samples = round(float(relative) * wavs.shape[1])
        alone, _ = features(wavs[row : row + 1, :samples])
        frames = alone.shape[1]
        assert frames == 1 + samples // 160
        torch.testing.assert_close(
            with_lengths[row, :frames], alone[0], atol=1e-4, rtol=1e-5
        )
        assert not with_lengths[row, frames:].any()


def test_utterance_normalisation_has_zero_mean_and_unit_variance():
    feats, _ = LogMel()(batch([16000])[0])
    torch.testing.assert_close(feats.mean(1), torch.zeros(1, 80), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        feats.var(1, correction=0), torch.ones(1, 80), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("samples", [1, 159, 160, 400])
def test_very_short_and_silent_waveforms_give_finite_features(samples):
    for wavs in (torch.randn(1, samples), torch.zeros(1, samples)):
        feats, _ = LogMel()(wavs)
        assert feats.shape == (1, 1 + samples // 160, 80)
        assert feats.isfinite().all()


def test_global_statistics_are_in_the_state_dict():
    features = LogMel(normalisation="global")
    with pytest.raises(RuntimeError, match="no statistics"):
        features(torch.randn(1, 1600))
    features.set_statistics(torch.full((80,), 3.0), torch.full((80,), 2.0))
    loaded = LogMel(normalisation="global")
    loaded.load_state_dict(features.state_dict())
    wavs, _ = batch([1600])
    torch.testing.assert_close(loaded(wavs)[0], features(wavs)[0])


def test_bad_arguments_are_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="utterance, global, none"):
        LogMel(normalisation="speaker")
    with pytest.raises(ValueError, match="whole number of samples"):
        LogMel(sample_rate=11025)
    with pytest.raises(ValueError, match=r"\[batch, samples\]"):
        LogMel()(torch.randn(16000))
