"""Fixtures for the tests and for the examples in docstrings."""

from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_vae.export import write_export

# On small tensors threads cost more than they give, most of all on a busy machine.
torch.set_num_threads(1)

TINY_MODEL = """
features: !new:speechbrain_vae.lobes.features.LogMel
    normalisation: {normalisation}
encoder: !new:speechbrain_vae.lobes.encoders.ConvEncoder
    channels: 12
    blocks: 1
    stride: 2
autoencoder: !new:speechbrain_vae.lobes.autoencoder.Autoencoder
    encoder: !ref <encoder>
    bottleneck: !new:speechbrain_vae.lobes.bottlenecks.GaussianBottleneck
        input_size: 12
        latent_size: 8
    decoder: !new:speechbrain_vae.lobes.decoders.ConvDecoder
        input_size: 8
        channels: 12
        blocks: 1
        stride: 2
    likelihood: !new:speechbrain_vae.nnet.likelihoods.GaussianLikelihood
        size: 80
"""


def tiny_model(normalisation="utterance"):
    """A small untrained VAE whose every weight counts, and its YAML."""
    text = TINY_MODEL.format(normalisation=normalisation)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        hparams = load_hyperpyyaml(text)
        for parameter in hparams["autoencoder"].parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    features = hparams["features"]
    if features.needs_statistics:
        features.set_statistics(torch.full((80,), -10.0), torch.full((80,), 12.0))
    return hparams, text


@pytest.fixture
def tiny_export(tmp_path):
    """Folder of an export of a small model."""
    hparams, text = tiny_model()
    folder = tmp_path / "tiny_export"
    return write_export(folder, text, hparams["features"], hparams["autoencoder"])


@pytest.fixture
def shared_data():
    """The real recordings beside the repository, where they exist."""
    folder = Path(__file__).resolve().parent.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real recordings at {folder}")
    return folder
