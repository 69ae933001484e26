"""Files of any length in the memory of a short one.

Three passes: the waveform to frames in dB, which go to a temporary file; their floor
and statistics, which are those of the whole recording; and the encoder, piece by piece,
each with as many frames around it as the encoder sees. The result is that of one piece.
"""

import contextlib
import tempfile

import numpy as np
import torch

from speechbrain_vae.dataio.audio import AudioError
from speechbrain_vae.nnet.normalisation import mean_and_std

PIECE_FRAMES = 1500
"""Latent frames of a piece."""

MAX_CONTEXT = 1024
"""Latent frames; an encoder that sees more on one side gets all at once."""


@torch.no_grad()
def encode_blocks(blocks, features, autoencoder, device: str = "cpu", autocast=None):
    """Encode a recording that comes in blocks.

    Arguments
    ---------
    blocks : iterable of numpy.ndarray
        Samples, each of shape [S].
    features : speechbrain_vae.lobes.features.LogMel
    autoencoder : speechbrain_vae.lobes.autoencoder.Autoencoder
        In evaluation mode, as is ``features``.
    device : str
        Where both are.
    autocast : context manager, optional
        In which the encoder runs, entered once for every piece.

    Yields
    ------
    features : torch.Tensor
        Of the next stretch of time, shape [T, D].
    indices : torch.Tensor or None
        Code indices of a discrete model, shape [T, G].

    Raises
    ------
    AudioError
        There are no samples.

    Example
    -------
    >>> from speechbrain_vae.export import read_export
    >>> export = read_export(getfixture("tiny_export"))
    >>> blocks = [np.ones(16000, dtype="float32") for _ in range(60)]
    >>> codes = encode_blocks(blocks, export.features, export.autoencoder)
    >>> [features.shape for features, _ in codes]
    [torch.Size([1500, 8]), torch.Size([1500, 8]), torch.Size([1, 8])]
    """
    with tempfile.TemporaryFile() as store:
        feats, valid = _Stored(store, features.size), 0
        for part, known in decibels(blocks, features, device):
            feats.append(part)
            valid = known
        if not len(feats):
            raise AudioError("no samples")
        for piece, lengths, part in _pieces(feats, valid, features, autoencoder):
            with autocast or contextlib.nullcontext():
                code, _ = autoencoder.encode(piece, lengths.to(device))
            indices = None if code.indices is None else code.indices[0, part]
            yield code.features[0, part].float(), indices


class _Stored:
    """Frames [T, F] in a file; mapped into memory, they would count as memory."""

    def __init__(self, file, size):
        self.file = file
        self.size = size
        self.frames = 0

    def __len__(self):
        return self.frames

    def append(self, feats):
        self.file.write(feats.cpu().numpy().tobytes())
        self.frames += len(feats)

    def read(self, start, stop):
        self.file.seek(4 * self.size * start)
        data = self.file.read(4 * self.size * (min(stop, self.frames) - start))
        return torch.from_numpy(np.frombuffer(bytearray(data), np.float32)).view(
            -1, self.size
        )


def decibels(blocks, features, device: str = "cpu"):
    """Frames in dB, without the floor that depends on the loudest of all.

    Arguments
    ---------
    blocks : iterable of numpy.ndarray
        Samples, each of shape [S].
    features : speechbrain_vae.lobes.features.LogMel
    device : str
        Where ``features`` is.

    Yields
    ------
    feats : torch.Tensor
        Shape [T, F].
    valid : int
        Frames so far that are not silence at the end.
    """
    hop = features.hop_samples
    window = int(features.sample_rate * features.settings["win_length"] / 1000)
    context = -(-window // (2 * hop)) + 1
    pending: np.ndarray = np.zeros(0, dtype=np.float32)
    first, done, total, last = 0, 0, 0, 0
    for block in blocks:
        nonzero = np.flatnonzero(block)
        last = total + nonzero[-1] + 1 if len(nonzero) else last
        total += len(block)
        pending = np.concatenate([pending, block])
        ready = total // hop - context
        if ready > done:
            yield _frames(pending, features, done - first, ready - first, device), 0
            done, keep = ready, max(0, ready - context)
            pending, first = pending[(keep - first) * hop :], keep
    if total:
        frames = 1 + total // hop
        feats = _frames(pending, features, done - first, frames - first, device)
        yield feats, min(frames, 1 + int(last) // hop)


def _frames(samples, features, start, stop, device):
    wav = torch.from_numpy(np.ascontiguousarray(samples)).unsqueeze(0).to(device)
    return features.raw(wav)[0][0, start:stop]


def _pieces(feats, valid, features, autoencoder):
    """Inputs of the encoder [1, T, F], their lengths, and which outputs to keep."""
    stride, latent = autoencoder.stride, -(-len(feats) // autoencoder.stride)
    context, step = 0, latent
    if latent > PIECE_FRAMES:
        found = receptive_frames(autoencoder.encoder, features.size)
        context, step = (0, latent) if found is None else (found, PIECE_FRAMES)
    normalise = _normaliser(feats, valid, features)
    for start in range(0, latent, step):
        stop = min(start + step, latent)
        left = max(0, start - context)
        first = left * stride
        piece = normalise(first, (stop + context) * stride).unsqueeze(0)
        # Silence at the end is padding, as it is in a batch.
        known = min(max(valid - first, 0), piece.shape[1])
        lengths = torch.tensor([known / piece.shape[1]])
        yield piece, lengths, slice(start - left, stop - left)


def _normaliser(feats, valid, features):
    """A function from the first frame and the one after the last to [T, F].

    What it returns is where ``features`` is.
    """
    pieces = [(i, min(i + 6000, valid)) for i in range(0, valid, 6000)]
    floor = max(float(feats.read(*piece).max()) for piece in pieces)
    floor -= features.fbank.compute_fbanks.top_db

    def floored(*piece):
        return feats.read(*piece).clamp(min=floor)

    where = features.mean.device
    if features.normalisation in ("global", "none"):
        return lambda *piece: features.normalise(floored(*piece)[None].to(where))[0]
    mean, std = mean_and_std(floored(*piece) for piece in pieces)
    mean, std = features.shrink(mean.float().to(where), std.float().to(where))
    return lambda *piece: (floored(*piece).to(where) - mean) / std


@torch.no_grad()
def receptive_frames(encoder, size: int) -> int | None:
    """How far an encoder sees, to one side of an output frame.

    Arguments
    ---------
    encoder : speechbrain_vae.lobes.encoders.Encoder
        In evaluation mode.
    size : int
        Size F of an input frame.

    Returns
    -------
    int or None
        In output frames; none where it sees everything, or more than
        :data:`MAX_CONTEXT`.

    Example
    -------
    >>> from speechbrain_vae.lobes.encoders import ConvEncoder, RecurrentEncoder
    >>> receptive_frames(ConvEncoder(8, 4, blocks=3, stride=2).eval(), 8)
    4
    >>> receptive_frames(RecurrentEncoder(8, 4, 1).eval(), 8) is None
    True
    """
    # Quantised layers have no parameters, and are on the CPU.
    device = next(encoder.parameters(), torch.empty(0)).device
    reach = 32
    while reach <= MAX_CONTEXT:
        # What is not a number spreads to all that depends on it, and no further.
        x = torch.zeros(1, (2 * reach + 1) * encoder.stride, size, device=device)
        x[:, reach * encoder.stride : (reach + 1) * encoder.stride] = float("nan")
        touched = encoder(x)[0].isnan().any(1).nonzero().flatten()
        span = (touched - reach).abs().max() if len(touched) else 0
        if span < reach:
            return int(span)
        reach *= 2
    return None
