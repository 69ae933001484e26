"""Downstream models, small enough that the features decide.

Each is built from the size of its input and of its output and called with
``(x, lengths)``.
"""

import torch

from speechbrain_vae.lobes.encoders import RecurrentEncoder
from speechbrain_vae.nnet.lengths import length_mask


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
        Frames that the LSTM reads as one; makes long inputs cheap.
    dropout : float
        Probability of dropping an output of an LSTM layer.

    Example
    -------
    >>> model = FrameClassifier(16, 40, hidden_size=8, num_layers=1, stride=2)
    >>> model(torch.randn(2, 11, 16), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 6, 40])
    """

    def __init__(
        self,
        input_size,
        output_size,
        hidden_size=256,
        num_layers=0,
        stride=1,
        dropout=0.0,
    ):
        super().__init__()
        if stride > 1 and not num_layers:
            raise ValueError("a linear probe reads every frame: set stride: 1")
        self.encoder = None
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
            input_size = self.encoder.output_size
        self.output = torch.nn.Linear(input_size, output_size)

    def forward(self, x, lengths=None):
        """Logits [B, ceil(T / stride), output_size] of frames [B, T, D]."""
        if self.encoder is not None:
            x = self.encoder(x, lengths)
        return self.output(x)


class PooledClassifier(torch.nn.Module):
    """Logits of an utterance from the mean and standard deviation of its frames.

    Arguments
    ---------
    input_size : int
        Size D of a frame.
    output_size : int
        Number of classes.

    Example
    -------
    >>> model = PooledClassifier(16, 10)
    >>> model(torch.randn(2, 11, 16), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 10])
    """

    def __init__(self, input_size, output_size):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(2 * input_size)
        self.output = torch.nn.Linear(2 * input_size, output_size)

    def embed(self, x, lengths=None):
        """Pooled vectors [B, 2 * D], standardised."""
        mask = length_mask(x, lengths).unsqueeze(-1)
        count = mask.sum(1).clamp(min=1)
        mean = (x * mask).sum(1) / count
        var = (((x - mean.unsqueeze(1)) * mask) ** 2).sum(1) / count
        # The square root has no slope at zero, where a dimension is constant.
        return self.norm(torch.cat([mean, (var + 1e-6).sqrt()], dim=-1))

    def forward(self, x, lengths=None):
        """Logits [B, output_size] of frames [B, T, D]."""
        return self.output(self.embed(x, lengths))
