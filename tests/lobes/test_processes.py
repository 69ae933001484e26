"""Two DDP processes train what one process does on their global batch."""

import pytest
import torch

from speechbrain_vae.lobes.autoencoder import Autoencoder
from speechbrain_vae.lobes.bottlenecks import (
    CapacityGaussianBottleneck,
    DeterministicBottleneck,
    GaussianBottleneck,
    QuantisedBottleneck,
)
from speechbrain_vae.lobes.decoders import ConvDecoder
from speechbrain_vae.lobes.encoders import ConvEncoder
from speechbrain_vae.lobes.penalties import ActivityPenalty, WeightPenalty
from speechbrain_vae.nnet.distributed import mean_across, weight_of_process
from speechbrain_vae.nnet.likelihoods import GaussianLikelihood
from speechbrain_vae.nnet.quantisers import (
    NSVQ,
    BinaryQuantizer,
    DiVeQ,
    GumbelVQ,
    SFDiVeQ,
    VectorQuantizer,
)
from tests.processes import run_two

F, H, D = 10, 12, 6
# The processes hold 62 and 126 frames of a batch.
LENGTHS = torch.tensor([0.3, 0.475, 1.0, 0.575])
STEPS = 6


class SameNoise(NSVQ):
    """Noise that is a function of the frame, wherever it is."""

    def _directions(self, x, codes):
        return torch.nn.functional.normalize(x.detach().roll(1, 1), dim=1)


def quantised(quantiser):
    return QuantisedBottleneck(H, quantiser)


BOTTLENECKS = {
    "AE": lambda: DeterministicBottleneck(H, D, activation=torch.nn.Sigmoid),
    "VAE": lambda: GaussianBottleneck(H, D, free_bits=1.4),
    "capacity": lambda: CapacityGaussianBottleneck(H, D, 8.5, 0, gamma=1.0),
    "EMA": lambda: quantised(VectorQuantizer(D, 8)),
    "gradient": lambda: quantised(VectorQuantizer(D, 8, "gradient")),
    "NSVQ": lambda: quantised(SameNoise(D, 8)),
    "DiVeQ": lambda: quantised(DiVeQ(D, 8, noise_variance=0.0)),
    "SFDiVeQ": lambda: quantised(SFDiVeQ(D, 8, noise_variance=0.0, tension=0.5)),
    "Gumbel": lambda: quantised(GumbelVQ(D, 8, noise=False)),
    "binary": lambda: quantised(BinaryQuantizer(D, 16)),
}


def model(name):
    torch.manual_seed(0)
    penalties = [WeightPenalty(l2=0.01)]
    if name == "AE":
        penalties.append(ActivityPenalty(0.3, target=0.1))
    return Autoencoder(
        ConvEncoder(F, H, blocks=1, normalisation="batch"),
        BOTTLENECKS[name](),
        ConvDecoder(D, F, H, blocks=1),
        GaussianLikelihood(F),
        penalties=penalties,
    )


def train(name, part, wrap=lambda model: model):
    """A few steps on a part of every batch; the state afterwards and the mean loss."""
    trained = model(name)
    wrapped = wrap(trained)
    optimiser = torch.optim.SGD(trained.parameters(), 0.01)
    mean_loss = 0.0
    torch.manual_seed(1)
    scale, offset = torch.randn(2, STEPS, 4, 1, F)
    for x in offset + scale * torch.randn(STEPS, 4, 80, F):
        # One dither on all processes, of a curve.
        torch.manual_seed(2)
        out = wrapped(x[part] * 2, LENGTHS[part])
        optimiser.zero_grad()
        loss = out.loss * weight_of_process(out.frames)
        loss.backward()
        optimiser.step()
        mean_loss += loss.item() / STEPS
    return {**trained.state_dict(), "loss": torch.tensor(mean_across(mean_loss))}


def train_half(rank, folder):
    torch.randn_like = torch.zeros_like

    def wrap(model):
        ddp = torch.nn.parallel.DistributedDataParallel
        return ddp(model, broadcast_buffers=False, find_unused_parameters=True)

    part = slice(2 * rank, 2 * rank + 2)
    states = {name: train(name, part, wrap) for name in BOTTLENECKS}
    torch.save(states, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """States of all models that two processes trained, on each of them."""
    folder = tmp_path_factory.mktemp("processes")
    run_two(train_half, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_two_processes_train_the_model_of_one(name, halves, monkeypatch):
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    first, second = (half[name] for half in halves)
    start = model(name).state_dict()
    single = train(name, slice(None))
    for key, value in single.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, rtol=1e-4, atol=1e-4, msg=key)
    assert not torch.allclose(
        start["encoder.stem.weight"], single["encoder.stem.weight"], atol=1e-3
    )
