"""Geometry of a curve of straight segments whose corners are codes.

A curve of K corners c_0 ... c_K-1 has K - 1 segments; a point on it is a segment i
and a position t in [0, 1], meaning c_i + t (c_i+1 - c_i).
"""

import heapq

import torch

from speechbrain_vae.nnet.quantisers.nearest import score_blocks

ROWS = 4096


def project(x: torch.Tensor, corners: torch.Tensor, dither=None, tension=0.0) -> tuple:
    """Nearest point of the curve to each frame, over all segments.

    Arguments
    ---------
    x : torch.Tensor
        Frames, shape [N, D].
    corners : torch.Tensor
        Corners, shape [K, D], K at least 2. Corners may coincide.
    dither, tension
        As for :func:`nearest_segments`.

    Returns
    -------
    segment : torch.Tensor
        Long, shape [N].
    position : torch.Tensor
        In [0, 1], shape [N].
    points : torch.Tensor
        Shape [N, D].
    dithered : torch.Tensor
        Only with a dither: segment of the best dithered point, long, shape [N].

    Example
    -------
    >>> corners = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0]])
    >>> project(torch.tensor([[0.5, -1.0], [3.0, 1.0]]), corners)[:2]
    (tensor([0, 1]), tensor([0.2500, 0.5000]))
    """
    # x [N, D], corners [K, D]
    segment, dithered = nearest_segments(x, corners, dither, tension)
    corners = corners.detach().float()
    points = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    position = points.new_empty(len(x))
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        first = corners.index_select(0, segment[rows])
        along = corners.index_select(0, segment[rows] + 1).sub_(first)
        offset = torch.sub(x.detach()[rows], first, out=points[rows])
        inner = torch.linalg.vecdot(offset, along)
        squares = torch.linalg.vecdot(along, along)
        # On a segment without length every position is the same point.
        here = torch.where(squares > 0, inner / squares, 0).clamp_(0, 1)
        position[rows] = here
        torch.addcmul(first, along, here.unsqueeze(1), out=points[rows])
    if dither is None:
        return segment, position, points
    return segment, position, points, dithered


def nearest_segments(
    x: torch.Tensor,
    corners: torch.Tensor,
    dither: torch.Tensor | None = None,
    tension: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The segment nearest to each frame; also the one whose dithered point is best.

    All follows from the scores s of the corners, one matrix product
    (:func:`score_blocks`). With L^2 = |c_i+1 - c_i|^2, half the squared distance to
    the point at t is, less a term common to all segments,

        s_i - t (s_i - s_i+1) - t (1 - t) L^2 / 2

    Its minimum, where that lies inside the segment, is s_i - u^2 / (2 L^2) with
    u = s_i - s_i+1 + L^2 / 2. Where it does not, the corners themselves compete with
    s_i, so segments need no clamping.

    Arguments
    ---------
    x : torch.Tensor
        Frames, shape [N, D].
    corners : torch.Tensor
        Corners, shape [K, D].
    dither : torch.Tensor, optional
        One position on each segment, shape [K - 1].
    tension : float
        Multiple of t (1 - t) L^2 added to the squared distance of dithered points.

    Returns
    -------
    nearest : torch.Tensor
        Long, shape [N].
    dithered : torch.Tensor or None
        Long, shape [N].

    Example
    -------
    >>> corners = torch.tensor([[0.0], [1.0], [2.0]])
    >>> nearest_segments(torch.tensor([[1.1]]), corners, torch.tensor([0.9, 0.9]))
    (tensor([1]), tensor([0]))
    """
    # x [N, D], corners [K, D], dither [K - 1]
    if len(corners) < 2:
        raise ValueError(f"a curve needs at least 2 corners; got {len(corners)}")
    corners = corners.detach().float()
    length = (corners[1:] - corners[:-1]).norm(dim=1)
    # In units of sqrt(2) L: u becomes its own share of the score, squared.
    scale = torch.where(length > 0, 0.5**0.5 / length, 0)
    middle = length * (0.5**0.5 / 2)
    # Beyond the far end the next corner is nearer; the allowance is for rounding.
    limit = middle * (2 + 1e-6)
    nearest = torch.empty(len(x), dtype=torch.long, device=x.device)
    chosen = None
    if dither is not None:
        chosen = torch.empty_like(nearest)
        sag = (tension - 1) / 2 * dither * (1 - dither) * length.square()
        backward = -dither
    smallest = corners.new_empty(len(x))
    buffers = None
    for rows, _, scores in score_blocks(x, corners):
        if buffers is None:
            buffers = torch.empty(2, len(scores), len(length), device=x.device)
        gain, work = buffers[:, : len(scores)]
        first = scores[:, :-1]
        torch.sub(first, scores[:, 1:], out=gain)
        if chosen is not None:
            torch.addcmul(sag, backward, gain, out=work).add_(first)
            torch.min(work, 1, out=(smallest[rows], chosen[rows]))
        torch.addcmul(middle, gain, scale, out=gain).clamp_(min=0)
        torch.le(gain, limit, out=work)
        gain.mul_(work)
        first.addcmul_(gain, gain, value=-1)
        torch.min(scores, 1, out=(smallest[rows], nearest[rows]))
    return nearest.clamp_(max=len(length) - 1), chosen


def points_at(
    corners: torch.Tensor, segment: torch.Tensor, position: torch.Tensor
) -> torch.Tensor:
    """Points of the curve.

    Arguments
    ---------
    corners : torch.Tensor
        Corners, shape [K, D].
    segment : torch.Tensor
        Long, shape [N].
    position : torch.Tensor
        Shape [N].

    Returns
    -------
    torch.Tensor
        Shape [N, D].

    Example
    -------
    >>> points_at(torch.tensor([[0.0], [4.0]]), torch.tensor([0]), torch.tensor([0.25]))
    tensor([[1.]])
    """
    first = corners.index_select(0, segment)
    second = corners.index_select(0, segment + 1)
    return torch.lerp(first, second, position.unsqueeze(1))


def insert_corners(
    corners: torch.Tensor, load: torch.Tensor, number: int
) -> torch.Tensor:
    """Split the busiest segments by new corners; the curve itself stays the same.

    The new corners go one by one to the segment whose pieces carry most load and are
    spaced evenly on it. A segment without length is not split as long as others
    have load.

    Arguments
    ---------
    corners : torch.Tensor
        Corners, shape [K, D], K at least 2.
    load : torch.Tensor
        Frames that each segment serves, shape [K - 1].
    number : int
        Corners to insert.

    Returns
    -------
    torch.Tensor
        Shape [K + number, D], in the order of the curve.

    Example
    -------
    >>> corners = torch.tensor([[0.0], [1.0], [2.0]])
    >>> insert_corners(corners, torch.tensor([1.0, 5.0]), 2).flatten()
    tensor([0.0000, 1.0000, 1.3333, 1.6667, 2.0000])
    """
    # corners [K, D], load [K - 1]
    length = (corners[1:] - corners[:-1]).norm(dim=1)
    # The length decides among segments of equal load, such as none.
    weight = load * (length > 0) + 1e-6 * length / length.sum().clamp(min=1e-30)
    weight = weight.tolist()
    pieces = [1] * len(weight)
    queue = [(-value, i) for i, value in enumerate(weight)]
    heapq.heapify(queue)
    for _ in range(number):
        i = queue[0][1]
        pieces[i] += 1
        heapq.heapreplace(queue, (-weight[i] / pieces[i], i))
    segment = torch.repeat_interleave(
        torch.arange(len(pieces)), torch.tensor(pieces)
    ).to(corners.device)
    position = torch.cat([torch.arange(n) / n for n in pieces])
    inner = points_at(corners, segment, position.to(corners))
    return torch.cat([inner, corners[-1:]])


def untangle(
    corners: torch.Tensor, moves: int | None = None, reach: int | None = None
) -> torch.Tensor:
    """Reverse stretches of the curve as long as that shortens it (2-opt, Croes 1958).

    A curve in the plane that crosses itself can always be shortened so. Only stretches
    of up to an eighth of the curve, and of 32 corners, are reversed: longer reversals
    buy little length at the cost of the order on the large scale.

    Arguments
    ---------
    corners : torch.Tensor
        Corners, shape [K, D].
    moves : int, optional
        Most reversals to make, best first. Each costs a K x K search; by default as
        many as keep that cheap, from 256 for K up to 256 down to 1 for K = 4096.
    reach : int, optional
        Most corners to reverse at once; by default an eighth of the curve, at
        least 32; all in the plane, as nowhere else a curve has to cross itself.

    Returns
    -------
    torch.Tensor
        Positions of the corners in their new order, long, shape [K].

    Example
    -------
    >>> corners = torch.tensor([[0.0, 0], [1, 1], [1, 0], [0, 1]])
    >>> untangle(corners)
    tensor([0, 2, 1, 3])
    """
    # corners [K, D]
    corners = corners.detach().float()
    size = len(corners)
    order = torch.arange(size, device=corners.device)
    threshold = 1e-4 * (corners[1:] - corners[:-1]).norm(dim=1).mean()
    rows = max(1, 2**18 // size)
    if reach is None:
        reach = size if corners.shape[1] == 2 else max(32, size // 8)
    if moves is None:
        moves = min(256, max(1, 2**24 // size**2))
    for _ in range(moves):
        path = corners[order]
        # An edge at either end goes nowhere and is as long as nothing.
        edges = torch.nn.functional.pad((path[1:] - path[:-1]).norm(dim=1), (1, 1))
        best, where = threshold, None
        for first in range(0, size, rows):
            last = min(first + rows, size)
            # Reversing corners i ... j joins i - 1 with j and i with j + 1.
            left = torch.cdist(path[max(first - 1, 0) : last - 1], path)
            if first == 0:
                left = torch.cat([left.new_zeros(1, size), left])
            right = torch.cdist(path[first:last], path[1:])
            right = torch.nn.functional.pad(right, (0, 1))
            gain = edges[first:last, None] + edges[1:] - left - right
            gain = gain.triu(first + 1).tril(first + reach - 1)
            value, flat = gain.flatten().max(0)
            if value > best:
                best, where = value, (first + int(flat) // size, int(flat) % size)
        if where is None:
            break
        i, j = where
        order[i : j + 1] = order[i : j + 1].flip(0)
    return order
