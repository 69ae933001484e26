"""Speaker verification: is it the same speaker in two utterances?"""

import math
import random
from collections.abc import Sequence
from pathlib import Path

import torch

PRIOR = 0.01
"""Of the detection cost: the share of trials that are of the same speaker."""


def make_trials(speakers: dict[str, str], limit: int = 20000, seed: int = 1234):
    """Pairs of utterances, all of them or a random choice.

    Arguments
    ---------
    speakers : dict of str to str
        Speaker of each utterance.
    limit : int
        Number of pairs that are drawn where there are more.
    seed : int
        Seed of the choice.

    Returns
    -------
    list of tuple
        Whether the speaker is the same, and the two utterances.

    Raises
    ------
    ValueError
        All pairs are of one kind.

    Example
    -------
    >>> make_trials({"a1": "ann", "a2": "ann", "b1": "bob"})
    [(True, 'a1', 'a2'), (False, 'a1', 'b1'), (False, 'a2', 'b1')]
    """
    utterances = sorted(speakers)
    total = len(utterances) * (len(utterances) - 1) // 2
    chosen: Sequence[int] = range(total)
    if total > limit:
        chosen = sorted(random.Random(seed).sample(chosen, limit))
    trials = []
    for index in chosen:
        # The pairs (0, 1), (0, 2), (1, 2), (0, 3), ... in a row.
        second = (1 + math.isqrt(1 + 8 * index)) // 2
        first = index - second * (second - 1) // 2
        pair = utterances[first], utterances[second]
        trials.append((speakers[pair[0]] == speakers[pair[1]], *pair))
    if len({same for same, *_ in trials}) < 2:
        raise ValueError(
            "verification needs pairs of the same and of different speakers; the "
            f"{len(trials)} pairs of these {len(utterances)} utterances of "
            f"{len(set(speakers.values()))} speakers are of one kind only"
        )
    return trials


def read_trials(path: str | Path, utterances):
    """A list of trials as VoxCeleb's: ``1 id1/video/00001.wav id1/video/00002.wav``.

    Arguments
    ---------
    path : str or Path
        A trial a line: 1 for the same speaker or 0, and two files.
    utterances : container of str
        Utterances that may be named: the path without extension, "-" for "/".

    Returns
    -------
    list of tuple
        As :func:`make_trials`.

    Raises
    ------
    ValueError, FileNotFoundError
        No such file, another format, or an utterance that is not among them.

    Example
    -------
    >>> path = getfixture("tmp_path") / "trials.txt"
    >>> _ = path.write_text("1 ann/1.wav ann/2.wav\\n0 ann/1.wav bob/1.wav\\n")
    >>> read_trials(path, {"ann-1", "ann-2", "bob-1"})
    [(True, 'ann-1', 'ann-2'), (False, 'ann-1', 'bob-1')]
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no trial list {path}")
    trials = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 3 or fields[0] not in ("0", "1"):
            raise ValueError(
                f"{path}, line {number}: expected a 1 or 0 and two files, got {line!r}"
            )
        pair = [
            str(Path(name).with_suffix("")).replace("/", "-") for name in fields[1:]
        ]
        unknown = [utt for utt in pair if utt not in utterances]
        if unknown:
            raise ValueError(
                f"{path}, line {number}: {unknown[0]} is no utterance of the test "
                "speakers; choose the list and the split that belong together"
            )
        trials.append((fields[0] == "1", *pair))
    if len({same for same, *_ in trials}) < 2:
        raise ValueError(f"{path} has no trials of the same and of different speakers")
    return trials


def verification_errors(embeddings: dict[str, torch.Tensor], trials) -> dict:
    """Equal error rate and minimum detection cost of cosine scores.

    Arguments
    ---------
    embeddings : dict of str to torch.Tensor
        Vector of each utterance, shape [D].
    trials : list of tuple
        Of :func:`make_trials`.

    Returns
    -------
    dict
        ``EER`` in percent, and ``minDCF`` where 1 trial in 100 is of the same speaker,
        relative to accepting nobody, so at most 1.

    Example
    -------
    >>> embeddings = {"a1": [1.0, 0.0], "a2": [0.9, 0.1], "b1": [0.0, 1.0]}
    >>> embeddings = {utt: torch.tensor(x) for utt, x in embeddings.items()}
    >>> trials = make_trials({"a1": "ann", "a2": "ann", "b1": "bob"})
    >>> verification_errors(embeddings, trials)
    {'EER': 0.0, 'minDCF': 0.0}
    """
    row = {utt: index for index, utt in enumerate(embeddings)}
    vectors = torch.nn.functional.normalize(torch.stack([*embeddings.values()]), dim=-1)
    first, second = ([row[trial[side]] for trial in trials] for side in (1, 2))
    scores = (vectors[first] * vectors[second]).sum(-1)
    same = torch.tensor([trial[0] for trial in trials])
    missed, accepted = error_rates(scores, same)
    equal = (missed - accepted).abs().argmin()
    cost = (missed + (1 - PRIOR) / PRIOR * accepted).min()
    eer = (missed[equal] + accepted[equal]) / 2
    return {"EER": 100 * eer.item(), "minDCF": cost.item()}


def error_rates(scores, same):
    """Both errors at every threshold, which accepts the trials above it.

    SpeechBrain's ``EER`` and ``minDCF`` make a table of trials by thresholds, too large
    for the trials of a corpus; counted along the order of the scores they are exact.

    Arguments
    ---------
    scores : torch.Tensor
        Of the trials, shape [N].
    same : torch.Tensor
        Whether they are of the same speaker, shape [N].

    Returns
    -------
    missed, accepted : torch.Tensor
        Shares of the trials of the same speaker below the threshold, and of the others
        above it, in fp64; one more than there are distinct scores.

    Example
    -------
    >>> scores, same = torch.tensor([0.1, 0.2, 0.2]), torch.tensor([False, False, True])
    >>> missed, accepted = error_rates(scores, same)
    >>> missed, accepted.tolist()
    (tensor([0., 0., 1.], dtype=torch.float64), [1.0, 0.5, 0.0])
    """
    values, ranks = scores.unique(return_inverse=True)
    of_same, of_others = (
        torch.nn.functional.pad(
            torch.bincount(ranks[kind], minlength=len(values)), (1, 0)
        )
        for kind in (same, ~same)
    )
    below = of_others.cumsum(0).double() / of_others.sum()
    return of_same.cumsum(0).double() / of_same.sum(), 1 - below
