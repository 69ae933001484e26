"""Pretrained front ends and what pools them, of random batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import tiny_model
from speechbrain_vae.export import write_export
from speechbrain_vae.lobes.bottlenecks import QuantisedBottleneck
from speechbrain_vae.lobes.frozen import REPRESENTATIONS, FrozenEncoder
from speechbrain_vae.lobes.pooled import PooledFrontEnd
from speechbrain_vae.nnet.quantisers import VectorQuantizer

from .batches import assert_zero, batches, waveforms

FRAME = 320
TOKENS = """QuantisedBottleneck
        input_size: 12
        quantiser: !new:speechbrain_vae.nnet.quantisers.VectorQuantizer
            dim: 8
            codebook_size: 16
"""
drawn = given(waveforms(4000, levels=(-2, 0)))


@pytest.fixture(scope="module")
def front_ends(tmp_path_factory):
    """A front end of each representation."""
    hparams, text = tiny_model("global")
    hparams["autoencoder"].bottleneck = QuantisedBottleneck(12, VectorQuantizer(8, 16))
    old = "GaussianBottleneck\n        input_size: 12\n        latent_size: 8\n"
    folder = write_export(
        tmp_path_factory.mktemp("front_ends") / "export",
        text.replace(old, TOKENS),
        hparams["features"],
        hparams["autoencoder"],
    )
    return {r: FrozenEncoder(folder, representation=r) for r in REPRESENTATIONS}


@pytest.mark.parametrize("name", REPRESENTATIONS)
@drawn
def test_a_frozen_encoder_gives_the_frames_of_the_utterance_alone(
    front_ends, name, wave
):
    wavs, counts, wav_lens = wave
    front_end = front_ends[name].eval()
    together = front_end(wavs, wav_lens)
    assert together.shape[::2] == (len(wavs), front_end.output_size)
    assert together.dtype == torch.float32 and together.isfinite().all()
    for row, wav, count in zip(together, wavs, counts, strict=True):
        alone = front_end(wav[None, :count])[0]
        valid = -(-(1 + count // (FRAME // 2)) // 2)
        assert len(alone) == valid
        assert_zero(row[valid:] + (name == "tokens"))
        same = torch.isclose(row[:valid], alone, atol=2e-2, rtol=1e-2)
        # A frame between two codes may go to either.
        assert same.float().mean() > 0.9 if name != "encoder" else same.all()


@pytest.mark.parametrize("name", REPRESENTATIONS)
@drawn
def test_a_recipe_that_trains_leaves_a_frozen_encoder_as_it_is(front_ends, name, wave):
    wavs, _, wav_lens = wave
    front_end = front_ends[name]
    before = {k: v.clone() for k, v in front_end.state_dict().items()}
    evaluated = front_end.eval()(wavs, wav_lens)
    trained = front_end.train()(wavs, wav_lens)
    torch.testing.assert_close(trained, evaluated)
    assert trained.requires_grad == (name == "layers")
    for key, value in front_end.state_dict().items():
        assert torch.equal(value, before[key])


@drawn
def test_a_broken_waveform_breaks_no_other_of_a_frozen_encoder(front_ends, wave):
    wavs, _, wav_lens = wave
    front_end = front_ends["encoder"]
    whole = front_end(wavs, wav_lens)
    wavs[0, 0] = torch.nan
    broken = front_end(wavs, wav_lens)
    assert not broken[0].isfinite().all()
    torch.testing.assert_close(broken[1:], whole[1:])


@drawn
def test_hosts_get_codes_for_every_frame(front_ends, wave):
    wavs, _, wav_lens = wave
    front_end = front_ends["tokens"]
    tokens, features = front_end.encode(wavs, wav_lens)
    assert tokens.dtype == torch.long and ((tokens >= 0) & (tokens < 16)).all()
    assert torch.equal(front_end(wavs, wav_lens).clamp(min=0), tokens.float())
    torch.testing.assert_close(features, front_ends["features"](wavs, wav_lens))


@given(st.integers(1, 3), st.integers(1, 2000), st.booleans())
def test_silence_gives_a_frozen_encoder_finite_frames(front_ends, count, samples, told):
    wavs, lengths = torch.zeros(count, samples), torch.ones(count) if told else None
    for front_end in front_ends.values():
        assert front_end(wavs, lengths).isfinite().all()


class Frames(torch.nn.Module):
    """What a pooled front end asks of another: frames come as they are."""

    frozen = True

    def __init__(self, size, layers=1, codebook_sizes=None):
        super().__init__()
        self.size, self.layers, self.codebook_sizes = size, layers, codebook_sizes

    def forward(self, x, lengths=None):
        return x, lengths


SEGMENTS = st.integers(1, 4)


@given(batch=batches(6), segments=SEGMENTS, layers=st.sampled_from([1, 2, 3]))
def test_a_pooled_utterance_is_that_of_its_frames_alone(batch, segments, layers):
    front_end = PooledFrontEnd(Frames(6, layers), segments)
    together, lengths = front_end(batch.x, batch.lengths)
    assert together.shape == (len(batch.counts), 1, front_end.size)
    assert lengths.tolist() == [1.0] * len(batch.counts)
    alone = torch.cat([front_end(x)[0] for x in batch.alone()])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@given(batch=batches(6), segments=SEGMENTS)
def test_pooled_frames_are_their_mean_and_deviation(batch, segments):
    vectors, _ = PooledFrontEnd(Frames(6), segments)(batch.x, batch.lengths)
    for vector, x in zip(vectors, batch.alone(), strict=True):
        count, found = x.shape[1], vector[0].view(segments, 2, 6)
        for number, (mean, deviation) in enumerate(found):
            start = number * count // segments
            part = x[0, start : max((number + 1) * count // segments, start + 1)]
            torch.testing.assert_close(mean, part.mean(0), atol=1e-4, rtol=1e-4)
            expected = part.std(0, correction=0).clamp(min=1e-5)
            torch.testing.assert_close(deviation, expected, atol=1e-4, rtol=1e-3)


@given(batch=batches(2), codes=st.integers(1, 7), segments=SEGMENTS)
def test_pooled_tokens_are_shares_of_the_frames(batch, codes, segments):
    tokens = batch.x.abs().remainder(codes).floor()
    tokens[~batch.mask] = -1
    front_end = PooledFrontEnd(Frames(2, codebook_sizes=[codes, codes]), segments)
    vectors, _ = front_end(tokens, batch.lengths)
    assert vectors.shape == (len(batch.counts), 1, front_end.size)
    for vector, count, row in zip(vectors, batch.counts, tokens, strict=True):
        shares = vector[0].view(segments, 2, codes)
        torch.testing.assert_close(shares.sum(2), torch.ones(segments, 2))
        if segments == 1:
            found = torch.bincount(row[:count, 0].long(), minlength=codes) / count
            torch.testing.assert_close(shares[0, 0], found)


@given(batch=batches(6), segments=SEGMENTS, constant=st.booleans())
def test_pooling_passes_finite_gradients_to_valid_frames_alone(
    batch, segments, constant
):
    x = (torch.ones_like(batch.x) if constant else batch.x).requires_grad_()
    PooledFrontEnd(Frames(6), segments)(x, batch.lengths)[0].sum().backward()
    assert x.grad.isfinite().all()
    assert_zero(x.grad[~batch.mask])
    assert all(row[:n].any() for row, n in zip(x.grad, batch.counts, strict=True))
