"""Features in low precision stay near those in full."""

import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml

from conftest import tiny_model
from speechbrain_vae.export import write_export
from speechbrain_vae.inference import FeatureEncoder
from speechbrain_vae.inference.precision import PRECISIONS
from speechbrain_vae.lobes.frozen import FrozenEncoder

DISCRETE = """
features: !new:speechbrain_vae.lobes.features.LogMel
encoder: !new:speechbrain_vae.lobes.two_way.TwoWayEncoder
    hidden_size: 32
autoencoder: !new:speechbrain_vae.lobes.autoencoder.Autoencoder
    encoder: !ref <encoder>
    bottleneck: !new:speechbrain_vae.lobes.bottlenecks.QuantisedBottleneck
        input_size: 64
        quantiser: !new:speechbrain_vae.nnet.quantisers.VectorQuantizer
            dim: 8
            codebook_size: 16
    decoder: !new:speechbrain_vae.lobes.decoders.RecurrentDecoder
        input_size: 8
        num_layers: 0
        stride: 2
    likelihood: !new:speechbrain_vae.nnet.likelihoods.GaussianLikelihood
        size: 80
"""


@pytest.fixture
def exports(tiny_export, tmp_path):
    """A convolutional VAE and AE, and recurrent models with codes."""
    weight = "hidden_size: 32\n    normalisation: weight"
    found = {"vae": str(tiny_export)}
    _, vae = tiny_model()
    for name, yaml in {
        "ae": vae.replace("GaussianBottleneck", "DeterministicBottleneck"),
        "vq": DISCRETE,
        "vq of weight norm": DISCRETE.replace("hidden_size: 32", weight),
    }.items():
        torch.manual_seed(0)
        hparams = load_hyperpyyaml(yaml)
        model = hparams["autoencoder"]
        # A step of training starts the codebook from data.
        model.train()(torch.randn(4, 200, 80))
        folder = write_export(tmp_path / name, yaml, hparams["features"], model.eval())
        found[name] = str(folder)
    return found


@pytest.fixture
def wavs():
    """Two utterances of noise that comes and goes."""
    torch.manual_seed(1)
    envelope = 1 + torch.sin(torch.arange(24000) / 700)
    wavs = torch.randn(2, 24000) * envelope / 20
    wavs[1, 18000:] = 0
    return wavs


def near(one, other):
    """Whether the features of each frame have nearly one direction."""
    assert one.dtype == other.dtype == torch.float32
    valid = other.abs().sum(-1) > 0
    cosine = torch.nn.functional.cosine_similarity(one[valid], other[valid], dim=-1)
    assert cosine.mean() > 0.99


@pytest.mark.parametrize("model", ["vae", "ae"])
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_continuous_features_stay_near(precision, model, exports, wavs, tmp_path):
    low = FeatureEncoder.from_hparams(exports[model], precision=precision)
    full = FeatureEncoder.from_hparams(exports[model])
    near(low.encode_batch(wavs), full.encode_batch(wavs))
    near(low.reconstruct_batch(wavs), full.reconstruct_batch(wavs))
    soundfile.write(tmp_path / "a.wav", wavs[0].numpy(), 16000)
    near(low.encode_file(tmp_path / "a.wav"), full.encode_file(tmp_path / "a.wav"))


@pytest.mark.parametrize("name", ["vq", "vq of weight norm"])
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_codes_stay_mostly_the_same(precision, name, exports, wavs):
    low = FeatureEncoder.from_hparams(exports[name], precision=precision)
    full = FeatureEncoder.from_hparams(exports[name])
    ours, theirs = low.tokens_batch(wavs), full.tokens_batch(wavs)
    assert torch.equal(ours < 0, theirs < 0)
    assert (ours == theirs).float().mean() > 0.9


@pytest.mark.parametrize("model", ["vae", "vq"])
@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("representation", ["encoder", "layers", "features"])
def test_a_frozen_encoder_takes_it_too(representation, precision, model, exports, wavs):
    options = {"representation": representation}
    low = FrozenEncoder(exports[model], precision=precision, **options)
    full = FrozenEncoder(exports[model], **options)
    if (model, representation) == ("vq", "features"):
        same = (low(wavs) - full(wavs)).abs().amax(-1) < 1e-2
        assert same.float().mean() > 0.9
    else:
        near(low(wavs).detach(), full(wavs).detach())


def test_weights_of_linear_and_recurrent_layers_have_eight_bits(exports):
    def kinds(precision):
        encoder = FeatureEncoder.from_hparams(exports["vq"], precision=precision)
        modules = encoder.mods.autoencoder.encoder.modules()
        return {type(module).__module__.split(".")[1] for module in modules}

    assert "ao" in kinds("int8") and "ao" not in kinds("fp32")


@pytest.mark.parametrize("cls", [FeatureEncoder.from_hparams, FrozenEncoder])
def test_another_precision_is_refused(cls, exports):
    with pytest.raises(ValueError, match="one of fp32, bf16, int8; got 'int4'"):
        cls(exports["vae"], precision="int4")


def test_what_eight_bits_cannot_do_is_refused(exports):
    with pytest.raises(ValueError, match="freeze=False needs"):
        FrozenEncoder(exports["vae"], freeze=False, precision="int8")
    with pytest.raises(ValueError, match="runs on the CPU alone; got cuda"):
        FeatureEncoder.from_hparams(
            exports["vae"], run_opts={"device": "cuda"}, precision="int8"
        )


def test_full_precision_is_what_it_was(exports, wavs):
    assert PRECISIONS[0] == "fp32"
    low = FeatureEncoder.from_hparams(exports["vae"], precision="fp32")
    full = FrozenEncoder(exports["vae"])
    assert torch.equal(low.encode_batch(wavs), full(wavs))
