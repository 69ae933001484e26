"""Training in stages."""

import pytest
import torch

from speechbrain_vae.lobes.autoencoder import Autoencoder
from speechbrain_vae.lobes.bottlenecks import DeterministicBottleneck
from speechbrain_vae.lobes.decoders import ConvDecoder
from speechbrain_vae.lobes.encoders import ConvEncoder
from speechbrain_vae.nnet.likelihoods import GaussianLikelihood
from speechbrain_vae.stages import TrainingStages

GREEDY = [
    {
        "epochs": 2,
        "train": ["encoder.stem", "bottleneck", "decoder.first", "decoder.stem"],
    },
    {"epochs": 2, "train": ["encoder.stack.blocks.0", "decoder.stack.blocks.1"]},
    {"epochs": 2, "train": ["encoder.stack.blocks.1", "decoder.stack.blocks.0"]},
    {"epochs": 3, "train": "all"},
]


def test_greedy_stages_train_one_layer_at_a_time_and_then_all():
    torch.manual_seed(0)
    model = Autoencoder(
        ConvEncoder(6, 16, blocks=2),
        DeterministicBottleneck(16, 3),
        ConvDecoder(3, 6, 16, blocks=2),
        GaussianLikelihood(6, "fixed"),
    )
    stages = TrainingStages(GREEDY)
    assert stages.epochs == 9
    feats = torch.tanh(torch.randn(8, 20, 2) @ torch.randn(2, 6))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for epoch in range(1, 10):
        stages.apply(model, epoch)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        for _ in range(30):
            loss = model(feats).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        prefixes = tuple(stages.prefixes(epoch))
        changed = {
            k for k, v in model.named_parameters() if not torch.equal(v, before[k])
        }
        assert changed == {
            k for k, _ in model.named_parameters() if k.startswith(prefixes)
        }
        losses.append(loss.item())
    assert losses[-1] < losses[5] < losses[3] < losses[1]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "at least one stage"),
        ([{"epochs": 1}], "keys epochs and train"),
        ([{"epochs": 0, "train": "all"}], "at least 1 epoch"),
    ],
)
def test_stages_that_make_no_sense_are_refused(stages, message):
    with pytest.raises(ValueError, match=message):
        TrainingStages(stages)


def test_a_part_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="'decoder'.*there are 0"):
        TrainingStages([{"epochs": 1, "train": ["decoder"]}]).apply(
            torch.nn.Sequential(torch.nn.Linear(1, 1)), 1
        )
