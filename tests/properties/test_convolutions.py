"""Convolutions of random shapes are PyTorch's, or refused."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from speechbrain_vae.nnet import convolution

from .batches import DTYPES

LAYOUTS = {
    "channels first": lambda x: x,
    "channels last": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "some channels": lambda x: torch.cat([x, x + 1], 1)[:, : x.shape[1]],
    "some of the last": lambda x: (
        torch.cat([x, x + 1], 1).transpose(1, 2).contiguous().transpose(1, 2)
    )[:, : x.shape[1]],
    "every other frame": lambda x: x.repeat_interleave(2, 2)[..., ::2],
    "repeated": lambda x: x[:, :, :1].expand(x.shape),
}
every_kind = pytest.mark.parametrize("kind", ["Conv1d", "ConvTranspose1d"])


@st.composite
def convolutions(draw, kind):
    """One of ours and PyTorch's with its weights, and frames for them."""
    dtype = draw(st.sampled_from(DTYPES))
    sizes = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    options = {
        "kernel_size": draw(st.integers(1, 6)),
        "stride": draw(st.integers(1, 4)),
        # PyTorch 2.11, whose way bfloat16 goes, crashes on one frame that lies channels
        # last, padded for a kernel of width 1.
        "padding": draw(st.integers(0, 4 * (dtype != torch.bfloat16))),
    }
    if kind == "Conv1d":
        options["dilation"] = draw(st.integers(1, 3))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    ours = getattr(convolution, kind)(*sizes, **options)
    theirs = getattr(torch.nn, kind)(*sizes, **options)
    theirs.load_state_dict(ours.state_dict())
    trained = draw(st.booleans())
    for conv in (ours, theirs):
        conv.to(dtype).weight.requires_grad_(trained)
    x = torch.randn(draw(st.integers(0, 3)), sizes[0], draw(st.integers(1, 12)))
    layout = LAYOUTS[draw(st.sampled_from(list(LAYOUTS)))]
    return ours, theirs, layout(x.to(dtype))


def output_frames(conv, frames):
    """Frames that a convolution or its transpose gives."""
    reach = conv.dilation * (conv.kernel_size - 1) + 1
    if isinstance(conv, convolution.ConvTranspose1d):
        return (frames - 1) * conv.stride + reach - 2 * conv.padding
    return (frames + 2 * conv.padding - reach) // conv.stride + 1


def with_gradients(conv, x):
    """The result and its gradients."""
    x = x.detach().requires_grad_()
    y = conv(x)
    found = {"x": x, "bias": conv.bias, "weight": conv.weight}
    found = {key: value for key, value in found.items() if value.requires_grad}
    into = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(y)
    grads = torch.autograd.grad(y, list(found.values()), into)
    return {"y": y, **dict(zip(found, grads, strict=True))}


@every_kind
@settings(max_examples=200)
@given(data=st.data())
def test_results_and_gradients_are_those_of_torch(kind, data):
    ours, theirs, x = data.draw(convolutions(kind))
    frames = output_frames(ours, x.shape[2])
    if frames < 1:
        with pytest.raises(RuntimeError, match="size"):
            ours(x)
        return
    found = with_gradients(ours, x)
    expected = with_gradients(theirs, x.clone(memory_format=torch.contiguous_format))
    assert found["y"].shape == (len(x), ours.out_channels, frames)
    if "weight" in found:
        found["weight"] = found["weight"].mT
    within = 5e-2 if x.dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(found, expected, atol=within, rtol=within)


@every_kind
@given(data=st.data(), more=st.sampled_from([-1, 1, 2]))
def test_another_number_of_channels_is_refused_by_both_numbers(kind, data, more):
    ours, _, x = data.draw(convolutions(kind))
    channels = ours.in_channels + more
    assume(x.numel() and output_frames(ours, x.shape[2]) > 0)
    wider = torch.cat([x, x, x], 1)[:, :channels]
    message = rf"{ours.in_channels} channels, but got {channels} channels"
    with pytest.raises(RuntimeError, match=message):
        ours(wider)


@every_kind
@given(data=st.data(), bad=st.sampled_from([torch.nan, torch.inf]))
def test_a_broken_frame_stays_within_reach_of_the_kernel(kind, data, bad):
    ours, theirs, x = data.draw(convolutions(kind))
    assume(x.numel() and output_frames(ours, x.shape[2]) > 0)
    x = x.clone(memory_format=torch.contiguous_format)
    x[0, 0, 0] = bad
    found, expected = with_gradients(ours, x), with_gradients(theirs, x)
    assert torch.equal(found["y"].isfinite(), expected["y"].isfinite())
    assert found["x"].isfinite().all()
