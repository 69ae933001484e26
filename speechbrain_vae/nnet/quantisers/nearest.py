"""Nearest-neighbour search in a codebook: one matrix product, little memory.

Every quantiser searches through :func:`score_blocks`, so the choices that make
the search exact and cheap are made once: float32 whatever the autocast or
TensorFloat-32 setting, data centred on the codebook so that an offset common to
all frames costs no digits, and row blocks that share one buffer, so that
N x K scores are never held at once.
"""

import contextlib

import torch

# The scores of a block and the codes they are made from stay in the cache.
CPU_BLOCK_BYTES = 2 * 2**20
# A GPU needs more rows in a launch to be busy; still half of the 64 MiB that a
# quantiser may use.
GPU_BLOCK_BYTES = 32 * 2**20


@contextlib.contextmanager
def full_float32():
    """Matrix products in true float32 inside, the caller's setting afterwards.

    SpeechBrain allows TensorFloat-32 on every GPU; its 10-bit mantissa is enough
    for a network, but moves a frame to another code as often as bfloat16 does.

    Example
    -------
    >>> with full_float32():
    ...     torch.get_float32_matmul_precision()
    'highest'
    """
    try:
        previous = torch.get_float32_matmul_precision()
    except RuntimeError:
        # The program mixes PyTorch's two precision APIs: then there is no single
        # setting to put back, and the caller's own choice stays.
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(previous)


def score_blocks(
    x: torch.Tensor, codebook: torch.Tensor, block_bytes: int | None = None
):
    """Scores of all codes for successive blocks of frames.

    The score of code i is half its squared distance to the frame, less a term
    that all codes share: with frames x and codes c both taken relative to the
    mean of the codebook,

        s_i = |c_i|^2 / 2 - x . c_i          |x - c_i|^2 = |x|^2 + 2 s_i

    so the smallest score is the nearest code. Differences of scores give every
    projection on a line through two codes: with L^2 = |c_j - c_i|^2,

        (x - c_i) . (c_j - c_i) = s_i - s_j + L^2 / 2

    Arguments
    ---------
    x : torch.Tensor
        Frames, shape [N, D], any floating dtype.
    codebook : torch.Tensor
        Codes, shape [K, D].
    block_bytes : int, optional
        Size of the buffer of scores; 2 MiB on a CPU, 32 MiB elsewhere.

    Yields
    ------
    rows : slice
        Which frames these are.
    frames : torch.Tensor
        Those frames relative to the mean of the codebook, float32, shape [R, D].
    scores : torch.Tensor
        Scores, float32, shape [R, K]. Both tensors are overwritten by the next
        block: reduce them before going on; changing them in place is fine.

    Example
    -------
    >>> x, codebook = torch.randn(100, 8), torch.randn(16, 8)
    >>> for rows, frames, scores in score_blocks(x, codebook):
    ...     distances = frames.square().sum(1, keepdim=True) + 2 * scores
    >>> torch.allclose(distances, torch.cdist(x, codebook) ** 2, atol=1e-4)
    True
    """
    # x [N, D], codebook [K, D]
    if x.ndim != 2 or codebook.ndim != 2 or x.shape[1] != codebook.shape[1]:
        raise ValueError(
            "expected frames [N, D] and a codebook [K, D] of one width; "
            f"got {list(x.shape)} and {list(codebook.shape)}"
        )
    if codebook.shape[0] == 0:
        raise ValueError("the codebook is empty: it needs at least one code")
    x = x.detach()
    codebook = codebook.detach().float()
    centre = codebook.mean(0)
    codes = codebook - centre
    half_norms = codes.square().sum(1).div_(2)
    codes = codes.t()

    if block_bytes is None:
        block_bytes = CPU_BLOCK_BYTES if x.device.type == "cpu" else GPU_BLOCK_BYTES
    block = max(1, min(len(x), block_bytes // (4 * len(codebook))))
    frame_buffer = codes.new_empty(block, x.shape[1])
    score_buffer = codes.new_empty(block, len(codebook))
    for start in range(0, len(x), block):
        rows = slice(start, min(start + block, len(x)))
        frames = frame_buffer[: rows.stop - start]
        scores = score_buffer[: rows.stop - start]
        torch.sub(x[rows], centre, out=frames)
        with full_float32():
            torch.addmm(half_norms, frames, codes, alpha=-1, out=scores)
        yield rows, frames, scores


def nearest_indices(x: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Index of the nearest code of each frame, in the Euclidean sense.

    Arguments
    ---------
    x : torch.Tensor
        Frames, shape [N, D].
    codebook : torch.Tensor
        Codes, shape [K, D].

    Returns
    -------
    torch.Tensor
        Long, shape [N].

    Example
    -------
    >>> nearest_indices(torch.tensor([[0.9], [-2.0]]), torch.tensor([[0.0], [1.0]]))
    tensor([1, 0])
    """
    # x [N, D], codebook [K, D]
    indices = torch.empty(len(x), dtype=torch.long, device=x.device)
    for rows, _, scores in score_blocks(x, codebook):
        indices[rows] = smallest(scores)
    return indices


def smallest(scores: torch.Tensor) -> torch.Tensor:
    """Position of the smallest score of each row.

    As ``scores.argmin(1)``, up to which of equal scores it takes, at a third of the
    time on a CPU: PyTorch finds a minimum with vector instructions, its position
    without. So the row is folded, and the position is sought among the minima of the
    folded columns and then within one column.

    Arguments
    ---------
    scores : torch.Tensor
        Contiguous, shape [N, K].

    Returns
    -------
    torch.Tensor
        Long, shape [N].

    Example
    -------
    >>> smallest(torch.tensor([[3.0, 1.0, 2.0], [0.0, 4.0, 5.0]]))
    tensor([1, 0])
    """
    # scores [N, K]
    frames, codes = scores.shape
    # Minima over folds are fast only for rows of at least 32 columns.
    folds = min(32, codes // 32)
    if folds < 2 or codes % folds or scores.device.type != "cpu":
        return scores.argmin(1)
    folded = scores.view(frames, folds, codes // folds)
    column = folded.amin(1).argmin(1)
    place = column.view(-1, 1, 1).expand(-1, folds, 1)
    fold = folded.gather(2, place).squeeze(2).argmin(1)
    return fold * (codes // folds) + column


def nearest(
    x: torch.Tensor, codebook: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest code of each frame and the squared distance to it.

    The distance is summed over the differences themselves, so that it is
    accurate to float32 even where frame and code almost coincide.

    Arguments
    ---------
    x : torch.Tensor
        Frames, shape [N, D].
    codebook : torch.Tensor
        Codes, shape [K, D].

    Returns
    -------
    indices : torch.Tensor
        Long, shape [N].
    squared_distances : torch.Tensor
        Float32, shape [N].

    Example
    -------
    >>> nearest(torch.tensor([[0.5], [-2.0]]), torch.tensor([[0.0], [1.5]]))
    (tensor([0, 0]), tensor([0.2500, 4.0000]))
    """
    # x [N, D], codebook [K, D]
    indices = nearest_indices(x, codebook)
    return indices, squared_distances(x, codebook, indices)


def squared_distances(
    x: torch.Tensor, codebook: torch.Tensor, indices: torch.Tensor
) -> torch.Tensor:
    """Squared distance of each frame to the code it was given.

    Arguments
    ---------
    x : torch.Tensor
        Frames, shape [N, D].
    codebook : torch.Tensor
        Codes, shape [K, D].
    indices : torch.Tensor
        Long, shape [N].

    Returns
    -------
    torch.Tensor
        Float32, shape [N].

    Example
    -------
    >>> squared_distances(torch.ones(1, 4), torch.zeros(2, 4), torch.tensor([1]))
    tensor([4.])
    """
    # x [N, D], codebook [K, D], indices [N]
    codebook = codebook.detach().float()
    distances = torch.empty(len(x), dtype=torch.float32, device=x.device)
    block = max(1, CPU_BLOCK_BYTES // (4 * x.shape[1]))
    for frames, chosen, out in zip(
        x.detach().split(block),
        indices.split(block),
        distances.split(block),
        strict=True,
    ):
        difference = codebook[chosen].sub_(frames)
        torch.sum(difference.square_(), 1, out=out)
    return distances
