"""A Conformer that labels frames."""

import torch
from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder
from speechbrain.nnet.attention import RelPosEncXL

from speechbrain_vae.lobes.encoders import Encoder, pad_to_stride


class ConformerClassifier(Encoder):
    """Logits of every frame, from SpeechBrain's Conformer (Gulati et al. 2020).

    Arguments
    ---------
    input_size : int
        Size D of a frame.
    output_size : int
        Number of classes.
    hidden_size : int
        Size of a layer, a multiple of ``num_heads`` and even.
    num_layers : int
        Number of layers.
    num_heads : int
        Heads of the relative self-attention.
    feedforward_size : int, optional
        Size inside the feed-forward modules; four times ``hidden_size`` by default.
    kernel_size : int
        Odd width of the convolutions, in output frames.
    stride : int
        Input frames for one output frame, side by side.
    dropout : float
        Probability of dropping a number, after the input projection and in the layers.

    Example
    -------
    >>> model = ConformerClassifier(16, 40, hidden_size=8, num_layers=1, stride=2)
    >>> x, lengths = torch.randn(2, 11, 16), torch.tensor([1.0, 0.5])
    >>> logits, lengths = model(x, lengths)
    >>> logits.shape, lengths
    (torch.Size([2, 6, 40]), tensor([1.0000, 0.5000]))
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_size: int = 144,
        num_layers: int = 8,
        num_heads: int = 4,
        feedforward_size: int | None = None,
        kernel_size: int = 15,
        stride: int = 1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if hidden_size % num_heads or hidden_size % 2:
            raise ValueError(
                "hidden_size must be even and a multiple of num_heads; got "
                f"hidden_size={hidden_size} with num_heads={num_heads}"
            )
        self.stride = stride
        self.input_size = input_size
        self.input = torch.nn.Sequential(
            torch.nn.Linear(stride * input_size, hidden_size),
            torch.nn.LayerNorm(hidden_size),
            torch.nn.Dropout(dropout),
        )
        self.positions = RelPosEncXL(hidden_size)
        self.encoder = ConformerEncoder(
            num_layers,
            hidden_size,
            feedforward_size or 4 * hidden_size,
            num_heads,
            kernel_size,
            dropout=dropout,
        )
        # SpeechBrain's convolutions would read the padding.
        self.silence = _Silence()
        for layer in self.encoder.layers:
            layer.convolution_module.bottleneck.append(self.silence)
        self.output = torch.nn.Linear(hidden_size, output_size)

    def forward(self, x, lengths=None):
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
        return self.output(self.layers(x, lengths)[-1]), self.output_lengths(x, lengths)

    def layers(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Outputs of the projection and of the Conformer, [B, ceil(T / stride), H]."""
        # x: [B, T, D]
        in_mask, out_mask = self.masks(x, lengths)
        x = pad_to_stride(x * in_mask.unsqueeze(-1), self.stride)
        x = self.input(x.unflatten(1, (-1, self.stride)).flatten(2))
        self.silence.mask = out_mask.unsqueeze(1)
        y, _ = self.encoder(
            x, src_key_padding_mask=~out_mask, pos_embs=self.positions(x)
        )
        return [h * out_mask.unsqueeze(-1) for h in (x, y)]


class _Silence(torch.nn.Module):
    """Zeroes the padding of [B, C, T] by the mask it was last given."""

    mask: torch.Tensor

    def forward(self, x):
        return x * self.mask
