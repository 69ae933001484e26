"""The one place that decodes audio and brings it to the rate of a model.

libsndfile decodes everything here: WAV, FLAC, Ogg Vorbis, Opus, MP3, NIST SPHERE
and more. Long files pass through memory in blocks. ``torch`` is imported where
it is used, so that processes that only check files start quickly.
"""

import contextlib
import math
import os
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile

from .manifests import printable

BLOCK_SECONDS = 30.0
"""Length of the blocks in which a file passes through memory."""

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1000, 1_000_000
"""Other rates are not audio but broken headers."""

MAX_SAMPLE = 1e10
"""Larger samples are not audio either; of an integer that was not scaled they are
2^31 at most, and the energy of 1e18 is more than a float32 holds."""

_LOSSY = {"MP3", "OGG"}
_LOST_SECONDS = 0.1
# What libsndfile notes about a WAV that ends before its header says.
_CUT_WAV = re.compile(r"^data : (\d+) \(should be (\d+)\)$", re.MULTILINE)
_OPEN_LENGTH = 2**31 - 2**16
"""Bytes; headers of streams, whose length nobody knew, say this much or more."""
_OGG_PAGE = 27 + 255 + 255 * 255
"""Bytes of the longest page."""
_OGG_LAST = 4
"""The flag of the last page of a stream."""
_HIGH_RESOLUTION = {"PCM_24", "PCM_32", "FLOAT", "DOUBLE"}
# The "kaiser_best" filter of torchaudio's tutorial on resampling: aliases more than
# 120 dB down, and still hundreds of times real time.
_FILTER = {
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}


class AudioError(ValueError):
    """A file cannot be used.

    Arguments
    ---------
    reason : str
        Why, in a few words: for a list that names the file itself.
    path : str or Path, optional
        The file, for the message.

    Example
    -------
    >>> error = AudioError("empty file", "ann/1.wav")
    >>> str(error), error.reason
    ('ann/1.wav: empty file', 'empty file')
    """

    def __init__(self, reason, path=None):
        super().__init__(reason if path is None else f"{printable(path)}: {reason}")
        self.reason = reason


@contextlib.contextmanager
def open_audio(path: str | Path):
    """Open a file for decoding; every way to fail is one short reason, and its path.

    Arguments
    ---------
    path : str or Path
        File to open.

    Yields
    ------
    soundfile.SoundFile
        The open file.

    Raises
    ------
    AudioError
        Missing, unreadable, empty or undecodable file, at opening or later.

    Example
    -------
    >>> path = getfixture("tmp_path") / "notes.wav"
    >>> _ = path.write_text("not audio")
    >>> with open_audio(path): pass
    Traceback (most recent call last):
      ...
    speechbrain_vae.dataio.audio.AudioError: ...notes.wav: not decodable...
    """
    try:
        # A pipe would be waited for, and a device has no end.
        if not (os.path.isfile(path) or os.path.isdir(path)) and os.path.exists(path):
            raise AudioError("not a file")
        with open(path, "rb") as raw:
            if not raw.read(1):
                raise AudioError("empty file")
        with soundfile.SoundFile(os.fspath(path)) as file:
            if not MIN_SAMPLE_RATE <= file.samplerate <= MAX_SAMPLE_RATE:
                raise AudioError(f"sample rate of {file.samplerate} Hz")
            _refuse_cut_wav(file)
            if file.format == "OGG":
                _refuse_cut_ogg(path)
            yield file
    except AudioError as error:
        raise AudioError(error.reason, path) from error
    except FileNotFoundError:
        raise AudioError("missing file", path) from None
    except PermissionError:
        raise AudioError("permission denied", path) from None
    except IsADirectoryError:
        raise AudioError("a folder, not a file", path) from None
    except (soundfile.SoundFileError, OSError, UnicodeError) as error:
        detail = getattr(error, "error_string", None) or getattr(error, "strerror", "")
        detail = f" ({' '.join(detail.split())})" if detail else ""
        raise AudioError(f"not decodable{detail}", path) from error


def _refuse_cut_wav(file):
    # Of most formats libsndfile gives the length that the header says, or fails.
    found = _CUT_WAV.search(file.extra_info)
    if found is None or int(found[1]) >= _OPEN_LENGTH:
        return
    promised, there = int(found[1]), max(int(found[2]), 1)
    seconds = file.frames / file.samplerate
    if seconds * (promised / there - 1) > _LOST_SECONDS:
        raise AudioError(
            f"truncated: {seconds:.1f} of {seconds * promised / there:.1f} s are there"
        )


def _refuse_cut_ogg(path):
    # The length of an Ogg is nowhere said, but its last page is marked.
    with open(path, "rb") as raw:
        raw.seek(max(0, os.fstat(raw.fileno()).st_size - _OGG_PAGE))
        end = raw.read()
    page = end[max(0, end.rfind(b"OggS")) :]
    if len(page) < 27 or not page[5] & _OGG_LAST:
        raise AudioError("truncated: the last page of the Ogg stream is missing")
    lengths = page[27 : 27 + page[26]]
    if len(page) < 27 + page[26] + sum(lengths):
        raise AudioError("truncated: the last page of the Ogg stream is cut")


def blocks(file, frames: int | None = None):
    """Decode an open file block by block.

    Arguments
    ---------
    file : soundfile.SoundFile
        As :func:`open_audio` gives it.
    frames : int, optional
        Frames of a block; 30 seconds when not given.

    Yields
    ------
    numpy.ndarray
        Float32 samples, shape [S, channels].

    Raises
    ------
    AudioError
        Samples that are not finite or beyond :data:`MAX_SAMPLE`, or a file that ends
        before its header says.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, np.zeros(250), 8000)
    >>> with open_audio(path) as file:
    ...     [block.shape for block in blocks(file, frames=100)]
    [(100, 1), (100, 1), (50, 1)]
    """
    frames = frames or round(BLOCK_SECONDS * file.samplerate)
    total = 0
    while True:
        block = file.read(frames, dtype="float32", always_2d=True)
        if not len(block):
            break
        _refuse_samples(block)
        total += len(block)
        yield block
    if total < file.frames - _LOST_SECONDS * file.samplerate:
        raise AudioError(
            f"truncated: {total / file.samplerate:.1f} of "
            f"{file.frames / file.samplerate:.1f} s decode"
        )


def _refuse_samples(samples):
    peak = np.abs(samples).max(initial=0)
    if not np.isfinite(peak):
        raise AudioError("non-finite samples")
    if peak > MAX_SAMPLE:
        raise AudioError(f"samples of {peak:.0e}, which is no audio")


def read(path: str | Path):
    """Decode a whole file as it is.

    Arguments
    ---------
    path : str or Path
        File to read.

    Returns
    -------
    torch.Tensor
        Float32 samples, shape [S, channels].
    int
        Sample rate in Hz.

    Raises
    ------
    AudioError
        The file cannot be used.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, np.zeros((8000, 2)), 8000)
    >>> wav, rate = read(path)
    >>> wav.shape, rate
    (torch.Size([8000, 2]), 8000)
    """
    import torch

    with open_audio(path) as file:
        parts = [torch.from_numpy(block) for block in blocks(file)]
        if not parts:
            raise AudioError("no samples")
        return torch.cat(parts), file.samplerate


def to_mono_at(wav, rate: int, sample_rate: int):
    """Mix the channels of a signal and resample it.

    Arguments
    ---------
    wav : torch.Tensor
        Samples, shape [S] or [S, channels].
    rate : int
        Sample rate of ``wav`` in Hz.
    sample_rate : int
        Sample rate wanted, in Hz.

    Returns
    -------
    torch.Tensor
        Samples, shape [ceil(S * sample_rate / rate)]; the mean of the channels.

    Example
    -------
    >>> import torch
    >>> to_mono_at(torch.zeros(44100, 2), 44100, 16000).shape
    torch.Size([16000])
    """
    if wav.ndim == 2:
        wav = wav.mean(dim=1)
    if rate == sample_rate:
        return wav
    return _resample(wav, _ratio(rate, sample_rate))


def load(path: str | Path, sample_rate: int = 16000):
    """Decode any file as one channel at a rate.

    Arguments
    ---------
    path : str or Path
        File to read.
    sample_rate : int
        Sample rate wanted, in Hz.

    Returns
    -------
    torch.Tensor
        Float32 samples, shape [S].

    Raises
    ------
    AudioError
        The file cannot be used.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, np.zeros((8000, 2)), 8000)
    >>> load(path, 16000).shape
    torch.Size([16000])
    """
    import torch

    return torch.cat([torch.from_numpy(b) for b in stream(path, sample_rate)])


def stream(path: str | Path, sample_rate: int = 16000):
    """Decode any file as one channel at a rate, a block at a time.

    Arguments
    ---------
    path : str or Path
        File to read.
    sample_rate : int
        Sample rate wanted, in Hz.

    Yields
    ------
    numpy.ndarray
        Float32 samples, shape [S], about 30 seconds of them.

    Raises
    ------
    AudioError
        The file cannot be used.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, np.zeros(8000 * 70), 8000)
    >>> sum(len(block) for block in stream(path, 16000)) / 16000
    70.0
    """
    empty = True
    with open_audio(path) as file:
        for block in _converted(file, sample_rate):
            empty = False
            yield block
        if empty:
            raise AudioError("no samples")


def load_entry(entry: dict):
    """Load the audio of a manifest entry.

    Arguments
    ---------
    entry : dict
        With ``wav``, the path, and where it is a part of a file ``start`` and
        ``stop``, its first sample and the one after its last.

    Returns
    -------
    torch.Tensor
        Float32 samples, shape [S].

    Raises
    ------
    AudioError
        The file cannot be read any more, is shorter than the manifest says, or holds
        what is no number.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, np.zeros(16000), 16000)
    >>> load_entry({"wav": str(path), "start": 4000, "stop": 10000}).shape
    torch.Size([6000])
    """
    import torch

    start, stop = entry.get("start", 0), entry.get("stop")
    try:
        with open_audio(entry["wav"]) as file:
            if start:
                file.seek(start)
            count = -1 if stop is None else stop - start
            wav = file.read(count, dtype="float32", always_2d=True)
        if not len(wav) or (stop is not None and len(wav) < count):
            raise AudioError(f"only {len(wav)} samples after sample {start}")
        _refuse_samples(wav)
    except AudioError as error:
        raise AudioError(
            f"{error.reason}; it changed since the corpus was prepared", entry["wav"]
        ) from error
    return torch.from_numpy(wav[:, 0] if wav.shape[1] == 1 else wav.mean(axis=1))


def needs_conversion(file, sample_rate: int, whole: bool = True) -> bool:
    """Whether the file must be rewritten before training can read it.

    Arguments
    ---------
    file : soundfile.SoundFile
        An open file.
    sample_rate : int
        Rate of the model in Hz.
    whole : bool
        Whether it will be read from its first to its last sample; positions inside
        MP3, Ogg and Opus files are not exact.

    Returns
    -------
    bool
        True for another rate, several channels, or parts of a lossy file.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(path, np.zeros(8000), 8000)
    >>> with open_audio(path) as file:
    ...     needs_conversion(file, 16000)
    True
    """
    if file.samplerate != sample_rate or file.channels != 1:
        return True
    return not whole and file.format in _LOSSY


def convert(path: str | Path, target_stem, sample_rate: int = 16000) -> str:
    """Write a file once more as one channel at a rate.

    FLAC, with 24 bits where the source has more than 16; WAV with float samples
    where FLAC would clip. The file appears whole or not at all, and one that is
    there already is used again.

    Arguments
    ---------
    path : str or Path
        File to convert.
    target_stem : str or Path
        Path of the result without its extension; it must name the content.
    sample_rate : int
        Sample rate wanted, in Hz.

    Returns
    -------
    str
        Path of the result.

    Raises
    ------
    AudioError
        The file cannot be used.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "a.wav", np.zeros((8000, 2)), 8000)
    >>> soundfile.info(convert(folder / "a.wav", folder / "b")).frames
    16000
    """
    flac, wav = f"{target_stem}.flac", f"{target_stem}.wav"
    for done in (flac, wav):
        if os.path.exists(done):
            return done
    temporary = f"{target_stem}.{os.getpid()}.tmp"
    try:
        peak = _rewrite(path, temporary, sample_rate, "FLAC")
        if peak > 1:
            _rewrite(path, temporary, sample_rate, "WAV")
        target = wav if peak > 1 else flac
        os.replace(temporary, target)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
    return target


def _rewrite(path, temporary, sample_rate, container):
    """Convert into a file of this container; the result is the peak."""
    peak = 0.0
    with open_audio(path) as file:
        subtype = "PCM_24" if file.subtype in _HIGH_RESOLUTION else "PCM_16"
        if container == "WAV":
            subtype = "FLOAT"
        with soundfile.SoundFile(
            temporary, "w", sample_rate, 1, subtype, format=container
        ) as output:
            for block in _converted(file, sample_rate):
                peak = max(peak, float(np.abs(block).max(initial=0)))
                output.write(block)
    return peak


def _converted(file, sample_rate):
    """Mono blocks [S] of an open file at a rate, alike to one resampling of it all.

    Each block is resampled with as much of its neighbours as the filter reaches, and
    begins where an output sample falls on an input sample.
    """
    if file.samplerate == sample_rate:
        yield from (block.mean(axis=1) for block in blocks(file))
        return
    ratio = _ratio(file.samplerate, sample_rate)
    step = ratio.denominator
    reach = _FILTER["lowpass_filter_width"] / _FILTER["rolloff"] / min(1, ratio)
    context = math.ceil((reach + 1) / step) * step
    length = max(context, round(BLOCK_SECONDS * file.samplerate)) // step * step
    pending = np.zeros(0, dtype=np.float32)
    done = 0  # samples at the front of `pending` that were only context
    for block in blocks(file, length):
        pending = np.concatenate([pending, block.mean(axis=1)])
        usable = (len(pending) - done - context) // step * step
        if usable > 0:
            first, count = done * ratio, usable * ratio
            resampled = _resample_array(pending[: done + usable + context], ratio)
            yield resampled[int(first) : int(first + count)]
            keep = max(0, done + usable - context)
            pending, done = pending[keep:], done + usable - keep
    if len(pending) > done:
        yield _resample_array(pending, ratio)[int(done * ratio) :]


def _ratio(rate, sample_rate):
    # The filter bank has as many taps as both terms multiplied. All usual pairs of
    # rates are exact with terms far below 1000; an odd rate is met within 1e-6.
    return Fraction(sample_rate, rate).limit_denominator(1000)


def _resample_array(wav, ratio):
    import torch

    return _resample(torch.from_numpy(np.ascontiguousarray(wav)), ratio).numpy()


def _resample(wav, ratio):
    from torchaudio.functional import resample

    return resample(wav, ratio.denominator, ratio.numerator, **_FILTER)
