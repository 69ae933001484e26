"""Features of a pretrained encoder, of random batches of waveforms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import tiny_model
from speechbrain_vae.export import write_export
from speechbrain_vae.inference import FeatureEncoder

from .batches import DTYPES, assert_zero, waveforms

HOP, SIZE = 160, 8
NORMALISATIONS = ("utterance", "global")
every_normalisation = pytest.mark.parametrize("name", NORMALISATIONS)
WAVES = waveforms(4000, levels=(-2, 0))


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """A small untrained encoder of each normalisation."""
    made = {}
    for name in NORMALISATIONS:
        hparams, text = tiny_model(name)
        folder = tmp_path_factory.mktemp("exports") / name
        write_export(folder, text, hparams["features"], hparams["autoencoder"])
        made[name] = FeatureEncoder.from_hparams(folder)
    return made


def frames(samples):
    """Frames of so many samples."""
    return -(-(1 + samples // HOP) // 2)


def assert_near(found, expected):
    """The same but for the order of sums."""
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=1e-2)


@every_normalisation
@given(wave=WAVES)
def test_features_are_those_of_the_utterance_alone(encoders, name, wave):
    wavs, counts, wav_lens = wave
    encode = encoders[name].encode_batch
    together = encode(wavs, wav_lens)
    assert together.shape == (len(wavs), frames(wavs.shape[1]), SIZE)
    assert together.dtype == torch.float32 and together.isfinite().all()
    assert not together.requires_grad
    for row, wav, count in zip(together, wavs, counts, strict=True):
        alone = encode(wav[None, :count])[0]
        assert len(alone) == frames(count)
        assert_zero(row[len(alone) :])
        assert_near(row[: len(alone)], alone)


@every_normalisation
@given(wave=WAVES, more=st.integers(1, 2000))
def test_padding_changes_nothing_whatever_it_holds(encoders, name, wave, more):
    wavs, counts, _ = wave
    encode = encoders[name].encode_batch
    expected = encode(wavs)
    padded = torch.nn.functional.pad(wavs, (0, more))
    lengths = torch.tensor(counts) / padded.shape[1]
    told = encode(padded, lengths)
    assert_near(told[:, : expected.shape[1]], expected)
    assert_zero(told[:, expected.shape[1] :])
    for wav, count in zip(padded, counts, strict=True):
        wav[count:] = 7.0
    torch.testing.assert_close(encode(padded, lengths), told)


@every_normalisation
@given(
    wave=WAVES,
    dtype=st.sampled_from([*DTYPES, torch.float16]),
)
def test_every_number_type_gives_the_features_of_its_values(
    encoders, name, wave, dtype
):
    wavs, _, wav_lens = wave
    wavs = wavs.to(dtype)
    found = encoders[name].encode_batch(wavs, wav_lens)
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found, encoders[name].encode_batch(wavs.float(), wav_lens)
    )


@every_normalisation
@given(
    wave=WAVES,
    bad=st.sampled_from([torch.nan, torch.inf, -torch.inf]),
    place=st.floats(0, 1),
)
def test_a_broken_waveform_breaks_no_other(encoders, name, wave, bad, place):
    wavs, counts, wav_lens = wave
    encode = encoders[name].encode_batch
    whole = encode(wavs, wav_lens)
    wavs[0, int(place * (counts[0] - 1))] = bad
    broken = encode(wavs, wav_lens)
    assert not broken[0].isfinite().all()
    torch.testing.assert_close(broken[1:], whole[1:])


@every_normalisation
@given(count=st.integers(1, 3), samples=st.integers(1, 4000), told=st.booleans())
def test_silence_has_finite_features_and_disturbs_no_other(
    encoders, name, count, samples, told
):
    torch.manual_seed(0)
    encode = encoders[name].encode_batch
    wavs, lengths = torch.zeros(count + 1, samples), torch.ones(count + 1)
    wavs[-1] = 0.1 * torch.randn(samples)
    found = encode(wavs, lengths if told else None)
    assert found.shape == (count + 1, frames(samples), SIZE)
    assert found.isfinite().all()
    assert_near(found[-1:], encode(wavs[-1:]))


@every_normalisation
@pytest.mark.parametrize("shape", [(100,), (1, 1, 100), (2, 0), (0, 100), (0, 0)])
def test_what_is_no_batch_of_waveforms_is_refused_by_name(encoders, name, shape):
    with pytest.raises(ValueError, match=r"LogMel: .*\[batch, samples\]"):
        encoders[name].encode_batch(torch.zeros(shape))


@pytest.mark.parametrize("lengths", [torch.ones(3), torch.ones(2, 1), torch.ones(())])
def test_lengths_of_another_batch_are_refused(encoders, lengths):
    with pytest.raises(ValueError, match=r"lengths must have shape \[2\]"):
        encoders["global"].encode_batch(torch.randn(2, 400), lengths)


@every_normalisation
@given(wave=WAVES)
def test_what_is_reconstructed_is_finite_and_of_every_frame(encoders, name, wave):
    wavs, _, wav_lens = wave
    found = encoders[name].reconstruct_batch(wavs, wav_lens)
    assert found.shape == (len(wavs), 1 + wavs.shape[1] // HOP, 80)
    assert found.isfinite().all()
