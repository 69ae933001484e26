"""Encoders and decoders, of random batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_vae.lobes.decoders import ConvDecoder, RecurrentDecoder
from speechbrain_vae.lobes.encoders import ConvEncoder, RecurrentEncoder
from speechbrain_vae.lobes.heads import FrameMean, FrameProjection
from speechbrain_vae.lobes.pooling import PoolingEncoder, UnpoolingDecoder
from speechbrain_vae.lobes.tied import StackedEncoder, TiedDecoder
from speechbrain_vae.lobes.two_way import TwoWayEncoder

from .batches import DTYPES, assert_zero, batches, randomised

SIZE = 5
ENCODERS = {
    "conv": lambda s: ConvEncoder(SIZE, 6, 2, s, dilation_growth=2),
    "conv layer": lambda s: ConvEncoder(SIZE, 6, 1, s, normalisation="layer"),
    "conv batch": lambda s: ConvEncoder(SIZE, 6, 1, s, normalisation="batch"),
    "conv weight": lambda s: ConvEncoder(SIZE, 6, 1, s, normalisation="weight"),
    "recurrent": lambda s: RecurrentEncoder(SIZE, 6, 2, s),
    "lookahead": lambda s: RecurrentEncoder(SIZE, 6, 2, s, lookahead=2),
    "bidirectional": lambda s: RecurrentEncoder(SIZE, 6, 2, s, bidirectional=True),
    "lstm": lambda s: RecurrentEncoder(SIZE, 6, 2, s, cell=torch.nn.LSTM),
    "two way": lambda s: TwoWayEncoder(SIZE, 6, 2, s, gap=2),
    "gru layer": lambda s: RecurrentEncoder(SIZE, 6, 2, s, normalisation="layer"),
    "gru weight": lambda s: TwoWayEncoder(SIZE, 6, 2, s, normalisation="weight"),
    "stacked batch": lambda s: StackedEncoder(SIZE, (7, 6), s, normalisation="batch"),
    "stacked": lambda s: StackedEncoder(SIZE, (7, 6), s, kernel_size=3),
    "max": lambda s: PoolingEncoder(SIZE, 6, 1, s),
    "mean": lambda s: FrameMean(SIZE, s),
    "projection": lambda s: FrameProjection(SIZE, 6, s),
    "average": lambda s: PoolingEncoder(SIZE, 6, 1, s, pooling="average"),
}
DECODERS = {
    "conv": lambda s: ConvDecoder(SIZE, 4, 6, 1, s),
    "linear": lambda s: RecurrentDecoder(SIZE, 4, num_layers=0, stride=s),
    "recurrent": lambda s: RecurrentDecoder(SIZE, 4, 6, stride=s),
    "bidirectional": lambda s: RecurrentDecoder(SIZE, 4, 6, 1, s, True),
    "tied": lambda s: TiedDecoder(StackedEncoder(4, (7, SIZE), s, kernel_size=3)),
    "nearest": lambda s: UnpoolingDecoder(SIZE, 4, 6, 1, s),
    "linearly": lambda s: UnpoolingDecoder(SIZE, 4, 6, 1, s, "linear"),
}
STRIDES = st.integers(1, 4)
every_encoder = pytest.mark.parametrize("build", ENCODERS.values(), ids=ENCODERS)
every_decoder = pytest.mark.parametrize("build", DECODERS.values(), ids=DECODERS)


def made(build, stride, dtype=torch.float32):
    torch.manual_seed(0)
    module = randomised(build(stride)).eval().to(dtype)
    for part in getattr(module, "tied", ()):
        part.eval().to(dtype)
    return module


@every_encoder
@given(batch=batches(SIZE, dtypes=DTYPES), stride=STRIDES)
def test_layers_have_one_rate_one_type_and_empty_padding(build, batch, stride):
    encoder = made(build, stride, batch.x.dtype)
    frames = -(-batch.x.shape[1] // stride)
    layers = encoder.layers(batch.x, batch.lengths)
    lengths = encoder.output_lengths(batch.x, batch.lengths)
    for layer in layers:
        assert layer.shape[:2] == (len(batch.counts), frames)
        assert layer.dtype == batch.x.dtype and layer.isfinite().all()
        for row, count in zip(layer, batch.counts, strict=True):
            assert_zero(row[-(-count // stride) :])
    assert layers[-1].shape[2] == encoder.output_size
    assert (lengths is None) == (batch.lengths is None)


@every_encoder
@given(batch=batches(SIZE), stride=STRIDES)
def test_company_and_padding_do_not_change_an_utterance(build, batch, stride):
    encoder = made(build, stride)
    together = encoder(batch.x, batch.lengths)
    for row, alone in zip(together, batch.alone(), strict=True):
        single = encoder(alone)[0]
        torch.testing.assert_close(row[: len(single)], single, atol=1e-5, rtol=1e-4)


@every_encoder
@given(batch=batches(SIZE), bad=st.sampled_from([torch.nan, torch.inf]))
def test_a_broken_utterance_breaks_no_other(build, batch, bad):
    encoder = made(build, 2)
    whole = encoder.layers(batch.x, batch.lengths)[-1]
    batch.x[0, 0] = bad
    broken = encoder.layers(batch.x, batch.lengths)[-1]
    assert not broken[0].isfinite().all()
    torch.testing.assert_close(broken[1:], whole[1:], atol=1e-6, rtol=1e-5)


@every_encoder
@given(batch=batches(SIZE), stride=STRIDES)
def test_autocast_gives_finite_frames(build, batch, stride):
    encoder = made(build, stride)
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(batch.x, batch.lengths).isfinite().all()


@every_encoder
@pytest.mark.parametrize("shape", [(0, 4, SIZE), (2, 0, SIZE), (2, 4, SIZE + 1), (4,)])
def test_what_is_no_batch_of_frames_is_refused_by_name(build, shape):
    encoder = made(build, 2)
    with pytest.raises(ValueError, match=rf"{type(encoder).__name__}: .*T, {SIZE}\]"):
        encoder(torch.zeros(shape))


@every_decoder
@given(batch=batches(SIZE, dtypes=DTYPES), stride=STRIDES, data=st.data())
def test_a_decoder_gives_the_frames_it_is_asked_for(build, batch, stride, data):
    decoder = made(build, stride, batch.x.dtype)
    latents = batch.x.shape[1]
    frames = data.draw(st.integers((latents - 1) * stride + 1, latents * stride))
    out = decoder(batch.x, batch.lengths, frames)
    assert out.shape == (len(batch.counts), frames, 4)
    assert out.dtype == batch.x.dtype and out.isfinite().all()
    assert decoder(batch.x, batch.lengths).shape[1] == latents * stride


@every_decoder
@given(batch=batches(SIZE), stride=STRIDES)
def test_company_and_padding_do_not_change_what_is_decoded(build, batch, stride):
    decoder = made(build, stride)
    together = decoder(batch.x, batch.lengths)
    for row, alone in zip(together, batch.alone(), strict=True):
        single = decoder(alone)[0]
        torch.testing.assert_close(row[: len(single)], single, atol=1e-5, rtol=1e-4)


@every_decoder
@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_latents_of_another_size_are_refused(build, size, stride):
    with pytest.raises(RuntimeError, match=rf"{SIZE}.*{size}|{size}.*{SIZE}"):
        made(build, stride)(torch.randn(2, 9, size))
