"""Convolutions over frames as products of matrices, for training on a CPU.

oneDNN, which computes PyTorch's convolutions there, compiles a kernel for each shape
of a batch, and batches of speech hardly ever have the shape of one before. Here the
frames of all utterances are the rows of one matrix, with rows of zeros in between: each
tap of a kernel is a product of some of these rows with the tap's weights. The result is
the one of PyTorch, with the channels of a frame side by side in memory.
"""

import torch
from torch.nn.functional import conv1d, conv_transpose1d, linear

from speechbrain_vae.nnet.double_backward import plain_gradients


def tap_groups(width, stride, dilation):
    """Where the taps of a kernel meet rows of ``stride`` frames each.

    Returns
    -------
    list of (int, int, int, int)
        Of each group of taps that lie side by side in one row: which row after the
        first, the frame in it, the first tap, and the one after the last.

    Example
    -------
    >>> tap_groups(4, stride=2, dilation=1)
    [(0, 0, 0, 2), (1, 0, 2, 4)]
    >>> tap_groups(3, stride=1, dilation=2)
    [(0, 0, 0, 1), (2, 0, 1, 2), (4, 0, 2, 3)]
    """
    groups = []
    for tap in range(width):
        row, place = divmod(tap * dilation, stride)
        if groups and dilation == 1 and place:
            groups[-1] = (*groups[-1][:3], tap + 1)
        else:
            groups.append((row, place, tap, tap + 1))
    return groups


class _Taps:
    """Weights [O, K, C] of a kernel's taps beside the rows that they meet.

    ``rows`` below are [M, stride * C], ``outputs`` [M, O]; the last ``reach`` outputs
    would see beyond the rows, and are neither computed nor read.
    """

    def __init__(self, weights, stride, dilation):
        self.groups = tap_groups(weights.shape[1], stride, dilation)
        self.reach = self.groups[-1][0]
        self.shape, self.stride = weights.shape, stride
        self.weights = self.split(weights.contiguous())

    def split(self, weights):
        """The matrix [O, taps * C] of each group of taps."""
        channels = self.shape[2]
        sizes = [(stop - first) * channels for _, _, first, stop in self.groups]
        return weights.flatten(1).split(sizes, 1)

    def pieces(self, rows):
        """What each group of taps meets, [M - reach, taps * C]."""
        count, channels = rows.shape[0] - self.reach, self.shape[2]
        step, one = rows.stride()
        return [
            # One view, where a slice of both dimensions would be two.
            rows.as_strided(
                (count, (stop - first) * channels),
                (step, one),
                rows.storage_offset() + row * step + place * channels * one,
            )
            for row, place, first, stop in self.groups
        ]

    def outputs(self, rows, bias=None):
        """Every output is a sum of products of rows."""
        outputs = rows.new_empty(rows.shape[0], self.shape[0])
        used = outputs[: rows.shape[0] - self.reach]
        (piece, taps), *others = zip(self.pieces(rows), self.weights, strict=True)
        if bias is None:
            torch.mm(piece, taps.t(), out=used)
        else:
            torch.addmm(bias, piece, taps.t(), out=used)
        for piece, taps in others:
            used.addmm_(piece, taps.t())
        return outputs

    def rows(self, outputs, bias=None):
        """The transpose of :meth:`outputs`; the bias is of one frame."""
        rows = outputs.new_empty(outputs.shape[0], self.stride * self.shape[2])
        used = outputs[: rows.shape[0] - self.reach]
        given = bias is not None
        bias = bias.repeat(self.stride) if given else rows.new_zeros(1)
        products = list(zip(self.pieces(rows), self.weights, strict=True))
        start = 0
        if products[0][0].shape[1] == rows.shape[1]:
            # A product that fills whole rows needs no start.
            piece, taps = products.pop(0)
            torch.addmm(bias, used, taps, beta=given, out=piece)
            start = used.shape[0]
        rows[start:] = bias
        for piece, taps in products:
            piece.addmm_(used, taps)
        return rows

    def by_weights(self, rows, outputs):
        """Gradient of the weights, where ``outputs`` is that of the outputs."""
        grad = rows.new_empty(self.shape)
        used = outputs[: rows.shape[0] - self.reach].t()
        for piece, taps in zip(self.pieces(rows), self.split(grad), strict=True):
            torch.mm(used, piece, out=taps)
        return grad


class ConvolutionOfFrames(torch.autograd.Function):
    """A convolution of frames [B, T, C]; differentiable twice, by plain operations.

    Call ``ConvolutionOfFrames.apply(x, weight, bias, stride, padding, dilation)`` with
    weight [O, K, C] and bias [O] of :class:`Conv1d`; it returns [B, T', O].

    Example
    -------
    >>> conv = Conv1d(4, 8, 3, padding=1)
    >>> x = torch.randn(2, 10, 4)
    >>> y = ConvolutionOfFrames.apply(x, conv.weight, conv.bias, 1, 1, 1)
    >>> torch.allclose(y, conv(x.transpose(1, 2)).transpose(1, 2), atol=1e-6)
    True
    """

    @staticmethod
    def forward(ctx, x, weight, bias, *shape):
        """See the class."""
        stride, padding, dilation = shape
        taps = _Taps(weight, stride, dilation)
        rows = _rows(x, stride, padding, padding)
        # Only the gradient of the weights is computed of them.
        kept = rows if ctx.needs_input_grad[1] else None
        ctx.save_for_backward(x, weight, bias, kept)
        ctx.taps, ctx.shape = taps, shape
        outputs = taps.outputs(rows, bias)
        seen = x.shape[1] + 2 * padding - dilation * (weight.shape[1] - 1)
        outputs = outputs.view(x.shape[0], -1, weight.shape[0])
        return outputs[:, : -(-seen // stride)]

    @staticmethod
    def backward(ctx, grad):
        """Gradients of frames, weight and bias."""
        x, weight, bias, rows = ctx.saved_tensors
        needed, (stride, padding, _) = ctx.needs_input_grad[:3], ctx.shape
        if torch.is_grad_enabled():

            def plain(x, weight, bias):
                x, weight = x.transpose(1, 2), weight.mT
                return conv1d(x, weight, bias, *ctx.shape).transpose(1, 2)

            grads = plain_gradients(plain, needed, grad, x, weight, bias)
            return *grads, None, None, None
        length = -(-(x.shape[1] + 2 * padding) // stride)
        outputs = _rows(grad, 1, 0, length - grad.shape[1])
        by_x = by_weight = by_bias = None
        if needed[0]:
            by_x = ctx.taps.rows(outputs).view(x.shape[0], -1, x.shape[2])
            by_x = by_x[:, padding : padding + x.shape[1]]
        if needed[1]:
            by_weight = ctx.taps.by_weights(rows, outputs)
        if needed[2]:
            by_bias = grad.sum((0, 1))
        return by_x, by_weight, by_bias, None, None, None


class TransposedConvolutionOfFrames(torch.autograd.Function):
    """The transpose of a convolution; differentiable twice, by plain operations.

    Call ``TransposedConvolutionOfFrames.apply(x, weight, bias, stride, padding)`` with
    frames [B, T, C] and the weight [C, K, O] and bias [O] of :class:`ConvTranspose1d`;
    it returns [B, T', O].

    Example
    -------
    >>> conv = ConvTranspose1d(4, 8, 4, stride=2, padding=1)
    >>> x = torch.randn(2, 10, 4)
    >>> y = TransposedConvolutionOfFrames.apply(x, conv.weight, conv.bias, 2, 1)
    >>> torch.allclose(y, conv(x.transpose(1, 2)).transpose(1, 2), atol=1e-6)
    True
    """

    @staticmethod
    def forward(ctx, x, weight, bias, *shape):
        """See the class."""
        stride, padding = shape
        taps = _Taps(weight, stride, 1)
        inputs = _rows(x, 1, 0, taps.reach)
        kept = inputs if ctx.needs_input_grad[1] else None
        ctx.save_for_backward(x, weight, bias, kept)
        ctx.taps, ctx.shape = taps, shape
        y = taps.rows(inputs, bias).view(x.shape[0], -1, bias.shape[0])
        frames = (x.shape[1] - 1) * stride + weight.shape[1] - 2 * padding
        return y[:, padding : padding + frames]

    @staticmethod
    def backward(ctx, grad):
        """Gradients of frames, weight and bias."""
        x, weight, bias, inputs = ctx.saved_tensors
        needed, (stride, padding) = ctx.needs_input_grad[:3], ctx.shape
        if torch.is_grad_enabled():

            def plain(x, weight, bias):
                x, weight = x.transpose(1, 2), weight.mT
                return conv_transpose1d(x, weight, bias, *ctx.shape).transpose(1, 2)

            grads = plain_gradients(plain, needed, grad, x, weight, bias)
            return *grads, None, None
        length = (x.shape[1] + ctx.taps.reach) * stride
        rows = _rows(grad, stride, padding, length - padding - grad.shape[1])
        by_x = by_weight = by_bias = None
        if needed[0]:
            by_x = ctx.taps.outputs(rows).view(x.shape[0], -1, x.shape[2])
            by_x = by_x[:, : x.shape[1]]
        if needed[1]:
            by_weight = ctx.taps.by_weights(rows, inputs)
        if needed[2]:
            by_bias = grad.sum((0, 1))
        return by_x, by_weight, by_bias, None, None


def _rows(x, stride, before, after):
    """Frames [B, T, C], with zeros around each utterance, in rows of ``stride``."""
    batch, frames, channels = x.shape
    after += -(frames + before + after) % stride
    if before or after:
        start = x.new_zeros(batch, before, channels)
        end = x.new_zeros(batch, after, channels)
        # On batches of speech torch.nn.functional.pad takes half as long again.
        x = torch.cat((start, x, end), 1)
    return x.reshape(-1, stride * channels)


def as_products(x, weight, channels):
    """Whether a convolution of [B, C, T] is computed as products of matrices.

    It is on a CPU, in fp32 or fp64 and outside of ``torch.compile``. Where C is not
    ``channels``, it is left to PyTorch, which refuses it.

    Example
    -------
    >>> as_products(torch.zeros(1, 4, 8), torch.zeros(2, 3, 4), 4)
    True
    >>> as_products(torch.zeros(1, 5, 8), torch.zeros(2, 3, 4), 4)
    False
    >>> as_products(torch.zeros(1, 4, 8).half(), torch.zeros(2, 3, 4).half(), 4)
    False
    """
    return (
        x.dim() == 3
        and x.shape[1] == channels
        and x.numel() > 0
        and x.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def transposed_convolution(x, weight, bias, stride, padding):
    """The transpose of a convolution of frames, plus a bias.

    Arguments
    ---------
    x : torch.Tensor
        Shape [B, C, T].
    weight : torch.Tensor
        Of :class:`ConvTranspose1d`, or of the :class:`Conv1d` whose transpose it is;
        shape [C, K, O].
    bias : torch.Tensor
        Shape [O].
    stride, padding : int

    Returns
    -------
    torch.Tensor
        Shape [B, O, (T - 1) * stride + K - 2 * padding].

    Raises
    ------
    RuntimeError
        Where not a frame would be left, or C is not that of the weight.

    Example
    -------
    >>> x, weight = torch.randn(2, 8, 5), torch.randn(8, 2, 4)
    >>> transposed_convolution(x, weight, torch.zeros(4), 2, 0).shape
    torch.Size([2, 4, 10])
    """
    frames = (x.shape[-1] - 1) * stride + weight.shape[1] - 2 * padding
    if frames < 1:
        # By some of its ways PyTorch gives an empty result, or speaks of other things.
        raise RuntimeError(
            f"Given input size per channel: ({x.shape[-1]}). Calculated output size "
            f"per channel: ({frames}). Output size is too small"
        )
    if as_products(x, weight, weight.shape[0]):
        x = x.transpose(1, 2)
        y = TransposedConvolutionOfFrames.apply(x, weight, bias, stride, padding)
        return y.transpose(1, 2)
    return conv_transpose1d(x, weight.mT, bias, stride, padding)


class FramesConvolution(torch.nn.Module):
    """Weights of :class:`Conv1d` and :class:`ConvTranspose1d`, and their state.

    The channels that meet one tap lie side by side in memory, as the products need
    them: a weight is [O, K, C]. In the state it is PyTorch's [O, C, K].

    Arguments
    ---------
    conv : torch.nn.Module
        PyTorch's, whose shape and first weights it takes.

    Example
    -------
    >>> FramesConvolution(torch.nn.Conv1d(4, 8, 3))
    FramesConvolution(4, 8, 3, stride=1, padding=0, dilation=1)
    """

    def __init__(self, conv):
        super().__init__()
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        (self.kernel_size,), (self.stride,) = conv.kernel_size, conv.stride
        (self.padding,), (self.dilation,) = conv.padding, conv.dilation
        # Contiguous in the strides of dimensions of size 1 too, as gradients are: where
        # the two differ, DDP copies them, and warns.
        weight = conv.weight.detach().mT.clone(memory_format=torch.contiguous_format)
        self.weight = torch.nn.Parameter(weight)
        self.bias = conv.bias
        self.register_state_dict_post_hook(_turn_weights)
        self.register_load_state_dict_pre_hook(_turn_weights)

    def extra_repr(self):
        """Sizes, for ``print``."""
        return (
            f"{self.in_channels}, {self.out_channels}, {self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}"
        )


def _turn_weights(module, state, prefix, *_):
    # The second is of weight normalisation.
    for name in ("weight", "parametrizations.weight.original1"):
        if f"{prefix}{name}" in state:
            state[f"{prefix}{name}"] = state[f"{prefix}{name}"].mT


class Conv1d(FramesConvolution):
    """:class:`torch.nn.Conv1d` of frames, faster on a CPU.

    Its weight is [O, K, C], its state has PyTorch's [O, C, K].

    Arguments
    ---------
    in_channels, out_channels, kernel_size, stride, padding, dilation : int
        Of :class:`torch.nn.Conv1d`.

    Example
    -------
    >>> conv = Conv1d(4, 8, 3, padding=1)
    >>> conv(torch.randn(2, 4, 10)).shape, conv.weight.shape
    (torch.Size([2, 8, 10]), torch.Size([8, 3, 4]))
    >>> conv.load_state_dict(torch.nn.Conv1d(4, 8, 3).state_dict())
    <All keys matched successfully>
    """

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1
    ):
        shape = in_channels, out_channels, kernel_size, stride, padding, dilation
        super().__init__(torch.nn.Conv1d(*shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The convolution [B, O, T'] of [B, C, T]."""
        weight, bias = self.weight, self.bias
        shape = self.stride, self.padding, self.dilation
        frames = x.shape[-1] + 2 * self.padding - self.dilation * (self.kernel_size - 1)
        if frames > 0 and as_products(x, weight, weight.shape[2]):
            x = x.transpose(1, 2)
            if self.kernel_size == self.stride == 1 and self.padding == 0:
                # One product of the frames as they lie.
                y = linear(x, weight.flatten(1), bias)
            else:
                y = ConvolutionOfFrames.apply(x, weight, bias, *shape)
            return y.transpose(1, 2)
        return conv1d(x, weight.mT, bias, *shape)


class ConvTranspose1d(FramesConvolution):
    """:class:`torch.nn.ConvTranspose1d` of frames, faster on a CPU.

    Its weight is [C, K, O], its state has PyTorch's [C, O, K].

    Arguments
    ---------
    in_channels, out_channels, kernel_size, stride, padding : int
        Of :class:`torch.nn.ConvTranspose1d`.

    Example
    -------
    >>> ConvTranspose1d(4, 8, 4, stride=2, padding=1)(torch.randn(2, 4, 10)).shape
    torch.Size([2, 8, 20])
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0):
        shape = in_channels, out_channels, kernel_size, stride, padding
        super().__init__(torch.nn.ConvTranspose1d(*shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The transpose [B, O, T'] of [B, C, T]."""
        return transposed_convolution(
            x, self.weight, self.bias, self.stride, self.padding
        )
