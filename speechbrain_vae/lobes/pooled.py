"""One vector an utterance, from the frames of a front end."""

import torch

from speechbrain_vae.nnet.lengths import frame_counts, length_mask


class PooledFrontEnd(torch.nn.Module):
    """Mean and standard deviation over the frames of a front end.

    It takes the place of the front end in a recipe that labels whole utterances. Of
    tokens, which have no mean, it gives the share of the frames with each code.

    Arguments
    ---------
    frames : speechbrain_vae.lobes.front_ends.FrontEnd
        The front end that is pooled.

    Example
    -------
    >>> from speechbrain_vae.lobes.front_ends import FrontEnd
    >>> front_end = PooledFrontEnd(FrontEnd("mfcc"))
    >>> vectors, lengths = front_end(torch.randn(2, 16000), torch.tensor([1.0, 0.5]))
    >>> vectors.shape, lengths
    (torch.Size([2, 1, 78]), tensor([1., 1.]))
    """

    def __init__(self, frames):
        super().__init__()
        self.frames = frames
        self.frozen = frames.frozen
        self.layers = frames.layers
        self.codebook_sizes = None
        self.size = 2 * frames.size
        if frames.codebook_sizes:
            self.size = sum(frames.codebook_sizes)

    def forward(self, wavs, wav_lens=None):
        """Vectors of waveforms.

        Arguments
        ---------
        wavs : torch.Tensor
            Shape [B, S].
        wav_lens : torch.Tensor, optional
            Relative lengths, shape [B].

        Returns
        -------
        vectors : torch.Tensor
            Shape [B, 1, size]; of several layers one after the other.
        lengths : torch.Tensor
            Ones [B].
        """
        vectors = self.pool(*self.frames(wavs, wav_lens))
        return vectors, vectors.new_ones(len(vectors))

    @torch.no_grad()
    def raw(self, wavs, wav_lens=None):
        """Vectors [B, 1, size] and their counts [B], ones, without a gradient."""
        vectors, lengths = self(wavs, wav_lens)
        return vectors, frame_counts(lengths, *vectors.shape[:2])

    @torch.no_grad()
    def open(self, entries, cache=None, workers=0):
        """Vectors [1, size] of a manifest's utterances by ID, held in memory.

        Arguments as for ``open_features`` of the feature cache, which keeps the frames.
        """
        frames = self.frames.open(entries, cache, workers)
        return {utt: self.pool(frames[utt].unsqueeze(0))[0] for utt in entries}

    def pool(self, feats, lengths=None):
        """Vectors [B, 1, size] of frames [B, T, frames.size]."""
        mask = length_mask(feats, lengths).unsqueeze(-1)
        count = mask.sum(1, keepdim=True).clamp(min=1)
        if self.frames.codebook_sizes:
            codes = feats.long().unbind(-1)
            shares = [
                torch.nn.functional.one_hot(c.clamp(min=0), size) * mask
                for c, size in zip(codes, self.frames.codebook_sizes, strict=True)
            ]
            return torch.cat(shares, -1).sum(1, keepdim=True) / count
        mean = (feats * mask).sum(1, keepdim=True) / count
        var = (((feats - mean) * mask) ** 2).sum(1, keepdim=True) / count
        # The square root has no slope at zero, where a dimension is constant.
        pair = [mean, var.clamp(min=1e-10).sqrt()]
        pair = [x.unflatten(-1, (self.layers, -1)) for x in pair]
        return torch.cat(pair, -1).flatten(-2)
