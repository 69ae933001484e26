"""A loss that is not a number."""

from types import SimpleNamespace

import pytest
import speechbrain as sb
import torch

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
