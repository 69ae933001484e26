"""From a front end's features to the input of a downstream model."""

import torch

from speechbrain_vae.nnet.lengths import length_mask
from speechbrain_vae.nnet.normalisation import mean_and_std


class FeatureAdapter(torch.nn.Module):
    """Standardised features, a learned weighting of layers, or embedded tokens.

    Features of different front ends differ in scale by orders of magnitude; every
    dimension gets zero mean and unit variance over the training set, so that a
    learning rate means the same for all.

    Arguments
    ---------
    front_end : speechbrain_vae.lobes.front_ends.FrontEnd
        Whose features it takes.
    embedding_size : int
        Size of the embedding of tokens.

    Example
    -------
    >>> from speechbrain_vae.lobes.front_ends import FrontEnd
    >>> adapter = FeatureAdapter(FrontEnd("mfcc"))
    >>> adapter.fit([torch.randn(100, 39) + 5])
    >>> y = adapter(torch.randn(2, 10, 39) + 5, torch.tensor([1.0, 0.5]))
    >>> y.shape, bool(y.mean().abs() < 0.5)
    (torch.Size([2, 10, 39]), True)
    """

    def __init__(self, front_end, embedding_size: int = 64) -> None:
        super().__init__()
        self.layers = front_end.layers
        self.embeddings = None
        if front_end.codebook_sizes:
            self.output_size = embedding_size
            self.embeddings = torch.nn.ModuleList(
                torch.nn.Embedding(size + 1, embedding_size, padding_idx=0)
                for size in front_end.codebook_sizes
            )
        else:
            self.output_size = front_end.size // self.layers
            self.register_buffer("mean", torch.zeros(front_end.size))
            self.register_buffer("std", torch.ones(front_end.size))
        if self.layers > 1:
            self.weights = torch.nn.Parameter(torch.zeros(self.layers))

    def fit(self, utterances):
        """Take mean and standard deviation from the training set.

        Arguments
        ---------
        utterances : iterable of torch.Tensor
            Features of each, shape [T, size].
        """
        if self.embeddings is not None:
            return
        mean, std = mean_and_std(utterances)
        self.mean.copy_(mean)
        # What never varies in training must not be blown up where it does.
        self.std.copy_(torch.where(std > 1e-5, std, 1.0))

    def forward(
        self, feats: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Input of the model.

        Arguments
        ---------
        feats : torch.Tensor
            Shape [B, T, size].
        lengths : torch.Tensor, optional
            Relative lengths, shape [B].

        Returns
        -------
        torch.Tensor
            Shape [B, T, output_size], zero on padding.
        """
        mask = length_mask(feats, lengths).unsqueeze(-1)
        if self.embeddings is not None:
            codes = torch.where(mask, feats.long() + 1, 0).unbind(-1)
            return sum(e(c) for e, c in zip(self.embeddings, codes, strict=True))
        x = (feats - self.mean) / self.std
        if self.layers > 1:
            x = x.unflatten(-1, (self.layers, self.output_size))
            x = (x * self.weights.softmax(0).unsqueeze(-1)).sum(-2)
        return x * mask
