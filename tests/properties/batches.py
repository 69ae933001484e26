"""Random batches, for all properties."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


@dataclass
class Batch:
    """Frames [B, T, D], the valid ones of each item, and whether lengths are given."""

    x: torch.Tensor
    counts: list[int]
    told: bool

    @property
    def lengths(self):
        """Relative lengths [B], or None."""
        if not self.told:
            return None
        return torch.tensor(self.counts) / self.x.shape[1]

    @property
    def mask(self):
        """Valid frames [B, T]."""
        counts = torch.tensor(self.counts).unsqueeze(1)
        return torch.arange(self.x.shape[1]) < counts

    def alone(self):
        """The valid frames of each item as a batch of its own, [1, T, D] each."""
        for row, count in zip(self.x, self.counts, strict=True):
            yield row[None, :count]


@st.composite
def batches(draw, size, frames=12, dtypes=(torch.float32,), spread=1.0):
    """Batches of 1 to 3 items of 1 to ``frames`` frames; padding holds anything."""
    counts = draw(st.lists(st.integers(1, frames), min_size=1, max_size=3))
    told = draw(st.booleans())
    padding = draw(st.sampled_from([0.0, -3.0, 1e4]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    if not told:
        counts = [max(counts)] * len(counts)
    longest = max(counts)
    x = spread * torch.randn(len(counts), longest, size, generator=generator)
    batch = Batch(x, counts, told)
    x[~batch.mask] = padding
    batch.x = x.to(draw(st.sampled_from(dtypes)))
    return batch


@st.composite
def waveforms(draw, samples=900, levels=(-8, 5)):
    """Noise of any loudness [B, S], the samples of each, relative lengths or None."""
    counts = draw(st.lists(st.integers(1, samples), min_size=1, max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    level = 10.0 ** draw(st.integers(*levels))
    wavs = torch.zeros(len(counts), max(counts))
    for wav, count in zip(wavs, counts, strict=True):
        wav[:count] = level * torch.randn(count, generator=generator)
        # Lengths are inferred from the last sample that is not zero.
        wav[count - 1] = level
    lengths = torch.tensor(counts) / max(counts) if draw(st.booleans()) else None
    return wavs, counts, lengths


def randomised(module, seed=0):
    """The module with every parameter moved, as one that starts at zero hides much."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += 0.1 * noise
    return module


def assert_zero(x):
    """Nothing but zeros."""
    assert not x.any()
