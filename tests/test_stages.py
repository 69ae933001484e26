"""Training in stages."""

from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

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
        before = {k: v.detach().clone() for k, v in model.named_parameters()}
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


@pytest.mark.parametrize("part", ["1", "1."])
def test_a_part_is_not_another_whose_name_begins_alike(part):
    model = torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(11)))
    stages = TrainingStages([{"epochs": 1, "train": [part]}])
    stages.check(model, 1)
    stages.apply(model, 1)
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert learning == {"1.weight", "1.bias"}
    with pytest.raises(ValueError, match="training_stages names '12'"):
        TrainingStages([{"epochs": 1, "train": ["12"]}]).check(model, 1)


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
    stages = [{"epochs": 1, "train": "all"}, {"epochs": 1, "train": ["decoder"]}]
    with pytest.raises(ValueError, match="'decoder'.*there are 0"):
        TrainingStages(stages).check(torch.nn.Sequential(torch.nn.Linear(1, 1)), 2)


def test_a_stage_that_is_never_reached_is_a_warning(caplog):
    stages = [{"epochs": 2, "train": ["0"]}, {"epochs": 3, "train": "all"}]
    model = torch.nn.Sequential(torch.nn.Linear(1, 1))
    TrainingStages(stages).check(model, 3)
    assert not caplog.records
    TrainingStages(stages).check(model, 2)
    assert "begins with epoch 3: it will not be reached" in caplog.text


@pytest.mark.parametrize("overrides", [{}, {"pretraining_epochs": 3}])
def test_the_recipe_trains_every_layer_once_and_then_all(overrides, tmp_path):
    recipe = Path(__file__).resolve().parents[1] / "hparams" / "stacked_ae.yaml"
    overrides = {"output_folder": str(tmp_path), **overrides}
    hparams = load_hyperpyyaml(recipe.read_text(), overrides)
    stages, model = hparams["training_stages"], hparams["autoencoder"]
    stages.check(model, hparams["number_of_epochs"])
    assert stages.epochs == hparams["number_of_epochs"]
    turns = dict.fromkeys((name for name, _ in model.named_parameters()), 0)
    for stage in stages.stages[:-1]:
        for name in turns:
            turns[name] += name.startswith(tuple(stage["train"]))
    assert set(turns.values()) == {1}
    assert stages.stages[-1]["train"] == "all"
    # Early stopping does not end the pretraining.
    greedy = stages.epochs - stages.stages[-1]["epochs"]
    assert hparams["epoch_counter"].limit_warmup == greedy
