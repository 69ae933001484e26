"""The toy shows what its text says."""

import io

import pytest
import torch
from PIL import Image

from speechbrain_vae.analysis import toy
from speechbrain_vae.analysis.codebook_order import crossings


@pytest.mark.parametrize("name", toy.DISTRIBUTIONS)
def test_a_distribution_is_centred_and_fits_the_picture(name):
    points = toy.DISTRIBUTIONS[name](20000, torch.Generator().manual_seed(0))
    assert points.mean(0).abs().max() < 0.03
    assert points.abs().quantile(0.99) < 1.6


def test_a_hilbert_curve_goes_from_cell_to_neighbouring_cell():
    points = toy.hilbert(64, torch.zeros(2), torch.ones(2))
    assert torch.allclose(points.diff(dim=0).norm(dim=1), torch.tensor(1 / 8))
    assert len(points.unique(dim=0)) == 64 and crossings(points) == 0


def test_the_curve_grows_in_order_with_little_more_error(monkeypatch):
    monkeypatch.setattr(toy, "STAGE_STEPS", 60)
    monkeypatch.setattr(toy, "BATCH", 512)
    points = toy.uniform(4000, torch.Generator().manual_seed(0))
    history = []
    books = toy.codebooks(points, 16, watch=lambda codes: history.append(codes.clone()))
    assert [len(history[0]), len(history[-1])] == [4, 16]
    found = {name: toy.measure(codes, points) for name, codes in books.items()}
    assert found["SFVQ"]["distortion"] < 1.4 * found["VQ"]["distortion"]
    assert found["SFVQ"]["crossings"] < found["VQ"]["crossings"]
    picture = io.BytesIO()
    toy.draw_methods({"uniform": books}, {"uniform": points[:50]}).savefig(picture)
    assert Image.open(picture).width > Image.open(picture).height
    growth = toy.animate({"uniform": history}, {"uniform": points[:50]}, frames=5)
    assert Image.open(io.BytesIO(growth)).n_frames == 5
