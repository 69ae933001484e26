"""Reports."""

import json

import pytest
import torch

from speechbrain_vae.reporting import linear_baselines, write_report


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
