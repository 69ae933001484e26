"""The YAMLs of the autoencoder family say what their heads say."""

from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_vae.export import read_export, write_export

HPARAMS = Path(__file__).resolve().parents[2] / "hparams"
SMALL = {"channels": 160, "blocks": 1, "stride": 2}
PAIRS = {
    "tied": """
encoder: !new:speechbrain_vae.lobes.tied.StackedEncoder
    sizes: [48, 16]
    stride: 2
bottleneck: !new:speechbrain_vae.lobes.bottlenecks.DeterministicBottleneck
    input_size: 16
decoder: !new:speechbrain_vae.lobes.tied.TiedDecoder
    encoder: !ref <encoder>
""",
    "pooling": """
encoder: !new:speechbrain_vae.lobes.pooling.PoolingEncoder
    channels: 24
    stride: 2
bottleneck: !new:speechbrain_vae.lobes.bottlenecks.DeterministicBottleneck
    input_size: 24
    latent_size: 16
decoder: !new:speechbrain_vae.lobes.pooling.UnpoolingDecoder
    input_size: 16
    output_size: !ref <likelihood>
    channels: 24
    stride: 2
""",
}


def load(name, folder, text=None, **overrides):
    text = text or (HPARAMS / name).read_text()
    return load_hyperpyyaml(text, {"output_folder": str(folder), **overrides})


def test_the_autoencoder_has_800_numbers_a_second(tmp_path):
    hparams = load("ae.yaml", tmp_path)
    model = hparams["autoencoder"]
    rate = 1 / (hparams["features"].frame_shift * model.stride)
    assert model.latent_size * rate == pytest.approx(800)
    assert hparams["channels"] >= hparams["stride"] * hparams["n_mels"]


def test_commented_penalties_are_valid_yaml(tmp_path):
    text = (HPARAMS / "ae.yaml").read_text()
    lines = text.splitlines()
    start = lines.index("    # penalties:")
    for number in range(start, start + 8):
        lines[number] = lines[number].replace("    # ", "    ", 1)
    hparams = load("ae.yaml", tmp_path, "\n".join(lines), **SMALL)
    out = hparams["autoencoder"](torch.randn(2, 9, 80))
    names = {"ContractivePenalty", "SparsityPenalty", "WeightPenalty"}
    assert out.penalties.keys() == names
    out.loss.backward()


@pytest.mark.parametrize("name", PAIRS)
def test_another_pair_in_the_recipe_trains_and_exports(name, tmp_path):
    blocks = (HPARAMS / "ae.yaml").read_text().split("\n\n")
    heads = ("encoder:", "bottleneck:", "decoder:", "# Or StackedEncoder")
    kept = [block for block in blocks if not block.startswith(heads)]
    text = "\n\n".join([*kept, PAIRS[name]])
    hparams = load("ae.yaml", tmp_path, text)
    model = hparams["autoencoder"]
    feats = torch.randn(2, 9, 80)
    model(feats).loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    folder = write_export(tmp_path / "export", text, hparams["features"], model)
    loaded = read_export(folder).autoencoder
    torch.testing.assert_close(loaded(feats).loss, model.eval()(feats).loss)


def test_the_denoising_recipe_corrupts_the_input_and_not_the_target(tmp_path):
    model = load("dae.yaml", tmp_path, **SMALL)["autoencoder"]
    feats = torch.randn(4, 60, 80)
    before = feats.clone()
    inputs, target, mask = model.target(feats)
    torch.testing.assert_close(target, before)
    dropped = (inputs == 0).float()
    assert dropped.mean() > 0.1
    assert (dropped.mean(2) == 1).any() and (dropped.mean(1) == 1).any()
    assert (inputs - target)[inputs != 0].abs().mean() > 0.2
    model.eval()
    assert torch.equal(model.target(feats)[0], before)


@pytest.mark.parametrize("both", [True, False])
def test_the_recurrent_vae_reads_one_way_or_both(both, tmp_path):
    text = (HPARAMS / "recurrent_vae.yaml").read_text()
    text = text.replace("\nbidirectional: True\n", f"\nbidirectional: {both}\n")
    hparams = load("recurrent_vae.yaml", tmp_path, text)
    model, feats = hparams["autoencoder"], torch.randn(2, 9, 80)
    model(feats).loss.backward()
    assert model.encoder.output_size == (512 if both else 256)
    folder = write_export(tmp_path / "export", text, hparams["features"], model)
    assert read_export(folder).hparams["feature_size"] == 64
