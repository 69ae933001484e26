"""The acoustic front end and the adapter, of random batches."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_vae.lobes.adapter import FeatureAdapter
from speechbrain_vae.lobes.features import NORMALISATIONS, LogMel

from .batches import DTYPES, assert_zero, batches, waveforms

RATE, BANDS, HOP = 8000, 12, 80


def log_mel(normalisation):
    features = LogMel(RATE, BANDS, normalisation=normalisation)
    if features.needs_statistics:
        features.set_statistics(torch.full((BANDS,), -20.0), torch.full((BANDS,), 9.0))
    return features


MODULES = {name: log_mel(name) for name in NORMALISATIONS}
every_normalisation = pytest.mark.parametrize("name", NORMALISATIONS)


@every_normalisation
@given(waveforms())
def test_features_are_those_of_the_waveform_alone(name, drawn):
    wavs, counts, wav_lens = drawn
    feats, lengths = MODULES[name](wavs, wav_lens)
    frames = feats.shape[1]
    assert feats.shape == (len(wavs), 1 + wavs.shape[1] // HOP, BANDS)
    assert feats.isfinite().all()
    for wav, row, count, length in zip(wavs, feats, counts, lengths, strict=True):
        valid = 1 + count // HOP
        assert round(float(length) * frames) == valid
        assert_zero(row[valid:])
        alone = MODULES[name](wav[None, :count])[0][0]
        torch.testing.assert_close(row[:valid], alone, atol=2e-2, rtol=1e-3)


@every_normalisation
@given(waveforms(), st.sampled_from([*DTYPES, torch.float16]))
def test_every_number_type_gives_finite_float32_features(name, drawn, dtype):
    wavs, _, wav_lens = drawn
    wavs = (wavs / wavs.abs().max()).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        feats, _ = MODULES[name](wavs, wav_lens)
    assert feats.dtype == torch.float32 and feats.isfinite().all()


@every_normalisation
@given(waveforms(), st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_a_broken_waveform_breaks_no_other(name, drawn, bad):
    wavs, _, wav_lens = drawn
    whole, _ = MODULES[name](wavs, wav_lens)
    wavs[0, 0] = bad
    broken, _ = MODULES[name](wavs, wav_lens)
    assert not broken[0].isfinite().all()
    torch.testing.assert_close(broken[1:], whole[1:])


@every_normalisation
@given(st.integers(1, 3), st.integers(1, 900), st.booleans())
def test_silence_has_finite_features(name, batch, samples, told):
    feats, lengths = MODULES[name](
        torch.zeros(batch, samples), torch.ones(batch) if told else None
    )
    assert feats.isfinite().all() and (lengths > 0).all()


@every_normalisation
@pytest.mark.parametrize("shape", [(100,), (1, 1, 100), (2, 0), (0, 100)])
def test_what_is_no_batch_of_waveforms_is_refused_by_name(name, shape):
    with pytest.raises(ValueError, match=r"LogMel: .*\[batch, samples\]"):
        MODULES[name](torch.zeros(shape))


def front_end(size=6, layers=1, codebook_sizes=()):
    """What an adapter asks of a front end."""
    return SimpleNamespace(size=size, layers=layers, codebook_sizes=codebook_sizes)


@pytest.mark.parametrize("layers", [1, 2, 3])
@given(batch=batches(6, dtypes=DTYPES))
def test_an_adapter_standardises_and_leaves_padding_empty(layers, batch):
    adapter = FeatureAdapter(front_end(layers=layers))
    adapter.fit([torch.randn(50, 6) * 3 + 7])
    out = adapter(batch.x, batch.lengths)
    assert out.shape == (*batch.x.shape[:2], 6 // layers)
    assert out.isfinite().all()
    assert_zero(out[~batch.mask])
    for row, alone in zip(out, batch.alone(), strict=True):
        single = adapter(alone)[0]
        torch.testing.assert_close(row[: len(single)], single)


@given(batch=batches(2), codes=st.integers(1, 9))
def test_tokens_are_embedded_and_padding_is_not(batch, codes):
    adapter = FeatureAdapter(front_end(2, codebook_sizes=(codes, codes)), 4)
    tokens = batch.x.abs().remainder(codes).floor()
    tokens[~batch.mask] = -1
    out = adapter(tokens, batch.lengths)
    assert out.shape == (*batch.x.shape[:2], 4)
    assert_zero(out[~batch.mask])
    assert torch.equal(out, adapter(tokens))


@given(batch=batches(3), bad=st.sampled_from([torch.nan, torch.inf]))
def test_a_broken_frame_stays_where_it_is(batch, bad):
    batch.x[0, 0, 0] = bad
    finite = FeatureAdapter(front_end(3))(batch.x, batch.lengths).isfinite()
    assert not finite[0, 0, 0] and finite.flatten()[1:].all()
