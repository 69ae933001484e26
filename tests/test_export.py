"""Exports: two formats, and what somebody may have put into one."""

import os
import pickle
import zipfile

import pytest
import safetensors.torch
import torch
from hyperpyyaml import load_hyperpyyaml

from conftest import tiny_model
from speechbrain_vae.export import ExportError, read_export, write_export
from speechbrain_vae.inference import FeatureEncoder
from speechbrain_vae.lobes.frozen import FrozenEncoder
from speechbrain_vae.safe_yaml import load_model_yaml
from speechbrain_vae.weights import sha256

ROOT_YAMLS = ("vae.yaml", "vqvae.yaml", "ae.yaml", "apc.yaml", "dae.yaml")


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.marker}",)


def rewrite(export, *changes, sign=True):
    """Change the text of an export's YAML; a hostile writer signs its weights."""
    path = export / "hyperparams.yaml"
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    if sign:
        for name in ("features", "autoencoder"):
            old = text.split(f"  {name}: ")[1].split()[0]
            text = text.replace(old, sha256(export / f"{name}.safetensors"))
    path.write_text(text)


def version_1(export):
    """Turn an export into one of the first format."""
    rewrite(
        export,
        ("export_version: 2", "export_version: 1"),
        (
            "speechbrain_vae.weights.SafetensorsPretrainer",
            "speechbrain.utils.parameter_transfer.Pretrainer",
        ),
        sign=False,
    )
    path = export / "hyperparams.yaml"
    lines = path.read_text().splitlines(keepends=True)
    start = lines.index("checksums:\n")
    path.write_text("".join(lines[:start] + lines[start + 3 :]))
    for old in export.glob("*.safetensors"):
        torch.save(safetensors.torch.load_file(old), old.with_suffix(".ckpt"))
        old.unlink()


def test_exports_of_the_first_format_give_the_same_features(tiny_export):
    wavs = torch.randn(2, 8000)
    expected = FrozenEncoder(tiny_export)(wavs)
    version_1(tiny_export)
    assert not list(tiny_export.glob("*.safetensors"))
    torch.testing.assert_close(FrozenEncoder(tiny_export)(wavs), expected)


@pytest.mark.parametrize("other", ['"export_version": two\n', ""])
def test_a_version_inside_of_a_string_is_not_that_of_the_export(tiny_export, other):
    rewrite(tiny_export, ("export_version: 2", 'x: "\nexport_version: 2\n"'))
    with (tiny_export / "hyperparams.yaml").open("a") as file:
        file.write(other)
    with pytest.raises(
        ExportError, match="export_version: 2 of its .* is part of a text; export or"
    ):
        read_export(tiny_export)


def test_an_export_written_over_an_old_one_leaves_no_ckpt(tiny_export):
    version_1(tiny_export)
    hparams, text = tiny_model()
    write_export(tiny_export, text, hparams["features"], hparams["autoencoder"])
    assert not list(tiny_export.glob("*.ckpt"))
    read_export(tiny_export)


def test_a_pickle_in_the_place_of_weights_is_not_executed(tiny_export, tmp_path):
    marker = tmp_path / "executed"
    version_1(tiny_export)
    torch.save(Payload(marker), tiny_export / "autoencoder.ckpt")
    with pytest.raises(ExportError, match="does not hold the weights"):
        read_export(tiny_export, trust_code=True)
    (tiny_export / "autoencoder.ckpt").write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(ExportError, match="does not hold the weights"):
        read_export(tiny_export)
    assert not marker.exists()


def test_a_compressed_ckpt_is_refused_before_it_is_read(tiny_export, monkeypatch):
    version_1(tiny_export)
    path = tiny_export / "features.ckpt"
    torch.save({"weight": torch.zeros(1000, 1000)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(ExportError, match="compressed, and 4000[0-9]* bytes"):
        read_export(tiny_export)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660)])
def test_who_may_read_an_export_is_for_the_umask_to_say(tmp_path, umask, mode):
    # As a run that was killed leaves it.
    (tmp_path / "features.safetensors.tmp").touch(0o600)
    hparams, text = tiny_model()
    before = os.umask(umask)
    try:
        write_export(tmp_path, text, hparams["features"], hparams["autoencoder"])
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert set(modes.values()) == {mode}, modes


def change_a_byte(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def change_the_header(path):
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"F32"', b'"F64"', 1))


def claim_a_huge_header(path):
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])


def rename_a_tensor(path):
    state = safetensors.torch.load_file(path)
    state["junk"] = state.pop(sorted(state)[0])
    safetensors.torch.save_file(state, path)


def make_huge(path):
    safetensors.torch.save_file({"weight": torch.zeros(1000, 1000)}, path)


def empty(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


DAMAGE = (
    change_the_header,
    claim_a_huge_header,
    rename_a_tensor,
    make_huge,
    empty,
    cut,
)


@pytest.mark.parametrize("tamper", [change_a_byte, *DAMAGE])
def test_changed_weights_are_refused(tiny_export, tamper):
    tamper(tiny_export / "autoencoder.safetensors")
    with pytest.raises(ExportError, match="its SHA-256 is another one"):
        read_export(tiny_export)


@pytest.mark.parametrize("tamper", DAMAGE)
def test_weights_that_do_not_fit_are_refused_even_with_their_checksum(
    tiny_export, tamper
):
    tamper(tiny_export / "autoencoder.safetensors")
    rewrite(tiny_export)
    with pytest.raises(ExportError, match="export or download the model again"):
        read_export(tiny_export)


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.float16, torch.float64, torch.complex64]
)
def test_weights_of_another_dtype_are_refused(tiny_export, dtype):
    path = tiny_export / "autoencoder.safetensors"
    state = safetensors.torch.load_file(path)
    safetensors.torch.save_file({k: v.to(dtype) for k, v in state.items()}, path)
    rewrite(tiny_export)
    with pytest.raises(ExportError, match=f"holds {dtype} where the model has"):
        read_export(tiny_export)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["features", "autoencoder"])
def test_weights_that_are_not_finite_are_refused(tiny_export, name, value):
    path = tiny_export / f"{name}.safetensors"
    state = safetensors.torch.load_file(path)
    next(v for v in state.values() if v.is_floating_point()).view(-1)[-1] = value
    safetensors.torch.save_file(state, path)
    rewrite(tiny_export)
    with pytest.raises(ExportError, match="holds NaN or infinity"):
        read_export(tiny_export)


@pytest.mark.parametrize("lines", [1, 3])
def test_an_export_of_version_2_needs_its_checksums(tiny_export, lines):
    path = tiny_export / "hyperparams.yaml"
    text = path.read_text().splitlines(keepends=True)
    end = text.index("checksums:\n") + 3
    path.write_text("".join(text[: end - lines] + text[end:]))
    with pytest.raises(ExportError, match="has no checksum of (features|autoencoder)"):
        read_export(tiny_export)


@pytest.mark.parametrize(
    ("fact", "given"),
    [
        ("sample_rate: 16000", "8000"),
        ("sample_rate: 16000", "[16000]"),
        ("frame_shift: 0.02", "abc"),
        ("frame_shift: 0.02", ".nan"),
        ("frame_shift: 0.02", ""),
        ("feature_size: 8", "-1"),
        ("feature_size: 8", "1" + "0" * 400),
    ],
)
def test_a_fact_that_the_modules_deny_is_refused(tiny_export, fact, given):
    name = fact.split(":")[0]
    rewrite(tiny_export, (f"\n{fact}\n", f"\n{name}: {given}\n"))
    with pytest.raises(ExportError, match=f"says {name}: .* its modules") as error:
        FeatureEncoder.from_hparams(tiny_export)
    assert "\n" not in str(error.value)


def test_a_fact_that_is_missing_comes_from_the_modules(tiny_export):
    rewrite(tiny_export, ("\nframe_shift: 0.02\n", "\n"))
    assert FeatureEncoder.from_hparams(tiny_export).frame_shift == 0.02


def test_modules_without_facts_are_refused(tiny_export):
    path = tiny_export / "hyperparams.yaml"
    facts = path.read_text().partition("\nfeatures: ")[0]
    path.write_text(
        f"{facts}\nfeatures: !new:torch.nn.GELU\nautoencoder: !new:torch.nn.GELU\n"
    )
    with pytest.raises(ExportError, match="'GELU' object has no attribute"):
        read_export(tiny_export)


def test_a_module_too_large_is_refused_also_where_it_was_not_foreseen(
    tiny_export, monkeypatch
):
    monkeypatch.setattr("speechbrain_vae.safe_yaml.EXCLUDED", ())
    with open(tiny_export / "hyperparams.yaml", "a", encoding="utf-8") as file:
        file.write(
            "extra: !new:speechbrain.nnet.quantisers.GumbelVectorQuantizer\n"
            "    [8, 25000, [2, 1, 0.9], 1, 800]\n"
        )
    with pytest.raises(ExportError, match="takes more than the"):
        read_export(tiny_export)


def test_a_model_far_larger_than_its_weights_is_refused_before_it_is_built(tiny_export):
    rewrite(tiny_export, ("channels: 12", "channels: 300000"))
    with pytest.raises(ExportError, match="takes more than the"):
        read_export(tiny_export)


def test_a_model_of_endless_blocks_is_refused(tiny_export):
    rewrite(tiny_export, ("blocks: 1", "blocks: 1000000000"))
    with pytest.raises(ExportError, match="takes more than the"):
        read_export(tiny_export)


@pytest.mark.parametrize(
    "extra",
    [
        "!new:speechbrain_vae.lobes.encoders.RecurrentEncoder\n"
        "    hidden_size: 2\n    num_layers: 1000000000",
        "!new:speechbrain_vae.lobes.two_way.TwoWayEncoder\n"
        "    hidden_size: 2\n    num_layers: 1000000000",
        "!new:torch.nn.TransformerEncoder [null, 1000000000]",
        "!new:speechbrain.lobes.features.MFCC\n    n_mfcc: 30000\n    n_mels: 30000",
        "!new:speechbrain_vae.lobes.features.LogMel\n    sample_rate: 4000000000",
    ],
)
def test_a_part_of_endless_size_is_refused(tiny_export, extra):
    with open(tiny_export / "hyperparams.yaml", "a", encoding="utf-8") as file:
        file.write(f"extra: {extra}\n")
    with pytest.raises(ExportError):
        read_export(tiny_export)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("utterance", "shrunk", "no statistics yet"),
        ("utterance", "global", "no statistics yet"),
        ("blocks: 1", "blocks: 1\n    activation: !name:torch.nn.Flatten", ""),
        (
            "blocks: 1",
            "blocks: 1\n    activation: !name:torch.nn.Threshold [0.1, .inf]",
            "not finite",
        ),
    ],
)
def test_modules_that_do_not_work_together_are_refused(tiny_export, old, new, message):
    rewrite(tiny_export, (old, new))
    with pytest.raises(ExportError, match=f"do not work together.*{message}"):
        read_export(tiny_export)


@pytest.mark.parametrize("std", [0.0, -1.0, 1e-40])
def test_statistics_that_cannot_be_are_refused(std, tmp_path):
    hparams, text = tiny_model("global")
    hparams["features"].std.fill_(std)
    export = write_export(tmp_path, text, hparams["features"], hparams["autoencoder"])
    with pytest.raises(ExportError, match="do not work together .*(finite|positive)"):
        read_export(export)


def test_absurd_weights_are_refused(tiny_export):
    path = tiny_export / "autoencoder.safetensors"
    state = safetensors.torch.load_file(path)
    for value in state.values():
        if value.is_floating_point():
            value.fill_(1e38)
    safetensors.torch.save_file(state, path)
    rewrite(tiny_export)
    with pytest.raises(ExportError, match="features that are not finite"):
        read_export(tiny_export)


def test_to_load_an_export_leaves_the_seed_of_what_follows(tiny_export):
    torch.manual_seed(0)
    load_model_yaml((tiny_export / "hyperparams.yaml").read_text())
    expected = torch.rand(1)
    torch.manual_seed(0)
    read_export(tiny_export)
    assert torch.equal(torch.rand(1), expected)


def test_a_pickle_is_refused_without_pytorchs_advice_to_run_it(tiny_export, tmp_path):
    version_1(tiny_export)
    torch.save({"a": Payload(tmp_path / "executed")}, tiny_export / "features.ckpt")
    with pytest.raises(ExportError, match="it holds more than tensors") as error:
        read_export(tiny_export)
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"), [(b"a" * 2_000_000, "too large"), (b"\xff\xfe", "not text")]
)
def test_a_yaml_that_is_none_is_refused(tiny_export, content, message):
    (tiny_export / "hyperparams.yaml").write_bytes(content)
    with pytest.raises(ExportError, match=message):
        read_export(tiny_export)


@pytest.mark.parametrize("load", [FeatureEncoder.from_hparams, FrozenEncoder])
def test_code_in_an_export_runs_only_for_those_who_trust_it(
    load, tiny_export, tmp_path
):
    marker = tmp_path / "executed"
    with open(tiny_export / "hyperparams.yaml", "a", encoding="utf-8") as file:
        file.write(f"extra: !apply:os.mkdir [{marker}]\n")
    with pytest.raises(ExportError, match="!apply:os.mkdir .*trust_code=True"):
        load(tiny_export)
    assert not marker.exists()
    load(tiny_export, trust_code=True)
    assert marker.exists()


def test_speechbrains_own_interface_finds_the_weights(tiny_export, tmp_path):
    from speechbrain.inference.interfaces import Pretrained

    class Features(Pretrained):
        def encode(self, wavs):
            feats, lengths = self.mods.features(wavs)
            return self.mods.autoencoder.encode(feats, lengths)[0].features

    encoder = Features.from_hparams(str(tiny_export), savedir=str(tmp_path / "saved"))
    wavs = torch.randn(1, 8000)
    expected = FrozenEncoder(tiny_export)(wavs)
    torch.testing.assert_close(encoder.encode(wavs), expected)


@pytest.mark.parametrize("name", ROOT_YAMLS)
def test_the_checked_loader_builds_what_hyperpyyaml_builds(name, tmp_path, request):
    text = (request.config.rootpath / "hparams" / name).read_text()
    hparams = load_hyperpyyaml(text, {"output_folder": str(tmp_path / "run")})
    parts = hparams["features"], hparams["autoencoder"]
    folder = write_export(tmp_path / "export", text, *parts)
    checked, trusted = (
        read_export(folder, trust_code=trust) for trust in (False, True)
    )
    assert repr(checked.autoencoder) == repr(trusted.autoencoder)
    assert repr(checked.features) == repr(trusted.features)
    assert checked.hparams["modules"]["autoencoder"] is checked.autoencoder


def test_run_options_of_an_export_are_not_followed(tiny_export):
    with open(tiny_export / "hyperparams.yaml", "a", encoding="utf-8") as file:
        file.write("device: cuda\ncompile: True\n")
    assert FeatureEncoder.from_hparams(tiny_export).device == "cpu"
