"""Heads that label frames."""

import pytest
import torch

from speechbrain_vae.lobes.conformer_head import ConformerClassifier
from speechbrain_vae.lobes.heads import FrameClassifier, WindowClassifier

SMALL = {"hidden_size": 8, "num_layers": 2}
HEADS = {
    "linear": lambda stride: FrameClassifier(6, 5, stride=stride),
    "BiLSTM": lambda stride: FrameClassifier(6, 5, stride=stride, **SMALL),
    "projected BiLSTM": lambda stride: FrameClassifier(
        6, 5, stride=stride, projection_size=4, **SMALL
    ),
    "Conformer": lambda stride: ConformerClassifier(6, 5, stride=stride, **SMALL),
}


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("name", HEADS)
def test_padding_does_not_change_the_logits(name, stride):
    torch.manual_seed(0)
    head = HEADS[name](stride).eval()
    x = torch.randn(2, 20, 6)
    logits, lengths = head(x, torch.tensor([1.0, 11 / 20]))
    alone, _ = head(x[1:, :11])
    frames = -(-11 // stride)
    assert logits.shape == (2, -(-20 // stride), 5)
    assert torch.round(lengths * logits.shape[1]).tolist() == [logits.shape[1], frames]
    torch.testing.assert_close(logits[1:, :frames], alone, atol=1e-5, rtol=1e-4)


def test_a_linear_layer_is_a_probe_of_the_mean_of_its_frames():
    head = FrameClassifier(6, 5, stride=3)
    x = torch.randn(1, 7, 6)
    expected = head.output(torch.stack([x[0, :3].mean(0), x[0, 3:6].mean(0), x[0, 6]]))
    torch.testing.assert_close(head(x)[0][0], expected)


def test_a_conformer_refuses_a_size_that_its_heads_cannot_share():
    with pytest.raises(ValueError, match="hidden_size=10 with num_heads=4"):
        ConformerClassifier(6, 5, hidden_size=10)


def test_a_window_classifier_sees_its_window_and_no_more():
    torch.manual_seed(0)
    model = WindowClassifier(4, 3, hidden_size=8, context=2).eval()
    for block in model.encoder.stack.blocks:
        torch.nn.init.normal_(block.pointwise.weight)
    x = torch.randn(1, 11, 4, requires_grad=True)
    model(x)[0][0, 5].sum().backward()
    seen = x.grad.abs().sum(-1)[0] > 0
    assert seen.tolist() == [3 <= frame <= 7 for frame in range(11)]
