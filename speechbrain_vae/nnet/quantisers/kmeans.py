"""k-means on a sample of frames: the start of every learned codebook."""

import torch

from speechbrain_vae.nnet.quantisers.nearest import nearest, nearest_indices


def kmeans(
    x: torch.Tensor, codebook_size: int, iterations: int = 10, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lloyd's algorithm from a k-means++ start.

    Deterministic for a seed. A centre that loses all its frames moves to a frame
    that is served badly, so centres are distinct wherever frames are.

    Arguments
    ---------
    x : torch.Tensor
        Frames, shape [N, D], N at least 1.
    codebook_size : int
        Centres K; may exceed N.
    iterations : int
        Lloyd iterations.
    seed : int
        Seed of the random choices.

    Returns
    -------
    centres : torch.Tensor
        Shape [K, D].
    counts : torch.Tensor
        Frames of each centre, same dtype as ``x``, shape [K].

    Example
    -------
    >>> x = torch.tensor([[0.0], [0.2], [5.0], [5.2]])
    >>> centres, counts = kmeans(x, 2)
    >>> centres.flatten().sort().values, counts
    (tensor([0.1000, 5.1000]), tensor([2., 2.]))
    """
    # x [N, D]
    generator = torch.Generator().manual_seed(seed)
    centres = spread_start(x, codebook_size, generator)
    for _ in range(iterations):
        indices, distances = nearest(x, centres)
        sums, counts = sums_by_code(x, indices, codebook_size)
        centres = sums / counts.clamp(min=1).unsqueeze(1)
        empty = (counts == 0).nonzero().squeeze(1)
        if len(empty):
            centres[empty] = x[draw(distances, len(empty), generator)]
    indices = nearest_indices(x, centres)
    return centres, sums_by_code(x, indices, codebook_size)[1]


def spread_start(x: torch.Tensor, codebook_size: int, generator) -> torch.Tensor:
    """Starting centres drawn with probability proportional to squared distance.

    k-means++ (Arthur and Vassilvitskii 2007) draws one centre at a time; as in
    k-means|| (Bahmani et al. 2012) several are drawn at once, here an eighth of
    those that there are, so that large codebooks start in tens of passes instead
    of thousands. The first eight are drawn one by one.

    Arguments
    ---------
    x : torch.Tensor
        Frames, shape [N, D].
    codebook_size : int
        Centres K.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    torch.Tensor
        Shape [K, D].

    Example
    -------
    >>> x = torch.tensor([[0.0], [0.0], [0.0], [7.0]])
    >>> spread_start(x, 2, torch.Generator().manual_seed(0)).flatten().sort().values
    tensor([0., 7.])
    """
    # x [N, D]
    centres = x.new_empty(codebook_size, x.shape[1])
    centres[0] = x[int(torch.randint(len(x), (1,), generator=generator))]
    distances = torch.full((len(x),), torch.inf, device=x.device)
    chosen, fresh = 1, 1
    while chosen < codebook_size:
        distances = torch.minimum(
            distances, nearest(x, centres[chosen - fresh : chosen])[1]
        )
        fresh = min(max(1, chosen // 8), codebook_size - chosen)
        centres[chosen : chosen + fresh] = x[draw(distances, fresh, generator)]
        chosen += fresh
    return centres


def draw(weights: torch.Tensor, number: int, generator) -> torch.Tensor:
    """Positions drawn with probability proportional to their weights.

    Without replacement as far as there are positions, then around again: asked for
    more than there are, each is drawn as often as the others, give or take one.

    Arguments
    ---------
    weights : torch.Tensor
        Non-negative, shape [N].
    number : int
        How many to draw.
    generator : torch.Generator
        On the CPU, so that a seed means the same on every device.

    Returns
    -------
    torch.Tensor
        Long, shape [number].

    Example
    -------
    >>> draw(torch.tensor([0.0, 1.0]), 3, torch.Generator().manual_seed(0))
    tensor([1, 0, 1])
    """
    # Exponential race (Efraimidis and Spirakis 2006): the smallest keys win. Weights
    # of zero come last, in a random order among themselves.
    noise = torch.rand(len(weights), generator=generator).to(weights.device)
    weights = weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
    keys = -torch.log1p(-noise) / weights.clamp(min=1e-30)
    order = keys.topk(min(number, len(keys)), largest=False).indices
    return order.repeat(-(-number // len(order)))[:number]


def sums_by_code(
    x: torch.Tensor, indices: torch.Tensor, codebook_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum and number of the frames of each code.

    Arguments
    ---------
    x : torch.Tensor
        Frames, shape [N, D].
    indices : torch.Tensor
        Long, shape [N].
    codebook_size : int
        Codes K.

    Returns
    -------
    sums : torch.Tensor
        Shape [K, D].
    counts : torch.Tensor
        Same dtype as ``x``, shape [K].

    Example
    -------
    >>> sums_by_code(torch.ones(3, 1), torch.tensor([0, 0, 1]), 3)
    (tensor([[2.],
            [1.],
            [0.]]), tensor([2., 1., 0.]))
    """
    # x [N, D], indices [N]
    sums = x.new_zeros(codebook_size, x.shape[1]).index_add_(0, indices, x)
    counts = torch.bincount(indices, minlength=codebook_size).to(x.dtype)
    return sums, counts
