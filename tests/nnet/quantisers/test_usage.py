"""Usage is that of the whole epoch, of valid frames, apart for each group."""

import math

import pytest
import torch

from speechbrain_vae.nnet.quantisers.usage import UsageMeter, perplexity


def test_perplexity_of_uniform_counts_is_their_number():
    assert perplexity(torch.full((64,), 3)) == pytest.approx(64, rel=1e-5)


def test_perplexity_of_nothing_is_zero():
    assert perplexity(torch.zeros(8)) == 0


def test_batches_add_up():
    meter = UsageMeter(4)
    meter.update(torch.tensor([[[0], [1]]]))
    meter.update(torch.tensor([[[2], [3]]]))
    summary = meter.summary(frame_rate=50)
    assert summary["perplexity"] == pytest.approx(4)
    assert summary["entropy_bitrate"] == pytest.approx(100)
    assert summary["frames"] == 4
    assert not summary["collapsed"]


def test_reset_forgets_the_epoch_before():
    meter = UsageMeter(4)
    meter.update(torch.arange(4).view(1, 4, 1))
    meter.reset()
    assert meter.summary(50)["frames"] == 0


def test_padding_is_not_counted():
    meter = UsageMeter(2)
    meter.update(torch.tensor([[[1], [-1], [-1]]]))
    assert meter.counts.tolist() == [[0, 1]]


def test_groups_are_counted_apart_and_their_bits_add():
    meter = UsageMeter(4, groups=2)
    meter.update(torch.tensor([[[0, 3], [1, 3], [2, 3], [3, 3]]]).repeat(1, 10, 1))
    summary = meter.summary(frame_rate=10)
    assert summary["perplexity"] == pytest.approx(2.5)
    assert summary["dead_codes"] == 3
    assert summary["nominal_bitrate"] == pytest.approx(40)
    assert summary["entropy_bitrate"] == pytest.approx(20)
    assert summary["collapsed"]


@pytest.mark.parametrize("used, collapsed", [(79, True), (80, False)])
def test_collapse_is_less_than_80_percent_of_the_codes(used, collapsed):
    meter = UsageMeter(100)
    meter.update(torch.arange(used).repeat(20).view(1, -1, 1))
    assert meter.summary(50)["collapsed"] is collapsed


def test_few_frames_say_nothing_of_a_collapse():
    meter = UsageMeter(100)
    meter.update(torch.zeros(1, 999, 1, dtype=torch.long))
    assert not meter.summary(50)["collapsed"]
    meter.update(torch.zeros(1, 1, 1, dtype=torch.long))
    assert meter.summary(50)["collapsed"]


def test_usage_of_a_growing_codebook_is_that_of_its_present_codes():
    meter = UsageMeter(16)
    meter.update(torch.zeros(1, 40, 1, dtype=torch.long), codes=4)
    assert meter.summary(50)["usage"] == 0.25 and meter.summary(50)["collapsed"]
    meter.update(torch.arange(8).repeat(10).view(1, -1, 1), codes=torch.tensor(8))
    summary = meter.summary(50)
    assert summary["codes"] == 8 and summary["usage"] == 1
    assert summary["dead_codes"] == 0 and not summary["collapsed"]
    assert summary["nominal_bitrate"] == pytest.approx(150)
    meter.update(torch.arange(8).repeat(20).view(1, -1, 1), codes=16)
    summary = meter.summary(50)
    assert summary["dead_codes"] == 8 and summary["collapsed"]


def test_one_code_has_no_bits():
    meter = UsageMeter(1)
    meter.update(torch.zeros(1, 5, 1, dtype=torch.long))
    summary = meter.summary(50)
    assert summary["nominal_bitrate"] == summary["entropy_bitrate"] == 0
    assert all(math.isfinite(value) for value in summary.values())


def test_indices_of_other_groups_are_refused():
    with pytest.raises(ValueError, match=r"\[B, T, 2\]"):
        UsageMeter(4, groups=2).update(torch.zeros(1, 5, 1, dtype=torch.long))
