"""What all quantisers share."""

import pytest
import torch

from speechbrain_vae.nnet.quantisers import (
    NSVQ,
    BinaryQuantizer,
    DiVeQ,
    GumbelVQ,
    ProductQuantizer,
    ResidualQuantizer,
    SFDiVeQ,
    SpaceFillingVQ,
    VectorQuantizer,
)

QUANTISERS = {
    "VectorQuantizer": lambda: VectorQuantizer(4, 16),
    "learned": lambda: VectorQuantizer(4, 16, codebook_update="gradient"),
    "ProductQuantizer": lambda: ProductQuantizer(4, 16, 2),
    "ResidualQuantizer": lambda: ResidualQuantizer(4, 16, 2),
    "NSVQ": lambda: NSVQ(4, 16),
    "DiVeQ": lambda: DiVeQ(4, 16),
    "SpaceFillingVQ": lambda: SpaceFillingVQ(4, 16),
    "SFDiVeQ": lambda: SFDiVeQ(4, 16),
    "GumbelVQ": lambda: GumbelVQ(4, 16),
    "BinaryQuantizer": lambda: BinaryQuantizer(4, 16),
}


@pytest.mark.parametrize("lengths", [None, torch.ones(2)])
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("name", QUANTISERS)
def test_a_batch_of_no_frames_is_quantised_to_none(name, started, lengths):
    torch.manual_seed(0)
    quantiser = QUANTISERS[name]()
    if started:
        quantiser(torch.randn(2, 300, 4))
    for training in (True, False):
        x = torch.zeros(2, 0, 4, requires_grad=training)
        out = quantiser.train(training)(x, lengths)
        assert out.latent.shape == out.features.shape == (2, 0, 4)
        assert out.indices.shape == (2, 0, quantiser.groups)
        assert out.loss.isfinite()
        if training:
            (out.latent.sum() + out.loss).backward()
