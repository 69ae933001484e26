import pytest
import torch

from speechbrain_vae.lobes.encoders import RecurrentEncoder
from speechbrain_vae.lobes.targets import Augmented, FramesAhead, FrequencyWarp


def test_a_warp_keeps_what_does_not_change_over_frequency():
    feats = torch.randn(3, 7, 1).expand(3, 7, 80)
    assert torch.allclose(FrequencyWarp(0.2)(feats), feats, atol=1e-6)


def test_a_warp_stretches_each_utterance_by_a_factor_of_its_own():
    torch.manual_seed(0)
    ramp = torch.arange(80.0).expand(4, 5, 80)
    factors = FrequencyWarp(0.1)(ramp)[:, :, 50] / 50
    assert torch.allclose(factors, factors[:, :1].expand_as(factors))
    assert factors[:, 0].unique().numel() == 4
    assert ((factors > 0.9) & (factors < 1.1)).all()


def test_augmentation_rests_in_evaluation():
    target = Augmented(FramesAhead(2), [FrequencyWarp()])
    feats = torch.randn(2, 9, 80)
    inputs, _, _ = target(feats)
    assert not torch.equal(inputs, feats)
    assert torch.equal(target.eval()(feats)[0], feats)


@pytest.mark.parametrize("limit", [0, 1, -0.5])
def test_a_warp_beyond_reason_is_refused(limit):
    with pytest.raises(ValueError, match="limit must be between 0 and 1"):
        FrequencyWarp(limit)


def test_lookahead_delays_the_states_and_padding_changes_nothing():
    torch.manual_seed(0)
    late = RecurrentEncoder(6, 8, 2, lookahead=2)
    prompt = RecurrentEncoder(6, 8, 2)
    prompt.load_state_dict(late.state_dict())
    alone, other = torch.randn(1, 8, 6), torch.randn(1, 12, 6)
    assert torch.allclose(late(alone)[:, :6], prompt(alone)[:, 2:], atol=1e-6)
    batch = torch.full((2, 12, 6), 9.0)
    batch[0, :8], batch[1] = alone[0], other[0]
    padded = late(batch, torch.tensor([8 / 12, 1.0]))
    assert torch.allclose(padded[0, :8], late(alone)[0], atol=1e-6)
    assert not padded[0, 8:].any()
