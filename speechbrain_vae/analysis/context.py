"""What every section of an analysis looks at: a model, utterances and their phones."""

import html
import logging
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from speechbrain_vae.dataio.audio import load_entry
from speechbrain_vae.dataio.manifests import read_manifest
from speechbrain_vae.dataio.prepare import prepare
from speechbrain_vae.export import read_export

from .alignments import read_times
from .phones import SILENCE, plain

logger = logging.getLogger(__name__)

SLACK = 0.5
"""Seconds by which an alignment may outlast a recording: aligners and corpora pad."""


class NotApplicable(ValueError):
    """A section has nothing to say of this export or corpus; the message says why."""


@dataclass
class Encoded:
    """What the model makes of one utterance, on the CPU.

    Arguments
    ---------
    log_mel : torch.Tensor
        Normalised log-Mel frames, the input, shape [T', F].
    features : torch.Tensor
        Shape [T, D].
    before : torch.Tensor
        Of a discrete model, the frames as they were before they were quantised; of
        others the features. Shape [T, D].
    indices : torch.Tensor or None
        Codes of a discrete model, long, shape [T, G].
    """

    log_mel: torch.Tensor
    features: torch.Tensor
    before: torch.Tensor
    indices: torch.Tensor | None


class AnalysisContext:
    """An export, the utterances it is looked at with, and what it makes of them.

    Outputs are computed when they are first asked for, one utterance at a time and so
    without padding, and kept.

    Arguments
    ---------
    source : str or Path
        An export folder, or the ID of a repository on the Hugging Face Hub.
    entries : dict of str to dict
        Manifest entries by utterance: ``wav``, and where the corpus has them
        ``phone_times``, ``spk_id``, ``gender``, ``words``.
    name : str, optional
        What figures call the model; the name of its bottleneck by default.
    others : list of AnalysisContext
        Exports to compare with, on the same entries.

    Example
    -------
    >>> import numpy, soundfile
    >>> wav = getfixture("tmp_path") / "a.wav"
    >>> soundfile.write(wav, numpy.random.default_rng(0).normal(size=16000) / 9, 16000)
    >>> entry = {"wav": str(wav), "phone_times": [[0.1, 0.2, "AE1"]]}
    >>> context = AnalysisContext(getfixture("tiny_export"), {"a": entry})
    >>> context["a"].features.shape, context["a"].indices, context.discrete
    (torch.Size([51, 8]), None, False)
    >>> context.times(3)
    tensor([0.0050, 0.0250, 0.0450])
    >>> context.phones("a")[4:11]
    ['SIL', 'AE', 'AE', 'AE', 'AE', 'AE', 'SIL']
    """

    def __init__(
        self,
        source: str | Path,
        entries: dict[str, dict],
        name: str | None = None,
        others: Iterable["AnalysisContext"] = (),
    ) -> None:
        if not entries:
            raise ValueError("there are no utterances to look at")
        export = read_export(source)
        self.source = str(source)
        self.entries = entries
        self.others = list(others)
        self.features = export.features
        self.autoencoder = export.autoencoder
        self.sample_rate = export.hparams["sample_rate"]
        self.feature_size = export.hparams["feature_size"]
        self.hop = export.features.frame_shift
        self.stride = export.autoencoder.stride
        self.frame_shift = self.hop * self.stride
        self.first_frame = self.hop * (self.stride - 1) / 2
        self.quantiser = getattr(self.autoencoder.bottleneck, "quantiser", None)
        part = self.quantiser or self.autoencoder.bottleneck
        self.name = name or type(part).__name__
        self._encoded: dict[str, Encoded] = {}

    @property
    def discrete(self):
        """Whether the model gives codes."""
        return self.quantiser is not None

    @property
    def codebook(self):
        """Codewords in the order of their indices, shape [K, D].

        Raises
        ------
        NotApplicable
            The model is continuous, or gives several indices a frame.
        """
        if not self.discrete:
            raise NotApplicable(f"{self.name} is continuous: it has no codes")
        if self.quantiser.groups > 1:
            raise NotApplicable(
                f"{self.name} gives {self.quantiser.groups} indices a frame: its codes "
                "are not one list"
            )
        size = self.quantiser.codebook_size
        # A curve that was still growing has fewer corners than places for them.
        size = int(getattr(getattr(self.quantiser, "codebook", None), "stage", size))
        with torch.no_grad():
            return self.quantiser.lookup(torch.arange(size).unsqueeze(1)).float()

    def coded(self) -> tuple[list["AnalysisContext"], str]:
        """This model and those beside it that have one codebook.

        Returns
        -------
        models : list of AnalysisContext
        note : str
            A paragraph that names the others and says why they are left out.

        Raises
        ------
        NotApplicable
            This model has none.
        """
        self.codebook  # noqa: B018 (raises)
        models, left_out = [self], []
        for other in self.others:
            try:
                other.codebook  # noqa: B018 (raises)
                models.append(other)
            except NotApplicable as error:
                left_out.append(html.escape(str(error)))
        note = f"\n\n**Left out**: {'; '.join(left_out)}." if left_out else ""
        return models, note

    @property
    def speakers(self):
        """Speaker of each utterance that has one."""
        return self._labels("spk_id")

    @property
    def phone_times(self):
        """``[start, end, phone]`` of each utterance that has them.

        Raises
        ------
        NotApplicable
            No utterance has phone times.
        """
        times = self._labels("phone_times")
        if not times:
            raise NotApplicable(
                "no utterance has phone times: give an alignment (--alignment FILE)"
            )
        return times

    def _labels(self, key):
        found = {utt: entry.get(key) for utt, entry in self.entries.items()}
        return {utt: label for utt, label in found.items() if label}

    def times(self, frames):
        """Centres of latent frames 0 to ``frames`` - 1 in seconds, shape [frames]."""
        return self.first_frame + self.frame_shift * torch.arange(frames)

    def phones(self, utt: str) -> list[str]:
        """The phone at the centre of each latent frame of an utterance.

        Arguments
        ---------
        utt : str
            An utterance with phone times.

        Returns
        -------
        list of str
            Phones without stress, ``SIL`` where there is none.
        """
        frames = len(self[utt].features)
        found = [SILENCE] * frames
        for start, end, phone in self.phone_times[utt]:
            first = self._position(start)
            for frame in range(max(first, 0), min(self._position(end), frames)):
                found[frame] = plain(phone)
        return found

    def _position(self, time):
        """The first latent frame whose centre does not come before a time."""
        # Times are decimal fractions: a centre at the border is inside.
        return -int(-((time - self.first_frame) / self.frame_shift - 1e-6) // 1)

    @torch.no_grad()
    def __getitem__(self, utt):
        """The :class:`Encoded` output for an utterance."""
        if utt not in self._encoded:
            self._encoded[utt] = self._encode(load_entry(self.entries[utt]))
        return self._encoded[utt]

    def _encode(self, wav):
        feats, lengths = self.features(wav.unsqueeze(0))
        hidden = self.autoencoder.encoder(feats, lengths)
        code_lengths = self.autoencoder.encoder.output_lengths(feats, lengths)
        code = self.autoencoder.bottleneck(hidden, code_lengths)
        before = code.features
        if self.discrete and hasattr(self.autoencoder.bottleneck, "project"):
            before = self.autoencoder.bottleneck.project(hidden, code_lengths)
        # An utterance ends at its last sample that is not zero.
        frames = round(float(lengths[0]) * feats.shape[1])
        latent = round(float(code_lengths[0]) * code.features.shape[1])
        return Encoded(
            log_mel=feats[0, :frames],
            features=code.features[0, :latent],
            before=before[0, :latent],
            indices=None if code.indices is None else code.indices[0, :latent],
        )


def open_entries(
    corpus: str,
    data_folder: str | Path,
    folder: str | Path,
    alignment: str | Path | None = None,
    split: str = "test",
    limit: int | None = None,
    sample_rate: int = 16000,
    seed: int = 1234,
) -> dict[str, dict]:
    """Entries of one split of a corpus, with phone times.

    Arguments
    ---------
    corpus : str
        One of :data:`speechbrain_vae.dataio.prepare.CORPORA`.
    data_folder : str or Path
        Its folder.
    folder : str or Path
        Where the manifests go.
    alignment : str or Path, optional
        Phone times in place of those of the corpus, see
        :func:`speechbrain_vae.analysis.alignments.read_alignment`, and word times if it
        has them; utterances without phone times are left out.
    split : str
        "train", "valid" or "test".
    limit : int, optional
        At most so many utterances, of all speakers alike.
    sample_rate : int
        Of the model, in Hz.
    seed : int
        Of the training, where it chose the validation speakers.

    Returns
    -------
    dict of str to dict

    Raises
    ------
    ValueError
        The alignment is of another corpus, or lasts longer than the recordings.
    """
    prepare(corpus, data_folder, folder, sample_rate=sample_rate, seed=seed)
    entries = read_manifest(Path(folder) / f"{split}.json")
    if alignment is not None:
        entries = _aligned(entries, alignment, split)
    return entries if limit is None else pick(entries, limit)


def _aligned(entries, alignment, split):
    """The entries that an alignment has, with its times."""
    phones, words = read_times(alignment)
    found = {}
    for utt, entry in entries.items():
        if not phones.get(utt):
            continue
        last = max(end for _, end, _ in phones[utt])
        if last > entry["duration"] + SLACK:
            raise ValueError(
                f"{alignment} has a phone of {utt} until {last:g} s, but the recording "
                f"lasts {entry['duration']:g} s: give times of this corpus, in seconds"
            )
        found[utt] = {**entry, "phone_times": phones[utt]}
        if utt in words:
            found[utt]["word_times"] = words[utt]
    if not found:
        raise ValueError(
            f"{alignment} has phone times for none of the utterances of the {split} "
            f"set; its first utterance is {next(iter(phones))}, theirs is "
            f"{next(iter(entries), 'none')}"
        )
    if len(found) < len(entries):
        logger.warning(
            "%s has no phone times for %d of the %d utterances of the %s set, which "
            "are left out",
            alignment,
            len(entries) - len(found),
            len(entries),
            split,
        )
    return found


def pick(entries: dict[str, dict], number: int, seed: int = 1234) -> dict[str, dict]:
    """A choice of utterances, as many of each speaker as can be.

    Arguments
    ---------
    entries : dict of str to dict
        Manifest entries.
    number : int
        How many to choose at most, not negative.
    seed : int
        Seed of the choice.

    Returns
    -------
    dict of str to dict

    Example
    -------
    >>> entries = {utt: {"spk_id": utt[0]} for utt in ("a1", "a2", "a3", "b1")}
    >>> sorted(utt[0] for utt in pick(entries, 2))
    ['a', 'b']
    """
    if number < 0:
        raise ValueError(f"a number of utterances cannot be negative; got {number}")
    own = defaultdict(list)
    for utt in sorted(entries):
        own[entries[utt].get("spk_id")].append(utt)
    rng = random.Random(seed)
    rank: dict[str, int] = {}
    for utts in own.values():
        rank.update(zip(rng.sample(utts, len(utts)), range(len(utts)), strict=True))
    chosen = set(sorted(rank, key=lambda utt: (rank[utt], utt))[:number])
    return {utt: entry for utt, entry in entries.items() if utt in chosen}
