"""Encoders: feature frames to hidden frames at a lower or equal rate.

Every encoder has ``stride`` (input frames for one output frame), ``input_size`` F,
``output_size`` H and two calls: ``forward(x, lengths)`` gives the last layer,
``layers(x, lengths)`` all of them, at one frame rate. ``lengths`` are relative to
the input's T frames; ``output_lengths`` gives those of the ``ceil(T / stride)``
output frames.
"""

import torch

from speechbrain_vae.nnet.blocks import ConvStack
from speechbrain_vae.nnet.convolution import Conv1d
from speechbrain_vae.nnet.lengths import count_mask, frame_counts, strided_counts
from speechbrain_vae.nnet.recurrent import recurrent_layers, run_unmasked


def pad_to_stride(x, stride):
    """Append zero frames to [B, T, ...] until T is a multiple of ``stride``."""
    missing = -x.shape[1] % stride
    return torch.nn.functional.pad(x, (0, 0, 0, missing)) if missing else x


class Encoder(torch.nn.Module):
    """What all encoders share: ``forward`` is the last of ``layers``."""

    stride: int
    input_size: int
    output_size: int

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The last layer.

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
        return self.layers(x, lengths)[-1]

    def output_lengths(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor | None:
        """Relative lengths [B] of the output for an input [B, T, F]."""
        if lengths is None:
            return None
        return self.counts(x, lengths)[1] / -(-x.shape[1] // self.stride)

    def masks(
        self, x: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Masks of the input [B, T] and of the output [B, ceil(T / stride)]."""
        counts, out_counts = self.counts(x, lengths)
        frames = -(-x.shape[1] // self.stride)
        return count_mask(counts, x.shape[1]), count_mask(out_counts, frames)

    def counts(
        self, x: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Valid frames of the input and of the output, each [B]."""
        if x.dim() != 3 or x.shape[2] != self.input_size or 0 in x.shape:
            raise ValueError(
                f"{type(self).__name__}: expected features of shape [B, T, "
                f"{self.input_size}] with at least one item and one frame; "
                f"got {list(x.shape)}"
            )
        counts = frame_counts(lengths, len(x), x.shape[1], x.device).to(x.device)
        return counts, strided_counts(counts, self.stride)


class ConvEncoder(Encoder):
    """A strided convolution followed by residual convolutional blocks.

    Arguments
    ---------
    input_size : int
        Size F of an input frame.
    channels : int
        Channels H of the blocks and of the output.
    blocks : int
        Number of blocks.
    stride : int
        Input frames for one output frame: 1 keeps a 10 ms frame shift, 2 gives 20 ms.
    stem_kernel_size : int, optional
        Width of the strided convolution; ``stride`` plus an even number. Two frames
        more than the stride by default.
    **block_options
        ``kernel_size``, ``dilation_growth``, ``normalisation``, ``activation``,
        ``dropout`` and ``residual`` of :class:`~speechbrain_vae.nnet.blocks.ConvBlock`.

    Example
    -------
    >>> encoder = ConvEncoder(80, channels=32, blocks=2, stride=2)
    >>> x, lengths = torch.randn(2, 101, 80), torch.tensor([1.0, 0.5])
    >>> encoder(x, lengths).shape
    torch.Size([2, 51, 32])
    >>> len(encoder.layers(x, lengths))
    3
    """

    def __init__(
        self,
        input_size: int = 80,
        channels: int = 256,
        blocks: int = 2,
        stride: int = 2,
        stem_kernel_size: int | None = None,
        **block_options,
    ) -> None:
        super().__init__()
        width = stem_kernel_size or stride + 2
        check_stem(width, stride)
        self.stride = stride
        self.input_size = input_size
        self.output_size = channels
        self.padding = (width - stride) // 2
        self.stem = Conv1d(
            input_size, channels, width, stride=stride, padding=self.padding
        )
        self.stack = ConvStack(channels, blocks, **block_options)

    def layers(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Outputs of the stem and of every block, each [B, ceil(T / stride), H]."""
        # x: [B, T, F]
        in_mask, out_mask = self.masks(x, lengths)
        x = pad_to_stride(x * in_mask.unsqueeze(-1), self.stride)
        mask = out_mask.unsqueeze(1).to(x.dtype)
        h = self.stem(x.transpose(1, 2)) * mask
        return [y.transpose(1, 2) for y in [h, *self.stack(h, mask)]]

    @torch.no_grad()
    def start_linear(self):
        """Let the first ``stride * F`` channels carry the input window unchanged.

        The residual blocks start as the identity, so the output does too.
        """
        size = self.stride * self.input_size
        if self.output_size < size or not self.stack_is_identity():
            raise ValueError(
                "a linear start needs residual blocks with at least stride * "
                f"input_size = {size} channels; got {self.output_size} channels; set "
                "linear_start: False"
            )
        self.stem.weight[:size] = 0
        self.stem.bias[:size] = 0
        for tap in range(self.stride):
            rows = slice(tap * self.input_size, (tap + 1) * self.input_size)
            self.stem.weight[rows, self.padding + tap] = torch.eye(self.input_size)

    def stack_is_identity(self):
        """Whether the blocks leave their input unchanged, as residual ones start."""
        return all(
            block.residual and not block.pointwise.weight.any()
            for block in self.stack.blocks
        )


class RecurrentEncoder(Encoder):
    """Stacked recurrent layers over groups of ``stride`` frames.

    With one direction and the frames-ahead target this is the encoder of
    autoregressive predictive coding (Chung et al. 2019).

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
    bidirectional : bool
        Whether each layer also reads the utterance backwards, from its last valid
        frame.
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
    lookahead : int
        Output frames that one direction reads ahead: the output at time ``t`` is the
        state after ``t + lookahead``, so that it knows a little of both sides of what
        it stands for.

    Example
    -------
    >>> encoder = RecurrentEncoder(80, hidden_size=32, num_layers=2)
    >>> encoder(torch.randn(2, 10, 80), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 10, 32])
    """

    def __init__(
        self,
        input_size: int = 80,
        hidden_size: int = 512,
        num_layers: int = 3,
        stride: int = 1,
        bidirectional: bool = False,
        residual: bool = True,
        normalisation: str = "none",
        activation: type = torch.nn.Identity,
        dropout: float = 0.0,
        cell: type = torch.nn.GRU,
        lookahead: int = 0,
    ) -> None:
        super().__init__()
        if lookahead < 0 or (bidirectional and lookahead):
            raise ValueError(
                "lookahead must be 0 or more, and 0 where both directions are read; "
                f"got lookahead={lookahead} with bidirectional={bidirectional}"
            )
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1; got {num_layers}")
        self.stride = stride
        self.lookahead = lookahead
        self.input_size = input_size
        self.output_size = hidden_size * (2 if bidirectional else 1)
        self.residual = residual
        self.rnns, self.finishes = recurrent_layers(
            cell,
            stride * input_size,
            hidden_size,
            num_layers,
            bidirectional,
            normalisation,
            activation=activation,
            dropout=dropout,
        )

    def layers(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Outputs of every layer, each [B, ceil(T / stride), H]."""
        # x: [B, T, F]
        in_mask, out_mask = self.masks(x, lengths)
        x = pad_to_stride(x * in_mask.unsqueeze(-1), self.stride)
        x = x.reshape(x.shape[0], -1, self.stride * self.input_size)
        # Past the end of an utterance the states read zeros, padded or not.
        x = torch.nn.functional.pad(x, (0, 0, 0, self.lookahead))
        counts = out_mask.sum(1)
        mask = count_mask(counts + self.lookahead, x.shape[1])
        outputs = run_unmasked(self.rnns, self.finishes, x, mask, self.residual)
        late = out_mask.unsqueeze(-1)
        return [y[:, self.lookahead :] * late for y in outputs]


def check_stem(width, stride):
    """Refuse a strided convolution whose frames would not be centred."""
    if stride < 1 or width < stride or (width - stride) % 2:
        raise ValueError(
            "stem_kernel_size must be stride plus an even number; got "
            f"stem_kernel_size={width} with stride={stride}"
        )
