"""A loss that is not a number."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_vae.nonfinite import NamesNonFiniteLoss, NonFiniteLossError


class Brain(NamesNonFiniteLoss, sb.Brain):
    """Its loss is the batch's value."""

    def compute_forward(self, batch, stage):
        return self.modules.model(torch.zeros(1, 1))

    def compute_objectives(self, output, batch, stage):
        return output.sum() * 0 + batch.value


def brain(patience):
    return Brain(
        {"model": torch.nn.Linear(1, 1)},
        lambda parameters: torch.optim.SGD(parameters, 0.1),
        run_opts={"nonfinite_patience": patience, "noprogressbar": True},
    )


def batches(*values):
    items = [
        SimpleNamespace(id=[f"{number}a", f"{number}b"], value=float(value))
        for number, value in enumerate(values)
    ]
    return torch.utils.data.DataLoader(items, batch_size=None)


def test_the_utterances_of_the_first_and_last_bad_batch_are_named():
    with pytest.raises(NonFiniteLossError) as error:
        brain(1).fit(range(1), batches(1, "nan", 1, "inf", 1))
    assert "first of 1a, 1b, the last of 3a, 3b;" in str(error.value)


def test_without_patience_the_first_stops_the_training():
    with pytest.raises(NonFiniteLossError, match="the first of 2a, 2b; look"):
        brain(0).fit(range(1), batches(1, 1, "nan"))


def test_patience_is_for_one_epoch():
    brain(1).fit(range(3), batches(1, "nan"))


# A model whose quantiser refuses such frames


class QuantisedBrain(NamesNonFiniteLoss, sb.Brain):
    """A VQ-VAE of the batch's frames."""

    def compute_forward(self, batch, stage):
        return self.modules.model(batch.feats)

    def compute_objectives(self, output, batch, stage):
        return output.loss


@pytest.fixture
def vqvae(tmp_path):
    """A VQ-VAE in a Brain, from its patience."""
    recipe = Path(__file__).resolve().parents[1] / "hparams" / "vqvae.yaml"
    sizes = {"channels": 160, "blocks": 1, "latent_size": 8, "codebook_size": 4}
    hparams = load_hyperpyyaml(
        recipe.read_text(), {"output_folder": str(tmp_path), **sizes}
    )
    return lambda patience: QuantisedBrain(
        {"model": hparams["autoencoder"]},
        lambda parameters: torch.optim.SGD(parameters, 1e-3),
        run_opts={"nonfinite_patience": patience, "noprogressbar": True},
    )


def utterances(*scales):
    torch.manual_seed(0)
    items = [
        SimpleNamespace(id=[f"u{number}"], feats=scale * torch.randn(1, 100, 80))
        for number, scale in enumerate(map(float, scales))
    ]
    return torch.utils.data.DataLoader(items, batch_size=None)


def test_frames_that_a_quantiser_refuses_count_as_a_loss(vqvae):
    with pytest.raises(NonFiniteLossError) as error:
        vqvae(1).fit(range(1), utterances(1, "nan", 1, "inf", 1))
    assert "loss of 2 batches" in str(error.value)
    assert "first of u1, the last of u3;" in str(error.value)
    with pytest.raises(NonFiniteLossError, match="the first of u0; look"):
        vqvae(0).fit(range(1), utterances("nan"))


def test_a_batch_that_a_quantiser_refuses_leaves_no_trace(vqvae):
    brain = vqvae(1)
    brain.fit(range(2), utterances(1, "nan", 1), utterances(1, 1))
    assert all(value.isfinite().all() for value in brain.modules.state_dict().values())


def test_frames_refused_in_evaluation_are_named(vqvae):
    brain = vqvae(1)
    brain.fit(range(1), utterances(1))
    with pytest.raises(NonFiniteLossError, match="evaluation of u1 failed: Vector"):
        brain.evaluate(utterances(1, "nan"))
