"""An encoder that knows a frame by what is around it."""

import functools

import torch

from speechbrain_vae.lobes.encoders import Encoder, pad_to_stride
from speechbrain_vae.nnet.recurrent import recurrent_layers, reverse, run_both


class TwoWayEncoder(Encoder):
    """Recurrent layers that read forwards, and others that read backwards.

    The directions never meet before the output, so a ``gap`` between them hides a
    frame: the bottleneck sees at time ``t`` what was heard until ``t - gap`` and from
    ``t + gap`` on, and reconstruction becomes prediction from both sides, as in DeCoAR
    (Ling et al., ICASSP 2020), with every frame a target. ``layers`` closes the gap:
    a downstream task gets the states at ``t`` itself.

    Arguments
    ---------
    input_size : int
        Size F of an input frame.
    hidden_size : int
        Size of a layer, of each direction.
    num_layers : int
        Number of layers.
    stride : int
        Input frames for one output frame, concatenated.
    gap : int
        Output frames on each side that the bottleneck does not see; 0 hides nothing.
    residual : bool
        Whether the input of a layer, from the second on, is added to its output.
    normalisation : str
        "none", "layer", "batch" or "weight", of every layer.
    activation : type
        Class of an activation after each layer, beside those of its cells.
    dropout : float
        Probability of dropping a layer's output.
    cell : type
        ``torch.nn.GRU`` or ``torch.nn.LSTM``.

    Example
    -------
    >>> encoder = TwoWayEncoder(80, hidden_size=32, num_layers=2, stride=2, gap=3)
    >>> x, lengths = torch.randn(2, 101, 80), torch.tensor([1.0, 0.5])
    >>> encoder(x, lengths).shape, encoder.layers(x, lengths)[-1].shape
    (torch.Size([2, 51, 64]), torch.Size([2, 51, 64]))
    """

    def __init__(
        self,
        input_size: int = 80,
        hidden_size: int = 256,
        num_layers: int = 2,
        stride: int = 2,
        gap: int = 3,
        residual: bool = True,
        normalisation: str = "none",
        activation: type = torch.nn.Identity,
        dropout: float = 0.0,
        cell: type = torch.nn.GRU,
    ) -> None:
        super().__init__()
        if gap < 0:
            raise ValueError(f"gap must be 0 or more output frames; got {gap}")
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1; got {num_layers}")
        self.stride = stride
        self.gap = gap
        self.input_size = input_size
        self.output_size = 2 * hidden_size
        self.residual = residual
        one_way = functools.partial(
            recurrent_layers,
            cell,
            stride * input_size,
            hidden_size,
            num_layers,
            normalisation=normalisation,
            activation=activation,
            dropout=dropout,
        )
        self.forwards, self.forward_finishes = one_way()
        self.backwards, self.backward_finishes = one_way()

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the bottleneck sees: the last layer, a gap around each frame.

        Arguments
        ---------
        x : torch.Tensor
            Features, shape [B, T, F].
        lengths : torch.Tensor, optional
            Relative lengths, shape [B].

        Returns
        -------
        torch.Tensor
            Shape [B, ceil(T / stride), H], zero on padding.
        """
        before, after, mask = self.directions(x, lengths)
        valid = mask.unsqueeze(-1)
        before, after = before[-1], reverse(after[-1], mask) * valid
        gap = min(self.gap, before.shape[1])
        before = torch.nn.functional.pad(before, (0, 0, gap, -gap)) * valid
        after = torch.nn.functional.pad(after, (0, 0, -gap, gap))
        return torch.cat([before, after], dim=-1)

    def layers(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """States of every layer at each frame, each [B, ceil(T / stride), H]."""
        before, after, mask = self.directions(x, lengths)
        valid = mask.unsqueeze(-1)
        return [
            torch.cat([states, reverse(turned, mask)], dim=-1) * valid
            for states, turned in zip(before, after, strict=True)
        ]

    def directions(self, x: torch.Tensor, lengths: torch.Tensor | None):
        """States of every layer forwards, backwards in their order, and the mask.

        Returns
        -------
        before, after : list of torch.Tensor
            Each [B, T', hidden_size]; the first of ``after`` is of the last frame.
            What is on padding means nothing.
        mask : torch.Tensor
            Valid frames, shape [B, T'].
        """
        # x: [B, T, F]
        in_mask, out_mask = self.masks(x, lengths)
        x = pad_to_stride(x * in_mask.unsqueeze(-1), self.stride)
        x = x.reshape(x.shape[0], -1, self.stride * self.input_size)
        before, after = run_both(
            (self.forwards, self.forward_finishes),
            (self.backwards, self.backward_finishes),
            (x, reverse(x, out_mask)),
            out_mask,
            self.residual,
        )
        return before, after, out_mask
