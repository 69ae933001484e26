"""The search is exact, whatever the precision settings and the size of a block."""

import pytest
import torch

from speechbrain_vae.nnet.quantisers.nearest import (
    full_float32,
    nearest,
    nearest_indices,
    score_blocks,
    smallest,
)


def brute_force(x, codebook):
    """All squared distances [N, K] in float64."""
    return (x.double().unsqueeze(1) - codebook.double()).square().sum(2)


def away_from_ties(distances, margin=1e-3):
    """Frames whose nearest code is nearer than the next one by more than rounding."""
    if distances.shape[1] == 1:
        return torch.ones(len(distances), dtype=torch.bool)
    two = distances.topk(2, largest=False).values
    return two[:, 1] - two[:, 0] > margin


@pytest.mark.parametrize("size", [1, 2, 17, 512])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_search_equals_brute_force_in_float64(size, offset):
    torch.manual_seed(0)
    x = torch.randn(3000, 24) + offset
    codebook = torch.randn(size, 24) + offset
    distances = brute_force(x, codebook)
    clear = away_from_ties(distances)
    assert clear.float().mean() > 0.99
    indices, squared = nearest(x, codebook)
    assert torch.equal(indices[clear], distances.argmin(1)[clear])
    torch.testing.assert_close(
        squared.double(), distances.min(1).values, rtol=1e-5, atol=1e-5
    )


def test_blocks_of_any_size_give_the_same_scores():
    torch.manual_seed(0)
    x, codebook = torch.randn(50, 8), torch.randn(16, 8)
    whole = torch.cat([s.clone() for _, _, s in score_blocks(x, codebook)])
    pieces = [
        (r, s.clone()) for r, _, s in score_blocks(x, codebook, block_bytes=7 * 64)
    ]
    assert len(pieces) == 8 and pieces[-1][0] == slice(49, 50)
    torch.testing.assert_close(torch.cat([s for _, s in pieces]), whole)


def test_all_blocks_share_one_buffer():
    x, codebook = torch.randn(50, 8), torch.randn(16, 8)
    starts = {s.data_ptr() for _, _, s in score_blocks(x, codebook, block_bytes=640)}
    assert len(starts) == 1


def test_autocast_does_not_change_the_search():
    torch.manual_seed(0)
    x, codebook = torch.randn(2000, 32), torch.randn(256, 32)
    expected = nearest_indices(x, codebook)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest_indices(x, codebook), expected)


def test_reduced_precision_products_do_not_change_the_search():
    """SpeechBrain sets this for every GPU; the CPU has the same switch."""
    torch.manual_seed(0)
    x, codebook = torch.randn(2000, 32), torch.randn(256, 32)
    expected = nearest_indices(x, codebook)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(nearest_indices(x, codebook), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_callers_precision_comes_back_after_an_error():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(KeyError), full_float32():
            raise KeyError
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("size", [1, 31, 64, 100, 1000, 1024, 4096])
def test_folded_search_for_the_smallest_equals_argmin(size):
    torch.manual_seed(0)
    scores = torch.randn(300, size)
    assert torch.equal(smallest(scores), scores.argmin(1))


def test_no_frames_have_no_codes():
    indices, squared = nearest(torch.zeros(0, 3), torch.zeros(4, 3))
    assert indices.shape == squared.shape == (0,)


@pytest.mark.parametrize(
    "x, codebook", [((3, 4), (5, 6)), ((3, 4), (0, 4)), ((2, 3, 4), (5, 4))]
)
def test_wrong_shapes_are_refused(x, codebook):
    with pytest.raises(ValueError, match="codebook"):
        nearest_indices(torch.zeros(x), torch.zeros(codebook))
