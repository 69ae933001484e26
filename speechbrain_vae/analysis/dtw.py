"""Dynamic time warping of many pairs of sequences at once.

The distance of two sequences is the mean angular distance of their frames along the
cheapest path, as in the ABX evaluation of Libri-light (Kahn et al., "Libri-light: a
benchmark for ASR with limited or no supervision", ICASSP 2020).
"""

import math

import torch

# Sums of equal distances differ by rounding: within this they are equal, so that the
# path that is chosen does not depend on the batch a pair is computed in.
TIE = 1e-6
# Frames nearer than this angle (as cosine) are the same frame, rounded.
_SAME = 1 - 1e-6
_BLOCK_ELEMENTS = 2**22
_BLOCK_PAIRS = 8192


def unit_frames(frames: torch.Tensor) -> torch.Tensor:
    """Frames of length 1, with one more dimension where zero vectors point.

    A zero vector has no angle: it becomes a direction of its own, at a right angle to
    every other frame and equal to other zero vectors.

    Arguments
    ---------
    frames : torch.Tensor
        Shape [N, D].

    Returns
    -------
    torch.Tensor
        Shape [N, D + 1].

    Example
    -------
    >>> unit_frames(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000, 0.0000],
            [0.0000, 0.0000, 1.0000]])
    """
    # The largest value first, for the squares of tiny or huge values leave float32.
    frames = frames / frames.abs().amax(1, keepdim=True).clamp(min=1e-30)
    norm = frames.norm(dim=1, keepdim=True)
    zero = norm == 0
    return torch.cat([frames / norm.masked_fill(zero, 1), zero.to(frames)], dim=1)


def angular_distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Angle between every frame of x and every frame of y, over pi: 0 to 1.

    Arguments
    ---------
    x : torch.Tensor
        Frames of length 1, shape [P, N, D].
    y : torch.Tensor
        Frames of length 1, shape [P, M, D].

    Returns
    -------
    torch.Tensor
        Shape [P, N, M].

    Example
    -------
    >>> x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> angular_distances(x, x[:, :1])
    tensor([[[0.0000], [0.5000]]])
    """
    cosine = torch.bmm(x, y.transpose(1, 2))
    cosine = cosine.masked_fill_(cosine > _SAME, 1).clamp_(min=-1)
    return cosine.acos_().div_(math.pi)


def dtw(cost: torch.Tensor, n: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Mean cost along the cheapest path through each matrix.

    A path goes from the first corner to cell (n - 1, m - 1) by steps of one row, one
    column or both. Of steps that cost the same, the diagonal comes first, then the one
    along a row.

    Arguments
    ---------
    cost : torch.Tensor
        Frame distances, shape [P, N, M]. What lies beyond n and m is never read.
    n : torch.Tensor
        Frames of the first sequence of each pair, shape [P], 1 to N.
    m : torch.Tensor
        Frames of the second sequence of each pair, shape [P], 1 to M.

    Returns
    -------
    torch.Tensor
        Sum of the costs along the path over the number of its cells, shape [P].

    Example
    -------
    >>> cost = torch.tensor([[[0.0, 1.0, 9.0], [1.0, 0.5, 9.0]]])
    >>> dtw(cost, torch.tensor([2]), torch.tensor([2]))
    tensor([0.2500])
    """
    pairs, rows, columns = cost.shape
    diagonals = _diagonals(cost)
    last = n + m - 2
    row = n.unsqueeze(0)
    mean = cost.new_zeros(pairs)
    # Row 0 stands for the row above the matrix. Of the last three diagonals, "total"
    # holds the cost of the best path to each cell and "length" its number of cells.
    total = [cost.new_full((rows + 1, pairs), math.inf) for _ in range(3)]
    length = [cost.new_zeros((rows + 1, pairs)) for _ in range(3)]
    total[0][1] = diagonals[0, 0]
    length[0][1] = 1
    for d in range(rows + columns - 1):
        now, before, earlier = d % 3, (d - 1) % 3, (d - 2) % 3
        if d > 0:
            low, high = max(0, d - columns + 1), min(rows - 1, d) + 1
            here, above = slice(low + 1, high + 1), slice(low, high)
            left, up = total[before][here], total[before][above]
            straight = left <= up + TIE
            best = torch.where(straight, left, up)
            steps = torch.where(straight, length[before][here], length[before][above])
            diagonal = total[earlier][above] <= best + TIE
            best = torch.where(diagonal, total[earlier][above], best)
            steps = torch.where(diagonal, length[earlier][above], steps)
            torch.add(best, diagonals[d, low:high], out=total[now][here])
            torch.add(steps, 1, out=length[now][here])
        ends = last == d
        if ends.any():
            reached = (total[now].gather(0, row) / length[now].gather(0, row))[0]
            mean = torch.where(ends, reached, mean)
    return mean


def _diagonals(cost):
    """Cell (i, j) of [P, N, M] at [i + j, i] of [N + M - 1, N, P]; inf elsewhere."""
    pairs, rows, columns = cost.shape
    # Rows longer by N, read back with rows shorter by one, slide by a cell each.
    padded = torch.nn.functional.pad(cost, (0, rows), value=math.inf).flatten(1)
    width = rows + columns - 1
    skewed = padded[:, : rows * width].reshape(pairs, rows, width)
    return skewed.permute(2, 1, 0).contiguous()


def pair_distances(
    frames: torch.Tensor,
    starts: torch.Tensor,
    counts: torch.Tensor,
    pairs: torch.Tensor,
) -> torch.Tensor:
    """DTW distance of pairs of sequences that are slices of one table of frames.

    Arguments
    ---------
    frames : torch.Tensor
        Frames of every utterance, one after the other, shape [N, D].
    starts : torch.Tensor
        First frame of each sequence, shape [I].
    counts : torch.Tensor
        Frames of each sequence, at least 1, shape [I].
    pairs : torch.Tensor
        The two sequences of each pair, shape [P, 2].

    Returns
    -------
    torch.Tensor
        Mean angular distance along the cheapest path, 0 to 1, shape [P].

    Example
    -------
    >>> frames = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> starts, counts = torch.tensor([0, 0, 2]), torch.tensor([1, 2, 1])
    >>> pair_distances(frames, starts, counts, torch.tensor([[0, 1], [1, 2]]))
    tensor([0.0000, 0.5000])
    """
    if counts.numel() and counts.min() < 1:
        raise ValueError("every sequence must have at least one frame")
    frames = unit_frames(frames)
    n, m = counts[pairs[:, 0]], counts[pairs[:, 1]]
    distances = frames.new_empty(len(pairs))
    # Pairs of like sizes share a block: little padding.
    order = torch.argsort(n * (int(counts.max()) + 1) + m) if len(pairs) else n
    begin = 0
    while begin < len(order):
        longest = int(n[order[begin : begin + _BLOCK_PAIRS]].max())
        widest = int(m[order[begin : begin + _BLOCK_PAIRS]].max())
        elements = max(longest, widest) * frames.shape[1] + longest * (longest + widest)
        size = max(1, min(_BLOCK_PAIRS, _BLOCK_ELEMENTS // elements))
        block = order[begin : begin + size]
        begin += size
        first, second = pairs[block].unbind(1)
        x = _gather(frames, starts[first], n[block])
        y = _gather(frames, starts[second], m[block])
        distances[block] = dtw(angular_distances(x, y), n[block], m[block])
    return distances


def _gather(frames, starts, counts):
    """Sequences [P, longest, D]; the last frame is repeated as padding."""
    steps = torch.arange(int(counts.max()), device=counts.device)
    steps = torch.minimum(steps, counts.unsqueeze(1) - 1)
    return frames[starts.unsqueeze(1) + steps]


def subsequence_dtw(
    cost: torch.Tensor, starts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cost of the stretch of each sequence that is most like a query.

    The query is taken frame by frame, while a sequence stays, goes on by one frame or
    by two (Sakoe and Chiba, IEEE Transactions on Acoustics, Speech and Signal
    Processing 26(1), 1978; Mueller, Information Retrieval for Music and Motion, 2007,
    section 4.4): every path has as many cells as the query has frames, so the path with
    the least sum has the least mean too.

    Arguments
    ---------
    cost : torch.Tensor
        Distances of the frames of the query to those of all sequences, one sequence
        after the other, shape [N, M].
    starts : torch.Tensor
        First column of each sequence, in ascending order from 0, shape [U].

    Returns
    -------
    mean : torch.Tensor
        Mean cost along the cheapest path in each sequence, shape [U].
    end : torch.Tensor
        Its last column, shape [U].

    Example
    -------
    >>> cost = torch.tensor([[0.0, 1.0, 0.5, 0.5], [1.0, 0.0, 0.5, 0.5]])
    >>> subsequence_dtw(cost, torch.tensor([0, 2]))
    (tensor([0.0000, 0.5000]), tensor([1, 2]))
    """
    rows, columns = cost.shape
    sequence = torch.zeros(columns, dtype=torch.long, device=cost.device)
    sequence[starts[1:]] = 1
    sequence = sequence.cumsum(0)
    # Two columns that no path crosses go before every sequence.
    time = torch.arange(columns, device=cost.device)
    place = time + 2 * sequence + 2
    total = cost.new_full((columns + 2 * len(starts),), math.inf)
    total[place] = cost[0]
    for row in cost[1:]:
        best = torch.minimum(total[2:], total[1:-1]).minimum(total[:-2])
        total[place] = best[place - 2] + row
    total = total[place]
    least = total.new_full((len(starts),), math.inf)
    least.scatter_reduce_(0, sequence, total, "amin")
    # Of columns that are equally good the first.
    found = torch.where(total == least[sequence], time, columns)
    end = torch.full_like(starts, columns).scatter_reduce_(0, sequence, found, "amin")
    return least / rows, end
