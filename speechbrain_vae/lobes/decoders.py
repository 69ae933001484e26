"""Decoders: latent frames back to feature frames.

Every decoder is called as ``decoder(latent, lengths, frames)`` and returns the
parameters of the likelihood for each of the ``frames`` input frames.
"""

import torch

from speechbrain_vae.lobes.encoders import check_stem
from speechbrain_vae.nnet.blocks import ConvStack
from speechbrain_vae.nnet.convolution import Conv1d, ConvTranspose1d
from speechbrain_vae.nnet.lengths import length_mask
from speechbrain_vae.nnet.recurrent import recurrent_layers, run_layers


class ConvDecoder(torch.nn.Module):
    """Residual convolutional blocks followed by a transposed strided convolution.

    Arguments
    ---------
    input_size : int
        Size D of a latent frame.
    output_size : int or torch.nn.Module
        Numbers for one output frame, or the likelihood that they are for.
    channels : int
        Channels of the blocks.
    blocks : int
        Number of blocks.
    stride : int
        Output frames for one latent frame.
    kernel_size : int
        Odd width of the first convolution and of the blocks.
    stem_kernel_size : int, optional
        Width of the transposed convolution; ``stride`` plus an even number.
    **block_options
        ``dilation_growth``, ``normalisation``, ``activation``, ``dropout`` and
        ``residual`` of :class:`~speechbrain_vae.nnet.blocks.ConvBlock`.

    Example
    -------
    >>> decoder = ConvDecoder(16, 80, channels=32, stride=2)
    >>> decoder(torch.randn(2, 51, 16), torch.tensor([1.0, 0.5]), frames=101).shape
    torch.Size([2, 101, 80])
    """

    def __init__(
        self,
        input_size: int,
        output_size=80,
        channels: int = 256,
        blocks: int = 2,
        stride: int = 2,
        kernel_size: int = 3,
        stem_kernel_size: int | None = None,
        **block_options,
    ) -> None:
        super().__init__()
        width = stem_kernel_size or stride + 2
        check_stem(width, stride)
        output_size = getattr(output_size, "prediction_size", output_size)
        self.stride = stride
        self.output_size = output_size
        self.padding = (width - stride) // 2
        self.first = Conv1d(input_size, channels, kernel_size, padding=kernel_size // 2)
        self.stack = ConvStack(
            channels, blocks, kernel_size=kernel_size, **block_options
        )
        self.stem = ConvTranspose1d(
            channels, output_size, width, stride=stride, padding=self.padding
        )

    def forward(
        self,
        latent: torch.Tensor,
        lengths: torch.Tensor | None = None,
        frames: int | None = None,
    ) -> torch.Tensor:
        """Parameters of the likelihood.

        Arguments
        ---------
        latent : torch.Tensor
            Shape [B, T, D].
        lengths : torch.Tensor, optional
            Relative lengths, shape [B].
        frames : int, optional
            Number of output frames, at most ``T * stride`` (the default).

        Returns
        -------
        torch.Tensor
            Shape [B, frames, output_size].
        """
        mask = length_mask(latent, lengths).unsqueeze(1).to(latent.dtype)
        h = self.first(latent.transpose(1, 2) * mask) * mask
        h = ([h] + self.stack(h, mask))[-1]
        return self.stem(h).transpose(1, 2)[:, :frames]

    @torch.no_grad()
    def start_linear(self, synthesis: torch.Tensor):
        """Start as the linear map of each latent frame to its output frames.

        Arguments
        ---------
        synthesis : torch.Tensor
            Shape [D, stride * F]. Numbers of the prediction beyond the mean (a
            predicted variance) start at zero.
        """
        size = synthesis.shape[1]
        bins = size // self.stride
        if self.first.out_channels < size or bins > self.output_size:
            raise ValueError(
                f"a linear start needs at least {size} channels and {bins} outputs; "
                f"got {self.first.out_channels} and {self.output_size}; set "
                "linear_start: False"
            )
        self.first.weight[:size] = 0
        self.first.bias[:size] = 0
        self.first.weight[:size, self.first.kernel_size // 2] = synthesis.T
        self.stem.weight.zero_()
        self.stem.bias.zero_()
        for tap in range(self.stride):
            rows = slice(tap * bins, (tap + 1) * bins)
            self.stem.weight[rows, self.padding + tap, :bins] = torch.eye(bins)


class RecurrentDecoder(torch.nn.Module):
    """Stacked recurrent layers and a linear map to ``stride`` output frames each.

    Arguments
    ---------
    input_size : int
        Size D of a latent frame.
    output_size : int or torch.nn.Module
        Numbers for one output frame, or the likelihood that they are for.
    hidden_size : int
        Size of a layer, of each direction.
    num_layers : int
        Number of layers; none leaves a linear decoder.
    stride : int
        Output frames for one latent frame.
    bidirectional : bool
        Whether each layer also reads backwards.
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
    >>> decoder = RecurrentDecoder(16, 80, hidden_size=32, stride=2)
    >>> decoder(torch.randn(2, 51, 16), torch.tensor([1.0, 0.5]), frames=101).shape
    torch.Size([2, 101, 80])
    """

    def __init__(
        self,
        input_size: int,
        output_size=80,
        hidden_size: int = 512,
        num_layers: int = 1,
        stride: int = 1,
        bidirectional: bool = False,
        residual: bool = False,
        normalisation: str = "none",
        activation: type = torch.nn.Identity,
        dropout: float = 0.0,
        cell: type = torch.nn.GRU,
    ) -> None:
        super().__init__()
        output_size = getattr(output_size, "prediction_size", output_size)
        self.stride = stride
        self.output_size = output_size
        self.residual = residual
        if num_layers < 0:
            raise ValueError(f"num_layers must be 0 or more; got {num_layers}")
        self.rnns, self.finishes = recurrent_layers(
            cell,
            input_size,
            hidden_size,
            num_layers,
            bidirectional,
            normalisation,
            activation=activation,
            dropout=dropout,
        )
        width = hidden_size * (2 if bidirectional else 1)
        self.output = torch.nn.Linear(
            width if num_layers else input_size, stride * output_size
        )

    def forward(
        self,
        latent: torch.Tensor,
        lengths: torch.Tensor | None = None,
        frames: int | None = None,
    ):
        """Parameters of the likelihood [B, frames, output_size]."""
        # latent: [B, T, D]
        mask = length_mask(latent, lengths)
        layers = run_layers(self.rnns, self.finishes, latent, mask, self.residual)
        y = self.output(([latent] + layers)[-1])
        y = y.reshape(y.shape[0], -1, self.output_size)
        return y[:, :frames]
