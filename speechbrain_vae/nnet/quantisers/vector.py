"""Vector quantisation with a straight-through gradient, single and composed."""

import torch

from speechbrain_vae.nnet.quantisers.base import Quantiser, StraightThrough
from speechbrain_vae.nnet.quantisers.codebook import Codebook

UPDATES = ("ema", "gradient")
METRICS = ("euclidean", "cosine")


class VectorQuantizer(Quantiser):
    """The bottleneck of the VQ-VAE (van den Oord, Vinyals, Kavukcuoglu 2017).

    Each frame becomes its nearest code; the gradient of the decoder passes to the
    encoder as it is. The loss (equation 3) is ``commitment * |x - sg(c)|^2``, plus
    ``|sg(x) - c|^2`` where codes are learned by gradient, each summed over
    dimensions and averaged over valid frames. How codes start, follow and are
    revived is told in :class:`~speechbrain_vae.nnet.quantisers.codebook.Codebook`;
    nothing changes in evaluation mode.

    Arguments
    ---------
    dim : int
        Size D of the frames.
    codebook_size : int
        Codes K.
    codebook_update : str
        "ema" for moving averages (appendix A.1) or "gradient".
    commitment : float
        Weight beta of the commitment loss.
    metric : str
        "euclidean", or "cosine": frames and codes are put on the unit sphere, and so
        is the output (Yu et al. 2022, section 3.2).
    decay : float
        Decay of the moving averages, per batch.
    revive_below : float
        A code is dead below this multiple of the mean share 1/K; 0 never revives.
    seed : int
        Seed of the k-means start and of the revival.

    Example
    -------
    >>> quantiser = VectorQuantizer(dim=8, codebook_size=16)
    >>> out = quantiser(torch.randn(4, 50, 8), torch.tensor([1.0, 1.0, 0.5, 0.5]))
    >>> out.latent.shape, out.indices.shape
    (torch.Size([4, 50, 8]), torch.Size([4, 50, 1]))
    >>> torch.equal(quantiser.eval().lookup(out.indices)[2, 25:], torch.zeros(25, 8))
    True
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        codebook_update: str = "ema",
        commitment: float = 0.25,
        metric: str = "euclidean",
        decay: float = 0.99,
        revive_below: float = 0.03,
        seed: int = 0,
    ) -> None:
        super().__init__(dim, codebook_size)
        if codebook_update not in UPDATES:
            raise ValueError(
                f"codebook_update must be one of {', '.join(UPDATES)}; "
                f"got {codebook_update!r}"
            )
        if metric not in METRICS:
            raise ValueError(
                f"metric must be one of {', '.join(METRICS)}; got {metric!r}"
            )
        if commitment < 0:
            raise ValueError(f"commitment must not be negative; got {commitment}")
        self.commitment = commitment
        self.metric = metric
        self.codebook = Codebook(
            dim,
            codebook_size,
            learned=codebook_update == "gradient",
            unit_norm=metric == "cosine",
            decay=decay,
            revive_below=revive_below,
            seed=seed,
        )

    def quantise(self, x: torch.Tensor):
        """See :meth:`Quantiser.quantise`."""
        # x [N, D]
        if self.metric == "cosine":
            x = unit_length(x)
        if self.training:
            self.codebook.start(x)
        indices = self.codebook.search(x)
        codes, loss, error = StraightThrough.apply(
            x, self.codebook.weight, indices, self.commitment
        )
        stats = {"quantisation_error": error}
        if self.training:
            stats["revived_codes"] = self.codebook.update(x, indices)
        return codes, codes, indices.unsqueeze(1), loss, stats

    def lookup(self, indices: torch.Tensor):
        """See :meth:`Quantiser.lookup`."""
        return codes_or_zero(self.codebook.weight, indices.squeeze(-1))


class ProductQuantizer(Quantiser):
    """Splits each frame into groups and quantises them apart (Jégou et al. 2011).

    Arguments
    ---------
    dim : int
        Size D of the frames, a multiple of ``groups``.
    codebook_size : int
        Codes K of each group.
    groups : int
        Groups G.
    quantiser : callable
        What makes a quantiser from ``dim`` and ``codebook_size``: a class, or
        ``!name:`` with further arguments in YAML.

    Example
    -------
    >>> quantiser = ProductQuantizer(dim=8, codebook_size=16, groups=2)
    >>> quantiser(torch.randn(4, 50, 8)).indices.shape
    torch.Size([4, 50, 2])
    """

    def __init__(
        self, dim: int, codebook_size: int, groups: int = 2, quantiser=VectorQuantizer
    ) -> None:
        super().__init__(dim, codebook_size, groups)
        if dim % groups:
            raise ValueError(f"dim={dim} must be a multiple of groups={groups}")
        self.quantisers = torch.nn.ModuleList(
            quantiser(dim // groups, codebook_size) for _ in range(groups)
        )

    def quantise(self, x: torch.Tensor):
        """See :meth:`Quantiser.quantise`."""
        # x [N, D]
        parts = [
            quantiser.quantise(part.contiguous())
            for quantiser, part in zip(
                self.quantisers, x.chunk(self.groups, 1), strict=True
            )
        ]
        latents, features, indices, losses, stats = zip(*parts, strict=True)
        return (
            torch.cat(latents, 1),
            torch.cat(features, 1),
            torch.cat(indices, 1),
            sum(losses),
            {name: _of_all(name, [s[name] for s in stats]) for name in stats[0]},
        )

    def lookup(self, indices: torch.Tensor):
        """See :meth:`Quantiser.lookup`."""
        return torch.cat(
            [
                quantiser.lookup(index)
                for quantiser, index in zip(
                    self.quantisers, indices.split(1, -1), strict=True
                )
            ],
            -1,
        )


class ResidualQuantizer(Quantiser):
    """Quantises what the stages before left over, and adds up (Juang and Gray 1982).

    Every stage commits to its own residual, whose gradient reaches the encoder
    directly, as in SoundStream (Zeghidour et al. 2021).

    Arguments
    ---------
    dim : int
        Size D of the frames.
    codebook_size : int
        Codes K of each stage.
    stages : int
        Stages G.
    quantiser : callable
        What makes a :class:`VectorQuantizer` from ``dim`` and ``codebook_size``: the
        class, or ``!name:`` with further arguments in YAML.

    Example
    -------
    >>> quantiser = ResidualQuantizer(dim=8, codebook_size=16, stages=3)
    >>> quantiser(torch.randn(4, 50, 8)).indices.shape
    torch.Size([4, 50, 3])
    """

    def __init__(
        self, dim: int, codebook_size: int, stages: int = 2, quantiser=VectorQuantizer
    ) -> None:
        super().__init__(dim, codebook_size, stages)
        self.quantisers = torch.nn.ModuleList(
            quantiser(dim, codebook_size) for _ in range(stages)
        )
        for stage in self.quantisers:
            if not isinstance(stage, VectorQuantizer):
                raise ValueError(
                    "ResidualQuantizer can train VectorQuantizer alone; got "
                    f"{type(stage).__name__}: put several into a ProductQuantizer"
                )

    def quantise(self, x: torch.Tensor):
        """See :meth:`Quantiser.quantise`."""
        # x [N, D]
        residual = x
        loss, indices, revived = 0, [], 0
        for quantiser in self.quantisers:
            codes, _, index, stage_loss, stats = quantiser.quantise(residual)
            residual = residual - codes.detach()
            loss = loss + stage_loss
            indices.append(index)
            revived = revived + stats.get("revived_codes", 0)
        if self.training:
            stats["revived_codes"] = revived
        # One straight-through step around all stages: summing theirs would give the
        # encoder the gradient of the decoder once for each.
        latent = x - residual.detach()
        return latent, latent, torch.cat(indices, 1), loss, stats

    def lookup(self, indices: torch.Tensor):
        """See :meth:`Quantiser.lookup`."""
        return sum(
            quantiser.lookup(index)
            for quantiser, index in zip(
                self.quantisers, indices.split(1, -1), strict=True
            )
        )


def _of_all(name, values):
    if name in ("quantisation_error", "revived_codes"):
        return sum(values)
    if name == "mean_jump":
        return sum(values) / len(values)
    # Groups grow and cool together.
    return values[0]


def unit_length(x: torch.Tensor) -> torch.Tensor:
    """Frames [N, D] on the unit sphere; one of no length stays, without a gradient.

    Example
    -------
    >>> unit_length(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / length.masked_fill(length < 1e-12, torch.inf)


def codes_or_zero(codebook: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Codes [..., D] of a codebook [K, D]; zero where an index [...] is negative.

    Example
    -------
    >>> codes_or_zero(torch.ones(3, 2), torch.tensor([2, -1]))
    tensor([[1., 1.],
            [0., 0.]])
    """
    codes = codebook[indices.clamp(min=0)]
    return codes.masked_fill_((indices < 0).unsqueeze(-1), 0)
