"""What codes tell of phones: counts, purities, information, similar phones."""

import numpy as np

SIMILAR_PAIRS = (("F", "V"), ("TH", "DH"), ("S", "Z"), ("SH", "ZH"))
"""Fricatives that differ in voicing alone."""


def code_counts(
    phones: list[str], codes: np.ndarray, size: int
) -> tuple[list[str], np.ndarray]:
    """How often each code stands for each phone.

    Arguments
    ---------
    phones : list of str
        Phone of each frame.
    codes : np.ndarray
        Code of each frame, from 0 to ``size`` - 1, shape [N].
    size : int
        Number of codes K.

    Returns
    -------
    names : list of str
        The P phones that occur, sorted.
    counts : np.ndarray
        Shape [P, K].

    Example
    -------
    >>> code_counts(["S", "S", "AA"], np.array([1, 1, 0]), 2)
    (['AA', 'S'], array([[1, 0], [0, 2]]))
    """
    names, rows = np.unique(phones, return_inverse=True)
    counts = np.zeros((len(names), size), dtype=np.int64)
    np.add.at(counts, (rows, codes), 1)
    return names.tolist(), counts


def agreement(counts: np.ndarray) -> dict:
    """How much codes and phones say of each other.

    Purities as in Hsu et al., "HuBERT", IEEE/ACM TASLP 29, 2021: guess the phone from
    the code, or the code from the phone.

    Arguments
    ---------
    counts : np.ndarray
        Of each phone and code, shape [P, K].

    Returns
    -------
    dict
        ``phone_purity``, ``cluster_purity``: share of frames guessed right;
        ``nmi``: mutual information over the mean of the two entropies; ``pnmi``: over
        the entropy of the phones; ``mutual_information_bits``,
        ``phone_entropy_bits`` and, of the phones given the codes,
        ``conditional_entropy_bits``; ``used_codes``, ``perplexity`` of the codes,
        ``frames``.

    Example
    -------
    >>> result = agreement(np.array([[5, 0, 0], [0, 3, 2]]))
    >>> result["phone_purity"], result["cluster_purity"], round(result["pnmi"], 6)
    (1.0, 0.8, 1.0)
    """
    joint = counts / counts.sum()
    phone_entropy = entropy_bits(joint.sum(1))
    code_entropy = entropy_bits(joint.sum(0))
    information = phone_entropy + code_entropy - entropy_bits(joint)
    total = phone_entropy + code_entropy
    return {
        "phone_purity": float(joint.max(0).sum()),
        "cluster_purity": float(joint.max(1).sum()),
        "nmi": 2 * information / total if total else 0.0,
        "pnmi": information / phone_entropy if phone_entropy else 0.0,
        "mutual_information_bits": information,
        "phone_entropy_bits": phone_entropy,
        "conditional_entropy_bits": phone_entropy - information,
        "used_codes": int((counts.sum(0) > 0).sum()),
        "perplexity": 2**code_entropy,
        "frames": int(counts.sum()),
    }


def shuffled_nmi(counts: np.ndarray, seed: int = 0) -> float:
    """What NMI would be if codes told nothing: of codes shuffled over the frames.

    With few frames chance alone makes codes and phones look related.

    Arguments
    ---------
    counts : np.ndarray
        Of each phone and code, shape [P, K].
    seed : int
        Seed of the shuffling.

    Returns
    -------
    float

    Example
    -------
    >>> diagonal = np.eye(8, dtype=int)
    >>> shuffled_nmi(diagonal) > 0.9, shuffled_nmi(1000 * diagonal) < 0.01
    (True, True)
    """
    phones, codes = (
        np.repeat(np.arange(len(total)), total)
        for total in (counts.sum(1), counts.sum(0))
    )
    shuffled = np.zeros_like(counts)
    np.add.at(shuffled, (phones, np.random.default_rng(seed).permutation(codes)), 1)
    return agreement(shuffled)["nmi"]


def entropy_bits(probabilities):
    """Entropy of a distribution in bits.

    Example
    -------
    >>> entropy_bits(np.array([0.5, 0.25, 0.25]))
    1.5
    """
    some = probabilities[probabilities > 0]
    return float(-(some * np.log2(some)).sum())


def distances_along(counts: np.ndarray) -> np.ndarray:
    """Distance of every two phones along the codes.

    The earth mover's distance of their histograms: how far an index has to be moved
    on average to make one of the other, as a share of K. Unlike the distance of their
    peaks it uses every frame.

    Arguments
    ---------
    counts : np.ndarray
        Of each phone and code, in the order of the codebook, shape [P, K].

    Returns
    -------
    np.ndarray
        Shape [P, P].

    Example
    -------
    >>> distances_along(np.array([[4, 0, 0, 0], [0, 0, 1, 1]]))
    array([[0. , 0.625],
           [0.625, 0. ]])
    """
    below = (counts / counts.sum(1, keepdims=True)).cumsum(1)
    return np.abs(below[:, None] - below).mean(2)


def pair_name(first: str, second: str) -> str:
    """What a pair of phones is called.

    Example
    -------
    >>> pair_name("S", "Z")
    's-z'
    """
    return f"{first}-{second}".lower()


def similar_pairs_test(
    names: list[str],
    distances: np.ndarray,
    among=None,
    pairs=SIMILAR_PAIRS,
    permutations: int = 100000,
    seed: int = 0,
) -> dict | None:
    """Are similar phones closer to each other than phones drawn at random?

    The statistic is the mean distance of the pairs; the null hypothesis, that names
    of phones are exchangeable: each permutation gives the pairs other phones. The test
    is one-sided.

    Arguments
    ---------
    names : list of str
        The phones, P.
    distances : np.ndarray
        Of every two of them, shape [P, P].
    among : collection of str, optional
        Phones that names are exchanged among; all by default.
    pairs : iterable of tuple of str
        Similar phones; a pair with a phone that is missing is left out.
    permutations : int
        How many to draw.
    seed : int
        Seed of the draw.

    Returns
    -------
    dict or None
        ``pairs``: the distance of each; ``left_out``: the pairs that were not tested;
        ``mean``; ``random_mean``: over all pairs that could be drawn; ``p``: share of
        permutations as close as that, the identity counted. None where no pair is left.

    Example
    -------
    >>> place = np.array([0, 0.1, 5, 5.1, 9, 12, 20, 30])
    >>> distances = np.abs(place[:, None] - place)
    >>> names = ["F", "V", "S", "Z", "AA", "M", "L", "IY"]
    >>> result = similar_pairs_test(names, distances, permutations=2000)
    >>> sorted(result["pairs"]), result["p"] < 0.01
    (['f-v', 's-z'], True)
    """
    pool = [i for i, name in enumerate(names) if among is None or name in among]
    place = {names[i]: position for position, i in enumerate(pool)}
    kept = [pair for pair in pairs if pair[0] in place and pair[1] in place]
    if not kept:
        return None
    left_out = [pair_name(*pair) for pair in pairs if pair not in kept]
    distances = distances[np.ix_(pool, pool)]
    first, second = (np.array([place[pair[side]] for pair in kept]) for side in (0, 1))
    observed = distances[first, second]
    rng = np.random.default_rng(seed)
    drawn = rng.permuted(np.tile(np.arange(len(pool)), (permutations, 1)), axis=1)
    means = distances[drawn[:, first], drawn[:, second]].mean(1)
    as_close = (means <= observed.mean() + 1e-12).sum()
    return {
        "pairs": {
            pair_name(*pair): float(distance)
            for pair, distance in zip(kept, observed, strict=True)
        },
        "left_out": left_out,
        "mean": float(observed.mean()),
        "random_mean": float(distances[np.triu_indices(len(pool), 1)].mean()),
        "p": float((as_close + 1) / (permutations + 1)),
        "phones": len(pool),
    }
