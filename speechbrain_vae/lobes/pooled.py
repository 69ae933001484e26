"""One vector an utterance, from the frames of a front end."""

import torch
from torch.nn.functional import one_hot

from speechbrain_vae.nnet.lengths import frame_counts


class PooledFrontEnd(torch.nn.Module):
    """Mean and standard deviation over the frames of a front end.

    It takes the place of the front end in a recipe that labels whole utterances. Of
    tokens, which have no mean, it gives the share of the frames with each code.

    Arguments
    ---------
    frames : speechbrain_vae.lobes.front_ends.FrontEnd
        The front end that is pooled.
    segments : int
        Parts of equal length that are pooled each by itself, which keeps some of the
        order of the frames: a digit needs it, a speaker does not.

    Example
    -------
    >>> from speechbrain_vae.lobes.front_ends import FrontEnd
    >>> front_end = PooledFrontEnd(FrontEnd("mfcc"), segments=3)
    >>> vectors, lengths = front_end(torch.randn(2, 16000), torch.tensor([1.0, 0.5]))
    >>> vectors.shape, lengths
    (torch.Size([2, 1, 234]), tensor([1., 1.]))
    """

    def __init__(self, frames, segments: int = 1) -> None:
        super().__init__()
        if not isinstance(segments, int) or segments < 1:
            raise ValueError(f"segments is a whole number from 1 on, got {segments!r}")
        self.frames = frames
        self.segments = segments
        self.frozen = frames.frozen
        self.layers = frames.layers
        self.codebook_sizes = None
        codes = sum(frames.codebook_sizes or [])
        self.size = segments * (codes or 2 * frames.size)

    @property
    def settings(self):
        """What the vectors depend on."""
        return {**self.frames.settings, "segments": self.segments}

    def forward(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
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
    def raw(self, wavs: torch.Tensor, wav_lens: torch.Tensor | None = None):
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

    def pool(self, feats: torch.Tensor, lengths: torch.Tensor | None = None):
        """Vectors [B, 1, size] of frames [B, T, frames.size]."""
        mask = self._segment_mask(feats, lengths)
        count = mask.sum(2)
        if self.frames.codebook_sizes:
            codes = feats.long().clamp(min=0).unbind(-1)
            shares = [
                (one_hot(c, size).unsqueeze(1) * mask).sum(2) / count
                for c, size in zip(codes, self.frames.codebook_sizes, strict=True)
            ]
            return torch.cat(shares, -1).flatten(1).unsqueeze(1)
        feats = feats.unsqueeze(1)
        mean = (feats * mask).sum(2) / count
        var = (((feats - mean.unsqueeze(2)) * mask) ** 2).sum(2) / count
        # The square root has no slope at zero, where a dimension is constant.
        pair = [mean, var.clamp(min=1e-10).sqrt()]
        # Each [B, segments, layers, size of a layer]; a layer stays in one piece.
        pair = [x.unflatten(-1, (self.layers, -1)) for x in pair]
        return torch.cat(pair, -1).transpose(1, 2).flatten(1).unsqueeze(1)

    def _segment_mask(self, feats, lengths):
        """Frames of each segment [B, segments, T, 1]; one at least."""
        counts = frame_counts(lengths, *feats.shape[:2], feats.device).unsqueeze(1)
        edges = torch.arange(self.segments + 1, device=feats.device)
        edges = counts.to(feats.device) * edges // self.segments
        start, stop = edges[:, :-1], torch.maximum(edges[:, 1:], edges[:, :-1] + 1)
        times = torch.arange(feats.shape[1], device=feats.device)
        mask = (times >= start.unsqueeze(-1)) & (times < stop.unsqueeze(-1))
        return mask.unsqueeze(-1)
