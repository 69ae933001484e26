"""Order of a codebook: does a small step of the index mean a small step in the data?"""

import torch
from scipy.stats import spearmanr

from speechbrain_vae.nnet.quantisers.curve import project, untangle
from speechbrain_vae.nnet.quantisers.kmeans import kmeans
from speechbrain_vae.nnet.quantisers.space_filling import random_jump

SAMPLE = 20000
"""Frames that the k-means opponent is fitted to, at most."""


def tour(codes: torch.Tensor) -> torch.Tensor:
    """Order of codes along a short open tour: nearest neighbours, then 2-opt.

    Arguments
    ---------
    codes : torch.Tensor
        Shape [K, D].

    Returns
    -------
    torch.Tensor
        Positions of the codes in their new order, long, shape [K].

    Example
    -------
    >>> codes = torch.tensor([[0.0], [2.0], [1.0], [3.0]])
    >>> codes[tour(codes)].flatten()
    tensor([0., 1., 2., 3.])
    """
    distance = torch.cdist(codes, codes).tolist()
    left = set(range(1, len(codes)))
    path = [0]
    while left:
        path.append(min(left, key=distance[path[-1]].__getitem__))
        left.remove(path[-1])
    order = torch.tensor(path)
    return order[untangle(codes[order], moves=20 * len(codes), reach=len(codes))]


def neighbour_ratio(codes):
    """Mean distance of neighbouring codes over that of random pairs.

    Example
    -------
    >>> neighbour_ratio(torch.arange(5.0).unsqueeze(1))
    0.5
    """
    return float(codes.diff(dim=0).norm(dim=1).mean() / torch.pdist(codes).mean())


def order_correlation(codes):
    """Spearman correlation of the distances of indices and of vectors, over all pairs.

    Example
    -------
    >>> round(order_correlation(torch.arange(5.0).unsqueeze(1)), 6)
    1.0
    """
    first, second = torch.triu_indices(len(codes), len(codes), 1)
    return float(spearmanr(second - first, torch.pdist(codes)).statistic)


def principal_plane(codes: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Codes on their first two principal directions.

    Arguments
    ---------
    codes : torch.Tensor
        Shape [K, D].

    Returns
    -------
    points : torch.Tensor
        Shape [K, 2].
    share : float
        Of the variance, how much that shows.

    Example
    -------
    >>> principal_plane(torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 1, 0]]))[1]
    1.0
    """
    centred = codes - codes.mean(0)
    left, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    points = torch.zeros(len(codes), 2)
    points[:, : len(sizes[:2])] = left[:, :2] * sizes[:2]
    return points, round(float(sizes[:2].square().sum() / sizes.square().sum()), 6)


def crossings(points: torch.Tensor) -> int:
    """How often a path in the plane crosses itself.

    Arguments
    ---------
    points : torch.Tensor
        Corners, shape [K, 2].

    Returns
    -------
    int
        Pairs of segments with a point in common; those that share a corner do not
        count.

    Example
    -------
    >>> crossings(torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))
    1
    """
    start, end = points[:-1].double(), points[1:].double()
    first, second = torch.triu_indices(len(start), len(start), 2)
    a, b, c, d = start[first], end[first], start[second], end[second]
    apart = _side(a, b, c) * _side(a, b, d), _side(c, d, a) * _side(c, d, b)
    return int(((apart[0] < 0) & (apart[1] < 0)).sum())


def _side(a, b, c):
    """On which side of the line from a to b point c lies."""
    ab, ac = b - a, c - a
    return ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]


def index_jump(sequences: list[torch.Tensor], size: int) -> float:
    """Mean |i_t - i_t+1| / K over the consecutive frames of utterances.

    Arguments
    ---------
    sequences : list of torch.Tensor
        Indices of each utterance, shape [T].
    size : int
        Number of codes K.

    Returns
    -------
    float
        A third where time leaves no trace and all codes are used alike.

    Example
    -------
    >>> index_jump([torch.tensor([0, 1, 3]), torch.tensor([7, 7])], 10)
    0.1
    """
    steps = torch.cat([indices.diff().abs() for indices in sequences])
    return float(steps.double().mean() / size) if len(steps) else float("nan")


def order_of(
    codes: torch.Tensor, sequences: list[torch.Tensor], frames: list[torch.Tensor]
) -> dict:
    """Every measure of order of one codebook.

    Arguments
    ---------
    codes : torch.Tensor
        In their order, shape [K, D].
    sequences : list of torch.Tensor
        Indices of each utterance, shape [T].
    frames : list of torch.Tensor
        What was quantised, shape [T, D] each.

    Returns
    -------
    dict
        ``neighbour_ratio``, ``spearman``, ``crossings`` of the path in the principal
        plane, ``crossings_per_segment``, ``index_jump``, ``relative_jump`` (over that
        of frames in random order), ``distortion`` and ``curve_distortion``: squared
        error of the given code, and to the nearest point of the path through all
        codes, summed over dimensions.

    Example
    -------
    >>> from speechbrain_vae.nnet.quantisers.nearest import nearest_indices
    >>> x = torch.rand(100, 1, generator=torch.Generator().manual_seed(0))
    >>> codes = torch.linspace(0, 1, 8).unsqueeze(1)
    >>> order_of(codes, [nearest_indices(x, codes)], [x])["spearman"] > 0.9
    True
    """
    x, indices = torch.cat(frames), torch.cat(sequences)
    jump = index_jump(sequences, len(codes))
    crossed = crossings(principal_plane(codes)[0])
    return {
        "neighbour_ratio": neighbour_ratio(codes),
        "spearman": order_correlation(codes),
        "crossings": crossed,
        "crossings_per_segment": crossed / max(len(codes) - 1, 1),
        "index_jump": jump,
        "relative_jump": jump * len(codes) / max(float(random_jump(indices)), 1e-12),
        "distortion": float((x - codes[indices]).square().sum(1).mean()),
        "curve_distortion": float((x - project(x, codes)[2]).square().sum(1).mean()),
    }


def opponents(
    frames: list[torch.Tensor], size: int, seed: int = 0
) -> dict[str, torch.Tensor]:
    """A k-means codebook of the same frames, in no order and in that of a tour.

    Arguments
    ---------
    frames : list of torch.Tensor
        Shape [T, D] each.
    size : int
        Number of codes K.
    seed : int
        Seed of the sample and of k-means.

    Returns
    -------
    dict of str to torch.Tensor
        ``"k-means"`` and ``"k-means + tour"``, shape [K, D].
    """
    x = torch.cat(frames)
    generator = torch.Generator().manual_seed(seed)
    x = x[torch.randperm(len(x), generator=generator)[:SAMPLE]]
    codes = kmeans(x, size, iterations=30, seed=seed)[0]
    # Centres come in the order they were drawn; a k-means codebook has none.
    codes = codes[torch.randperm(size, generator=generator)]
    return {"k-means": codes, "k-means + tour": codes[tour(codes)]}
