"""Normalisation and convolutional blocks, of random batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_vae.nnet.blocks import ConvBlock, ConvStack, Finish
from speechbrain_vae.nnet.normalisation import (
    NORMALISATIONS,
    FrameLayerNorm,
    MaskedBatchNorm,
    make_normalisation,
    mean_and_std,
)

from .batches import DTYPES, assert_zero, batches, randomised

SIZE = 4
EXACT = [torch.float64]
TRAINED = [torch.float32, torch.float64]
every_normalisation = pytest.mark.parametrize("kind", NORMALISATIONS)


def inputs(batch):
    """Frames [B, C, T] that are zero on padding, and the mask [B, 1, T]."""
    x = (batch.x * batch.mask.unsqueeze(-1)).transpose(1, 2)
    return x, batch.mask.unsqueeze(1).to(x.dtype)


def frames(y, batch):
    """Valid frames [N, C] of [B, C, T]."""
    return y.transpose(1, 2)[batch.mask]


@every_normalisation
@given(batch=batches(SIZE, dtypes=DTYPES), training=st.booleans())
def test_a_normalisation_keeps_shape_type_and_padding(kind, batch, training):
    x, mask = inputs(batch)
    training = training and x.dtype in TRAINED
    norm = randomised(make_normalisation(kind, SIZE)).to(x.dtype).train(training)
    y = norm(x, mask)
    assert y.shape == x.shape and y.dtype == x.dtype and y.isfinite().all()
    assert_zero(y.transpose(1, 2)[~batch.mask])
    if kind in ("none", "weight"):
        assert torch.equal(y, x)


@given(batch=batches(SIZE, dtypes=EXACT, spread=10.0))
def test_layer_normalisation_is_that_of_torch_on_each_frame(batch):
    norm = randomised(FrameLayerNorm(SIZE).double())
    x, mask = inputs(batch)
    expected = torch.nn.functional.layer_norm(
        frames(x, batch), (SIZE,), norm.weight, norm.bias
    )
    torch.testing.assert_close(frames(norm(x, mask), batch), expected)


@given(batch=batches(SIZE, dtypes=EXACT, spread=10.0), momentum=st.floats(0.01, 1))
def test_batch_normalisation_is_that_of_torch_on_valid_frames(batch, momentum):
    ours = randomised(MaskedBatchNorm(SIZE, momentum).double())
    theirs = torch.nn.BatchNorm1d(SIZE, momentum=momentum).double()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    x, mask = inputs(batch)
    valid = frames(x, batch)
    if len(valid) == 1:
        # Of one frame PyTorch refuses to take the variance.
        valid = valid.repeat(2, 1)
        x, mask = torch.cat([x, x]), torch.cat([mask, mask])
        batch.counts = batch.counts * 2
        batch.x = batch.x.repeat(2, 1, 1)
    x = x.clone().requires_grad_()
    valid = valid.detach().requires_grad_()
    found, expected = frames(ours(x, mask), batch), theirs(valid)
    torch.testing.assert_close(found, expected)
    # Followed in float32.
    mean = theirs.running_mean
    torch.testing.assert_close(ours.running_mean, mean, atol=1e-5, rtol=1e-5)
    # That of the batch, where PyTorch estimates that of what it was drawn from.
    variance = 1 + momentum * (valid.var(0, correction=0) - 1)
    torch.testing.assert_close(ours.running_var, variance, atol=1e-5, rtol=1e-5)
    into = torch.randn(found.shape, generator=torch.Generator().manual_seed(0)).double()
    wanted = [x, ours.weight, ours.bias], [valid, theirs.weight, theirs.bias]
    grads = torch.autograd.grad(found, wanted[0], into)
    others = torch.autograd.grad(expected, wanted[1], into)
    torch.testing.assert_close((frames(grads[0], batch), *grads[1:]), others)


@every_normalisation
@given(batch=batches(SIZE), bad=st.sampled_from([torch.nan, torch.inf]))
def test_a_broken_utterance_breaks_no_other(kind, batch, bad):
    x, mask = inputs(batch)
    norm = randomised(make_normalisation(kind, SIZE)).eval()
    whole = norm(x, mask)
    x[0, 0, 0] = bad
    broken = norm(x, mask)
    assert not broken[0, :, 0].isfinite().all()
    assert broken[0, :, 1:].isfinite().all()
    assert torch.equal(broken[1:], whole[1:])


@given(batch=batches(SIZE, frames=30), offset=st.floats(-100, 100))
def test_the_mean_and_deviation_are_those_of_all_frames(batch, offset):
    batch.x += offset
    utterances = [alone[0] for alone in batch.alone()]
    mean, std = mean_and_std(iter(utterances))
    together = torch.cat(utterances).double()
    torch.testing.assert_close(mean, together.mean(0))
    expected = together.std(0, correction=0)
    torch.testing.assert_close(std, expected, atol=1e-5, rtol=1e-5)


@st.composite
def blocks(draw, residual=None):
    """Options of a block."""
    return {
        "kernel_size": draw(st.sampled_from([1, 3, 5])),
        "dilation": draw(st.integers(1, 3)),
        "normalisation": draw(st.sampled_from(NORMALISATIONS)),
        "activation": draw(st.sampled_from([torch.nn.GELU, torch.nn.ReLU])),
        "residual": draw(st.booleans()) if residual is None else residual,
    }


def made(kind, options, dtype):
    torch.manual_seed(0)
    return randomised(kind(SIZE, **options)).to(dtype)


@given(batch=batches(SIZE, dtypes=DTYPES), options=blocks(), training=st.booleans())
def test_a_block_keeps_shape_type_and_padding(batch, options, training):
    x, mask = inputs(batch)
    training = training and x.dtype in TRAINED
    y = made(ConvBlock, options, x.dtype).train(training)(x, mask)
    assert y.shape == x.shape and y.dtype == x.dtype and y.isfinite().all()
    assert_zero(y.transpose(1, 2)[~batch.mask])


@given(batch=batches(SIZE), options=blocks(residual=True), dropout=st.floats(0, 1))
def test_a_residual_block_starts_as_the_identity(batch, options, dropout):
    x, mask = inputs(batch)
    assert torch.equal(ConvBlock(SIZE, dropout=dropout, **options)(x, mask), x)


@given(batch=batches(SIZE, dtypes=EXACT), options=blocks())
def test_a_block_is_that_of_torchs_convolutions(batch, options):
    x, mask = inputs(batch)
    block = made(ConvBlock, options, x.dtype).eval()
    wide, pointwise = block.wide, block.pointwise
    h = torch.nn.functional.conv1d(
        block.norm(x, mask),
        wide.weight.mT,
        wide.bias,
        padding=options["dilation"] * (options["kernel_size"] // 2),
        dilation=options["dilation"],
    )
    h = options["activation"]()(h)
    h = torch.nn.functional.conv1d(h, pointwise.weight.mT, pointwise.bias) * mask
    expected = x + h if options["residual"] else h
    torch.testing.assert_close(block(x, mask), expected)


@given(batch=batches(SIZE), options=blocks())
def test_every_weight_of_a_block_gets_a_finite_gradient(batch, options):
    x, mask = inputs(batch)
    block = made(ConvBlock, options, x.dtype)
    block(x, mask).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad.isfinite().all(), name


@given(
    batch=batches(SIZE),
    number=st.integers(0, 3),
    growth=st.integers(1, 3),
    kind=st.sampled_from(NORMALISATIONS),
)
def test_a_stack_gives_what_its_blocks_give_one_after_another(
    batch, number, growth, kind
):
    x, mask = inputs(batch)
    options = {"blocks": number, "dilation_growth": growth, "normalisation": kind}
    stack = made(ConvStack, options, x.dtype).eval()
    outputs = stack(x, mask)
    assert len(outputs) == number
    for i, (block, y) in enumerate(zip(stack.blocks, outputs, strict=True)):
        assert block.wide.dilation == growth**i
        assert torch.equal(y, block(x, mask))
        x = y


@every_normalisation
@given(batch=batches(SIZE, dtypes=TRAINED))
def test_a_finish_is_its_normalisation_and_its_activation(kind, batch):
    x, mask = inputs(batch)
    finish = randomised(Finish(SIZE, kind, torch.nn.ReLU, 0.5)).to(x.dtype).eval()
    expected = finish.norm(x, mask).clamp(min=0)
    assert torch.equal(finish(x, mask), expected)
    dropped = finish.train()(x, mask)
    assert dropped.shape == x.shape and (dropped >= 0).all()
