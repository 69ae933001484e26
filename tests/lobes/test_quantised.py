"""Quantisers as bottlenecks."""

from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_vae.export import read_export, write_export
from speechbrain_vae.lobes.autoencoder import Autoencoder
from speechbrain_vae.lobes.bottlenecks import QuantisedBottleneck
from speechbrain_vae.lobes.decoders import ConvDecoder
from speechbrain_vae.lobes.encoders import ConvEncoder
from speechbrain_vae.nnet import quantisers
from speechbrain_vae.nnet.likelihoods import GaussianLikelihood

HPARAMS = Path(__file__).resolve().parents[2] / "hparams"
NAMES = [
    "VectorQuantizer",
    "ProductQuantizer",
    "ResidualQuantizer",
    "NSVQ",
    "SpaceFillingVQ",
    "DiVeQ",
    "SFDiVeQ",
    "GumbelVQ",
    "BinaryQuantizer",
]


def build(name, normalisation="batch"):
    """A small autoencoder around a quantiser of 16 codes."""
    torch.manual_seed(0)
    quantiser = getattr(quantisers, name)(8, 16)
    return Autoencoder(
        ConvEncoder(6, 16, blocks=1),
        QuantisedBottleneck(16, quantiser, normalisation),
        ConvDecoder(8, 6, 16, blocks=1),
        GaussianLikelihood(6, "fixed"),
    )


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_neither_the_codes_nor_the_loss_nor_the_codebook(name):
    feats = torch.randn(1, 401, 6)
    padded = torch.cat([feats, torch.full((1, 90, 6), 9.0)], 1)
    results = []
    for inputs, lengths in ((feats, None), (padded, torch.tensor([401 / 491]))):
        model = build(name)
        torch.manual_seed(1)
        model(inputs, lengths)
        torch.manual_seed(2)
        out = model.eval()(inputs, lengths)
        results.append((model, out))
    (alone, one), (beside, two) = results
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(
            beside.state_dict()[key], value, atol=1e-5, rtol=1e-5, msg=key
        )
    frames = one.bottleneck.indices.shape[1]
    torch.testing.assert_close(one.loss, two.loss, atol=1e-4, rtol=1e-4)
    same = one.bottleneck.indices == two.bottleneck.indices[:, :frames]
    # A frame on the border of two codes may fall on either side.
    assert same.double().mean() > 0.99
    assert (two.bottleneck.indices[:, frames:] == -1).all()


@pytest.mark.parametrize("normalisation", ["weight", "bach"])
def test_normalisations_that_are_none_are_refused(normalisation):
    with pytest.raises(ValueError, match="batch, layer, none; got '"):
        build("VectorQuantizer", normalisation)


@pytest.mark.parametrize("name", NAMES)
def test_a_few_hundred_steps_learn_more_than_the_mean(name):
    model = build(name)
    feats = torch.randn(4, 60, 2) @ torch.randn(2, 6)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(300):
        loss = model(feats).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    error = model.eval()(feats).squared_error.item()
    assert error < 0.6 * feats.var().item()


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_models_give_the_same_codes(name):
    model = build(name)
    feats = torch.randn(2, 100, 6)
    for _ in range(3):
        model(feats)
    loaded = build(name)
    loaded.load_state_dict(model.state_dict())
    first = model.eval().encode(feats)[0]
    second = loaded.eval().encode(feats)[0]
    assert torch.equal(first.indices, second.indices)
    torch.testing.assert_close(first.features, second.features)


# Recipes


def load(recipe, folder, text=None, **overrides):
    """What a YAML describes, with few codes."""
    text = text or (HPARAMS / recipe).read_text()
    overrides |= {"output_folder": str(folder), "codebook_size": 16}
    return load_hyperpyyaml(text, overrides)


# Of each key: where its value ends up, as a path from the quantiser.
KEYS = {
    "vqvae.yaml": {
        "metric": ("cosine", "metric"),
        "codebook_update": ("gradient", "codebook.learned", True),
    },
    "predictive_vq.yaml": {
        "metric": ("cosine", "metric"),
        "codebook_update": ("gradient", "codebook.learned", True),
    },
    "binary.yaml": {
        "mode": ("bernoulli", "mode"),
        "commitment": (0.5, "commitment"),
    },
    "gumbel_vq.yaml": {
        "noise": (False, "noise"),
        "temperature": ([1.0, 0.7], "temperature", (1.0, 0.7)),
        "revive_below": (0.2, "codebook.revive_below"),
    },
    "sfvq.yaml": {"revive_below": (0.2, "codebook.revive_below")},
    "sfdiveq.yaml": {"revive_below": (0.2, "codebook.revive_below")},
}


@pytest.mark.parametrize("recipe", KEYS)
def test_keys_of_the_recipes_reach_the_quantiser_and_default_to_its_own(
    recipe, tmp_path
):
    values = {key: value for key, (value, *_) in KEYS[recipe].items()}
    changed = load(recipe, tmp_path, **values)["quantiser"]
    usual = load(recipe, tmp_path)["quantiser"]
    plain = type(usual)(usual.dim, usual.codebook_size)
    for value, path, *seen in KEYS[recipe].values():
        of = [getattr_path(module, path) for module in (changed, usual, plain)]
        assert of[0] == (seen[0] if seen else value)
        assert of[1] == of[2] != of[0]


def getattr_path(module, path):
    """``a.b`` of a module."""
    for name in path.split("."):
        module = getattr(module, name)
    return module


CONVOLUTIONAL = sorted(
    path.name for path in HPARAMS.glob("*.yaml") if "ConvEncoder" in path.read_text()
)


@pytest.mark.parametrize("recipe", CONVOLUTIONAL)
def test_dropout_of_the_convolutional_recipes_is_that_of_every_block(recipe, tmp_path):
    overrides = {"output_folder": str(tmp_path)}
    text = (HPARAMS / recipe).read_text()
    # In dae.yaml, dropout is of the input.
    key = "hidden_dropout" if "hidden_dropout" in text else "dropout"
    for rate in (0.0, 0.3):
        changed = {key: rate} if rate else {}
        model = load_hyperpyyaml(text, overrides | changed)["autoencoder"]
        for part in (model.encoder, model.decoder):
            rates = {m.p for m in part.modules() if isinstance(m, torch.nn.Dropout)}
            assert rates == {rate}


COMPOSED = {
    "ProductQuantizer": lambda line: line,
    "ResidualQuantizer": lambda line: line.replace(
        "ProductQuantizer", "ResidualQuantizer"
    ).replace("groups: 2", "stages: 2"),
}


@pytest.mark.parametrize("recipe", ["vqvae.yaml", "predictive_vq.yaml"])
@pytest.mark.parametrize("name", COMPOSED)
def test_commented_quantisers_are_valid_yaml(name, recipe, tmp_path):
    blocks = (HPARAMS / recipe).read_text().split("\n\n")
    (plain,) = [block for block in blocks if block.startswith("quantiser: ")]
    (commented,) = [block for block in blocks if "# quantiser: " in block]
    lines = [line.removeprefix("# ") for line in commented.splitlines()[2:]]
    blocks[blocks.index(commented)] = "\n".join(map(COMPOSED[name], lines))
    blocks.remove(plain)
    text = "\n\n".join(blocks).replace("metric: euclidean", "metric: cosine")
    text = text.replace("codebook_size: 512", "codebook_size: 16")
    hparams = load(recipe, tmp_path, text, commitment=0.5)
    model, quantiser = hparams["autoencoder"], hparams["quantiser"]
    assert type(quantiser).__name__ == name
    for part in quantiser.quantisers:
        assert (part.commitment, part.metric) == (0.5, "cosine")
        assert part.codebook.seed == hparams["seed"]
    feats = torch.randn(2, 60, 80)
    out = model(feats)
    assert out.bottleneck.indices.shape == (2, 30, 2)
    out.loss.backward()
    folder = write_export(tmp_path / "export", text, hparams["features"], model)
    loaded = read_export(folder).autoencoder
    first, second = loaded.encode(feats)[0], model.eval().encode(feats)[0]
    torch.testing.assert_close(first.features, second.features)
