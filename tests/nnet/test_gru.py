"""The GRU of CPU training is PyTorch's, with its gradients."""

import pytest
import torch

from speechbrain_vae.nnet.gru import GRURecurrence, run_gru, trains_on_cpu


def with_gradients(run, gru, x, into):
    """States, and the gradients of input and weights of a product with ``into``."""
    x = x.clone().requires_grad_()
    states = run(gru, x)
    return states, *torch.autograd.grad((states * into).sum(), [x, *gru.parameters()])


@pytest.mark.parametrize(
    ("batch", "frames", "channels", "size"),
    [(1, 1, 1, 1), (3, 1, 2, 4), (1, 7, 3, 2), (4, 12, 5, 6)],
)
def test_states_and_gradients_are_those_of_torch(batch, frames, channels, size):
    torch.manual_seed(0)
    gru = torch.nn.GRU(channels, size, batch_first=True).double()
    x = torch.randn(batch, frames, channels).double()
    into = torch.randn(batch, frames, size).double()
    ours = with_gradients(run_gru, gru, x, into)
    theirs = with_gradients(lambda gru, x: gru(x)[0], gru, x, into)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("frozen", [False, True])
def test_it_is_differentiable_twice(frozen):
    sizes = (5, 2, 9), (9, 3), (9,)
    inputs = [torch.randn(size).double().requires_grad_() for size in sizes]
    if frozen:
        inputs[1:] = [x.detach() for x in inputs[1:]]
    assert torch.autograd.gradcheck(GRURecurrence.apply, inputs)
    assert torch.autograd.gradgradcheck(GRURecurrence.apply, inputs)


def test_saturated_gates_have_finite_gradients():
    gru = torch.nn.GRU(3, 4, batch_first=True)
    x = 1e4 * torch.randn(2, 6, 3)
    found = with_gradients(run_gru, gru, x, torch.ones(2, 6, 4))
    assert all(each.isfinite().all() for each in found)


def test_inference_and_autocast_stay_with_torch():
    gru, x = torch.nn.GRU(3, 4, batch_first=True), torch.randn(2, 6, 3)
    assert trains_on_cpu(gru, x)
    with torch.no_grad():
        assert not trains_on_cpu(gru, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not trains_on_cpu(gru, x)
