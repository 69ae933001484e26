"""Search among utterances by nothing but their frames.

A query is the stretch of an utterance in which a word is said. Utterances are ranked by
subsequence dynamic time warping of its frames. After Hazen, Shen and White,
"Query-by-example spoken term detection using phonetic posteriorgram templates", ASRU
2009.
"""

import math
import random
from collections import defaultdict
from typing import NamedTuple

import torch

from .dtw import angular_distances, subsequence_dtw, unit_frames

NORMALISATIONS = ("none", "utterance", "whitened", "speaker")

SHRINKAGE = 0.3
"""Variance that whitening adds to every direction, of the mean over directions."""


class SpokenWord(NamedTuple):
    """A word as it was said once.

    Arguments
    ---------
    utt : str
        Utterance.
    start, end : float
        In seconds.
    word : str
    """

    utt: str
    start: float
    end: float
    word: str


class Hit(NamedTuple):
    """A stretch of an utterance that is like a query.

    Arguments
    ---------
    utt : str
        Utterance.
    start, end : float
        In seconds.
    distance : float
        Mean angular distance of its frames to those of the query, 0 to 1.
    """

    utt: str
    start: float
    end: float
    distance: float


def spoken_words(
    entries: dict[str, dict], least: int = 5, most: int | None = None, seed: int = 0
) -> list[SpokenWord]:
    """Words that were said often enough to be looked for.

    Arguments
    ---------
    entries : dict of str to dict
        Manifest entries with ``word_times``; those without are left out.
    least : int
        How often a word must have been said.
    most : int, optional
        How many of one word are taken, drawn by the seed.
    seed : int
        Of the choice.

    Returns
    -------
    list of SpokenWord

    Raises
    ------
    ValueError
        There is no such word.

    Example
    -------
    >>> entries = {"a": {"word_times": [[0.0, 0.2, "SO"], [0.5, 0.7, "SO"]]}}
    >>> len(spoken_words(entries, least=2)), len(spoken_words(entries, 2, most=1))
    (2, 1)
    """
    said = defaultdict(list)
    for utt in sorted(entries):
        for start, end, word in entries[utt].get("word_times") or ():
            said[word].append(SpokenWord(utt, start, end, word))
    rng = random.Random(seed)
    found = []
    for word in sorted(said):
        if len(said[word]) < least:
            continue
        if most is not None and len(said[word]) > most:
            said[word] = sorted(rng.sample(said[word], most))
        found += said[word]
    if not found:
        raise ValueError(
            f"no word was said {least} times: retrieval needs entries with word_times, "
            "as those of speechocean762, timit and synthetic, or TextGrids with words"
        )
    return found


class WordSearch:
    """Utterances that are searched for stretches of speech.

    Arguments
    ---------
    features : mapping of str to torch.Tensor
        Frames of each utterance, shape [T, D].
    frame_shift : float
        From one frame to the next, in seconds.
    first_frame : float
        Time of the centre of the first frame, in seconds.
    normalisation : str
        "none"; "utterance": zero mean and unit variance of each dimension over each
        utterance; "whitened": zero mean over each utterance, then decorrelated and
        brought to like variances over all utterances that are searched; "speaker": the
        same over the utterances of each speaker, whose voices so become alike (Sun,
        Feng and Saenko, "Return of frustratingly easy domain adaptation", AAAI 2016).
    shrinkage : float
        Variance that whitening adds to every direction, of the mean over directions.
    speakers : mapping of str to str, optional
        Who says each utterance, for "speaker".

    Raises
    ------
    ValueError
        An argument is out of range, or somebody's speaker is not known.

    Example
    -------
    >>> frames = torch.eye(3)
    >>> features = {"a": frames, "b": frames[[2, 0, 1]], "c": frames[[2, 2, 2]]}
    >>> search = WordSearch(features, frame_shift=0.1)
    >>> for hit in search.find("a", 0.0, 0.1, number=2):
    ...     print(hit.utt, f"{hit.start:.2f} to {hit.end:.2f} s: {hit.distance:.2f}")
    b 0.05 to 0.25 s: 0.00
    c -0.05 to 0.05 s: 0.50
    """

    def __init__(
        self,
        features,
        frame_shift: float,
        first_frame: float = 0.0,
        normalisation: str = "none",
        shrinkage: float = SHRINKAGE,
        speakers=None,
    ) -> None:
        if normalisation not in NORMALISATIONS:
            raise ValueError(
                f"normalisation must be one of {', '.join(NORMALISATIONS)}; got "
                f"{normalisation!r}"
            )
        if frame_shift <= 0:
            raise ValueError(f"frame_shift must be positive, in s; got {frame_shift}")
        if shrinkage < 0:
            raise ValueError(f"shrinkage must not be negative; got {shrinkage}")
        self.frame_shift = frame_shift
        self.first_frame = first_frame
        self.utterances = sorted(features)
        frames = [features[utt].detach().float().cpu() for utt in self.utterances]
        counts = torch.tensor([len(f) for f in frames])
        if not len(counts) or counts.min() < 1:
            raise ValueError("every utterance must have at least one frame")
        self.starts = counts.cumsum(0) - counts
        self.counts = counts
        if normalisation == "utterance":
            frames = [_standardised(f) for f in frames]
        elif normalisation == "whitened":
            frames = _whitened(frames, [""] * len(frames), shrinkage)
        elif normalisation == "speaker":
            unknown = [u for u in self.utterances if u not in (speakers or {})]
            if unknown:
                raise ValueError(
                    f"normalisation 'speaker' has to know who says {unknown[0]!r}: "
                    "give speakers, or use 'whitened'"
                )
            voices = [speakers[utt] for utt in self.utterances]
            frames = _whitened(frames, voices, shrinkage)
        self.frames = unit_frames(torch.cat(frames))
        self._known: dict[tuple, torch.Tensor] = {}
        self._number = {utt: i for i, utt in enumerate(self.utterances)}

    def distances(self, utt: str, start: float, end: float) -> torch.Tensor:
        """How far a stretch of speech is from the best stretch of every utterance.

        Arguments
        ---------
        utt : str
            The utterance with the query.
        start, end : float
            The query, in seconds.

        Returns
        -------
        torch.Tensor
            In the order of ``utterances``: mean angular distances, 0 to 1, shape [U].
        """
        key = utt, start, end
        # Kept: scores among all speakers and among others take the same ones.
        if key not in self._known:
            cost = self._cost(self._query(*key))
            self._known[key] = subsequence_dtw(cost, self.starts)[0]
        return self._known[key]

    def find(
        self, utt: str, start: float, end: float, number: int = 10, without=()
    ) -> list[Hit]:
        """The stretches most like a query, one an utterance, its own left out.

        Arguments
        ---------
        utt : str
            The utterance with the query.
        start, end : float
            The query, in seconds.
        number : int
            How many to find.
        without : container of str
            Other utterances to leave out.

        Returns
        -------
        list of Hit
            The nearest first.
        """
        query = self._query(utt, start, end)
        means, ends = subsequence_dtw(self._cost(query), self.starts)
        order = torch.argsort(means, stable=True).tolist()
        hits: list[Hit] = []
        for index in order:
            name = self.utterances[index]
            if name == utt or name in without or len(hits) == number:
                continue
            begin, last = int(self.starts[index]), int(ends[index])
            # The same path from its other end.
            cost = self._cost(query, slice(begin, last + 1)).flip(0, 1)
            length = int(subsequence_dtw(cost, torch.zeros(1, dtype=torch.long))[1])
            edge = self.first_frame - self.frame_shift / 2
            hits.append(
                Hit(
                    name,
                    edge + self.frame_shift * (last - begin - length),
                    edge + self.frame_shift * (last - begin + 1),
                    float(means[index]),
                )
            )
        return hits

    def _query(self, utt, start, end):
        """Places of the frames whose centres lie in a stretch, at least one."""
        if utt not in self._number:
            raise ValueError(f"utterance {utt!r} is not among those that are searched")
        begin = int(self.starts[self._number[utt]])
        count = int(self.counts[self._number[utt]])
        first = (start - self.first_frame) / self.frame_shift
        last = (end - self.first_frame) / self.frame_shift
        if first > count:
            raise ValueError(
                f"utterance {utt!r} has {count} frames of {self.frame_shift} s, but a "
                f"word at {start:.2f} s: is frame_shift right?"
            )
        # Times are decimal fractions: a centre at the border is inside.
        low, high = math.ceil(first - 1e-6), math.floor(last + 1e-6)
        if high < low:
            low = high = round((first + last) / 2)
        low = min(max(low, 0), count - 1)
        high = min(max(high, low), count - 1)
        return slice(begin + low, begin + high + 1)

    def _cost(self, query, of=slice(None)):
        pair = self.frames[query].unsqueeze(0), self.frames[of].unsqueeze(0)
        return angular_distances(*pair)[0]


def _standardised(frames):
    std = frames.std(0, correction=0)
    return (frames - frames.mean(0)) / torch.where(std > 1e-5, std, 1.0)


def _whitened(utterances, groups, shrinkage):
    """Frames of like variance in all directions, over the utterances of each group."""
    utterances = [frames - frames.mean(0) for frames in utterances]
    members = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    whitened = list(utterances)
    for places in members.values():
        frames = torch.cat([utterances[place] for place in places])
        values, vectors = torch.linalg.eigh((frames.T @ frames / len(frames)).double())
        # Directions of little variance are mostly noise: they are not blown up fully.
        floor = shrinkage * values.mean() + 1e-12
        scale = (values.clamp(min=0) + floor).rsqrt()
        # The symmetric root turns no direction, so that those of groups stay together.
        root = (vectors * scale @ vectors.T).float()
        for place in places:
            whitened[place] = utterances[place] @ root
    return whitened


def sounds_like(features) -> tuple[list[str], torch.Tensor]:
    """How alike whole utterances are: the angle between mean and deviation of frames.

    Arguments
    ---------
    features : mapping of str to torch.Tensor
        Frames of each utterance, shape [T, D].

    Returns
    -------
    utterances : list of str
    similarity : torch.Tensor
        Cosines of the pooled, standardised features, shape [U, U].

    Example
    -------
    >>> features = {utt: torch.randn(50, 4) + (utt > "b") for utt in "abcd"}
    >>> utterances, similarity = sounds_like(features)
    >>> utterances, similarity.shape
    (['a', 'b', 'c', 'd'], torch.Size([4, 4]))
    """
    utterances = sorted(features)
    pooled = torch.stack(
        [
            torch.cat([f.mean(0), f.std(0, correction=0)])
            for f in (features[utt].float() for utt in utterances)
        ]
    )
    vectors = torch.nn.functional.normalize(_standardised(pooled), dim=1)
    return utterances, vectors @ vectors.T
