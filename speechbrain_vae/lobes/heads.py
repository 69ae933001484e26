"""Downstream models, small enough that the features decide.

Each is built from the size of its input and of its output and called with
``(x, lengths)``.
"""

import torch
from speechbrain.lobes.models.Xvector import Xvector

from speechbrain_vae.lobes.encoders import (
    ConvEncoder,
    Encoder,
    RecurrentEncoder,
    pad_to_stride,
)


class FrameClassifier(torch.nn.Module):
    """Logits of every frame: a linear layer, or one on top of a BiLSTM.

    Arguments
    ---------
    input_size : int
        Size D of a frame.
    output_size : int
        Number of classes.
    hidden_size : int
        Size of an LSTM layer, of each direction.
    num_layers : int
        Number of LSTM layers; 0 leaves the linear layer (a probe).
    stride : int
        Input frames for one output frame: side by side for the LSTM, their mean for
        the linear layer, which stays a probe of single frames.
    dropout : float
        Probability of dropping an output of an LSTM layer.
    projection_size : int, optional
        Size that the frames of the LSTM are projected to first, so that it costs as
        much for any features; none by default.

    Example
    -------
    >>> model = FrameClassifier(16, 40, hidden_size=8, num_layers=1, stride=2)
    >>> x, lengths = torch.randn(2, 11, 16), torch.tensor([1.0, 0.5])
    >>> logits, lengths = model(x, lengths)
    >>> logits.shape, lengths
    (torch.Size([2, 6, 40]), tensor([1.0000, 0.5000]))
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_size: int = 256,
        num_layers: int = 0,
        stride: int = 1,
        dropout: float = 0.0,
        projection_size: int | None = None,
    ) -> None:
        super().__init__()
        self.frames: Encoder | None = None
        self.encoder: Encoder = FrameMean(input_size, stride)
        if projection_size and num_layers:
            self.frames = FrameProjection(input_size, projection_size, stride)
            input_size, stride = projection_size, 1
        if num_layers:
            self.encoder = RecurrentEncoder(
                input_size,
                hidden_size,
                num_layers,
                stride,
                bidirectional=True,
                residual=False,
                dropout=dropout,
                cell=torch.nn.LSTM,
            )
        self.output = torch.nn.Linear(self.encoder.output_size, output_size)

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits of frames.

        Arguments
        ---------
        x : torch.Tensor
            Shape [B, T, D].
        lengths : torch.Tensor, optional
            Relative lengths, shape [B].

        Returns
        -------
        logits : torch.Tensor
            Shape [B, ceil(T / stride), output_size].
        lengths : torch.Tensor or None
            Their relative lengths, shape [B].
        """
        if self.frames is not None:
            x, lengths = self.frames(x, lengths), self.frames.output_lengths(x, lengths)
        logits = self.output(self.encoder(x, lengths))
        return logits, self.encoder.output_lengths(x, lengths)


class WindowClassifier(torch.nn.Module):
    """Logits of every frame, from the frames around it and no others.

    Where a recurrent network may answer late or early, this one can only say what it
    sees: times that are learned with it are those of the sound.

    Arguments
    ---------
    input_size : int
        Size D of a frame.
    output_size : int
        Number of classes.
    hidden_size : int
        Size of the hidden layers.
    blocks : int
        Residual blocks of two layers each.
    context : int
        Frames that it sees on either side.
    dropout : float
        Probability of dropping an activation of a block.

    Example
    -------
    >>> model = WindowClassifier(16, 40, hidden_size=8, context=2)
    >>> x, lengths = torch.randn(2, 11, 16), torch.tensor([1.0, 0.5])
    >>> model(x, lengths)[0].shape
    torch.Size([2, 11, 40])
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_size: int = 256,
        blocks: int = 2,
        context: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = ConvEncoder(
            input_size,
            hidden_size,
            blocks,
            stride=1,
            stem_kernel_size=2 * context + 1,
            kernel_size=1,
            dropout=dropout,
        )
        self.output = torch.nn.Linear(hidden_size, output_size)

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits [B, T, output_size] of frames [B, T, D], and their lengths."""
        return self.output(self.encoder(x, lengths)), lengths


class FrameMean(Encoder):
    """Means of ``stride`` frames, of the valid ones among them.

    Arguments
    ---------
    input_size : int
        Size D of a frame.
    stride : int
        Input frames for one output frame.

    Example
    -------
    >>> FrameMean(1, stride=2)(torch.tensor([[[1.0], [3.0], [5.0]]])).flatten()
    tensor([2., 5.])
    """

    def __init__(self, input_size: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.input_size = input_size
        self.output_size = input_size

    def layers(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """The means alone, [B, ceil(T / stride), D]."""
        # x: [B, T, D]
        mask = self.masks(x, lengths)[0].unsqueeze(-1)
        windows = pad_to_stride(x * mask, self.stride).unflatten(1, (-1, self.stride))
        count = pad_to_stride(mask, self.stride).unflatten(1, (-1, self.stride)).sum(2)
        return [windows.sum(2) / count.clamp(min=1)]


class FrameProjection(Encoder):
    """A linear layer over ``stride`` frames side by side.

    Arguments
    ---------
    input_size : int
        Size D of a frame.
    output_size : int
        Size of an output frame.
    stride : int
        Input frames for one output frame.

    Example
    -------
    >>> FrameProjection(16, 4, stride=2)(torch.randn(2, 11, 16)).shape
    torch.Size([2, 6, 4])
    """

    def __init__(self, input_size: int, output_size: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.input_size = input_size
        self.output_size = output_size
        self.linear = torch.nn.Linear(stride * input_size, output_size)

    def layers(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """The projections alone, [B, ceil(T / stride), output_size]."""
        # x: [B, T, D]
        in_mask, out_mask = self.masks(x, lengths)
        x = pad_to_stride(x * in_mask.unsqueeze(-1), self.stride)
        x = self.linear(x.unflatten(1, (-1, self.stride)).flatten(2))
        return [x * out_mask.unsqueeze(-1)]


class UtteranceClassifier(torch.nn.Module):
    """Logits of an utterance from the one vector it is pooled to: a linear layer.

    Arguments
    ---------
    input_size : int
        Size D of the vector, see
        :class:`~speechbrain_vae.lobes.pooled.PooledFrontEnd`.
    output_size : int
        Number of classes.

    Example
    -------
    >>> UtteranceClassifier(16, 10)(torch.randn(2, 1, 16)).shape
    torch.Size([2, 10])
    """

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.output = torch.nn.Linear(input_size, output_size)

    def embed(self, x: torch.Tensor, lengths: torch.Tensor | None = None):
        """The vector itself [B, D], of [B, 1, D]."""
        return x.squeeze(1)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None):
        """Logits [B, output_size] of pooled vectors [B, 1, D]."""
        return self.output(self.embed(x, lengths))


class XvectorClassifier(torch.nn.Module):
    """SpeechBrain's x-vector network (Snyder et al. 2018) and a linear layer.

    SpeechBrain's own classifier normalises over the batch, which may be one utterance.

    Arguments
    ---------
    input_size : int
        Size D of a frame.
    output_size : int
        Number of classes.
    channels : int
        Channels of a layer; the last one before pooling has three times as many.
    embedding_size : int
        Size E of an x-vector.

    Example
    -------
    >>> model = XvectorClassifier(16, 10, channels=8, embedding_size=4)
    >>> x, lengths = torch.randn(2, 11, 16), torch.tensor([1.0, 0.5])
    >>> model(x, lengths).shape, model.embed(x, lengths).shape
    (torch.Size([2, 10]), torch.Size([2, 4]))
    """

    min_frames = 4
    """The widest layer reflects 3 frames at either end."""

    def __init__(
        self,
        input_size: int,
        output_size: int,
        channels: int = 512,
        embedding_size: int = 512,
    ) -> None:
        super().__init__()
        if min(channels, embedding_size) < 1:
            raise ValueError(
                "channels and embedding_size must be at least 1; got "
                f"{channels} and {embedding_size}"
            )
        self.xvector = Xvector(
            tdnn_channels=[channels] * 4 + [3 * channels],
            lin_neurons=embedding_size,
            in_channels=input_size,
        )
        self.output = torch.nn.Sequential(
            torch.nn.LeakyReLU(), torch.nn.Linear(embedding_size, output_size)
        )

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None):
        """Logits [B, output_size] of frames [B, T, D]."""
        return self.output(self.embed(x, lengths))

    def embed(self, x: torch.Tensor, lengths: torch.Tensor | None = None):
        """X-vectors [B, E] of frames [B, T, D]."""
        frames = x.shape[1]
        if frames < self.min_frames:
            x = torch.nn.functional.pad(x, (0, 0, 0, self.min_frames - frames))
            lengths = x.new_ones(len(x)) if lengths is None else lengths
            lengths = lengths * frames / self.min_frames
        if lengths is not None:
            # SpeechBrain's deviation of a single frame is no number.
            lengths = lengths.clamp(min=2 / x.shape[1])
        return self.xvector(x, lengths).squeeze(1)
