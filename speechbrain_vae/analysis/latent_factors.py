"""What is known of latent frames, and how much each dimension goes with it."""

from dataclasses import dataclass

import numpy as np
import torch
from speechbrain.processing.vocal_features import compute_autocorr_features

from speechbrain_vae.dataio.audio import load_entry

from .context import NotApplicable
from .phones import SILENCE, phone_group, plain

PITCH_HZ = (75.0, 500.0)
"""Lowest and highest fundamental frequency, from men's to children's voices."""

VOICED = 0.6
"""Autocorrelation, of 1, from which a frame counts as voiced."""

_VOICED_GROUPS = ("nasal", "approximant", "vowel", "diphthong")


@dataclass
class FrameTable:
    """Latent frames and what is known of each.

    Arguments
    ---------
    features : np.ndarray
        Shape [N, D].
    energy : np.ndarray
        Mean of the Mel bands in dB, shape [N].
    f0 : np.ndarray
        In Hz, NaN where the frame is not voiced, shape [N].
    speaker, gender, phone : np.ndarray or None
        Names, shape [N]; None where the corpus does not tell.
    middle : np.ndarray
        Whether the frame is the middle of a phone, shape [N].
    """

    features: np.ndarray
    energy: np.ndarray
    f0: np.ndarray
    speaker: np.ndarray | None
    gender: np.ndarray | None
    phone: np.ndarray | None
    middle: np.ndarray


def describe_frames(context, utterances):
    """The :class:`FrameTable` of some utterances."""
    try:
        timed = context.phone_times
    except NotApplicable:
        timed = {}
    if timed:
        utterances = [utt for utt in utterances if utt in timed]
    columns = {name: [] for name in ("features", "energy", "f0", "phone", "middle")}
    labels = {"spk_id": [], "gender": []}
    for utt in utterances:
        wav = load_entry(context.entries[utt])
        features = context[utt].features
        frames = len(features)
        phones = context.phones(utt) if timed else [None] * frames
        columns["features"].append(features.float().numpy())
        columns["energy"].append(_energy(context, wav, frames))
        columns["f0"].append(_pitch(context, wav, frames, phones))
        columns["phone"].append(np.array(phones))
        columns["middle"].append(_middles(context, timed.get(utt, ()), frames))
        for key, values in labels.items():
            values.append(np.full(frames, context.entries[utt].get(key) or ""))
    table = {name: np.concatenate(parts) for name, parts in columns.items()}
    known = {key: np.concatenate(parts) for key, parts in labels.items()}
    speaker, gender = (v if (v != "").all() else None for v in known.values())
    if not timed:
        table["phone"] = None
    return FrameTable(speaker=speaker, gender=gender, **table)


def _energy(context, wav, frames):
    """Of each latent frame, that of all the frames it stands for."""
    decibel = context.features.raw(wav.unsqueeze(0))[0][0].mean(1)
    parts = decibel.split(context.stride)[:frames]
    return torch.stack([part.mean() for part in parts]).numpy()


def _pitch(context, wav, frames, phones):
    """F0 by autocorrelation, NaN where phones or periodicity say it is unvoiced."""
    rate = context.sample_rate
    lags = [round(rate / hz) for hz in reversed(PITCH_HZ)]
    window, hop = 3 * lags[1], round(rate * context.frame_shift)
    offset = round(rate * context.first_frame)
    before = window // 2 - offset
    padded = torch.nn.functional.pad(wav, (max(before, 0), window + hop * frames))
    pieces = padded[max(-before, 0) :].unfold(0, window, hop)[:frames]
    periodic, lag = compute_autocorr_features(pieces.unsqueeze(0), *lags)
    f0 = (rate / lag[0].float()).numpy()
    voiced = periodic[0].numpy() > VOICED
    # The median over neighbours sees zeros at the ends.
    voiced[:2] = voiced[-2:] = False
    if phones[0] is not None:
        voiced &= np.array([phone_group(p) in _VOICED_GROUPS for p in phones])
    return np.where(voiced, f0, np.nan)


def _middles(context, times, frames):
    middle = np.zeros(frames, dtype=bool)
    for start, end, phone in times:
        place = ((start + end) / 2 - context.first_frame) / context.frame_shift
        if plain(phone) != SILENCE:
            middle[min(max(round(place), 0), frames - 1)] = True
    return middle


def associations(frames: FrameTable) -> dict[str, np.ndarray]:
    """How much each dimension goes with what is known of the frames.

    Arguments
    ---------
    frames : FrameTable

    Returns
    -------
    dict of str to np.ndarray
        Each [D], from 0 to 1: correlation ratios of phone group, phone (speech alone),
        speaker and gender; absolute correlations of F0, F0 within speaker, and energy.
    """
    found = {}
    x = frames.features
    speech = np.ones(len(x), dtype=bool)
    if frames.phone is not None:
        groups = np.array([phone_group(p) for p in frames.phone])
        speech = groups != "silence"
        found["phone group"] = correlation_ratio(x, groups)
        found["phone, without silence"] = correlation_ratio(
            x[speech], frames.phone[speech]
        )
    for name, labels in (("speaker", frames.speaker), ("gender", frames.gender)):
        if labels is not None and len(set(labels)) > 1:
            found[name] = correlation_ratio(x[speech], labels[speech])
    voiced = np.isfinite(frames.f0)
    if voiced.sum() > 2:
        pitch = np.log2(frames.f0[voiced])
        found["F0, octaves"] = np.abs(correlation(x[voiced], pitch))
        if frames.speaker is not None:
            _, number = np.unique(frames.speaker[voiced], return_inverse=True)
            mean = np.bincount(number, pitch) / np.bincount(number)
            found["F0 within speaker"] = np.abs(
                correlation(x[voiced], pitch - mean[number])
            )
    found["energy, dB"] = np.abs(correlation(x, frames.energy))
    return found


def correlation_ratio(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Square root of the share of variance that groups explain (Fisher's eta).

    Arguments
    ---------
    x : np.ndarray
        Shape [N, D].
    labels : np.ndarray
        Group of each row, shape [N].

    Returns
    -------
    np.ndarray
        Shape [D], 0 to 1; 0 where nothing varies.

    Example
    -------
    >>> x = np.array([[1.0, 1.0], [1.0, 2.0], [3.0, 1.0], [3.0, 2.0]])
    >>> correlation_ratio(x, np.array(["a", "a", "b", "b"]))
    array([1., 0.])
    """
    _, number = np.unique(labels, return_inverse=True)
    x = x - x.mean(0, dtype=np.float64)
    count = np.bincount(number)
    sums = np.zeros((len(count), x.shape[1]))
    np.add.at(sums, number, x)
    between = (sums**2 / count[:, None]).sum(0)
    total = (x**2).sum(0)
    share = np.divide(between, total, out=np.zeros_like(total), where=total > 0)
    return np.sqrt(np.clip(share, 0, 1))


def correlation(x, y):
    """Correlation of each column of x [N, D] with y [N]; 0 where nothing varies."""
    x = x - x.mean(0, dtype=np.float64)
    y = y - y.mean(dtype=np.float64)
    scale = np.sqrt((x**2).sum(0) * (y**2).sum())
    found = np.divide(y @ x, scale, out=np.zeros_like(scale), where=scale > 0)
    return np.clip(found, -1, 1)
