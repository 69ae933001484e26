"""Exports that the tests of the recipes share."""

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from conftest import TINY_MODEL
from speechbrain_vae.export import write_export

CODEC = """
    bottleneck: !new:speechbrain_vae.lobes.bottlenecks.QuantisedBottleneck
        input_size: 12
        quantiser: !new:speechbrain_vae.nnet.quantisers.ProductQuantizer
            dim: 8
            codebook_size: 6
            groups: 2
"""


@pytest.fixture
def tiny_codec(tmp_path):
    """Folder of an export of a small discrete model with two codes a frame."""
    start = TINY_MODEL.index("    bottleneck")
    end = TINY_MODEL.index("    decoder")
    text = TINY_MODEL[:start].format(normalisation="utterance") + TINY_MODEL[end:]
    text += CODEC
    with torch.random.fork_rng():
        torch.manual_seed(3)
        hparams = load_hyperpyyaml(text)
        # One training step sets the codes going.
        hparams["autoencoder"].train()
        hparams["autoencoder"](hparams["features"](torch.randn(2, 16000))[0])
    folder = tmp_path / "tiny_codec"
    return write_export(folder, text, hparams["features"], hparams["autoencoder"])
