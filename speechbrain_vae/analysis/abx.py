"""ABX phone discrimination within and across speakers.

X and A are the same phone, B is another: an error is when X lies nearer to B. Schatz et
al., "Evaluating speech features with the minimal-pair ABX task", Interspeech 2013, in
the form of Libri-light (Kahn et al., ICASSP 2020): the angle between frames, DTW, means
over contexts, then speakers, then ordered pairs of phones.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch

from .dtw import TIE, pair_distances
from .phones import manner

CONTEXTS = ("triphone", "manner", "none")
_BLOCK_TRIPLES = 2**21


@dataclass
class _Cells:
    """Cells of triples: every X with every A and every B of three groups of items.

    Arguments
    ---------
    groups : np.ndarray
        Groups of X, A and B, shape [C, 3].
    labels : np.ndarray
        Numbers of A's phone, B's phone and the speaker of A and B, shape [C, 3].
    """

    groups: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, rows):
        rows = np.asarray(rows, dtype=np.int64).reshape(-1, 6)
        return cls(rows[:, :3], rows[:, 3:])


def abx_error(
    features,
    items,
    frame_shift: float,
    first_frame: float = 0.0,
    context: str = "manner",
    max_items_per_cell: int = 10,
    max_x_speakers: int = 5,
    seed: int = 0,
) -> dict:
    """ABX errors of a representation, in percent; chance is 50.

    Which triples are compared depends on the items and the seed alone, so that
    representations are measured on the same ones.

    Arguments
    ---------
    features : mapping of str to torch.Tensor
        Frames of each utterance, shape [T, D].
    items : list of Item
        What to compare, see :mod:`speechbrain_vae.analysis.items`.
    frame_shift : float
        From one frame to the next, in seconds.
    first_frame : float
        Time of the centre of the first frame, in seconds. An item has the frames whose
        centres it covers; one too short for that has the frame nearest to its middle.
    context : str
        What A, B and X have in common: ``"triphone"``, the same phones before and
        after; ``"manner"``, phones of the same manner class, for corpora with few
        equal triphones; ``"none"``.
    max_items_per_cell : int
        Items of one phone in one context by one speaker, at most; drawn by the seed.
    max_x_speakers : int
        Across speakers: other speakers that X comes from, at most, for each A and B.
    seed : int
        Seed of both choices.

    Returns
    -------
    dict
        ``within``: error when X has the speaker of A and B; ``across``: when X has
        another; both in percent, NaN where no triple can be made. ``within_se`` and
        ``across_se``: their standard errors, by leaving out one speaker at a time (the
        jackknife), NaN with too few speakers. ``triples``: number of triples compared.

    Raises
    ------
    ValueError
        No triple can be made at all, an utterance has no features, or they end before
        the items do.

    Example
    -------
    >>> from speechbrain_vae.analysis.items import items_from_alignment
    >>> times = [[i / 10, i / 10 + 0.1, phone] for i, phone in enumerate("FSFS")]
    >>> speakers = {"a": "Ann", "b": "Bob", "c": "Cid"}
    >>> items = items_from_alignment({utt: times for utt in speakers}, speakers)
    >>> frames = torch.eye(2).repeat_interleave(10, 0).repeat(2, 1)
    >>> features = {utt: frames for utt in speakers}
    >>> abx_error(features, items, frame_shift=0.01, context="none")
    {'within': 0.0, 'within_se': 0.0, 'across': 0.0, 'across_se': 0.0, 'triples': 120}
    """
    for name, value in (
        ("max_items_per_cell", max_items_per_cell),
        ("max_x_speakers", max_x_speakers),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")
    if frame_shift <= 0:
        raise ValueError(f"frame_shift must be positive, in seconds; got {frame_shift}")
    # Sorted, so that the order in which items are given does not change the choice.
    items = sorted(items)
    rng = np.random.default_rng(seed)
    groups, members = _groups(items, context, max_items_per_cell, rng)
    within = _within_cells(groups, members)
    across = _across_cells(groups, max_x_speakers, rng)
    if len(within.groups) + len(across.groups) == 0:
        raise ValueError(
            f"none of {len(items)} items form a triple with context={context!r}: "
            'choose a wider context ("manner", "none") or give more items'
        )
    frames, starts, counts = _slices(features, items, members, frame_shift, first_frame)
    distances = _Distances(frames, starts, counts, members, (within, across))
    owners = _owners(groups)
    result, triples = {}, 0
    for kind, cells in (("within", within), ("across", across)):
        errors, number = _errors(cells, distances)
        levels = _levels(cells.labels)
        triples += number
        result[kind] = 100 * _mean(errors, levels)
        result[f"{kind}_se"] = 100 * _jackknife(errors, levels, owners[cells.groups])
    return {**result, "triples": triples}


def _groups(items, context, limit, rng):
    """Items that share context, speaker and phone.

    Returns
    -------
    groups : dict
        Number of the group of each context, speaker and phone, the last two numbered.
    members : list of np.ndarray
        Indices into ``items`` of each group, at most ``limit``.
    """
    if context not in CONTEXTS:
        raise ValueError(
            f"context must be one of {', '.join(CONTEXTS)}; got {context!r}"
        )
    named = {item.previous for item in items} | {item.following for item in items}
    kinds = {name: manner(name) if context == "manner" else name for name in named}
    phones = {phone: i for i, phone in enumerate(sorted({i.phone for i in items}))}
    speakers = {name: i for i, name in enumerate(sorted({i.speaker for i in items}))}
    lists = defaultdict(list)
    for index, item in enumerate(items):
        beside = (kinds[item.previous], kinds[item.following])
        key = () if context == "none" else beside
        lists[key, speakers[item.speaker], phones[item.phone]].append(index)
    groups = defaultdict(lambda: defaultdict(dict))
    members = []
    for (key, speaker, phone), indices in sorted(lists.items()):
        if len(indices) > limit:
            indices = np.sort(rng.choice(indices, limit, replace=False))
        groups[key][speaker][phone] = len(members)
        members.append(np.asarray(indices))
    return groups, members


def _within_cells(groups, members):
    """X and A are two items of one group, B is of another by the same speaker."""
    return _Cells.of(
        [
            (group, group, other, a, b, speaker)
            for by_speaker in groups.values()
            for speaker, by_phone in by_speaker.items()
            for a, group in by_phone.items()
            if len(members[group]) > 1
            for b, other in by_phone.items()
            if a != b
        ]
    )


def _across_cells(groups, limit, rng):
    """A and B are of one speaker, X of another, ``limit`` of these at most."""
    rows = []
    for by_speaker in groups.values():
        speakers_of = defaultdict(list)
        for speaker, by_phone in by_speaker.items():
            for phone in by_phone:
                speakers_of[phone].append(speaker)
        for speaker, by_phone in by_speaker.items():
            for a, group in by_phone.items():
                others = [other for other in speakers_of[a] if other != speaker]
                for b, other_group in by_phone.items():
                    if a == b:
                        continue
                    chosen = others
                    if len(others) > limit:
                        chosen = rng.choice(others, limit, replace=False)
                    rows.extend(
                        (by_speaker[x][a], group, other_group, a, b, speaker)
                        for x in chosen
                    )
    return _Cells.of(rows)


def _slices(features, items, members, frame_shift, first_frame):
    """Frames of the items of every group, one item after the other.

    Returns
    -------
    frames : torch.Tensor
        Shape [N, D].
    starts, counts : torch.Tensor
        First frame and number of frames of each item, groups one after the other.
    """
    slices, finite = [], set()
    for index in np.concatenate(members):
        item = items[index]
        if item.utt not in features:
            raise ValueError(f"utterance {item.utt!r} of the items has no features")
        frames = features[item.utt]
        if item.utt not in finite:
            if not torch.isfinite(frames).all():
                raise ValueError(f"features of utterance {item.utt!r} are not finite")
            finite.add(item.utt)
        # Times are decimal fractions: a centre at the border is inside.
        begin = (item.start - first_frame) / frame_shift
        end = (item.end - first_frame) / frame_shift
        if begin > len(frames):
            raise ValueError(
                f"utterance {item.utt!r} has {len(frames)} frames of {frame_shift} s, "
                f"but an item at {item.start:.2f} s: is frame_shift right?"
            )
        first, last = int(np.ceil(begin - 1e-6)), int(np.floor(end + 1e-6))
        if last < first:
            first = last = round((begin + end) / 2)
        first = min(max(first, 0), len(frames) - 1)
        last = min(max(last, first), len(frames) - 1)
        slices.append(frames[first : last + 1])
    counts = torch.tensor([len(part) for part in slices])
    table = torch.cat(slices).detach().float().cpu()
    return table, counts.cumsum(0) - counts, counts


class _Distances:
    """Distances of all items of a group to all of another, each computed once.

    Arguments
    ---------
    frames, starts, counts : torch.Tensor
        See :func:`_slices`.
    members : list of np.ndarray
        The items of each group.
    tables : tuple of _Cells
        The cells whose distances will be asked for.
    """

    def __init__(self, frames, starts, counts, members, tables):
        self.sizes = np.array([len(group) for group in members])
        first = np.cumsum(self.sizes) - self.sizes
        columns = [cells.groups[:, [0, other]] for cells in tables for other in (1, 2)]
        self.keys = np.unique(self._key(np.concatenate(columns)))
        one, two = np.divmod(self.keys, len(members))
        areas = self.sizes[one] * self.sizes[two]
        self.offsets = np.cumsum(areas) - areas
        cell = np.arange(areas.sum()) - np.repeat(self.offsets, areas)
        row, column = np.divmod(cell, np.repeat(self.sizes[two], areas))
        row += np.repeat(first[one], areas)
        column += np.repeat(first[two], areas)
        pairs = torch.from_numpy(np.stack([row, column], axis=1))
        self.values = pair_distances(frames, starts, counts, pairs).cpu().numpy()

    def _key(self, pairs):
        """One number for two groups, in either order."""
        return pairs.min(axis=1) * len(self.sizes) + pairs.max(axis=1)

    def matrices(self, rows, columns):
        """Distances from the items of each group of ``rows`` [C] to those of the group
        of ``columns`` [C]; groups of ``rows`` have N items, those of ``columns`` M.

        Returns
        -------
        np.ndarray
            Shape [C, N, M].
        """
        n, m = self.sizes[rows[0]], self.sizes[columns[0]]
        pairs = np.stack([rows, columns], axis=1)
        offsets = self.offsets[np.searchsorted(self.keys, self._key(pairs))]
        turned = rows > columns
        i, j = np.arange(n)[:, None], np.arange(m)
        straight = (i * m + j)[None]
        across = (j * n + i)[None]
        cell = np.where(turned[:, None, None], across, straight)
        return self.values[offsets[:, None, None] + cell]


def _owners(groups):
    """Number of the speaker of each group."""
    found = {
        group: speaker
        for by_speaker in groups.values()
        for speaker, by_phone in by_speaker.items()
        for group in by_phone.values()
    }
    return np.array([found[group] for group in range(len(found))])


def _errors(cells, distances):
    """Error of each cell; number of triples."""
    errors, number = np.empty(len(cells.groups)), 0
    if not len(errors):
        return errors, number
    sizes = distances.sizes[cells.groups]
    order = np.lexsort(sizes.T)
    ends = np.flatnonzero(np.any(np.diff(sizes[order], axis=0), axis=1)) + 1
    for same in np.split(order, ends):
        x, a, b = cells.groups[same].T
        nx, na, nb = sizes[same[0]]
        itself = x[0] == a[0]
        number += len(same) * nx * (na - itself) * nb
        block = max(1, _BLOCK_TRIPLES // (nx * na * nb))
        for begin in range(0, len(same), block):
            part = slice(begin, begin + block)
            to_a = distances.matrices(x[part], a[part])
            to_b = distances.matrices(x[part], b[part])
            nearer = to_a[..., None] - to_b[:, :, None]
            wrong = 0.5 + 0.5 * np.sign(np.where(np.abs(nearer) > TIE, nearer, 0))
            wrong = wrong.mean(axis=3, dtype=np.float64)
            if itself:
                wrong[:, np.arange(nx), np.arange(nx)] = 0
            errors[same[part]] = wrong.sum(axis=(1, 2)) / (nx * (na - itself))
    return errors, int(number)


def _levels(labels):
    """Where each cell, and then each mean of cells, belongs in the next mean."""
    levels = []
    while labels.shape[1] > 1:
        # Cells of one A, B and speaker first, then the speakers of one A and B.
        labels, of = np.unique(labels, axis=0, return_inverse=True)
        levels.append(of.ravel())
        labels = labels[:, :-1]
    return levels


def _mean(errors, levels, kept=None):
    """Mean error over contexts, then speakers, then pairs of phones, of cells kept."""
    there = np.ones(len(errors)) if kept is None else kept.astype(float)
    for of in levels:
        count = np.bincount(of, there)
        errors = np.bincount(of, errors * there) / np.maximum(count, 1)
        there = np.minimum(count, 1)
    return float((errors * there).sum() / there.sum()) if there.any() else float("nan")


def _jackknife(errors, levels, speakers):
    """Standard error of the mean, from leaving out each of the speakers of X, A and B
    [C, 3] in turn."""
    means = [
        _mean(errors, levels, (speakers != one).all(axis=1))
        for one in np.unique(speakers)
    ]
    if len(means) < 2:
        return float("nan")
    return float(np.std(means) * np.sqrt(len(means) - 1))
