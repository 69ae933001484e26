"""A codebook that starts from data, follows it, and keeps no dead codes."""

import torch

from speechbrain_vae.nnet.distributed import (
    all_values,
    place_in_global_batch,
    share_from_first,
    sum_across,
    take_rows,
)
from speechbrain_vae.nnet.quantisers.kmeans import draw, kmeans, sums_by_code
from speechbrain_vae.nnet.quantisers.nearest import nearest_indices, squared_distances


class Codebook(torch.nn.Module):
    """K codes and all that keeps them in use.

    Call :meth:`start` before the search and :meth:`update` after it, on every
    training batch, on every DDP process. All that they need to go on is in the
    state dict, and random choices depend on ``seed`` and the number of updates
    alone: a run that is stopped and resumed gives the same codes, and processes
    that share a batch give the codes that one process gives on the whole of it.

    - **Start.** Until 10 frames for each code have been seen, the first frames
      themselves are the codes; then k-means on those frames gives the codebook.
    - **Update.** Moving averages of counts and sums (van den Oord et al. 2017,
      appendix A.1); or none where an optimiser learns the codes. The decay of update
      t = 0, 1, ... is at most (t + 1) / (t + 2), so that the first batches count
      alike, as in online k-means, until the average is as long as ``decay`` says.
    - **Revival.** A code whose share of the frames falls below ``revive_below / K``
      is dead, and splits another (Linde, Buzo, Gray 1980): a frame is drawn with
      probability proportional to its squared error, and the dead code moves to a
      tenth of the way from that frame's code to the frame. The two share the counts
      and sums of the one. Placed on the frame itself, as is usual, a code of many
      dimensions would attract that frame alone, and die again.

    Arguments
    ---------
    dim : int
        Size D of a code.
    codebook_size : int
        Codes K.
    learned : bool
        Whether the codes are a parameter that an optimiser learns, instead of
        moving averages.
    unit_norm : bool
        Whether codes are kept on the unit sphere.
    decay : float
        Decay of the moving averages, per batch.
    revive_below : float
        Share of the frames, as a multiple of 1/K, below which a code is dead.
        0 never revives.
    seed : int
        Seed of the start and of the revival.

    Example
    -------
    >>> codebook = Codebook(dim=8, codebook_size=4)
    >>> x = torch.randn(100, 8)
    >>> codebook.start(x)
    >>> indices = codebook.search(x)
    >>> int(codebook.update(x, indices))
    0
    """

    START_FRAMES_PER_CODE = 10
    SPLIT_STEP = 0.1

    updates: torch.Tensor
    counts: torch.Tensor
    sums: torch.Tensor
    waiting: torch.Tensor
    weight: torch.Tensor

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        learned: bool = False,
        unit_norm: bool = False,
        decay: float = 0.99,
        revive_below: float = 0.03,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be at least 0 and below 1; got {decay}")
        if not 0 <= revive_below < 1:
            raise ValueError(
                "revive_below is a multiple of the mean share 1/K and must be at least "
                f"0 and below 1; got {revive_below}"
            )
        self.learned = learned
        self.unit_norm = unit_norm
        self.decay = decay
        self.revive_below = revive_below
        self.seed = seed
        weight = self._project(torch.randn(codebook_size, dim))
        if learned:
            self.weight = torch.nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)
            self.register_buffer("sums", torch.zeros(codebook_size, dim))
        self.register_buffer("counts", torch.zeros(codebook_size))
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("updates", torch.tensor(0))
        # Frames that wait for the start; empty afterwards.
        self.register_buffer("waiting", torch.zeros(0, dim))

    def search(self, x: torch.Tensor) -> torch.Tensor:
        """Index [N] of the nearest code of each frame [N, D]."""
        return nearest_indices(x, self.weight)

    @torch.no_grad()
    def start(self, x: torch.Tensor) -> None:
        """Collect frames and, once there are enough of them, place the codes.

        Arguments
        ---------
        x : torch.Tensor
            Valid frames of the batch, shape [N, D].
        """
        # x [N, D]
        if self.started:
            return
        x = x.detach()
        codebook_size = len(self.weight)
        wanted = self.START_FRAMES_PER_CODE * codebook_size
        offset, total = place_in_global_batch(x)
        positions = torch.randperm(total, generator=self._generator())
        positions = positions[: wanted - len(self.waiting)].to(x.device)
        self.waiting = torch.cat([self.waiting, take_rows(x, positions, offset)])
        waiting = len(self.waiting)
        if waiting == 0:
            return
        if waiting < wanted:
            around = torch.arange(codebook_size, device=x.device) % waiting
            self.weight.copy_(self.waiting[around])
            return
        weight, counts = kmeans(self.waiting, codebook_size, seed=self.seed)
        # As if the batches before had been as large as this one.
        counts *= total / waiting
        share_from_first(weight, counts)
        self._place(slice(None), self._project(weight), counts)
        self.waiting = self.waiting[:0].clone()
        self.started.fill_(True)
        self.updates.zero_()

    @torch.no_grad()
    def update(self, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """Follow a batch, then revive dead codes. Does nothing before the start.

        Arguments
        ---------
        x : torch.Tensor
            Valid frames of the batch, shape [N, D].
        indices : torch.Tensor
            What :meth:`search` gave for them, shape [N].

        Returns
        -------
        torch.Tensor
            How many codes were revived.
        """
        # x [N, D], indices [N]
        decay = ((self.updates + 1) / (self.updates + 2)).clamp(max=self.decay)
        self.updates += 1
        if not self.started:
            return self.updates.new_zeros(())
        x = x.detach()
        sums, counts = sums_by_code(x, indices, len(self.weight))
        chosen = sum_across(counts) > 0
        self.counts.lerp_(counts, 1 - decay)
        if not self.learned:
            self.sums.lerp_(sum_across(sums), 1 - decay)
            # A code that nothing chose has the same mean as before, up to rounding
            # that would carry it away as its count vanishes.
            means = self._project(self.sums / self.counts.unsqueeze(1))
            self.weight.copy_(torch.where(chosen.unsqueeze(1), means, self.weight))
        elif self.unit_norm:
            self.weight.copy_(self._project(self.weight))
        return self._revive(x, indices)

    def _revive(self, x, indices):
        is_dead = self.counts < self.revive_below * self.counts.mean()
        dead = is_dead.nonzero().squeeze(1)
        if len(dead) == 0:
            return dead.new_zeros(())
        offset, total = place_in_global_batch(x)
        dead = dead[:total]
        if len(dead) == 0:
            return dead.new_zeros(())
        errors = squared_distances(x, self.weight, indices)
        errors = errors.masked_fill_(is_dead[indices], 0)
        errors = all_values(errors, offset, total)
        positions = draw(errors, len(dead), self._generator())
        frames = take_rows(x, positions, offset)
        parents = take_rows(indices.unsqueeze(1), positions, offset).squeeze(1)
        share = 1 + torch.bincount(parents, minlength=len(self.weight))
        self.counts /= share
        if not self.learned:
            self.sums /= share.unsqueeze(1)
        codes = self.weight.data[parents].lerp(frames, self.SPLIT_STEP)
        self._place(dead, self._project(codes), self.counts[parents])
        return dead.new_tensor(len(dead))

    def _place(self, which, codes, counts):
        # A code's averages are replaced with it: the old ones would drag it back.
        self.weight.data[which] = codes
        self.counts[which] = counts
        if not self.learned:
            self.sums[which] = codes * counts.unsqueeze(1)

    def _project(self, codes):
        if self.unit_norm:
            return torch.nn.functional.normalize(codes, dim=1)
        return codes

    def _generator(self):
        # One stream for each update, so that resuming needs no generator state. The
        # seed is spread over 32 bits: a generator of the CPU takes no notice of more.
        mixed = self.seed * 0x9E3779B1 + int(self.updates)
        return torch.Generator().manual_seed(mixed % 2**32)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # The number of waiting frames differs between checkpoints.
        waiting = state_dict.get(prefix + "waiting")
        if waiting is not None:
            self.waiting = self.waiting.new_zeros(waiting.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
