"""Small exports with every kind of bottleneck, and utterances to look at them with."""

import numpy as np
import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_vae.analysis.context import AnalysisContext
from speechbrain_vae.export import write_export

PHONES = ("S", "Z", "F", "V", "AA1", "M", "L", "T")
MODEL = """
features: !new:speechbrain_vae.lobes.features.LogMel
encoder: !new:speechbrain_vae.lobes.encoders.ConvEncoder
    channels: 12
    blocks: 1
    stride: 2
autoencoder: !new:speechbrain_vae.lobes.autoencoder.Autoencoder
    encoder: !ref <encoder>
    bottleneck: !new:speechbrain_vae.lobes.bottlenecks.QuantisedBottleneck
        input_size: 12
        quantiser: !new:speechbrain_vae.nnet.quantisers.{quantiser}
            dim: 6
            codebook_size: 8
    decoder: !new:speechbrain_vae.lobes.decoders.ConvDecoder
        input_size: 6
        channels: 12
        blocks: 1
        stride: 2
    likelihood: !new:speechbrain_vae.nnet.likelihoods.GaussianLikelihood
        size: 80
"""


@pytest.fixture
def discrete_export(tmp_path):
    """A function from the name of a quantiser to an export with codes of one batch."""

    def make(quantiser):
        text = MODEL.format(quantiser=quantiser)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            hparams = load_hyperpyyaml(text)
            model = hparams["autoencoder"]
            model.train()(torch.randn(4, 100, 80))
        return write_export(
            tmp_path / quantiser, text, hparams["features"], model.eval()
        )

    return make


@pytest.fixture
def entries(tmp_path):
    """Six utterances of noise by three speakers, with phones of 60 ms."""
    rng = np.random.default_rng(0)
    found = {}
    for number in range(6):
        path = tmp_path / f"u{number}.wav"
        soundfile.write(path, rng.normal(size=16000) / 10, 16000)
        spoken = rng.permutation(PHONES)
        found[f"u{number}"] = {
            "wav": str(path),
            "duration": 1.0,
            "spk_id": f"s{number % 3}",
            "words": "A {noise}",
            "phone_times": [
                [round(0.1 + 0.06 * i, 2), round(0.16 + 0.06 * i, 2), phone]
                for i, phone in enumerate(spoken)
            ],
        }
    return found


@pytest.fixture
def sfvq(discrete_export, entries):
    """A context of a space-filling quantiser, with an ordinary one to compare."""
    other = AnalysisContext(discrete_export("VectorQuantizer"), entries)
    return AnalysisContext(discrete_export("SpaceFillingVQ"), entries, others=[other])
