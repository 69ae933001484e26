"""Convolutional blocks that keep padding at zero, on [B, C, T]."""

import torch
from torch.nn.utils.parametrizations import weight_norm

from speechbrain_vae.nnet.convolution import Conv1d
from speechbrain_vae.nnet.normalisation import make_normalisation


class ConvBlock(torch.nn.Module):
    """Two convolutions around an activation, residual by default.

    A residual block starts as the identity (its last weights are zero, as in
    Zhang et al. 2019, "Fixup"), so that a stack of them starts as a linear map
    and needs no normalisation to train.

    Arguments
    ---------
    channels : int
        Channels C in and out.
    kernel_size : int
        Odd width of the first convolution, in frames; the second is pointwise.
    dilation : int
        Spacing of the taps of the first convolution.
    normalisation : str
        "none", "layer", "batch" or "weight".
    activation : type
        Class of the activation.
    dropout : float
        Probability of dropping an activation.
    residual : bool
        Whether the input is added to the output.

    Example
    -------
    >>> block = ConvBlock(16, dilation=2)
    >>> block(torch.randn(2, 16, 10), torch.ones(2, 1, 10)).shape
    torch.Size([2, 16, 10])
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 3,
        dilation: int = 1,
        normalisation: str = "none",
        activation: type = torch.nn.GELU,
        dropout: float = 0.0,
        residual: bool = True,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd; got {kernel_size}")
        self.residual = residual
        self.norm = make_normalisation(normalisation, channels)
        self.wide = Conv1d(
            channels,
            channels,
            kernel_size,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
        )
        self.activation = activation()
        self.dropout = torch.nn.Dropout(dropout)
        self.pointwise = Conv1d(channels, channels, 1)
        if residual:
            for parameter in self.pointwise.parameters():
                torch.nn.init.zeros_(parameter)
        if normalisation == "weight":
            self.wide = weight_norm(self.wide)
            # A zero weight has no direction to normalise.
            if not residual:
                self.pointwise = weight_norm(self.pointwise)

    def forward(self, x: torch.Tensor, mask: torch.Tensor):
        # x: [B, C, T], zero on padding; mask: [B, 1, T]
        h = self.wide(self.norm(x, mask))
        h = self.pointwise(self.dropout(self.activation(h)))
        return torch.addcmul(x, h, mask) if self.residual else h * mask


class Finish(torch.nn.Module):
    """What follows a layer: normalisation, activation and dropout.

    Arguments
    ---------
    channels : int
        Channels C of the layer's output.
    normalisation : str
        "none", "layer" or "batch"; "weight" is of the layer, and nothing here.
    activation : type
        Class of the activation.
    dropout : float
        Probability of dropping an activation.

    Example
    -------
    >>> finish = Finish(16, normalisation="layer", activation=torch.nn.GELU)
    >>> finish(torch.randn(2, 16, 10), torch.ones(2, 1, 10)).shape
    torch.Size([2, 16, 10])
    """

    def __init__(
        self,
        channels: int,
        normalisation: str = "none",
        activation: type = torch.nn.Identity,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = make_normalisation(normalisation, channels)
        self.activation = activation()
        self.dropout = torch.nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        # x: [B, C, T], mask: [B, 1, T]; what comes out on padding means nothing.
        return self.dropout(self.activation(self.norm(x, mask)))


class ConvStack(torch.nn.Module):
    """A stack of :class:`ConvBlock`, the dilation growing from one to the next.

    Arguments
    ---------
    channels : int
        Channels C in and out.
    blocks : int
        Number of blocks.
    dilation_growth : int
        Block ``i`` has dilation ``dilation_growth ** i``.
    **block_options
        Passed to every block.

    Example
    -------
    >>> stack = ConvStack(16, blocks=3, dilation_growth=2)
    >>> [h.shape for h in stack(torch.randn(2, 16, 10), torch.ones(2, 1, 10))]
    [torch.Size([2, 16, 10]), torch.Size([2, 16, 10]), torch.Size([2, 16, 10])]
    """

    def __init__(
        self, channels: int, blocks: int, dilation_growth: int = 1, **block_options
    ) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(
            ConvBlock(channels, dilation=dilation_growth**i, **block_options)
            for i in range(blocks)
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor):
        # x: [B, C, T]; the output of every block is returned, the last one last.
        outputs = []
        for block in self.blocks:
            x = block(x, mask)
            outputs.append(x)
        return outputs
