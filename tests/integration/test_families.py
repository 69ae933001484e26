"""Every YAML under hparams trains, exports and loads."""

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_vae.inference import FeatureEncoder

from .training import ROOT, TINY, noise_corpus, train

RECIPES = sorted(path.name for path in (ROOT / "hparams").glob("*.yaml"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Noise that comes and goes."""
    return noise_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_trains_exports_and_loads(recipe, corpus, tmp_path):
    keys = load_hyperpyyaml((ROOT / "hparams" / recipe).read_text())
    options = [*TINY, "--stride", "2"]
    if "codebook_size" in keys:
        options += ["--codebook_size", "16"]
    options = [
        word
        for name, *value in split_options(options)
        if name == "--noprogressbar" or name[2:] in keys
        for word in (name, *value)
    ]
    report = train(recipe, tmp_path, corpus, *options, "--number_of_epochs", 1)
    assert report["test"]["mse"] < 1.5
    encoder = FeatureEncoder.from_hparams(report["export"])
    wavs = torch.randn(2, 16000) / 10
    features = encoder.encode_batch(wavs, torch.tensor([1.0, 0.5]))
    assert features.shape[2] == report["latent_dim"]
    assert features.isfinite().all()
    if "codebook_size" in keys:
        assert 0 < report["test"]["usage"] <= 1
        tokens = encoder.tokens_batch(wavs, torch.tensor([1.0, 0.5]))
        assert tokens.shape[:2] == features.shape[:2]
        assert tokens[0].min() >= 0 and tokens.max() < 16
        assert (tokens[1, -20:] == -1).all()


def split_options(words):
    """[--a, 1, --flag] to [[--a, 1], [--flag]]."""
    options = []
    for word in words:
        if word.startswith("--"):
            options.append([word])
        else:
            options[-1].append(word)
    return options
