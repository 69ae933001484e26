"""The GRU of CPU training is PyTorch's, with its gradients."""

import threading

import pytest
import torch

from speechbrain_vae.nnet import gru as gru_module
from speechbrain_vae.nnet.gru import GRU, GRUStates, TwoGRUStates, two_outputs
from speechbrain_vae.nnet.threads import end_waiting_threads


def with_gradients(gru, x, into):
    """States, the last, and the gradients of what they and ``into`` make."""
    x = x.clone().requires_grad_()
    states, last = gru(x)
    loss = (states * into).sum() + last.square().sum()
    return states, last, *torch.autograd.grad(loss, [x, *gru.parameters()])


@pytest.mark.parametrize("chunk_rows", [1, 8, 256])
@pytest.mark.parametrize(
    ("batch", "frames", "channels", "size"),
    [(1, 1, 1, 1), (3, 1, 2, 4), (1, 7, 3, 2), (4, 12, 5, 6), (3, 11, 4, 5)],
)
def test_states_and_gradients_are_those_of_torch(
    batch, frames, channels, size, chunk_rows, monkeypatch
):
    monkeypatch.setattr(gru_module, "CHUNK_ROWS", chunk_rows)
    torch.manual_seed(0)
    gru = GRU(channels, size, batch_first=True).double()
    reference = torch.nn.GRU(channels, size, batch_first=True).double()
    reference.load_state_dict(gru.state_dict())
    x = torch.randn(batch, frames, channels).double()
    into = torch.randn(batch, frames, size).double()
    ours = with_gradients(gru, x, into)
    theirs = with_gradients(reference, x, into)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("frozen", [False, True])
def test_it_is_differentiable_twice(frozen, monkeypatch):
    monkeypatch.setattr(gru_module, "CHUNK_ROWS", 4)
    sizes = (5, 2, 4), (9, 4), (9, 3), (9,), (9,)
    inputs = [torch.randn(size).double().requires_grad_() for size in sizes]
    if frozen:
        inputs[1:] = [x.detach() for x in inputs[1:]]
    assert torch.autograd.gradcheck(GRUStates.apply, inputs)
    assert torch.autograd.gradgradcheck(GRUStates.apply, inputs)


@pytest.mark.parametrize("sizes", [(5, 5), (5, 2)])
def test_two_at_once_are_those_of_torch(sizes, two_threads):
    torch.manual_seed(0)
    grus = [GRU(4, size, batch_first=True).double() for size in sizes]
    xs = [torch.randn(3, 11, 4).double().requires_grad_() for _ in sizes]
    states = two_outputs(*grus, *xs)
    leaves = [*xs, *(each for gru in grus for each in gru.parameters())]
    ours = torch.autograd.grad(sum(y.square().sum() for y in states), leaves)
    expected = [
        torch.nn.GRU.forward(gru, x)[0] for gru, x in zip(grus, xs, strict=True)
    ]
    torch.testing.assert_close(list(states), expected)
    theirs = torch.autograd.grad(sum(y.square().sum() for y in expected), leaves)
    torch.testing.assert_close(ours, theirs)


def test_two_at_once_are_differentiable_twice(two_threads):
    sizes = (4, 2, 3), (6, 3), (6, 2), (6,), (6,)
    inputs = [torch.randn(size).double().requires_grad_() for size in 2 * sizes]
    assert torch.autograd.gradcheck(TwoGRUStates.apply, inputs)
    assert torch.autograd.gradgradcheck(TwoGRUStates.apply, inputs)


def test_two_at_once_train_where_only_one_is_asked_for(two_threads):
    grus = [GRU(3, 4, batch_first=True) for _ in range(2)]
    x = torch.randn(2, 6, 3, requires_grad=True)
    grus[1].requires_grad_(False)
    states, other = two_outputs(*grus, x, x.detach())
    states.sum().backward()
    assert x.grad.abs().sum() > 0 and grus[0].weight_hh_l0.grad.abs().sum() > 0
    assert all(each.grad is None for each in grus[1].parameters())
    assert not torch.equal(states, other)


def test_an_input_without_a_gradient_gets_none():
    gru, x = GRU(3, 4), torch.randn(6, 2, 3)
    gru(x)[0].sum().backward()
    assert x.grad is None and gru.weight_ih_l0.grad.abs().sum() > 0


def test_saturated_gates_have_finite_gradients():
    x = 1e4 * torch.randn(2, 6, 3)
    found = with_gradients(GRU(3, 4, batch_first=True), x, torch.ones(2, 6, 4))
    assert all(each.isfinite().all() for each in found)


def ways(monkeypatch):
    """Names of the ways that GRUs go from here on."""
    gone = []
    apply, forward = GRUStates.apply, torch.nn.GRU.forward
    monkeypatch.setattr(GRUStates, "apply", lambda *x: gone.append("ours") or apply(*x))
    monkeypatch.setattr(
        torch.nn.GRU, "forward", lambda *x: gone.append("torch") or forward(*x)
    )
    return gone


def test_only_plain_training_goes_its_own_way(monkeypatch):
    x, gone = torch.randn(2, 6, 3), ways(monkeypatch)
    GRU(3, 4, batch_first=True)(x)
    GRU(3, 4)(x)
    assert gone == ["ours", "ours"]
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([6, 2]), True)
    GRU(3, 4, num_layers=2)(x)
    GRU(3, 4, bias=False)(x)
    GRU(3, 4, bidirectional=True)(x)
    GRU(3, 4)(x[0])
    GRU(3, 4)(x[:, :0])
    GRU(3, 4)(packed)
    GRU(3, 4)(x, torch.zeros(1, 6, 4))
    with torch.no_grad():
        GRU(3, 4)(x)
    with torch.autocast("cpu", torch.bfloat16):
        GRU(3, 4)(x)
    assert gone[2:] == ["torch"] * 9


def test_of_training_only_that_of_two_grus_is_at_once(monkeypatch):
    x, gone = torch.randn(2, 6, 3), ways(monkeypatch)
    ours, theirs = GRU(3, 4, batch_first=True), torch.nn.LSTM(3, 4, batch_first=True)
    two_outputs(ours, ours, x, x)
    assert gone == []
    two_outputs(ours, theirs, x, x)
    assert gone == ["ours"]
    with torch.no_grad():
        two_outputs(ours, ours, x, x)
    assert gone == ["ours", "torch", "torch"]


@pytest.mark.parametrize("cell", [GRU, torch.nn.LSTM])
def test_inference_of_any_two_layers_is_at_once(cell, two_threads):
    one, other = (cell(3, 4, batch_first=True) for _ in range(2))
    x, y, threads = torch.randn(2, 6, 3), torch.randn(2, 6, 3), []
    for rnn in (one, other):
        rnn.register_forward_hook(lambda *_: threads.append(threading.get_ident()))
    with torch.inference_mode():
        found = two_outputs(one, other, x, y)
        assert len(set(threads)) == 1 + end_waiting_threads()
        torch.testing.assert_close(found, (one(x)[0], other(y)[0]))
    assert found[1].is_inference() and not found[1].requires_grad


def test_what_does_not_fit_is_refused_as_pytorch_does():
    with pytest.raises(RuntimeError, match="must be equal to input_size"):
        GRU(8, 4)(torch.zeros(5, 2, 7))
    with pytest.raises(ValueError, match="type"):
        GRU(8, 4)(torch.zeros(5, 2, 8).double())
