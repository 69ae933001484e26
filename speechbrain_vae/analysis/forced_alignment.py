"""Phones as HMM states: frames to state targets, scores to phone times, and tables."""

import csv
import gzip
import logging
from itertools import pairwise

import numpy as np
import torch
from torchaudio.functional import forced_align

from speechbrain_vae.analysis.phones import ARPABET, plain

logger = logging.getLogger(__name__)

SILENCE = 0
"""Class of silence: what CTC calls its blank may come between any two states."""

PER_PHONE = 3
"""States of a phone, as Kaldi's topology has it: its beginning, middle and end."""

REACH = 0.05
"""How far a phone reaches from its CTC peak at most, in seconds, in a first guess."""

COLUMNS = ("utt", "start_s", "end_s", "phone", "speaker")
_SILENT = {"SIL", "SP", "SPN", "H#", "PAU", "EPI"}


def phones_of(
    entries: dict[str, dict], lexicon: dict[str, list[str]] | None = None
) -> dict[str, list[str]]:
    """Phones that each utterance is made of, without silence.

    Arguments
    ---------
    entries : dict of str to dict
        With ``phones``; or with ``words``, and then a lexicon.
    lexicon : dict of str to list of str, optional
        Phones of each word.

    Returns
    -------
    dict of str to list of str
        Utterances that have none, or a word that is not in the lexicon, are left out
        and counted in the log.

    Example
    -------
    >>> phones_of({"a": {"words": "so no"}}, {"so": ["S", "OW1"], "no": ["N", "OW1"]})
    {'a': ['S', 'OW', 'N', 'OW']}
    """
    found, missing = {}, set()
    for utt, entry in entries.items():
        if lexicon is None:
            found[utt] = (entry.get("phones") or "").split()
            continue
        words = (entry.get("words") or "").split()
        unknown = {word for word in words if word not in lexicon}
        missing |= unknown
        if not unknown:
            found[utt] = [phone for word in words for phone in lexicon[word]]
    # English phones lose their stress; those of other sets stay as they are.
    if {plain(p) for phones in found.values() for p in phones} <= {*ARPABET, *_SILENT}:
        found = {utt: [plain(p) for p in phones] for utt, phones in found.items()}
    found = {
        utt: [p for p in phones if p.upper() not in _SILENT]
        for utt, phones in found.items()
    }
    found = {utt: phones for utt, phones in found.items() if phones}
    if len(found) < len(entries):
        logger.warning(
            "%d of %d utterances have no phones and are left out%s",
            len(entries) - len(found),
            len(entries),
            f"; not in the lexicon: {', '.join(sorted(missing)[:9])}" * bool(missing),
        )
    return found


def read_lexicon(path) -> dict[str, list[str]]:
    """Phones of each word, the first pronunciation of each.

    Arguments
    ---------
    path : str or Path
        A word and its phones a line, as LibriSpeech's and CMU's lexicons.

    Returns
    -------
    dict of str to list of str

    Raises
    ------
    ValueError
        A line has a word alone.

    Example
    -------
    >>> path = getfixture("tmp_path") / "lexicon.txt"
    >>> _ = path.write_text("A\\tAH0\\nA\\tEY1\\nNO\\tN OW1\\n")
    >>> read_lexicon(path)
    {'A': ['AH0'], 'NO': ['N', 'OW1']}
    """
    lexicon: dict[str, list[str]] = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            word, *phones = line.split() or [""]
            if not word or word.startswith(";;;"):
                continue
            if not phones:
                raise ValueError(f"{path}, line {number}: {word} has no phones")
            lexicon.setdefault(word, phones)
    return lexicon


class States:
    """Numbers of the states of phones; 0 is silence.

    Arguments
    ---------
    phones : iterable of str
        All phones there are.
    per_phone : int
        States of a phone: the frames that it has at least.

    Example
    -------
    >>> states = States(["A", "B"], per_phone=2)
    >>> states.sequence(["B", "A", "A"]), states.size
    ([3, 4, 1, 2, 1, 2], 5)
    """

    def __init__(self, phones, per_phone: int = PER_PHONE) -> None:
        self.phones = sorted(set(phones))
        self.per_phone = per_phone
        self.size = 1 + per_phone * len(self.phones)
        self._first = {p: 1 + per_phone * i for i, p in enumerate(self.phones)}

    def sequence(self, phones):
        """States of phones, in their order."""
        unknown = sorted(set(phones) - self._first.keys())
        if unknown:
            raise ValueError(
                f"the train set has no phone {', '.join(unknown)}; choose splits that "
                "share their phones"
            )
        first = [self._first[phone] for phone in phones]
        return [state + part for state in first for part in range(self.per_phone)]

    def targets(
        self, phones: list[str], spans: list[tuple[int, ...]], frames: int
    ) -> torch.Tensor:
        """The state of every frame, the states of a phone alike long.

        Arguments
        ---------
        phones : list of str
        spans : list of tuple of int
            First frame of each phone, and the one after its last.
        frames : int

        Returns
        -------
        torch.Tensor
            Shape [frames].

        Example
        -------
        >>> States(["A", "B"], per_phone=2).targets(["B"], [(1, 5)], 7)
        tensor([0, 3, 3, 4, 4, 0, 0])
        """
        targets = torch.full((frames,), SILENCE)
        for phone, (begin, end) in zip(phones, spans, strict=True):
            part = torch.arange(end - begin) * self.per_phone // max(end - begin, 1)
            targets[begin:end] = (self._first[phone] + part)[: max(frames - begin, 0)]
        return targets

    def align(self, scores: torch.Tensor, phones: list[str]):
        """The frames of each phone on the best path.

        Arguments
        ---------
        scores : torch.Tensor
            Log score of each state, shape [T, size].
        phones : list of str

        Returns
        -------
        list of tuple of int, or None
            First frame of each phone and the one after its last, or None where there
            are fewer frames than states.

        Example
        -------
        >>> scores = torch.eye(5)[[0, 3, 4, 4, 1, 2]].log()
        >>> States(["A", "B"], per_phone=2).align(scores, ["B", "A"])
        [(1, 4), (4, 6)]
        """
        sequence = torch.tensor([self.sequence(phones)])
        # Equal neighbours, which one state a phone allows, need a frame between them.
        repeats = int((sequence[0, 1:] == sequence[0, :-1]).sum())
        if len(scores) < sequence.shape[1] + repeats:
            return None
        # A path must exist, even through states of probability zero.
        scores = scores.detach().float().cpu().clamp(min=-1e4).unsqueeze(0)
        path = forced_align(scores, sequence, blank=SILENCE)[0][0].numpy()
        edges = np.flatnonzero(np.diff(path, prepend=-1, append=-1))
        spans = [(a, b) for a, b in pairwise(edges.tolist()) if path[a] != SILENCE]
        groups = zip(*[iter(spans)] * self.per_phone, strict=True)
        return [(group[0][0], group[-1][1]) for group in groups]


def spread(
    peaks: list[tuple[int, ...]], stride: int, reach: int, frames: int
) -> list[tuple[int, ...]]:
    """Frames of phones of which CTC said little more than where they are.

    A phone reaches half-way to its neighbours, but no further than ``reach``: the rest
    is silence. A first guess, for a model of frames to start from.

    Arguments
    ---------
    peaks : list of tuple of int
        First output frame of each phone and the one after its last.
    stride : int
        Frames of the result for one output frame.
    reach : int
        In frames of the result.
    frames : int
        Their number.

    Returns
    -------
    list of tuple of int

    Example
    -------
    >>> spread([(1, 2), (2, 3), (9, 10)], stride=4, reach=10, frames=40)
    [(0, 8), (8, 20), (28, 40)]
    """
    middles = [stride * (begin + end) / 2 for begin, end in peaks]
    borders = [0, *((a + b) / 2 for a, b in pairwise(middles)), frames]
    return [
        (round(max(low, middle - reach)), min(round(min(high, middle + reach)), frames))
        for middle, low, high in zip(middles, borders, borders[1:], strict=False)
    ]


def write_alignment(path, times, speakers: dict[str, str]):
    """Write phone times as the table that ``read_alignment`` reads.

    Arguments
    ---------
    path : str or Path
        Ends in ``.tsv.gz``.
    times : dict of str to list
        ``[start, end, phone]`` of each utterance, in seconds.
    speakers : dict of str to str

    Example
    -------
    >>> from speechbrain_vae.analysis.alignments import read_alignment
    >>> path = getfixture("tmp_path") / "a.tsv.gz"
    >>> write_alignment(path, {"a": [[0.0, 0.1, "K"]]}, {"a": "ann"})
    >>> read_alignment(path)
    {'a': [[0.0, 0.1, 'K']]}
    """
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        for utt, phones in sorted(times.items()):
            for start, end, phone in phones:
                row = utt, f"{start:.3f}", f"{end:.3f}", phone, speakers.get(utt, "")
                writer.writerow(row)


def differences(times, reference) -> dict:
    """How far the boundaries of two alignments of the same phones are apart.

    Arguments
    ---------
    times, reference : dict of str to list
        ``[start, end, phone]`` of each utterance, in seconds; silences do not count.
        Utterances that are not in both, or whose phones differ, are left out.

    Returns
    -------
    dict
        Over the starts and ends of all phones: ``mean_ms``, ``median_ms``, and
        ``within_20ms`` and ``within_50ms`` in percent; ``utterances`` compared. Empty
        where there are none.

    Example
    -------
    >>> found = differences({"a": [[0.0, 0.1, "K"]]}, {"a": [[0.03, 0.1, "K"]]})
    >>> found["mean_ms"], found["within_20ms"], found["utterances"]
    (15.0, 50.0, 1)
    """
    apart, utterances = [], 0
    for utt in times.keys() & reference.keys():
        ours, theirs = (
            [row for row in alignment[utt] if row[2].upper() not in _SILENT]
            for alignment in (times, reference)
        )
        if [plain(p) for *_, p in ours] != [plain(p) for *_, p in theirs]:
            continue
        utterances += 1
        pairs = zip(ours, theirs, strict=True)
        apart += [abs(a[k] - b[k]) for a, b in pairs for k in (0, 1)]
    if not apart:
        return {}
    ms = 1000 * np.array(apart)
    return {
        "mean_ms": float(ms.mean().round(2)),
        "median_ms": float(np.median(ms).round(2)),
        # Times are decimal fractions.
        "within_20ms": float(100 * (ms < 20.001).mean()),
        "within_50ms": float(100 * (ms < 50.001).mean()),
        "utterances": utterances,
    }
