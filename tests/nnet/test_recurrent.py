"""Recurrent layers over padded batches."""

import pytest
import torch

from speechbrain_vae.nnet.recurrent import recurrent_layers, run_layers


@pytest.mark.parametrize("cell", (torch.nn.GRU, torch.nn.LSTM))
def test_both_ways_is_torchs_bidirectional_layer_on_a_packed_sequence(cell):
    torch.manual_seed(0)
    layers = recurrent_layers(cell, 5, 4, 1, bidirectional=True)
    ours = layers[0][0]
    theirs = cell(5, 4, batch_first=True, bidirectional=True)
    theirs.load_state_dict(
        ours.forwards.state_dict()
        | {f"{k}_reverse": v for k, v in ours.backwards.state_dict().items()}
    )
    x, counts = torch.randn(3, 7, 5), torch.tensor([7, 4, 1])
    mask = torch.arange(7) < counts[:, None]
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, counts, batch_first=True)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], True)
    (out,) = run_layers(*layers, x, mask, residual=False)
    assert torch.allclose(out, expected, atol=1e-6)


def test_an_utterance_of_padding_alone_gives_zeros():
    layers = recurrent_layers(torch.nn.GRU, 5, 4, 1, bidirectional=True)
    mask = torch.tensor([[True] * 3, [False] * 3])
    (out,) = run_layers(*layers, torch.randn(2, 3, 5), mask, residual=False)
    assert out[0].abs().sum() > 0 and out[1].abs().sum() == 0


def test_what_follows_a_layer_is_normalised_and_activated():
    mask = torch.tensor([[True] * 4, [True, False, False, False]])
    options = {"normalisation": "layer", "activation": torch.nn.ReLU}
    layers = recurrent_layers(torch.nn.GRU, 5, 4, 2, **options)
    first, second = run_layers(*layers, torch.randn(2, 4, 5), mask, residual=True)
    assert first.min() == 0 and (first[:, 0] > 0).any()
    # Of a layer norm, mean zero: at least one of each frame is cut, and what the
    # first layer gave is still there.
    assert (second >= first).all() and not second[1, 1:].any()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_weight_normalisation_learns_length_and_direction(bidirectional):
    torch.manual_seed(0)
    layers = recurrent_layers(
        torch.nn.LSTM, 5, 4, 1, bidirectional, normalisation="weight"
    )
    names = [name for name, _ in layers[0].named_parameters() if "ih_l0" in name]
    assert sum("original0" in name for name in names) == 1 + bidirectional
    x, mask = torch.randn(2, 6, 5), torch.ones(2, 6).bool()
    (before,) = run_layers(*layers, x, mask, residual=False)
    before.sum().backward()
    for parameter in layers[0].parameters():
        assert parameter.grad.abs().sum() > 0
        parameter.data -= 0.5 * parameter.grad
    # The cell runs with the weights of now.
    (after,) = run_layers(*layers, x, mask, residual=False)
    assert after.sum() < before.sum()
