"""Discrete bottlenecks: each class turns frames [B, T, D] into code indices."""

from speechbrain_vae.nnet.quantisers.binary import BinaryQuantizer
from speechbrain_vae.nnet.quantisers.diveq import DiVeQ, SFDiVeQ
from speechbrain_vae.nnet.quantisers.gumbel import GumbelVQ
from speechbrain_vae.nnet.quantisers.jitter import TimeJitter
from speechbrain_vae.nnet.quantisers.nsvq import NSVQ
from speechbrain_vae.nnet.quantisers.space_filling import SpaceFillingVQ
from speechbrain_vae.nnet.quantisers.usage import UsageMeter
from speechbrain_vae.nnet.quantisers.vector import (
    ProductQuantizer,
    ResidualQuantizer,
    VectorQuantizer,
)

__all__ = [
    "NSVQ",
    "BinaryQuantizer",
    "DiVeQ",
    "GumbelVQ",
    "ProductQuantizer",
    "ResidualQuantizer",
    "SFDiVeQ",
    "SpaceFillingVQ",
    "TimeJitter",
    "UsageMeter",
    "VectorQuantizer",
]
