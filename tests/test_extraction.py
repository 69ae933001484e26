"""The command line: features of folders, and what a model is."""

import json

import numpy as np
import pytest
import soundfile
import torch

from conftest import tiny_model
from speechbrain_vae import extraction
from speechbrain_vae.cli import main
from speechbrain_vae.export import read_export, write_export
from speechbrain_vae.extraction import MANIFEST, extract, read_manifest
from speechbrain_vae.inference import FeatureEncoder
from speechbrain_vae.lobes.bottlenecks import QuantisedBottleneck
from speechbrain_vae.nnet.quantisers import VectorQuantizer


@pytest.fixture
def corpus(tmp_path):
    """Four recordings of two speakers, and a file that is none."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "corpus"
    for name in ("ann/1.wav", "ann/2.flac", "bob/1.wav", "bob/ü 2.wav"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, generator.normal(size=9000 + 100 * len(name)) / 9, 16000)
    (folder / "ann" / "broken.wav").write_text("This is not audio.")
    return folder


@pytest.fixture
def discrete_export(tmp_path):
    """Folder of an export of a small VQ-VAE."""
    hparams, text = tiny_model()
    start = text.index("    bottleneck:")
    stop = text.index("    decoder:")
    text = (
        text[:start]
        + """    bottleneck: !new:speechbrain_vae.lobes.bottlenecks.QuantisedBottleneck
        input_size: 12
        quantiser: !new:speechbrain_vae.nnet.quantisers.VectorQuantizer
            dim: 8
            codebook_size: 16
"""
        + text[stop:]
    )
    model = hparams["autoencoder"]
    model.bottleneck = QuantisedBottleneck(12, VectorQuantizer(8, 16))
    return write_export(tmp_path / "discrete", text, hparams["features"], model)


def read(kind, out, entry):
    """The features of an entry, by the reader of the format."""
    if kind == "npy":
        return np.load(out / entry["file"])
    if kind == "hdf5":
        with pytest.importorskip("h5py").File(out / entry["file"]) as file:
            return file[entry["id"]][:]
    index = pytest.importorskip("kaldiio").load_scp(str(out / "feats.scp"))
    return index[entry["id"]]


def check(kind, out, corpus, export):
    """All files are there once, with the features of the encoder."""
    encoder = FeatureEncoder.from_hparams(export)
    entries = {entry["wav"]: entry for entry in read_manifest(out)}
    assert entries.keys() == {
        *("ann/1.wav", "ann/2.flac", "ann/broken.wav", "bob/1.wav", "bob/ü 2.wav")
    }
    assert "not decodable" in entries.pop("ann/broken.wav")["skipped"]
    for wav, entry in entries.items():
        expected = encoder.encode_file(corpus / wav).numpy()
        found = read(kind, out, entry)
        assert entry["frames"] == len(found)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["npy", "hdf5", "kaldi"])
def test_an_interrupted_extraction_goes_on_and_ends_like_any_other(
    kind, corpus, tiny_export, tmp_path, monkeypatch
):
    out, encoded = tmp_path / "out", []

    def interrupted(encoder, path, writer, utt, kind):
        if len(encoded) == 2:
            # Half written when the power fails.
            writer.write(utt, np.zeros((3, 8), dtype=np.float32))
            raise KeyboardInterrupt
        encoded.append(utt)
        return original(encoder, path, writer, utt, kind)

    original = extraction._extract_one
    monkeypatch.setattr(extraction, "_extract_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(tiny_export, corpus, out, kind, progress=False)
    with open(out / MANIFEST, "a", encoding="utf-8") as file:
        file.write('{"id": "half a l')
    encoded.clear()
    monkeypatch.setattr(
        extraction,
        "_extract_one",
        lambda *args: encoded.append(args[3]) or original(*args),
    )
    extract(tiny_export, corpus, out, kind, progress=False)
    assert len(encoded) == 3
    check(kind, out, corpus, tiny_export)
    encoded.clear()
    extract(tiny_export, corpus, out, kind, progress=False)
    assert not encoded


def test_tokens_are_those_of_the_encoder(corpus, discrete_export, tmp_path, capsys):
    out = tmp_path / "tokens"
    arguments = [str(discrete_export), str(corpus), "--out", str(out)]
    main(["extract", *arguments, "--format", "tokens"])
    assert "4 files" in capsys.readouterr().out
    lines = (out / "tokens.txt").read_text().splitlines()
    found = {line.split()[0]: list(map(int, line.split()[1:])) for line in lines}
    encoder = FeatureEncoder.from_hparams(discrete_export)
    wav, _ = soundfile.read(corpus / "ann" / "1.wav", dtype="float32")
    expected = encoder.tokens_batch(torch.from_numpy(wav)[None])[0, :, 0]
    assert found["ann-1"] == expected.tolist()


def test_another_model_or_format_is_not_mixed_in(
    corpus, tiny_export, discrete_export, tmp_path
):
    extract(tiny_export, corpus, tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="another format"):
        extract(tiny_export, corpus, tmp_path / "out", "kaldi", progress=False)
    with pytest.raises(ValueError, match="another weights"):
        extract(discrete_export, corpus, tmp_path / "out", progress=False)


def test_features_written_into_the_corpus_are_no_recordings(corpus, tiny_export):
    out = corpus / "features"
    extract(tiny_export, corpus, out, progress=False)
    soundfile.write(out / "listen.wav", np.ones(9000), 16000)
    manifest = extract(tiny_export, corpus, out, progress=False)
    assert len(manifest) == 5


def test_info_says_what_a_model_is(tiny_export, discrete_export, capsys):
    main(["info", str(tiny_export)])
    text = capsys.readouterr().out
    for words in ("ConvEncoder", "GaussianBottleneck", "8 numbers", "20 ms", "16000"):
        assert words in text
    main(["info", str(discrete_export)])
    assert "1 of 16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "tokens"}, "continuous and has no tokens"),
        ({"folder": "nowhere"}, "there is no folder nowhere"),
        ({"folder": "empty"}, "there is no audio below"),
        ({"source": "nowhere"}, "there is no export at nowhere"),
        ({"folder": "corpus/ann/only"}, "none of the 1 files .* can be used"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line(
    change, message, corpus, tiny_export, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (corpus / "ann" / "only").mkdir()
    (corpus / "ann" / "only" / "1.wav").write_text("no")
    arguments = {"source": tiny_export, "folder": corpus, "out": "out"} | change
    with pytest.raises(ValueError, match=message):
        extract(**arguments, progress=False)


@pytest.mark.parametrize("package", ["h5py", "kaldiio"])
def test_a_missing_package_is_named(package, corpus, tiny_export, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    kind = {"h5py": "hdf5", "kaldiio": "kaldi"}[package]
    arguments = [str(tiny_export), str(corpus), "--out", str(corpus / "x")]
    with pytest.raises(SystemExit, match=rf"error: .*{package}.*\[extract\]"):
        main(["extract", *arguments, "--format", kind])


def test_the_manifest_is_json_lines(corpus, tiny_export, tmp_path):
    extract(tiny_export, corpus, tmp_path / "out", progress=False)
    lines = (tmp_path / "out" / MANIFEST).read_text().splitlines()
    assert [json.loads(line)["wav"] for line in lines] == sorted(
        str(path.relative_to(corpus)) for path in corpus.rglob("*.*")
    )
    settings = json.loads((tmp_path / "out" / "extraction.json").read_text())
    assert settings["weights"] == dict(read_export(tiny_export).hparams["checksums"])
