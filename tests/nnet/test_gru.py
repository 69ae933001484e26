"""The GRU of CPU training is PyTorch's, with its gradients."""

import pytest
import torch

from speechbrain_vae.nnet import gru as gru_module
from speechbrain_vae.nnet.gru import GRU, GRUStates


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


def test_what_does_not_fit_is_refused_as_pytorch_does():
    with pytest.raises(RuntimeError, match="must be equal to input_size"):
        GRU(8, 4)(torch.zeros(5, 2, 7))
    with pytest.raises(ValueError, match="type"):
        GRU(8, 4)(torch.zeros(5, 2, 8).double())
