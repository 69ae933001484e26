"""The frozen front end, as the recipes of SpeechBrain call it."""

import pytest
import torch

from conftest import tiny_model
from speechbrain_vae.export import ExportError, write_export
from speechbrain_vae.inference import FeatureEncoder
from speechbrain_vae.lobes.frozen import FrozenEncoder

REPRESENTATIONS = ["features", "encoder", "layers"]


def waveforms():
    """Two utterances, the second half as long, and their relative lengths."""
    wavs = torch.randn(2, 12000) / 10
    wavs[1, 6000:] = 0
    return wavs, torch.tensor([1.0, 0.5])


@pytest.fixture(params=["utterance", "shrunk", "global"])
def export(request, tmp_path):
    """Exports with both kinds of normalisation."""
    hparams, text = tiny_model(request.param)
    return write_export(tmp_path, text, hparams["features"], hparams["autoencoder"])


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_features_are_the_same_alone_padded_with_lengths_and_without(
    export, representation
):
    frontend = FrozenEncoder(export, representation=representation)
    wavs, wav_lens = waveforms()
    padded = frontend(wavs, wav_lens)
    torch.testing.assert_close(frontend(wavs), padded, atol=1e-5, rtol=0)
    alone = frontend(wavs[1:, :6000])
    assert alone.shape[1] == 19
    torch.testing.assert_close(padded[1:, :19], alone, atol=1e-5, rtol=0)
    assert not padded[1, 19:].any()


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_bfloat16_features_are_float32_and_near_those_of_float32(
    tiny_export, representation
):
    frontend = FrozenEncoder(tiny_export, representation=representation)
    wavs, wav_lens = waveforms()
    exact = frontend(wavs, wav_lens)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = frontend(wavs, wav_lens)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).norm() < 0.03 * exact.norm()


def test_an_optimiser_finds_a_parameter_even_when_all_is_frozen(tiny_export):
    torch.optim.Adam(FrozenEncoder(tiny_export).parameters())


def test_output_norm_normalises_every_frame(tiny_export):
    out = FrozenEncoder(tiny_export, output_norm=True)(torch.randn(1, 8000))
    torch.testing.assert_close(
        out.mean(-1), torch.zeros(out.shape[:2]), atol=1e-5, rtol=0
    )


def test_a_reloaded_encoder_gives_the_features_of_the_first(tiny_export):
    wavs, wav_lens = waveforms()
    first = FrozenEncoder(tiny_export)(wavs, wav_lens)
    second = FeatureEncoder.from_hparams(str(tiny_export)).encode_batch(wavs, wav_lens)
    torch.testing.assert_close(first, second)


def test_tokens_of_a_continuous_model_are_refused_when_it_is_built(tiny_export):
    with pytest.raises(ValueError, match="continuous model and has no tokens"):
        FrozenEncoder(tiny_export, representation="tokens")
    with pytest.raises(ValueError, match="continuous model and has no tokens"):
        FrozenEncoder(tiny_export).encode(torch.randn(1, 8000))
    named = "--layer .* features, latent, encoder, layers, tokens"
    with pytest.raises(ValueError, match=named):
        FrozenEncoder(tiny_export, representation="codes")


def test_another_sampling_rate_than_the_exports_is_refused(tiny_export):
    assert FrozenEncoder(tiny_export, sample_rate=16000).sample_rate == 16000
    with pytest.raises(ValueError, match="trained at 16000 Hz .* is 8000 Hz"):
        FrozenEncoder(tiny_export, sample_rate=8000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate": "16000"}, "sample_rate must be a number; got '16000'"),
        ({"freeze": "False"}, "freeze must be True or False; got 'False'"),
        ({"output_norm": "x"}, "output_norm must be True or False; got 'x'"),
        ({"trust_code": "False"}, "trust_code must be True or False; got 'False'"),
    ],
)
def test_options_of_another_kind_are_refused(options, message, tiny_export):
    with pytest.raises(ValueError, match=message):
        FrozenEncoder(tiny_export, **options)


def test_exports_that_cannot_be_used_say_why(tiny_export, tmp_path):
    def broken(name, change):
        path = tiny_export / name
        original = path.read_bytes()
        change(path)
        with pytest.raises(ExportError) as error:
            FrozenEncoder(tiny_export)
        path.write_bytes(original)
        return str(error.value)

    yaml = tiny_export / "hyperparams.yaml"
    newer = yaml.read_text().replace("export_version: 2", "export_version: 99")
    assert "upgrade" in broken("hyperparams.yaml", lambda p: p.write_text(newer))
    assert "not written by" in broken(
        "hyperparams.yaml", lambda p: p.write_text("a: 1")
    )
    assert "not an export" in broken("hyperparams.yaml", lambda p: p.unlink())
    features, weights = "features.safetensors", "autoencoder.safetensors"
    assert f"no {features}" in broken(features, lambda p: p.unlink())
    assert "export or download" in broken(weights, lambda p: p.write_bytes(b"junk"))
    with pytest.raises(ExportError, match="there is no export at"):
        FrozenEncoder(tmp_path / "nowhere")
