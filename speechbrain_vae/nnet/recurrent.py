"""Recurrent layers over padded batches."""

import torch


class BothWays(torch.nn.Module):
    """A layer that reads forwards beside one that reads backwards.

    Two layers instead of ``bidirectional=True`` on a packed sequence: on a CPU, packed
    sequences have no fused kernel, and their backward pass takes six times as long.

    Arguments
    ---------
    forwards, backwards : torch.nn.Module
        Recurrent layers, batch first.

    Example
    -------
    >>> layer = BothWays(*(torch.nn.GRU(8, 4, batch_first=True) for _ in range(2)))
    >>> run_rnn(layer, torch.randn(2, 5, 8), torch.ones(2, 5).bool()).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, forwards: torch.nn.Module, backwards: torch.nn.Module) -> None:
        super().__init__()
        self.forwards = forwards
        self.backwards = backwards


def recurrent_layer(
    cell: type, input_size: int, hidden_size: int, bidirectional: bool = False
) -> torch.nn.Module:
    """A layer for :func:`run_rnn`.

    Arguments
    ---------
    cell : type
        ``torch.nn.GRU`` or ``torch.nn.LSTM``.
    input_size : int
    hidden_size : int
        Of each direction.
    bidirectional : bool

    Returns
    -------
    torch.nn.Module
    """
    number = 2 if bidirectional else 1
    layers = [cell(input_size, hidden_size, batch_first=True) for _ in range(number)]
    return BothWays(*layers) if bidirectional else layers[0]


def run_layers(
    rnns, x: torch.Tensor, mask: torch.Tensor, residual: bool, dropout: torch.nn.Module
) -> list[torch.Tensor]:
    """Outputs of stacked recurrent layers over the valid frames of [B, T, C].

    Arguments
    ---------
    rnns : iterable of torch.nn.Module
        Layers, batch first.
    x : torch.Tensor
        Shape [B, T, C].
    mask : torch.Tensor
        Valid frames, shape [B, T].
    residual : bool
        Whether the input of a layer, from the second on, is added to its output.
    dropout : torch.nn.Module
        Applied to what a layer adds.

    Returns
    -------
    list of torch.Tensor
        Each [B, T, H], zero on padding.
    """
    outputs: list[torch.Tensor] = []
    for rnn in rnns:
        y = dropout(run_rnn(rnn, x, mask))
        x = x + y if residual and outputs else y
        outputs.append(x)
    return outputs


def run_rnn(rnn, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Run a recurrent layer over the valid frames of [B, T, C] alone."""
    if isinstance(rnn, BothWays):
        after = reverse(run_rnn(rnn.backwards, reverse(x, mask), mask), mask)
        return torch.cat([run_rnn(rnn.forwards, x, mask), after], dim=-1)
    # What follows the last valid frame cannot reach back.
    return rnn(x)[0] * mask.unsqueeze(-1)


def reverse(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Turn the valid frames of each utterance around; padding stays at the end.

    Arguments
    ---------
    x : torch.Tensor
        Shape [B, T, C].
    mask : torch.Tensor
        Valid frames, shape [B, T].

    Returns
    -------
    torch.Tensor
        Shape [B, T, C].

    Example
    -------
    >>> x = torch.tensor([[[1.0], [2.0], [0.0]]])
    >>> reverse(x, torch.tensor([[True, True, False]])).flatten()
    tensor([2., 1., 0.])
    """
    time = torch.arange(x.shape[1], device=x.device)
    turned = mask.sum(1, keepdim=True) - 1 - time
    places = torch.where(mask, turned, time)
    return x.gather(1, places.unsqueeze(-1).expand_as(x))
