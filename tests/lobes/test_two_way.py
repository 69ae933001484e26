import pytest
import torch

from speechbrain_vae.lobes.two_way import TwoWayEncoder

F = 6


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return TwoWayEncoder(F, hidden_size=8, num_layers=2, stride=2, gap=2).eval()


def test_padding_changes_nothing(encoder):
    alone, other = torch.randn(1, 15, F), torch.randn(1, 23, F)
    batch = torch.full((2, 23, F), 9.0)
    batch[0, :15], batch[1] = alone[0], other[0]
    lengths = torch.tensor([15 / 23, 1.0])
    assert torch.allclose(encoder(batch, lengths)[0, :8], encoder(alone)[0], atol=1e-6)
    assert not encoder(batch, lengths)[0, 8:].any()
    for padded, whole in zip(
        encoder.layers(batch, lengths), encoder.layers(alone), strict=True
    ):
        assert torch.allclose(padded[0, :8], whole[0], atol=1e-6)
        assert not padded[0, 8:].any()


def test_the_bottleneck_does_not_see_the_frame_it_predicts(encoder):
    x = torch.randn(1, 20, F, requires_grad=True)
    encoder(x)[0, 5].sum().backward()
    seen = x.grad[0].abs().sum(-1).view(10, 2).sum(-1) > 0
    # Frames 4 to 6, the gap less one on each side, are hidden.
    assert seen.tolist() == [True] * 4 + [False] * 3 + [True] * 3


def test_the_layers_see_everything(encoder):
    x = torch.randn(1, 20, F, requires_grad=True)
    encoder.layers(x)[-1][0, 5].sum().backward()
    assert (x.grad[0].abs().sum(-1) > 0).all()


def test_without_a_gap_forward_is_the_last_layer():
    encoder = TwoWayEncoder(F, 8, 2, stride=1, gap=0)
    x = torch.randn(2, 9, F)
    assert torch.equal(encoder(x), encoder.layers(x)[-1])


def test_a_gap_longer_than_the_utterance_leaves_nothing_to_see(encoder):
    encoder.gap = 5
    assert torch.equal(encoder(torch.randn(2, 6, F)), torch.zeros(2, 3, 16))


def test_a_negative_gap_is_refused():
    with pytest.raises(ValueError, match="gap must be 0 or more"):
        TwoWayEncoder(F, gap=-1)
