"""Recurrent layers over padded batches."""

import torch
from torch.nn.utils.parametrizations import weight_norm

from speechbrain_vae.nnet.blocks import Finish
from speechbrain_vae.nnet.gru import GRU, two_outputs


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


def recurrent_layers(
    cell: type,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    bidirectional: bool = False,
    normalisation: str = "none",
    **finish_options,
) -> tuple[torch.nn.ModuleList, torch.nn.ModuleList]:
    """A stack for :func:`run_layers`.

    Arguments
    ---------
    cell : type
        ``torch.nn.GRU`` or ``torch.nn.LSTM``.
    input_size : int
        Size of the input of the first layer.
    hidden_size : int
        Of each direction of a layer.
    num_layers : int
    bidirectional : bool
        Whether each layer also reads backwards.
    normalisation : str
        "none", "layer", "batch" or "weight"; the last (Salimans and Kingma 2016) is of
        all weight matrices of a cell.
    **finish_options
        ``activation`` and ``dropout`` of :class:`~speechbrain_vae.nnet.blocks.Finish`.

    Returns
    -------
    rnns, finishes : torch.nn.ModuleList
        One of each for every layer.
    """
    cell = GRU if cell is torch.nn.GRU else cell
    rnns, finishes = torch.nn.ModuleList(), torch.nn.ModuleList()
    number = 2 if bidirectional else 1
    for _ in range(num_layers):
        ways = [cell(input_size, hidden_size, batch_first=True) for _ in range(number)]
        if normalisation == "weight":
            for rnn in ways:
                weight_norm(rnn, "weight_ih_l0")
                weight_norm(rnn, "weight_hh_l0")
        rnns.append(BothWays(*ways) if bidirectional else ways[0])
        input_size = number * hidden_size
        finishes.append(Finish(input_size, normalisation, **finish_options))
    return rnns, finishes


def run_layers(
    rnns, finishes, x: torch.Tensor, mask: torch.Tensor, residual: bool
) -> list[torch.Tensor]:
    """Outputs of stacked recurrent layers over the valid frames of [B, T, C].

    Arguments
    ---------
    rnns, finishes : iterable of torch.nn.Module
        From :func:`recurrent_layers`.
    x : torch.Tensor
        Shape [B, T, C].
    mask : torch.Tensor
        Valid frames, shape [B, T].
    residual : bool
        Whether the input of a layer, from the second on, is added to what it gives.

    Returns
    -------
    list of torch.Tensor
        Each [B, T, H], zero on padding.
    """
    outputs = run_unmasked(rnns, finishes, x, mask, residual)
    return [y * mask.unsqueeze(-1) for y in outputs]


def run_unmasked(
    rnns, finishes, x: torch.Tensor, mask: torch.Tensor, residual: bool
) -> list[torch.Tensor]:
    """As :func:`run_layers`, but what is on padding means nothing."""
    outputs: list[torch.Tensor] = []
    for rnn, finish in zip(rnns, finishes, strict=True):
        y = _finished(run_rnn(rnn, x, mask), finish, mask)
        x = x + y if residual and outputs else y
        outputs.append(x)
    return outputs


def run_both(
    one, other, inputs, mask: torch.Tensor, residual: bool
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """As :func:`run_unmasked` on two stacks of one direction, layer by layer.

    Arguments
    ---------
    one, other : tuple
        ``rnns, finishes`` from :func:`recurrent_layers`.
    inputs : tuple of torch.Tensor
        What each reads, shape [B, T, C].
    mask : torch.Tensor
        Valid frames, shape [B, T].
    residual : bool
        As that of :func:`run_layers`.

    Returns
    -------
    tuple of list
        Outputs of each, as those of :func:`run_unmasked`.
    """
    x, y = inputs
    outputs: tuple[list[torch.Tensor], list[torch.Tensor]] = [], []
    for rnn, finish, other_rnn, other_finish in zip(*one, *other, strict=True):
        x_states, y_states = two_outputs(rnn, other_rnn, x, y)
        x_states = _finished(x_states, finish, mask)
        y_states = _finished(y_states, other_finish, mask)
        add = residual and outputs[0]
        x, y = (x + x_states, y + y_states) if add else (x_states, y_states)
        outputs[0].append(x)
        outputs[1].append(y)
    return outputs


def _finished(states, finish, mask):
    return finish(states.transpose(1, 2), mask.unsqueeze(1)).transpose(1, 2)


def run_rnn(rnn, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """States of a recurrent layer on [B, T, C]; those on padding mean nothing."""
    if isinstance(rnn, BothWays):
        turned = reverse(x, mask)
        before, after = two_outputs(rnn.forwards, rnn.backwards, x, turned)
        return torch.cat([before, reverse(after, mask)], dim=-1)
    # What follows the last valid frame cannot reach back.
    return rnn(x)[0]


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
    batch, frames = mask.shape
    time = torch.arange(frames, device=x.device)
    turned = mask.sum(1, keepdim=True) - 1 - time
    starts = frames * torch.arange(batch, device=x.device).unsqueeze(1)
    places = starts + torch.where(mask, turned, time)
    return x.flatten(0, 1).index_select(0, places.flatten()).view_as(x)
