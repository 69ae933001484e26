"""The command line: features of folders, and what a model is."""

import contextlib
import json
import os
import resource

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
    assert entries.pop("ann/broken.wav")["skipped"].startswith("not decodable")
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
    assert encoded == ["ann-broken"]


KINDS = ["npy", "hdf5", "kaldi", "tokens"]


def stored(kind, out):
    """The identifiers that a reader of the format finds."""
    if kind == "npy":
        return {path.stem for path in out.glob("*.npy")}
    if kind == "hdf5":
        with pytest.importorskip("h5py").File(out / "features.h5") as file:
            return set(file)
    name = {"kaldi": "feats.scp", "tokens": "tokens.txt"}[kind]
    lines = (out / name).read_text().splitlines()
    assert len({line.split()[0] for line in lines}) == len(lines)
    return {line.split()[0] for line in lines}


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_extraction_follows_what_became_of_the_corpus(
    kind, corpus, tiny_export, discrete_export, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    export = discrete_export if kind == "tokens" else tiny_export
    extract(export, corpus, out, kind, progress=False)
    generator = np.random.default_rng(1)
    for name in ("ann/1.wav", "ann/broken.wav", "bob/3.wav"):
        soundfile.write(corpus / name, generator.normal(size=8000) / 9, 16000)
    (corpus / "ann" / "2.flac").unlink()
    encoded, original = [], extraction._extract_one
    monkeypatch.setattr(
        extraction,
        "_extract_one",
        lambda *args: encoded.append(args[3]) or original(*args),
    )
    manifest = extract(export, corpus, out, kind, progress=False)
    assert encoded == ["ann-1", "ann-broken", "bob-3"]
    assert read_manifest(out) == manifest
    files = sorted(str(path.relative_to(corpus)) for path in corpus.rglob("*.wav"))
    assert [entry["wav"] for entry in manifest] == files
    assert stored(kind, out) == {entry["id"] for entry in manifest}
    if kind != "tokens":
        encoder = FeatureEncoder.from_hparams(export)
        for entry in manifest:
            expected = encoder.encode_file(corpus / entry["wav"]).numpy()
            np.testing.assert_allclose(read(kind, out, entry), expected, atol=1e-6)


def test_files_of_the_same_names_elsewhere_are_refused(corpus, tiny_export, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    extract(tiny_export, corpus, out, progress=False)
    corpus.rename(other)
    with pytest.raises(ValueError, match="another folder .*corpus, now .*other.*--out"):
        extract(tiny_export, other, out, progress=False)


@contextlib.contextmanager
def no_file_above(size):
    """As on a full disk, but that the error is another one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_one_line_and_costs_nothing(
    kind, corpus, tiny_export, discrete_export, tmp_path, monkeypatch
):
    out, written = tmp_path / "out", []
    export = discrete_export if kind == "tokens" else tiny_export
    writer = extraction.WRITERS[kind]
    original = writer.write

    def write(self, utt, array):
        if len(written) == 2:
            size = self.path.stat().st_size if kind != "npy" else 0
            with no_file_above(size + 50):
                return original(self, utt, array)
        written.append(utt)
        return original(self, utt, array)

    arguments = [str(export), str(corpus), "--out", str(out), "--format", kind]
    with monkeypatch.context() as patch:
        patch.setattr(writer, "write", write)
        with pytest.raises(SystemExit, match=rf"^error: File too large: {out}.*; give"):
            main(["extract", *arguments])
    assert len(written) == 2 and not list(out.glob("*.tmp"))
    main(["extract", *arguments])
    assert stored(kind, out) == {"ann-1", "ann-2", "bob-1", "bob-__2-17c153a9"}
    if kind != "tokens":
        check(kind, out, corpus, tiny_export)


def test_no_room_for_the_manifest_is_said_too(
    corpus, tiny_export, tmp_path, monkeypatch
):
    out, original = tmp_path / "out", extraction._extract_one

    def then_full(*args):
        entry = original(*args)
        size = (out / MANIFEST).stat().st_size
        limited.enter_context(no_file_above(size + 10))
        return entry

    with monkeypatch.context() as patch, contextlib.ExitStack() as limited:
        patch.setattr(extraction, "_extract_one", then_full)
        with pytest.raises(OSError, match=rf"File too large: '{out}'"):
            extract(tiny_export, corpus, out, progress=False)
    extract(tiny_export, corpus, out, progress=False)
    check("npy", out, corpus, tiny_export)


@pytest.mark.parametrize("seconds", [1, 40])
def test_silence_at_the_end_has_no_tokens(seconds, discrete_export, tmp_path):
    wav = np.zeros(16000 * seconds)
    wav[:8000] = np.random.default_rng(0).normal(size=8000) / 9
    (tmp_path / "corpus").mkdir()
    soundfile.write(tmp_path / "corpus" / "a.wav", wav, 16000)
    out = tmp_path / "out"
    (entry,) = extract(
        discrete_export, tmp_path / "corpus", out, "tokens", progress=False
    )
    tokens = (out / "tokens.txt").read_text().split()[1:]
    assert len(tokens) == entry["frames"] == 26
    assert all(0 <= int(token) < 16 for token in tokens)


def test_an_interrupted_line_of_tokens_is_written_again(
    corpus, discrete_export, tmp_path
):
    out = tmp_path / "out"
    extract(discrete_export, corpus, out, "tokens", progress=False)
    tokens, manifest = out / "tokens.txt", out / MANIFEST
    whole = tokens.read_text()
    os.truncate(tokens, len(whole) - 20)
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))
    extract(discrete_export, corpus, out, "tokens", progress=False)
    assert tokens.read_text() == whole


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_damaged_settings_are_named_in_one_line(text, corpus, tiny_export, tmp_path):
    out = tmp_path / "out"
    extract(tiny_export, corpus, out, progress=False)
    (out / "extraction.json").write_text(text)
    with pytest.raises(ValueError, match="extraction.json is damaged; remove .*out to"):
        extract(tiny_export, corpus, out, progress=False)


@pytest.mark.parametrize(
    "text",
    [
        *("", "\0\0\0\n", "[]\n7\n", '{"id": "ann-1"}\n', "[" * 10**5 + "\n"),
        '{"id": ["ann-1"], "wav": "ann/1.wav"}\n',
        '{"id": "ann-1", "wav": "ann/1.wav", "frames": "x"}\n',
    ],
)
def test_damaged_lines_of_the_manifest_are_written_again(
    text, corpus, tiny_export, tmp_path
):
    out = tmp_path / "out"
    extract(tiny_export, corpus, out, progress=False)
    (out / MANIFEST).write_text(text)
    extract(tiny_export, corpus, out, progress=False)
    check("npy", out, corpus, tiny_export)


@pytest.mark.parametrize(
    ("kind", "name", "size"),
    [
        ("npy", "ann-1.npy", None),
        ("npy", "ann-1.npy", 200),
        ("hdf5", "features.h5", None),
        ("kaldi", "feats.ark", None),
        ("kaldi", "feats.ark", 100),
        ("kaldi", "feats.scp", 20),
    ],
)
def test_what_was_lost_is_written_again(
    kind, name, size, corpus, tiny_export, tmp_path
):
    out = tmp_path / "out"
    pytest.importorskip({"hdf5": "h5py", "kaldi": "kaldiio"}.get(kind, "numpy"))
    extract(tiny_export, corpus, out, kind, progress=False)
    if size is None:
        (out / name).unlink()
    else:
        os.truncate(out / name, size)
    extract(tiny_export, corpus, out, kind, progress=False)
    check(kind, out, corpus, tiny_export)


def test_lost_tokens_are_written_again(corpus, discrete_export, tmp_path):
    out = tmp_path / "out"
    extract(discrete_export, corpus, out, "tokens", progress=False)
    lines = (out / "tokens.txt").read_text().splitlines()
    (out / "tokens.txt").write_text("\n".join([lines[0], lines[1][:-4], ""]))
    extract(discrete_export, corpus, out, "tokens", progress=False)
    assert sorted((out / "tokens.txt").read_text().splitlines()) == sorted(lines)


def begun(out, export, corpus, kind="npy"):
    """An extraction that was interrupted at once."""
    out.mkdir()
    encoder = FeatureEncoder.from_hparams(export)
    extraction.check_settings(out, extraction.settings_of(encoder, kind, corpus))


def test_a_manifest_of_somebody_else_deletes_nothing(corpus, tiny_export, tmp_path):
    out, victim = tmp_path / "out", tmp_path / "victim.npy"
    begun(out, tiny_export, corpus)
    victim.touch()
    (out / MANIFEST).write_text('{"wav": "gone.wav", "id": "../victim"}\n')
    extract(tiny_export, corpus, out, progress=False)
    assert victim.exists()


@pytest.mark.parametrize("name", ["run.lock", "ann-1.npy.tmp", "feats.ark"])
def test_links_that_wait_in_the_folder_are_not_followed(
    name, corpus, tiny_export, tmp_path
):
    pytest.importorskip("kaldiio")
    out, victim = tmp_path / "out", tmp_path / "victim"
    kind = "kaldi" if name == "feats.ark" else "npy"
    begun(out, tiny_export, corpus, kind)
    victim.write_text("mine")
    (out / name).symlink_to(victim)
    with contextlib.suppress(OSError):
        extract(tiny_export, corpus, out, kind, progress=False)
    assert victim.read_text() == "mine"


def test_features_that_are_not_finite_are_not_written(
    corpus, tiny_export, tmp_path, monkeypatch
):
    def broken(encoder, path):
        yield torch.full((3, 8), float("nan")), None

    monkeypatch.setattr(FeatureEncoder, "stream_file", broken)
    with pytest.raises(ValueError, match="none of the 5 .* are not finite"):
        extract(tiny_export, corpus, tmp_path / "out", progress=False)


def test_nothing_is_no_folder_to_write_to(corpus, tiny_export):
    with pytest.raises(ValueError, match="give a folder to write to"):
        extract(tiny_export, corpus, "", progress=False)


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


def test_features_written_into_the_corpus_are_no_recordings(
    corpus, tiny_export, monkeypatch
):
    monkeypatch.chdir(corpus)
    extract(tiny_export, corpus, "features", progress=False)
    soundfile.write(corpus / "features" / "listen.wav", np.ones(9000), 16000)
    manifest = extract(tiny_export, ".", "features", progress=False)
    assert len(manifest) == 5


def test_the_home_folder_is_known_after_an_equals_sign(
    corpus, tiny_export, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    main(["extract", str(tiny_export), str(corpus), "--out=~/features"])
    assert stored("npy", tmp_path / "features")


@pytest.mark.parametrize("out", [".", "ann", "features"])
def test_nothing_is_written_among_other_files(out, corpus, tiny_export, monkeypatch):
    monkeypatch.chdir(corpus)
    (corpus / "features").mkdir()
    (corpus / "features" / "ann-1.npy").write_text("mine")
    before = sorted(corpus.rglob("*"))
    with pytest.raises(ValueError, match=rf"^{out} is no extraction, it holds \w+"):
        extract(tiny_export, corpus, out, progress=False)
    assert sorted(corpus.rglob("*")) == before
    assert (corpus / "features" / "ann-1.npy").read_text() == "mine"


def test_an_empty_folder_and_a_run_that_had_no_settings_yet_are_taken(
    corpus, tiny_export, tmp_path
):
    out = tmp_path / "out"
    out.mkdir()
    for name in (".DS_Store", "run.lock", "extraction.json.7.tmp"):
        (out / name).touch()
    extract(tiny_export, corpus, out, progress=False)
    check("npy", out, corpus, tiny_export)


def test_info_says_what_a_model_is(tiny_export, discrete_export, capsys):
    main(["info", str(tiny_export)])
    text = capsys.readouterr().out
    for words in ("ConvEncoder", "GaussianBottleneck", "8 numbers", "20 ms", "16000"):
        assert words in text
    main(["info", str(discrete_export)])
    assert "1 of 16" in capsys.readouterr().out


def test_info_sends_nothing_to_a_terminal_but_text(monkeypatch, tiny_export, capsys):
    facts = {"format version": "\x1b[31m2\nand more"}
    monkeypatch.setattr("speechbrain_vae.cli.describe", lambda export: facts)
    main(["info", str(tiny_export)])
    assert capsys.readouterr().out == "format version  \\x1b[31m2\\nand more\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "tokens"}, "continuous and has no tokens"),
        ({"kind": "tokens"}, "give the format npy, hdf5 or kaldi"),
        ({"device": "banana"}, "cannot use the device 'banana' here; give cpu"),
        ({"device": "meta"}, "cannot use the device 'meta' here; give cpu"),
        ({"folder": "nowhere"}, "there is no folder nowhere"),
        ({"folder": "empty"}, "there is no audio below .*WAV, FLAC, OGG, Opus or MP3"),
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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line(corpus, tiny_export):
    arguments = [str(tiny_export), str(corpus), "--out", str(corpus / "x")]
    with pytest.raises(
        SystemExit, match="^error: PyTorch cannot use the device 'cuda'"
    ):
        main(["extract", *arguments, "--device", "cuda"])


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
