"""Reports."""

import json
from types import SimpleNamespace

import pytest
import torch

from speechbrain_vae.reporting import (
    aggregate_posterior,
    linear_baselines,
    write_report,
)


def test_dotted_names_become_a_nested_report(tmp_path):
    text = write_report(tmp_path, {"test.mse": 0.25, "skipped": ["a.wav: silent"]})
    assert json.loads((tmp_path / "report.json").read_text()) == {
        "test": {"mse": 0.25},
        "skipped": ["a.wav: silent"],
    }
    assert "0.25" in text and "a.wav: silent" in text


def test_baselines_of_gaussian_frames_equal_their_density():
    torch.manual_seed(0)
    train, test = [[torch.randn(2000, 3)] for _ in range(2)]
    found = linear_baselines(train, test, 0.01, latent_dims_per_second=200)
    exact = torch.distributions.Normal(0.0, 1.0).log_prob(test[0]).sum(1).mean()
    assert found["ppca_same_size_nats_per_frame"] == pytest.approx(
        exact.item(), abs=0.1
    )
    assert found["pca_mse"] == pytest.approx(5 / 15, abs=0.05)


class Repeats(torch.nn.Module):
    """A model whose latent frames are its input."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.bottleneck = SimpleNamespace(sample=lambda *shape: torch.randn(*shape, 2))

    def encode(self, feats):
        return SimpleNamespace(latent=self.scale * feats), None


def test_the_aggregate_posterior_is_that_of_all_utterances():
    torch.manual_seed(0)
    first = [3 + torch.randn(100, 2) for _ in range(10)]
    others = [torch.randn(100, 2) for _ in range(190)]
    of_all = aggregate_posterior(Repeats(), first + others, limit=500)
    of_first = aggregate_posterior(Repeats(), first, limit=500)
    assert of_all["aggregate_mmd"] < of_first["aggregate_mmd"] / 20
    few = aggregate_posterior(Repeats(), first[:1], limit=500)
    assert few["aggregate_mmd"] > 10 * few["aggregate_mmd_of_prior"]
