"""An encoder that pools and a decoder that unpools.

The position of each maximum (the "switches" of Zeiler et al. 2011, the pooling
indices of SegNet) is not passed on to the decoder: at H channels and stride S it
would carry H * log2(S) bits a latent frame around the bottleneck, nothing would have
to go through it, and no latent could be decoded without the input it came from. Here
unpooling knows the latent alone.
"""

import torch

from speechbrain_vae.lobes.encoders import Encoder, pad_to_stride
from speechbrain_vae.nnet.blocks import ConvStack
from speechbrain_vae.nnet.convolution import Conv1d
from speechbrain_vae.nnet.lengths import frame_counts, length_mask

POOLINGS = ("max", "average")
UNPOOLINGS = ("nearest", "linear")


class PoolingEncoder(Encoder):
    """A convolution at the input's rate, pooling, and residual blocks.

    Arguments
    ---------
    input_size : int
        Size F of an input frame.
    channels : int
        Channels H of the blocks and of the output.
    blocks : int
        Number of blocks, after pooling.
    stride : int
        Input frames that are pooled into one output frame.
    pooling : str
        "max" or "average".
    stem_kernel_size : int
        Odd width of the first convolution, in input frames.
    **block_options
        ``kernel_size``, ``dilation_growth``, ``normalisation``, ``activation``,
        ``dropout`` and ``residual`` of :class:`~speechbrain_vae.nnet.blocks.ConvBlock`.

    Example
    -------
    >>> encoder = PoolingEncoder(80, channels=32, stride=2)
    >>> x, lengths = torch.randn(2, 101, 80), torch.tensor([1.0, 0.5])
    >>> encoder(x, lengths).shape
    torch.Size([2, 51, 32])
    """

    def __init__(
        self,
        input_size: int = 80,
        channels: int = 256,
        blocks: int = 2,
        stride: int = 2,
        pooling: str = "max",
        stem_kernel_size: int = 3,
        **block_options,
    ) -> None:
        super().__init__()
        check_options(stride, stem_kernel_size, "pooling", pooling, POOLINGS)
        self.stride = stride
        self.input_size = input_size
        self.output_size = channels
        self.pooling = pooling
        self.stem = Conv1d(
            input_size, channels, stem_kernel_size, padding=stem_kernel_size // 2
        )
        self.stack = ConvStack(channels, blocks, **block_options)

    def layers(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Pooled frames and outputs of every block, each [B, ceil(T / stride), H]."""
        # x: [B, T, F]
        in_mask, out_mask = self.masks(x, lengths)
        h = self.stem((x * in_mask.unsqueeze(-1)).transpose(1, 2)).transpose(1, 2)
        mask = out_mask.unsqueeze(1).to(x.dtype)
        h = self.pool(h, in_mask).transpose(1, 2) * mask
        return [y.transpose(1, 2) for y in [h, *self.stack(h, mask)]]

    def pool(self, h: torch.Tensor, mask):
        """Pool the valid frames of [B, T, H]; windows without any give zero."""
        windows = pad_to_stride(h, self.stride).unflatten(1, (-1, self.stride))
        mask = pad_to_stride(mask.unsqueeze(-1), self.stride)
        valid = mask.unflatten(1, (-1, self.stride))
        if self.pooling == "average":
            return (windows * valid).sum(2) / valid.sum(2).clamp(min=1)
        highest = windows.masked_fill(~valid, -torch.inf).amax(2)
        return highest.masked_fill(~valid.any(2), 0.0)


class UnpoolingDecoder(torch.nn.Module):
    """Residual blocks, unpooling by interpolation, a convolution at the full rate.

    Arguments
    ---------
    input_size : int
        Size D of a latent frame.
    output_size : int or torch.nn.Module
        Numbers for one output frame, or the likelihood that they are for.
    channels : int
        Channels of the blocks.
    blocks : int
        Number of blocks, before unpooling.
    stride : int
        Output frames for one latent frame.
    unpooling : str
        "nearest" repeats a frame, "linear" interpolates between frames.
    kernel_size : int
        Odd width of the first convolution and of the blocks, in latent frames.
    stem_kernel_size : int, optional
        Odd width of the last convolution, in output frames; at least twice the
        stride by default, so that it can tell apart the copies of a frame.
    **block_options
        ``dilation_growth``, ``normalisation``, ``activation``, ``dropout`` and
        ``residual`` of :class:`~speechbrain_vae.nnet.blocks.ConvBlock`.

    Example
    -------
    >>> decoder = UnpoolingDecoder(16, 80, channels=32, stride=2)
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
        unpooling: str = "nearest",
        kernel_size: int = 3,
        stem_kernel_size: int | None = None,
        **block_options,
    ) -> None:
        super().__init__()
        width = stem_kernel_size or 2 * stride + 1
        check_options(stride, width, "unpooling", unpooling, UNPOOLINGS)
        output_size = getattr(output_size, "prediction_size", output_size)
        self.stride = stride
        self.output_size = output_size
        self.unpooling = unpooling
        self.first = Conv1d(input_size, channels, kernel_size, padding=kernel_size // 2)
        self.stack = ConvStack(
            channels, blocks, kernel_size=kernel_size, **block_options
        )
        self.stem = Conv1d(channels, output_size, width, padding=width // 2)

    def forward(
        self,
        latent: torch.Tensor,
        lengths: torch.Tensor | None = None,
        frames: int | None = None,
    ):
        """Parameters of the likelihood [B, frames, output_size].

        ``frames`` is at most ``T * stride``, the default.
        """
        # latent: [B, T, D]
        mask = length_mask(latent, lengths).unsqueeze(1).to(latent.dtype)
        h = self.first(latent.transpose(1, 2) * mask) * mask
        h = ([h] + self.stack(h, mask))[-1]
        h = self.unpool(h, lengths) * mask.repeat_interleave(self.stride, 2)
        return self.stem(h).transpose(1, 2)[:, :frames]

    def unpool(self, h: torch.Tensor, lengths: torch.Tensor | None):
        """Frames at the output's rate: [B, C, T] to [B, C, T * stride]."""
        if self.unpooling == "nearest":
            return h.repeat_interleave(self.stride, 2)
        # Padding repeats the last valid frame, as interpolation does at the end.
        counts = frame_counts(lengths, h.shape[0], h.shape[2], h.device).to(h.device)
        last = (counts - 1).clamp(min=0).unsqueeze(1)
        frame = torch.arange(h.shape[2], device=h.device).minimum(last)
        h = h.gather(2, frame.unsqueeze(1).expand_as(h))
        return torch.nn.functional.interpolate(
            h, scale_factor=self.stride, mode="linear"
        )


def check_options(stride, width, name, value, allowed):
    """Refuse options of :class:`PoolingEncoder` and :class:`UnpoolingDecoder`."""
    if stride < 1:
        raise ValueError(f"stride must be at least 1; got {stride}")
    if width % 2 == 0:
        raise ValueError(f"stem_kernel_size must be odd; got {width}")
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
