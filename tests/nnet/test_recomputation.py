"""Recomputed activations change memory and time, nothing else."""

import copy
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_vae.lobes.decoders import ConvDecoder, RecurrentDecoder
from speechbrain_vae.lobes.encoders import ConvEncoder, RecurrentEncoder
from speechbrain_vae.nnet.recomputation import recompute_activations

HPARAMS = Path(__file__).resolve().parents[2] / "hparams"
RECIPES = sorted(path.name for path in HPARAMS.glob("*.yaml"))
PARTS = {
    "conv": lambda: (
        ConvEncoder(20, 12, blocks=3, dropout=0.3),
        ConvDecoder(12, 20, channels=12, dropout=0.3),
    ),
    "recurrent": lambda: (
        RecurrentEncoder(20, 12, 2, stride=2, bidirectional=True, dropout=0.3),
        RecurrentDecoder(24, 20, 12, stride=2),
    ),
}


def saved_bytes(call):
    """Bytes of the tensors that a forward pass keeps for the backward pass."""
    kept = {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()
    return result, sum(kept.values())


@pytest.mark.parametrize("kind", PARTS)
def test_gradients_stay_the_same_in_less_memory(kind):
    torch.manual_seed(0)
    model = torch.nn.ModuleList(PARTS[kind]())
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    other = copy.deepcopy(model)
    recompute_activations(other)
    x, lengths = torch.randn(2, 60, 20), torch.tensor([1.0, 0.5])
    losses, memory = [], []
    for encoder, decoder in (model, other):
        torch.manual_seed(1)

        def run(encoder=encoder, decoder=decoder):
            hidden = encoder(x, lengths)
            return decoder(hidden, encoder.output_lengths(x, lengths), 60).square()

        y, size = saved_bytes(run)
        y.mean().backward()
        losses.append(y.mean())
        memory.append(size)
    assert torch.equal(*losses)
    for (name, one), two in zip(
        model.named_parameters(), other.parameters(), strict=True
    ):
        torch.testing.assert_close(one.grad, two.grad, msg=name)
    assert memory[1] < memory[0]


def test_the_state_dict_stays_the_same():
    model = ConvEncoder(20, 12)
    names = list(model.state_dict())
    recompute_activations(model)
    assert list(model.state_dict()) == names


def test_batch_normalisation_is_refused():
    model = ConvEncoder(20, 12, normalisation="batch")
    with pytest.raises(ValueError, match="activation_checkpointing: False"):
        recompute_activations(model)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_training_yaml_takes_a_step_with_the_key(recipe, tmp_path):
    text = (HPARAMS / recipe).read_text()
    assert "\nactivation_checkpointing: False" in text
    hparams = load_hyperpyyaml(text, {"output_folder": str(tmp_path)})
    model = hparams["autoencoder"]
    recompute_activations(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(2, 48, 80), torch.tensor([1.0, 0.5])).loss.backward()
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())
    for name, value in model.state_dict().items():
        if name.endswith("norm.running_mean"):
            assert not torch.equal(value, before[name])
