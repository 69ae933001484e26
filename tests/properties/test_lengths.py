"""Relative lengths and frame counts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_vae.nnet.lengths import (
    count_mask,
    cut,
    frame_counts,
    length_mask,
    strided_counts,
)


@given(st.integers(1, 2**22), st.data())
def test_a_count_survives_being_made_relative(frames, data):
    count = data.draw(st.integers(0, frames))
    relative = torch.tensor([count]) / frames
    assert frame_counts(relative, 1, frames).tolist() == [count]


@given(st.integers(1, 2**40), st.data())
def test_a_count_of_any_size_survives_in_float64(frames, data):
    count = data.draw(st.integers(0, frames))
    relative = torch.tensor([count], dtype=torch.float64) / frames
    assert frame_counts(relative, 1, frames).tolist() == [count]


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=4), st.integers(0, 50))
def test_counts_stay_within_the_batch(lengths, frames):
    counts = frame_counts(torch.tensor(lengths), len(lengths), frames)
    assert all(0 <= count <= frames for count in counts.tolist())


@given(st.integers(0, 4), st.integers(0, 20))
def test_without_lengths_everything_is_valid(batch, frames):
    assert length_mask(torch.zeros(batch, frames, 2), None).all()
    assert frame_counts(None, batch, frames).tolist() == [frames] * batch


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.integers(1, 8))
def test_strided_counts_are_those_of_the_frames_that_a_stride_leaves(counts, stride):
    mask = count_mask(torch.tensor(counts), 30)
    padded = torch.nn.functional.pad(mask, (0, -30 % stride))
    left = padded.unflatten(1, (-1, stride)).any(2).sum(1)
    assert strided_counts(torch.tensor(counts), stride).tolist() == left.tolist()


@given(st.integers(2, 4), st.integers(1, 8))
def test_counts_in_place_of_shares_and_lengths_of_another_batch_are_refused(b, t):
    with pytest.raises(ValueError, match="relative"):
        frame_counts(torch.full((b,), t), b, t)
    with pytest.raises(ValueError, match=rf"\[{b}\].*\[{b - 1}\]"):
        frame_counts(torch.ones(b - 1), b, t)


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=4),
    st.integers(1, 4),
    st.integers(0, 20),
)
def test_pieces_are_the_item_again_whatever_else_is_in_the_batch(counts, stride, more):
    counts = torch.tensor(counts)
    x = torch.arange(30.0 * len(counts)).view(len(counts), 30, 1)
    most = stride + more
    pieces, lengths = cut(x, counts / 30, most, stride)
    parts = frame_counts(lengths, len(pieces), pieces.shape[1])
    least = torch.ceil(counts / (most - most % stride)).clamp(min=1).int().tolist()
    assert len(pieces) == sum(least) and pieces.shape[1] <= most
    of_items = zip(pieces.split(least), parts.split(least), strict=True)
    for item, count, (own, sizes) in zip(x, counts, of_items, strict=True):
        kept = [piece[:size] for piece, size in zip(own, sizes, strict=True)]
        assert torch.equal(torch.cat(kept), item[:count])
        assert not (sizes[:-1] % stride).any() and len(set(sizes[:-1].tolist())) < 2
        alone, lengths = cut(item.unsqueeze(0), count.view(1) / 30, most, stride)
        assert torch.equal(frame_counts(lengths, len(alone), alone.shape[1]), sizes)
