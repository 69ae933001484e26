"""log-Mel features and their normalisation."""

import pytest
import torch

from speechbrain_vae.lobes.features import NORMALISATIONS, LogMel


def batch(lengths=(16000, 7321, 4000)):
    """Noise of these lengths, padded with zeros, and the relative lengths."""
    generator = torch.Generator().manual_seed(0)
    wavs = torch.zeros(len(lengths), max(lengths))
    for row, length in zip(wavs, lengths, strict=True):
        row[:length] = torch.randn(length, generator=generator) / 10
    return wavs, torch.tensor(lengths) / max(lengths)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_padding_and_missing_lengths_do_not_change_features(normalisation):
    features = LogMel(normalisation=normalisation)
    if features.needs_statistics:
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


@pytest.mark.parametrize(("shrinkage", "same"), [(0.0, "utterance"), (1.0, "global")])
def test_shrunk_normalisation_lies_between_that_of_utterance_and_training_set(
    shrinkage, same
):
    wavs, wav_lens = batch()
    found = []
    for options in ({"normalisation": same}, {"shrinkage": shrinkage}):
        features = LogMel(**({"normalisation": "shrunk"} | options))
        features.set_statistics(torch.full((80,), -20.0), torch.full((80,), 9.0))
        found.append(features(wavs, wav_lens)[0])
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-5)


def test_shrunk_normalisation_leaves_a_share_of_the_voice():
    features = LogMel(normalisation="shrunk", shrinkage=0.25)
    wavs, _ = batch([16000])
    raw, _ = features.raw(wavs)
    std = raw.std(1, correction=0)
    features.set_statistics(raw.mean(1)[0] - 8, std[0])
    # 8 dB above the training set, of which a quarter is left.
    torch.testing.assert_close(features(wavs)[0].mean(1), 2 / std, atol=1e-3, rtol=1e-3)


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
    with pytest.raises(ValueError, match="utterance, shrunk, global, none"):
        LogMel(normalisation="speaker")
    with pytest.raises(ValueError, match="from 0 to 1"):
        LogMel(normalisation="shrunk", shrinkage=1.5)
    with pytest.raises(ValueError, match="whole number of samples"):
        LogMel(sample_rate=11025)
    with pytest.raises(ValueError, match=r"\[batch, samples\]"):
        LogMel()(torch.randn(16000))
