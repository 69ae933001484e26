"""Convolutions as products of matrices are PyTorch's, with their gradients."""

import copy

import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm

from speechbrain_vae.nnet import convolution
from speechbrain_vae.nnet.convolution import (
    Conv1d,
    ConvolutionOfFrames,
    ConvTranspose1d,
    TransposedConvolutionOfFrames,
)

SHAPES = [
    # width, stride, padding, dilation
    (1, 1, 0, 1),
    (3, 1, 1, 1),
    (3, 1, 4, 4),
    (4, 2, 1, 1),
    (3, 3, 0, 1),
    (10, 8, 1, 1),
    (6, 2, 2, 1),
    (3, 2, 2, 2),
    (5, 2, 3, 3),
    (2, 3, 0, 1),
]


def compare(ours, reference, x):
    """The same result and gradients, of the same weights."""
    reference.load_state_dict(ours.state_dict())
    found = []
    for conv in (ours, reference):
        given = x.clone().requires_grad_()
        y = conv(given)
        into = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        (y * into).sum().backward()
        grads = {name: each.grad for name, each in conv.named_parameters()}
        found.append({"y": y, "x": given.grad, **grads})
    found[0]["weight"] = found[0]["weight"].mT
    torch.testing.assert_close(*found)


FITTING = [
    (frames, *shape)
    for frames in (1, 2, 13, 16)
    for shape in SHAPES
    if frames + 2 * shape[2] > shape[3] * (shape[0] - 1)
]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("frames", "width", "stride", "padding", "dilation"), FITTING)
def test_convolutions_are_those_of_torch(
    frames, width, stride, padding, dilation, batch, channels_last
):
    torch.manual_seed(0)
    x = torch.randn(batch, 4, frames).double()
    if channels_last:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    options = (4, 5, width, stride, padding, dilation)
    compare(Conv1d(*options).double(), torch.nn.Conv1d(*options).double(), x)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("frames", [1, 2, 13])
@pytest.mark.parametrize("shape", [each[:3] for each in SHAPES if each[3] == 1])
def test_transposes_are_those_of_torch(shape, frames, batch):
    torch.manual_seed(0)
    width, stride, padding = shape
    options = (4, 5, width, stride, padding)
    ours, reference = ConvTranspose1d(*options), torch.nn.ConvTranspose1d(*options)
    compare(ours.double(), reference.double(), torch.randn(batch, 4, frames).double())


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("function", "weight", "shape"),
    [
        (ConvolutionOfFrames, (2, 4, 3), (2, 1, 1)),
        (ConvolutionOfFrames, (2, 3, 3), (1, 2, 2)),
        (TransposedConvolutionOfFrames, (3, 4, 2), (2, 1)),
    ],
)
def test_they_are_differentiable_twice(function, weight, shape, frozen):
    sizes = (2, 5, 3), weight, (2,)
    inputs = [torch.randn(size).double().requires_grad_() for size in sizes]
    if frozen:
        inputs[1:] = [x.detach() for x in inputs[1:]]

    def call(*inputs):
        return function.apply(*inputs, *shape)

    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


def test_a_kernel_wider_than_its_input_is_refused_as_by_torch():
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        Conv1d(4, 5, 3)(torch.randn(1, 4, 2))


@pytest.mark.parametrize("name", ["Conv1d", "ConvTranspose1d"])
@pytest.mark.parametrize("shape", [(1, 1, 0), (3, 1, 0), (3, 1, 1), (3, 2, 0)])
@pytest.mark.parametrize("channels", [3, 5])
def test_another_number_of_channels_is_refused(name, shape, channels):
    conv = getattr(convolution, name)(4, 6, *shape)
    message = f"to have 4 channels, but got {channels} channels"
    larger = torch.randn(2, 9, 9)
    slices = larger[:, :channels], larger.transpose(1, 2)[:, :channels]
    for x in (torch.randn(2, channels, 9), *slices):
        with pytest.raises(RuntimeError, match=message):
            conv(x)


@pytest.mark.parametrize("name", ["Conv1d", "ConvTranspose1d"])
def test_a_batch_of_nothing_is_that_of_torch(name):
    conv = getattr(convolution, name)(4, 6, 3, padding=1)
    with pytest.raises(RuntimeError):
        conv(torch.randn(2, 4, 0))
    x = torch.randn(0, 4, 5, requires_grad=True)
    conv(x).sum().backward()
    assert conv(x).shape == (0, 6, 5) and not conv.weight.grad.any()


@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 1, 3), (2, 2, 1), (4, 4, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_transpose_without_a_frame_is_refused_as_by_torch(shape, dtype):
    conv = ConvTranspose1d(2, 3, *shape).to(dtype)
    for batch in (1, 2):
        with pytest.raises(RuntimeError, match="Output size is too small"):
            conv(torch.randn(batch, 2, 1, dtype=dtype))


@pytest.mark.parametrize("name", ["Conv1d", "ConvTranspose1d"])
def test_frozen_weights_keep_no_copy_of_the_input(name):
    conv, kept = getattr(convolution, name)(4, 5, 3, padding=1), {}
    conv.weight.requires_grad_(False)
    x = torch.randn(2, 4, 50, requires_grad=True)

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = conv(x)
    assert sum(kept.values()) == sum(t.nbytes for t in (x, conv.weight, conv.bias))
    frozen = torch.autograd.grad(y.square().sum(), [x, conv.bias])
    conv.weight.requires_grad_()
    trained = torch.autograd.grad(conv(x).square().sum(), [x, conv.bias])
    assert all(map(torch.equal, frozen, trained))


@pytest.mark.parametrize("name", ["Conv1d", "ConvTranspose1d"])
def test_only_full_precision_on_a_cpu_goes_its_own_way(monkeypatch, name):
    gone = []
    for function in (ConvolutionOfFrames, TransposedConvolutionOfFrames):
        apply = function.apply

        def noted(*inputs, apply=apply):
            gone.append(True)
            return apply(*inputs)

        monkeypatch.setattr(function, "apply", noted)
    conv, reference = (
        getattr(convolution, name)(4, 5, 3),
        getattr(torch.nn, name)(4, 5, 3),
    )
    reference.load_state_dict(conv.state_dict())
    x = torch.randn(1, 4, 8)
    plain = reference(x)
    torch.testing.assert_close(conv(x), plain)
    with torch.no_grad():
        torch.testing.assert_close(conv(x), plain)
    assert len(gone) == 2
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(x).dtype == torch.bfloat16
    conv.bfloat16()(x.bfloat16())
    torch.testing.assert_close(conv.float()(x[0]), reference.bfloat16().float()(x[0]))
    assert conv.to("meta")(x.to("meta")).shape == plain.shape
    assert len(gone) == 2


def test_the_state_is_that_of_torch():
    ours, theirs = Conv1d(4, 5, 3), torch.nn.Conv1d(4, 5, 3)
    for conv in (ours, theirs):
        weight_norm(conv)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 9)
    torch.testing.assert_close(ours(x), theirs(x))
    for again in (weight_norm(Conv1d(4, 5, 3)), copy.deepcopy(ours)):
        again.load_state_dict(theirs.state_dict())
        assert torch.equal(again(x), ours(x))


def test_it_starts_as_that_of_torch():
    torch.manual_seed(3)
    ours = Conv1d(4, 5, 3)
    torch.manual_seed(3)
    torch.testing.assert_close(
        ours.state_dict(), torch.nn.Conv1d(4, 5, 3).state_dict(), rtol=0, atol=0
    )


def test_weights_may_be_taken_over_as_they_lie():
    ours, theirs = Conv1d(4, 5, 3), torch.nn.Conv1d(4, 5, 3)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    x = torch.randn(2, 4, 9)
    torch.testing.assert_close(ours(x), theirs(x))
    ours(x).sum().backward()
    theirs(x).sum().backward()
    torch.testing.assert_close(ours.weight.grad.mT, theirs.weight.grad)


@pytest.mark.parametrize("sizes", [(4, 5, 1), (1, 5, 3)])
def test_gradients_lie_in_memory_as_weights_do(sizes):
    conv = Conv1d(*sizes)
    conv(torch.randn(2, sizes[0], 9)).sum().backward()
    # Otherwise DDP copies them at each step, and warns.
    assert conv.weight.grad.stride() == conv.weight.stride()
