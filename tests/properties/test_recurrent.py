"""Recurrent layers of random shapes are PyTorch's, and keep utterances apart."""

from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_vae.nnet import gru as gru_module
from speechbrain_vae.nnet.gru import GRU
from speechbrain_vae.nnet.recurrent import BothWays, reverse, run_rnn

from .batches import batches

SIZE = 3
CELLS = {"gru": GRU, "lstm": torch.nn.LSTM}
every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
BAD = st.sampled_from([torch.nan, torch.inf, -torch.inf])


@st.composite
def grus(draw):
    """Ours and PyTorch's with the same weights, and an input of any shape."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    first = draw(st.booleans())
    size = draw(st.integers(1, 5))
    ours = GRU(SIZE, size, batch_first=first)
    theirs = torch.nn.GRU(SIZE, size, batch_first=first)
    theirs.load_state_dict(ours.state_dict())
    names = [name for name, _ in ours.named_parameters()]
    frozen = draw(st.sets(st.sampled_from(names)))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    for gru in (ours, theirs):
        gru.to(dtype)
        for name in frozen:
            gru.get_parameter(name).requires_grad_(False)
    x = torch.randn(draw(st.integers(0, 4)), draw(st.integers(1, 9)), SIZE).to(dtype)
    return ours, theirs, x if first else x.transpose(0, 1)


def outcome(gru, x, state_only=False):
    """States, the last one, and the gradients that these have."""
    x = x.detach().requires_grad_()
    states, last = gru(x)
    loss = last.square().sum() if state_only else (states * last.detach().sum()).sum()
    wanted = [x, *(p for p in gru.parameters() if p.requires_grad)]
    return states, last, *torch.autograd.grad(loss, wanted)


@given(drawn=grus(), rows=st.sampled_from([1, 4, 256]), state_only=st.booleans())
def test_states_and_gradients_of_any_shape_are_those_of_torch(drawn, rows, state_only):
    ours, theirs, x = drawn
    with mock.patch.object(gru_module, "CHUNK_ROWS", rows):
        found = outcome(ours, x, state_only)
    expected = outcome(theirs, x, state_only)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@given(drawn=grus(), frame=st.integers(0, 8), bad=BAD)
def test_a_broken_utterance_breaks_neither_others_nor_its_past(drawn, frame, bad):
    gru, _, x = drawn
    if not gru.batch_first:
        x, gru.batch_first = x.transpose(0, 1), True
    broken, frame = x.clone(), min(frame, x.shape[1] - 1)
    broken[:1, frame] = bad
    expected, found = (outcome(gru, each) for each in (x, broken))
    torch.testing.assert_close(found[0][1:], expected[0][1:])
    torch.testing.assert_close(found[0][:, :frame], expected[0][:, :frame])
    # Saturated by infinity, the states are finite.
    assert not len(x) or bad == bad or not found[0][0, frame:].isfinite().any()


@given(batch=batches(SIZE, dtypes=[torch.float64]))
def test_frames_that_follow_do_not_change_the_states_before_them(batch):
    torch.manual_seed(0)
    gru = GRU(SIZE, 4, batch_first=True).double()
    together = gru(batch.x)[0]
    for row, alone in zip(together, batch.alone(), strict=True):
        single = gru(alone)[0][0]
        torch.testing.assert_close(row[: len(single)], single)


@pytest.mark.parametrize("training", [True, False])
@given(size=st.integers(1, 6).filter(lambda size: size != SIZE))
def test_frames_of_another_size_are_refused(training, size):
    with torch.set_grad_enabled(training), pytest.raises(RuntimeError, match=str(size)):
        GRU(SIZE, 4)(torch.randn(2, 5, size))


@given(batch=batches(SIZE))
def test_frames_turned_around_twice_are_as_they_were(batch):
    turned = reverse(batch.x, batch.mask)
    assert torch.equal(reverse(turned, batch.mask), batch.x)
    assert torch.equal(turned[~batch.mask], batch.x[~batch.mask])
    for row, alone in zip(turned, batch.alone(), strict=True):
        assert torch.equal(row[: alone.shape[1]], alone[0].flip(0))


def both_ways(cell):
    """A layer, and PyTorch's of the same weights."""
    torch.manual_seed(0)
    ours = BothWays(*(cell(SIZE, 4, batch_first=True) for _ in range(2)))
    bidirectional = torch.nn.GRU if cell is GRU else cell
    theirs = bidirectional(SIZE, 4, batch_first=True, bidirectional=True)
    backwards = {f"{k}_reverse": v for k, v in ours.backwards.state_dict().items()}
    theirs.load_state_dict(ours.forwards.state_dict() | backwards)
    return ours, theirs


@every_cell
@given(batch=batches(SIZE))
def test_both_ways_gives_the_states_of_each_utterance_alone(cell, batch):
    ours, theirs = both_ways(cell)
    x = batch.x.requires_grad_()
    together = run_rnn(ours, x, batch.mask)
    assert together.shape == (*x.shape[:2], 8)
    for row, alone in zip(together, batch.alone(), strict=True):
        single = theirs(alone)[0][0]
        torch.testing.assert_close(row[: len(single)], single, atol=1e-5, rtol=1e-4)
    (grad,) = torch.autograd.grad(together[batch.mask].sum(), x)
    expected = sum(theirs(alone)[0].sum() for alone in batch.alone())
    (expected,) = torch.autograd.grad(expected, x)
    torch.testing.assert_close(grad, expected, atol=1e-5, rtol=1e-4)


@every_cell
@given(batch=batches(SIZE), bad=BAD, padded=st.booleans())
def test_what_is_broken_or_padding_stays_in_its_utterance(cell, batch, bad, padded):
    ours, _ = both_ways(cell)
    whole = run_rnn(ours, batch.x, batch.mask)
    if padded:
        batch.x[~batch.mask] = bad
        broken = run_rnn(ours, batch.x, batch.mask)
        torch.testing.assert_close(broken[batch.mask], whole[batch.mask])
    else:
        batch.x[0, 0] = bad
        broken = run_rnn(ours, batch.x, batch.mask)
        torch.testing.assert_close(broken[1:], whole[1:])
