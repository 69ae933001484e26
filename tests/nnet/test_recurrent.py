"""Recurrent layers over padded batches."""

import pytest
import torch

from speechbrain_vae.nnet.recurrent import recurrent_layer, run_rnn


@pytest.mark.parametrize("cell", (torch.nn.GRU, torch.nn.LSTM))
def test_both_ways_is_torchs_bidirectional_layer_on_a_packed_sequence(cell):
    torch.manual_seed(0)
    ours = recurrent_layer(cell, 5, 4, bidirectional=True)
    theirs = cell(5, 4, batch_first=True, bidirectional=True)
    theirs.load_state_dict(
        ours.forwards.state_dict()
        | {f"{k}_reverse": v for k, v in ours.backwards.state_dict().items()}
    )
    x, counts = torch.randn(3, 7, 5), torch.tensor([7, 4, 1])
    mask = torch.arange(7) < counts[:, None]
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, counts, batch_first=True)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], True)
    assert torch.allclose(run_rnn(ours, x, mask), expected, atol=1e-6)


def test_an_utterance_of_padding_alone_gives_zeros():
    layer = recurrent_layer(torch.nn.GRU, 5, 4, bidirectional=True)
    out = run_rnn(layer, torch.randn(2, 3, 5), torch.tensor([[True] * 3, [False] * 3]))
    assert out[0].abs().sum() > 0 and out[1].abs().sum() == 0
