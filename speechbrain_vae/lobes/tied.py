"""A stacked encoder and the decoder that is its transpose.

One linear layer learns the subspace of principal components (Baldi and Hornik 1989);
several layers with an activation are the stacked autoencoder with tied weights of
Vincent et al. (2010).
"""

from collections.abc import Sequence

import torch
from torch.nn.utils.parametrizations import weight_norm

from speechbrain_vae.lobes.encoders import Encoder, check_stem, pad_to_stride
from speechbrain_vae.nnet.blocks import Finish
from speechbrain_vae.nnet.convolution import Conv1d, transposed_convolution
from speechbrain_vae.nnet.lengths import length_mask


class StackedEncoder(Encoder):
    """A stack of convolutions, each of which has a transpose; the last is linear.

    By default every layer sees one window of ``stride`` frames at a time: a stack of
    fully connected layers. The last layer is the code, so the bottleneck that
    belongs to it is ``DeterministicBottleneck(sizes[-1])``.

    Arguments
    ---------
    input_size : int
        Size F of an input frame.
    sizes : list of int
        Sizes of the layers, the last one the output's.
    stride : int
        Input frames for one output frame.
    kernel_size : int
        Odd width of all layers but the first, in output frames.
    stem_kernel_size : int, optional
        Width of the first layer, in input frames; ``stride`` (the default) plus an
        even number.
    normalisation : str
        "none", "layer" or "batch", before each activation, or "weight", of every layer.
    activation : type
        Class of the activation between layers.
    dropout : float
        Probability of dropping an activation.
    residual : bool
        Whether the input of an activated layer, from the second on, is added to its
        output where both have one size.

    Example
    -------
    >>> encoder = StackedEncoder(80, sizes=[128, 16], stride=2)
    >>> x, lengths = torch.randn(2, 101, 80), torch.tensor([1.0, 0.5])
    >>> [h.shape for h in encoder.layers(x, lengths)]
    [torch.Size([2, 51, 128]), torch.Size([2, 51, 16])]
    """

    def __init__(
        self,
        input_size: int = 80,
        sizes: Sequence[int] = (16,),
        stride: int = 2,
        kernel_size: int = 1,
        stem_kernel_size: int | None = None,
        normalisation: str = "none",
        activation: type = torch.nn.GELU,
        dropout: float = 0.0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        if not sizes or min(sizes) < 1:
            raise ValueError(f"sizes must name the size of each layer; got {sizes}")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd; got {kernel_size}")
        width = stem_kernel_size or stride
        check_stem(width, stride)
        self.stride = stride
        self.input_size = input_size
        self.output_size = sizes[-1]
        stem = Conv1d(
            input_size, sizes[0], width, stride=stride, padding=(width - stride) // 2
        )
        others = (
            Conv1d(size, out, kernel_size, padding=kernel_size // 2)
            for size, out in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.convs = torch.nn.ModuleList([stem, *others])
        if normalisation == "weight":
            for conv in self.convs:
                weight_norm(conv)
        self.finish_options = normalisation, activation, dropout
        self.finishes = torch.nn.ModuleList(
            Finish(size, *self.finish_options) for size in sizes[:-1]
        )
        self.residual = residual

    def layers(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Outputs of every layer, each [B, ceil(T / stride), its size]."""
        # x: [B, T, F]
        in_mask, out_mask = self.masks(x, lengths)
        h = pad_to_stride(x * in_mask.unsqueeze(-1), self.stride).transpose(1, 2)
        mask = out_mask.unsqueeze(1).to(x.dtype)
        outputs: list[torch.Tensor] = []
        for conv, finish in zip(self.convs[:-1], self.finishes, strict=True):
            y = finish(conv(h), mask) * mask
            # The first layer's input is frames, not what a layer gave.
            h = self.carry(h, y) if outputs else y
            outputs.append(h.transpose(1, 2))
        outputs.append((self.convs[-1](h) * mask).transpose(1, 2))
        return outputs

    def carry(self, x, y):
        """Output y of a layer, with its input x where the connection is residual."""
        return x + y if self.residual and x.shape == y.shape else y


class TiedDecoder(torch.nn.Module):
    """The transpose of a :class:`StackedEncoder`: its weights, biases of its own.

    The weights belong to the encoder: they are in its state, and freezing or
    loading it is freezing or loading them here. Normalisation is as the encoder's, but
    learns numbers of its own, like the biases. In a YAML, give the encoder by
    reference; the export keeps it one object.

    Arguments
    ---------
    encoder : StackedEncoder
        Gives the weights, the stride and the activation.

    Example
    -------
    >>> encoder = StackedEncoder(80, sizes=[128, 16], stride=2)
    >>> decoder = TiedDecoder(encoder)
    >>> decoder(torch.randn(2, 51, 16), torch.tensor([1.0, 0.5]), frames=101).shape
    torch.Size([2, 101, 80])
    >>> [name for name, _ in decoder.named_parameters()]
    ['biases.0', 'biases.1']
    """

    def __init__(self, encoder):
        super().__init__()
        if not isinstance(encoder, StackedEncoder):
            raise ValueError(
                "TiedDecoder needs a StackedEncoder, whose layers have a transpose; "
                f"got {type(encoder).__name__}"
            )
        # In a tuple, or the encoder would be a part of its decoder, saved twice.
        self.tied = (encoder,)
        self.stride = encoder.stride
        self.output_size = encoder.input_size
        self.biases = torch.nn.ParameterList(
            torch.zeros(conv.in_channels) for conv in reversed(encoder.convs)
        )
        self.finishes = torch.nn.ModuleList(
            Finish(conv.in_channels, *encoder.finish_options)
            for conv in reversed(encoder.convs[1:])
        )

    def forward(
        self,
        latent: torch.Tensor,
        lengths: torch.Tensor | None = None,
        frames: int | None = None,
    ) -> torch.Tensor:
        """The mean frames.

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
            Shape [B, frames, F].
        """
        (encoder,) = self.tied
        mask = length_mask(latent, lengths).unsqueeze(1).to(latent.dtype)
        h = latent.transpose(1, 2) * mask
        *hidden, stem = reversed(encoder.convs)
        for i, (conv, finish) in enumerate(zip(hidden, self.finishes, strict=True)):
            y = finish(transposed(conv, h, self.biases[i]), mask) * mask
            # The first layer's input is the code, not what an activation gave.
            h = encoder.carry(h, y) if i else y
        return transposed(stem, h, self.biases[-1]).transpose(1, 2)[:, :frames]


def transposed(conv, x, bias):
    """The transpose of a convolution, plus a bias.

    Example
    -------
    >>> conv = Conv1d(4, 8, 2, stride=2)
    >>> transposed(conv, torch.randn(1, 8, 5), torch.zeros(4)).shape
    torch.Size([1, 4, 10])
    """
    return transposed_convolution(x, conv.weight, bias, conv.stride, conv.padding)
