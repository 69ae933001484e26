"""Batch normalisation of padded batches, in one process and in two."""

import copy

import pytest
import torch

from speechbrain_vae.lobes.bottlenecks import QuantisedBottleneck
from speechbrain_vae.nnet.normalisation import MaskedBatchNorm
from speechbrain_vae.nnet.quantisers import BinaryQuantizer, VectorQuantizer
from speechbrain_vae.nnet.quantisers.base import NonFiniteFramesError
from tests.processes import run_two

LENGTHS = torch.tensor([1.0, 0.5, 0.75, 0.75])
"""Of 4 utterances: the first two have as many frames as the last two."""


def test_it_is_torchs_layer_on_the_valid_frames():
    torch.manual_seed(0)
    ours, theirs = MaskedBatchNorm(4), torch.nn.BatchNorm1d(4)
    x, mask = torch.randn(2, 4, 6), torch.ones(2, 1, 6)
    mask[1, :, 3:] = 0
    valid = x.transpose(1, 2)[mask[:, 0] > 0]
    y = ours(x, mask)
    torch.testing.assert_close(y.transpose(1, 2)[mask[:, 0] > 0], theirs(valid))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)


def test_a_batch_of_nan_does_not_move_the_running_statistics():
    norm = MaskedBatchNorm(4)
    before = copy.deepcopy(norm.state_dict())
    norm(torch.full((1, 4, 6), torch.nan), torch.ones(1, 1, 6))
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name]), name


def bottleneck(normalisation="batch"):
    """The bottleneck of a VQ-VAE, the same everywhere."""
    torch.manual_seed(0)
    quantiser = VectorQuantizer(6, 8, revive_below=0.3)
    return QuantisedBottleneck(10, quantiser, normalisation)


def batches():
    """Frames whose statistics differ between utterances."""
    torch.manual_seed(1)
    scale, offset = torch.randn(2, 6, 4, 1, 10)
    return offset + scale * torch.randn(6, 4, 40, 10)


def train(model, part):
    """A few steps; the state afterwards and the gradient of the input."""
    optimiser = torch.optim.SGD(model.parameters(), 1e-2)
    for x in batches():
        x = x[part].requires_grad_()
        out = model(x, LENGTHS[part])
        loss = out.loss + out.latent.square().sum() / 60 / len(x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model, x.grad


def train_half(rank, folder):
    model = torch.nn.parallel.DistributedDataParallel(
        bottleneck(), broadcast_buffers=False
    )
    _, grad = train(model, slice(2 * rank, 2 * rank + 2))
    torch.save((model.module.state_dict(), grad), f"{folder}/{rank}.pt")


def test_two_processes_train_the_bottleneck_of_one_on_the_global_batch(tmp_path):
    run_two(train_half, tmp_path)
    (first, one), (second, two) = (
        torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)
    )
    model, grad = train(bottleneck(), slice(None))
    assert model.quantiser.codebook.started
    for name, value in model.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-4, msg=name)
    # DDP takes the mean over processes of gradients of what each averages.
    torch.testing.assert_close(torch.cat([one, two]) / 2, grad, rtol=1e-4, atol=1e-6)


def refuse(rank, folder):
    x = torch.zeros(1, 5, 4)
    if rank == 1:
        x[0, 2, 0] = torch.nan
    for quantiser in (VectorQuantizer(4, 8), BinaryQuantizer(4, 16)):
        with pytest.raises(NonFiniteFramesError, match="1 of 10 input frames"):
            quantiser(x)


def test_processes_refuse_frames_together(tmp_path):
    run_two(refuse, tmp_path)
