"""The corners of a space-filling curve: how they start, multiply and stay in use."""

import torch

from speechbrain_vae.nnet.distributed import (
    place_in_global_batch,
    share_from_first,
    sum_across,
    take_rows,
)
from speechbrain_vae.nnet.quantisers.curve import insert_corners, untangle
from speechbrain_vae.nnet.quantisers.line_som import line_som
from speechbrain_vae.nnet.quantisers.usage import count_codes

# Wide enough to begin in order; training narrows what it may.
START_WIDTH = 1.0
# What a frame near an end of its segment says for splitting it.
ELSEWHERE = 0.3


class CurveCodebook(torch.nn.Module):
    """Corners of a curve, learned by an optimiser, in the order of the curve.

    Call :meth:`prepare` before the search and :meth:`count` after it, on every
    training batch, on every DDP process. The stage is in the state dict, and nothing
    is random: a run that is stopped and resumed goes on as if it had not been.

    - **Start.** A self-organising map on a line, on the first batch.
    - **Growth.** 4 corners for ``growth_steps`` batches, then 8, 16, ... K (Vali and
      Bäckström 2023, section 2.2): segments with most frames around their middle are
      split.
    - **Revival.** Every 100 batches, a corner that was chosen by less than
      ``revive_below / K`` of the frames is taken out and put in the middle of such a
      segment. The corners between move up by one index: the order stays.
    - **Untangling.** At every start, growth and revival, stretches of the curve are
      reversed where that shortens it, which undoes self-crossings.

    Arguments
    ---------
    dim : int
        Size D of a corner.
    codebook_size : int
        Corners K at the end, at least 2, not necessarily a power of two.
    growth_steps : int
        Training batches of each stage; 0 starts with all K corners.
    revive_below : float
        Share of the frames, as a multiple of 1/K, below which a corner is unused.
        0 never revives.

    Example
    -------
    >>> codebook = CurveCodebook(dim=8, codebook_size=16, growth_steps=1)
    >>> x = torch.randn(100, 8)
    >>> for _ in range(3):
    ...     revived = codebook.prepare(x)
    ...     codebook.count(torch.tensor([0, 1]), torch.tensor([0.5, 0.5]))
    ...     print(len(codebook.corners))
    4
    8
    16
    """

    FIRST_STAGE = 4
    REVIVE_EVERY = 100
    START_FRAMES_PER_CORNER = 32

    stage: torch.Tensor
    updates: torch.Tensor
    since: torch.Tensor
    counts: torch.Tensor

    def __init__(
        self, dim: int, codebook_size: int, growth_steps: int, revive_below: float = 0.1
    ) -> None:
        super().__init__()
        if codebook_size < 2:
            raise ValueError(
                f"a curve needs a codebook_size of at least 2; got {codebook_size}"
            )
        if not isinstance(growth_steps, int) or growth_steps < 0:
            raise ValueError(
                "growth_steps must be a whole number of batches, 0 for no growth; "
                f"got {growth_steps!r}"
            )
        if not 0 <= revive_below < 1:
            raise ValueError(
                "revive_below is a multiple of the mean share 1/K and must be at least "
                f"0 and below 1; got {revive_below}"
            )
        self.growth_steps = growth_steps
        self.revive_below = revive_below
        stage = min(self.FIRST_STAGE, codebook_size) if growth_steps else codebook_size
        self.weight = torch.nn.Parameter(torch.randn(codebook_size, dim))
        self.register_buffer("stage", torch.tensor(stage))
        self.register_buffer("updates", torch.tensor(0))
        self.register_buffer("since", torch.tensor(0))
        self.register_buffer("started", torch.tensor(False))
        # Frames of each corner, and around the middle of each segment, since the last
        # change.
        self.register_buffer("counts", torch.zeros(2, codebook_size))

    @property
    def corners(self):
        """The corners of the present stage, shape [4 ... K, D]."""
        return self.weight[: int(self.stage)]

    @torch.no_grad()
    def prepare(self, x: torch.Tensor) -> int:
        """Start, grow or revive if it is time: before the search, as indices shift.

        Arguments
        ---------
        x : torch.Tensor
            Valid frames of the batch, shape [N, D].

        Returns
        -------
        int
            How many corners were revived.
        """
        # x [N, D]
        if not self.started:
            self.start(x)
            return 0
        stage, size = int(self.stage), len(self.weight)
        if stage < size and int(self.updates) >= self.growth_steps:
            grown = min(2 * stage, size)
            load = self.counts[1, : stage - 1]
            self._place(insert_corners(self.weight[:stage], load, grown - stage))
            self.stage.fill_(grown)
            self.updates.zero_()
        elif int(self.since) >= self.REVIVE_EVERY:
            return self._revive(stage)
        return 0

    @torch.no_grad()
    def start(self, x: torch.Tensor):
        """Lay the curve of the present stage through frames, in place of what it was.

        Arguments
        ---------
        x : torch.Tensor
            Frames, shape [N, D].
        """
        # x [N, D]
        stage = int(self.stage)
        offset, total = place_in_global_batch(x)
        if total == 0:
            return
        wanted = min(total, max(4096, self.START_FRAMES_PER_CORNER * stage))
        # Evenly spaced over the batch: no generator whose state would have to be kept.
        positions = torch.arange(wanted, device=x.device) * total // wanted
        frames = take_rows(x.detach(), positions, offset)
        corners = line_som(frames, stage, width=START_WIDTH)
        share_from_first(corners)
        self._place(corners)
        self.started.fill_(True)

    @torch.no_grad()
    def count(self, segments: torch.Tensor, position: torch.Tensor):
        """Note what a batch chose.

        Arguments
        ---------
        segments : torch.Tensor
            Segment of each frame, long, shape [N].
        position : torch.Tensor
            Position on it, shape [N].
        """
        # segments [N], position [N]
        size = len(self.weight)
        # A corner in the middle would serve the frames nearer to it than to the ends;
        # a segment between two clusters has many frames but none of those.
        middle = (position - 0.5).abs() < 0.25
        nearest = segments + (position > 0.5)
        # Whole numbers, whose sum on a GPU is the same in any order.
        places = nearest, segments, segments.where(middle, -1)
        corners, frames, middles = count_codes(torch.stack(places, 1), size)
        loads = ELSEWHERE * frames + (1 - ELSEWHERE) * middles
        self.counts += sum_across(torch.stack([corners, loads]).to(self.counts))
        self.updates += 1
        self.since += 1

    def _revive(self, stage):
        corners = self.counts[0, :stage]
        kept = corners >= self.revive_below * corners.mean()
        revived = stage - int(kept.sum())
        placed = self.weight[:stage]
        if revived and stage - revived >= 2:
            # The segment before a corner that goes joins the one after it.
            owner = (kept.cumsum(0) - 1)[:-1].clamp(min=0)
            owner = owner.clamp(max=stage - revived - 2)
            load = corners.new_zeros(stage - revived - 1)
            load.index_add_(0, owner, self.counts[1, : stage - 1])
            placed = insert_corners(placed[kept], load, revived)
        else:
            revived = 0
        self._place(placed)
        return revived

    def _place(self, corners):
        self.weight.data[: len(corners)] = corners[untangle(corners)]
        self.counts.zero_()
        self.since.zero_()

    def extra_repr(self):
        """Sizes, for ``print``."""
        return f"corners={int(self.stage)} of {len(self.weight)}"
