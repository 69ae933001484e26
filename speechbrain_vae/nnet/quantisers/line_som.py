"""A self-organising map on a line: codes in an order that follows the data."""

import torch

from speechbrain_vae.nnet.quantisers.kmeans import sums_by_code
from speechbrain_vae.nnet.quantisers.nearest import nearest_indices

BLOCK = 256
"""Rows of neighbourhood weights at a time."""


def line_som(
    x: torch.Tensor,
    codebook_size: int,
    width: float = 0.5,
    iterations: int = 60,
    settle: int = 20,
) -> torch.Tensor:
    """Batch self-organising map whose units form a line (Kohonen 2013).

    Every frame pulls its nearest code and, less, the codes beside it on the line,
    with the weight exp(-distance^2 / (2 width^2)) in units of indices. The width
    shrinks geometrically from a quarter of the line to ``width``: wide, it lays the
    line through the data; narrow, it lets single codes settle. The start is a line
    along the first principal direction, so the result is deterministic.

    Arguments
    ---------
    x : torch.Tensor
        Frames, shape [N, D], N at least 1; may be fewer than the codes.
    codebook_size : int
        Codes K.
    width : float
        Final width of the neighbourhood, in indices. Small gives less distortion,
        large a better order.
    iterations : int
        Passes over the frames while the width shrinks.
    settle : int
        Passes at the final width.

    Returns
    -------
    torch.Tensor
        Codes, shape [K, D].

    Example
    -------
    >>> x = torch.rand(1000, 1, generator=torch.Generator().manual_seed(0))
    >>> codes = line_som(x, 8).flatten()
    >>> bool((codes.diff() > 0).all() or (codes.diff() < 0).all())
    True
    """
    # x [N, D]
    if len(x) == 0:
        raise ValueError("line_som needs at least one frame; got none")
    if width <= 0 or iterations < 1 or settle < 0:
        raise ValueError(
            "width must be above 0, iterations at least 1 and settle at least 0; "
            f"got {width}, {iterations} and {settle}"
        )
    x = x.detach().float()
    codes = _principal_line(x, codebook_size)
    widest = max(codebook_size / 4, width)
    for step in range(iterations + settle):
        done = min(step / max(iterations - 1, 1), 1.0)
        now = widest * (width / widest) ** done
        sums, counts = sums_by_code(x, nearest_indices(x, codes), codebook_size)
        pulled = _smoothed(torch.cat([sums, counts.unsqueeze(1)], 1), now)
        sums, weights = pulled[:, :-1], pulled[:, -1:]
        # Far from every frame, a mean of next to nothing is no place for a code.
        codes = torch.where(weights > 1e-6, sums / weights.clamp(min=1e-30), codes)
    return codes


def _smoothed(values, width):
    """Sums over all rows of [K, C], weighted by how near they are in index."""
    line = torch.arange(len(values), device=values.device, dtype=values.dtype)
    # In blocks of rows: [K, K] weights of a large codebook would not fit a cache.
    blocks = [
        (block.unsqueeze(1) - line).square_().div_(-2 * width**2).exp_() @ values
        for block in line.split(BLOCK)
    ]
    return torch.cat(blocks)


def _principal_line(x, codebook_size):
    centre = x.mean(0)
    deviations = x - centre
    variances, directions = torch.linalg.eigh(deviations.T @ deviations / len(x))
    reach = 2 * variances[-1].clamp(min=0).sqrt()
    steps = torch.linspace(-1, 1, codebook_size, device=x.device)
    return centre + reach * steps.unsqueeze(1) * directions[:, -1]
