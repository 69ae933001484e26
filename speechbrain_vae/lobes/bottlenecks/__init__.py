"""Bottlenecks: one class each behind one call and one return value."""

from speechbrain_vae.lobes.bottlenecks.deterministic import DeterministicBottleneck
from speechbrain_vae.lobes.bottlenecks.gaussian import (
    CapacityGaussianBottleneck,
    GaussianBottleneck,
)
from speechbrain_vae.lobes.bottlenecks.quantised import QuantisedBottleneck
from speechbrain_vae.nnet.bottleneck_output import BottleneckOutput

__all__ = [
    "BottleneckOutput",
    "CapacityGaussianBottleneck",
    "DeterministicBottleneck",
    "GaussianBottleneck",
    "QuantisedBottleneck",
]
