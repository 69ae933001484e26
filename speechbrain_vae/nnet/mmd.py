"""Maximum mean discrepancy between two sets of vectors."""

import torch


def mmd(x: torch.Tensor, y: torch.Tensor) -> float:
    """Squared maximum mean discrepancy, unbiased (Gretton et al. 2012, equation 3).

    The kernel is a Gaussian whose width is the median distance between the two
    sets. Around zero, or below, where the two sets come from one distribution.

    Arguments
    ---------
    x, y : torch.Tensor
        Shapes [N, D] and [M, D], of at least two vectors each.

    Returns
    -------
    float

    Example
    -------
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(500, 2)
    >>> mmd(x, torch.randn(500, 2)) < 0.01 < mmd(x, torch.randn(500, 2) + 1)
    True
    """
    if min(len(x), len(y)) < 2:
        raise ValueError("each set needs at least two vectors")
    within = torch.cdist(x, x).square(), torch.cdist(y, y).square()
    between = torch.cdist(x, y).square()
    width = between.median().clamp(min=1e-12)

    def mean_kernel(squared, pairs):
        return torch.exp(-squared / width).sum() / pairs

    same = sum(mean_kernel(d, len(d) * (len(d) - 1)) - 1 / (len(d) - 1) for d in within)
    return float(same - 2 * mean_kernel(between, between.numel()))
