"""SpeechBrain's own training scripts, untouched, with our YAMLs.

Needs a checkout of SpeechBrain, whose wheel lacks its recipes::

    SPEECHBRAIN_ROOT=speechbrain pytest tests/integration/test_speechbrain_recipes.py
"""

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import sentencepiece
import torch
from hyperpyyaml import load_hyperpyyaml

from conftest import tiny_model
from speechbrain_vae.export import ExportError, write_export
from speechbrain_vae.lobes.frozen import FrozenEncoder

from .training import ENVIRONMENT, ROOT, write_noise

PLUGIN = ROOT / "recipes" / "plugin"
CTC = "recipes/LibriSpeech/ASR/CTC/train_with_wav2vec.py"
ASR = "templates/speech_recognition/ASR/train.py"
SPEAKER_ID = "templates/speaker_id/train.py"
VOXCELEB = "recipes/VoxCeleb/SpeakerRec/train_speaker_embeddings.py"

# Runs a script as python does, then writes the front end as training left it.
DRIVER = """
import runpy, sys
from pathlib import Path

sys.argv = sys.argv[1:]
sys.path[0] = str(Path(sys.argv[0]).parent)
names = runpy.run_path(sys.argv[0], run_name="__main__")

import torch
from speechbrain_vae.lobes.frozen import FrozenEncoder

modules = names["hparams"]["modules"].values()
front_end = next(m for m in modules if isinstance(m, FrozenEncoder))
torch.save(front_end.cpu().state_dict(), "front_end.pt")
"""

# Every one of the 28 characters of LibriSpeech.
SENTENCES = ["THE QUICK BROWN FOX", "JUMPS OVER", "THE LAZY DOG", "DON'T"]
SPEAKERS = 28
UTTERANCES = 3

# Small networks, one epoch, no worker processes.
COMMON = {"number_of_epochs": 1, "num_workers": 0}
SMALL = {
    CTC: {"rnn_neurons": 16, "rnn_layers": 1, "test_beam_search": "{beam_size: 5}"},
    ASR: {
        "number_of_ctc_epochs": 1,
        **{"rnn_neurons": 16, "rnn_layers": 1, "dnn_neurons": 16},
        **{"emb_size": 8, "dec_neurons": 16},
        **{"valid_beam_size": 2, "test_beam_size": 2},
    },
    SPEAKER_ID: {"tdnn_channels": "[16, 16, 16, 16, 32]", "emb_dim": 16},
    VOXCELEB: {
        **{"channels": "[16, 16, 16, 16, 48]", "emb_dim": 16},
        **{"out_n_neurons": 4, "sentence_len": 1.0, "batch_size": 8},
    },
}
YAMLS = {
    CTC: "librispeech_ctc.yaml",
    ASR: "template_asr.yaml",
    SPEAKER_ID: "template_speaker_id.yaml",
    VOXCELEB: "voxceleb_ecapa.yaml",
}


@pytest.fixture(scope="module")
def checkout():
    """SpeechBrain's repository."""
    root = os.environ.get("SPEECHBRAIN_ROOT")
    if not root:
        pytest.skip(
            "SPEECHBRAIN_ROOT is not set: give the path of a checkout of SpeechBrain "
            "to run its recipes (its wheel has none)"
        )
    missing = [script for script in YAMLS if not (Path(root) / script).is_file()]
    assert not missing, f"SPEECHBRAIN_ROOT={root} has no {', '.join(missing)}"
    return Path(root).resolve()


@pytest.fixture(scope="module")
def librispeech(tmp_path_factory):
    """Noise in the layout of LibriSpeech and of Mini LibriSpeech."""
    root = tmp_path_factory.mktemp("librispeech")
    split = root / "LibriSpeech" / "train-clean-5"
    for speaker in range(SPEAKERS):
        folder = split / f"{100 + speaker}" / "1"
        lines = []
        for number in range(UTTERANCES):
            name = f"{100 + speaker}-1-{number:04d}"
            seed = UTTERANCES * speaker + number
            write_noise(folder / f"{name}.flac", 0.9 + 0.1 * number, seed)
            lines.append(f"{name} {SENTENCES[seed % len(SENTENCES)]}\n")
        (folder / f"{100 + speaker}-1.trans.txt").write_text("".join(lines))
    (split.parent / "train-clean-100").symlink_to(split)
    for name in ("dev-clean-2", "dev-clean", "test-clean", "test-other"):
        (split.parent / name).mkdir()
        (split.parent / name / "100").symlink_to(split / "100")
    return root


@pytest.fixture(scope="module")
def voxceleb(tmp_path_factory):
    """Noise in the layout of VoxCeleb, and a list of verification pairs."""
    root = tmp_path_factory.mktemp("voxceleb")
    for speaker in range(4):
        for number in range(12):
            path = root / "wav" / f"id1000{speaker}" / "session" / f"{number:05d}.wav"
            write_noise(path, 1.2, 100 * speaker + number)
    (root / "pairs.txt").write_text("1 id10270/a/00001.wav id10270/b/00002.wav\n")
    return root


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """A small untrained VAE."""
    hparams, text = tiny_model()
    folder = tmp_path_factory.mktemp("export")
    return write_export(folder, text, hparams["features"], hparams["autoencoder"])


def data_options(script, folder, request):
    """Where a script finds its data, and whatever else it needs."""
    if script == VOXCELEB:
        root = request.getfixturevalue("voxceleb")
        return {"data_folder": root, "verification_file": root / "pairs.txt"}
    root = request.getfixturevalue("librispeech")
    if script == CTC:
        return {"data_folder": root / "LibriSpeech"}
    if script == SPEAKER_ID:
        return {"data_folder": root, **speaker_manifests(root, folder)}
    return {"data_folder": root, **train_tokenizer(folder)}


def speaker_manifests(root, folder):
    """Manifests with every speaker in each split, which a random split is not."""
    options = {}
    for number, split in enumerate(("train", "valid", "test")):
        manifest = {
            path.stem: {
                "wav": f"{{data_root}}/{path.relative_to(root)}",
                "length": 0.9 + 0.1 * number,
                "spk_id": path.stem.split("-")[0],
            }
            for path in sorted(
                root.glob(f"LibriSpeech/train-clean-5/*/1/*{number}.flac")
            )
        }
        assert len(manifest) == SPEAKERS
        path = folder / f"{split}.json"
        path.write_text(json.dumps(manifest))
        options[f"{split}_annotation"] = path
    return options


def train_tokenizer(folder):
    """A SentencePiece model of characters."""
    path = folder / "tokenizer.ckpt"
    with open(path, "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES),
            model_writer=file,
            model_type="char",
            vocab_size=40,
            hard_vocab_limit=False,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
        )
    size = sentencepiece.SentencePieceProcessor(model_file=str(path)).get_piece_size()
    return {"tokenizer_file": path, "output_neurons": size}


def run(checkout, script, folder, options, yaml=None):
    """Run a script with its YAML of ours, or with another."""
    words = [str(word) for k, v in options.items() for word in (f"--{k}", v)]
    return subprocess.run(
        [
            *(sys.executable, "-c", DRIVER, str(checkout / script)),
            *(str(yaml or PLUGIN / YAMLS[script]), *words),
            *("--output_folder", str(folder / "run"), "--device", "cpu"),
            "--noprogressbar",
        ],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )


def tensors(value):
    """All tensors inside a checkpoint."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors(item)]
    return []


def saved_tensors(folder):
    """All tensors of all checkpoints below a folder."""
    files = list(folder.rglob("CKPT*/*.ckpt"))
    assert files, f"no checkpoint below {folder}"
    loaded = []
    for path in files:
        try:
            loaded += tensors(torch.load(path, map_location="cpu", weights_only=False))
        except Exception:  # Counters and schedulers have formats of their own.
            assert path.stat().st_size < 10000, path
    assert loaded
    return loaded


@pytest.mark.parametrize("script", YAMLS)
def test_an_untouched_script_trains_on_frozen_features(
    script, checkout, export, tmp_path, request
):
    options = data_options(script, tmp_path, request)
    done = run(
        checkout,
        script,
        tmp_path,
        {"export": export, **COMMON, **SMALL[script], **options},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    log = (tmp_path / "run" / "train_log.txt").read_text()
    losses = re.findall(r"(?:train|valid) loss: ([-\d.e+]+)", log)
    assert len(losses) == 2 and all(float(loss) > 0 for loss in losses), log

    left = torch.load(tmp_path / "front_end.pt", weights_only=True)
    fresh = FrozenEncoder(export).state_dict()
    assert left.keys() == fresh.keys()
    for name, value in fresh.items():
        assert torch.equal(left[name], value), name
    saved = saved_tensors(tmp_path / "run")
    for name, value in fresh.items():
        if value.unique().numel() > 1:
            assert not any(torch.equal(value, other) for other in saved), name


def test_an_untouched_script_fine_tunes_and_saves_what_it_tuned(
    checkout, export, tmp_path, request
):
    options = {"export": export, **COMMON, **SMALL[CTC], "freeze_wav2vec": False}
    options |= data_options(CTC, tmp_path, request)
    done = run(checkout, CTC, tmp_path, options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    left = torch.load(tmp_path / "front_end.pt", weights_only=True)
    stem = "autoencoder.encoder.stem.weight"
    assert not torch.equal(left[stem], FrozenEncoder(export).state_dict()[stem])
    (path,) = (tmp_path / "run" / "save").glob("CKPT*/wav2vec2.ckpt")
    saved = torch.load(path, weights_only=True)
    for name, value in left.items():
        assert torch.equal(saved[name], value), name


def test_an_untouched_script_learns_the_weights_of_layers(
    checkout, export, tmp_path, request
):
    options = {"export": export, **COMMON, **SMALL[SPEAKER_ID]}
    options |= {
        "representation": "layers",
        **data_options(SPEAKER_ID, tmp_path, request),
    }
    done = run(checkout, SPEAKER_ID, tmp_path, options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (path,) = (tmp_path / "run" / "save").glob("CKPT*/compute_features.ckpt")
    saved = torch.load(path, weights_only=True)
    assert list(saved) == ["weights"] and saved["weights"].any()


def test_an_untouched_script_ends_in_one_sentence_about_a_bad_export(
    checkout, export, tmp_path
):
    for options, message in {
        ("nowhere/at/all", 16000): "there is no export at nowhere/at/all",
        (str(export), 8000): "was trained at 16000 Hz and the recipe's sample_rate is "
        "8000 Hz",
    }.items():
        options = dict(zip(("export", "sample_rate"), options, strict=True))
        done = run(checkout, SPEAKER_ID, tmp_path, {"data_folder": "none", **options})
        assert done.returncode != 0
        assert message in done.stderr.strip().splitlines()[-1]


def with_difference(number, text, export):
    """A YAML of SpeechBrain with a difference that the README shows."""
    diffs = re.findall(r"```diff\n(.*?)```", (PLUGIN / "README.md").read_text(), re.S)
    for old, new in re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)*)", diffs[number], re.M):
        old, new = (re.sub(r"^[-+]", "", lines, flags=re.M) for lines in (old, new))
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text.replace("results/vae/1234/export", str(export))


def test_the_difference_in_the_readme_is_enough_for_the_librispeech_recipe(
    checkout, export, tmp_path, request
):
    source = checkout / Path(CTC).parent / "hparams" / "train_hf_wav2vec.yaml"
    yaml = tmp_path / "changed.yaml"
    yaml.write_text(with_difference(0, source.read_text(), export))
    options = {"dnn_neurons": 16, "train_splits": "[train-clean-100]"}
    options |= data_options(CTC, tmp_path, request)
    done = run(checkout, CTC, tmp_path, options, yaml)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "valid loss" in (tmp_path / "run" / "train_log.txt").read_text()


def test_the_difference_in_the_readme_loads_in_the_speaker_template(
    checkout, export, tmp_path, monkeypatch
):
    folder = checkout / Path(SPEAKER_ID).parent
    monkeypatch.syspath_prepend(folder)
    text = with_difference(1, (folder / "train.yaml").read_text(), export)
    hparams = load_hyperpyyaml(text, {"output_folder": str(tmp_path)})
    feats = hparams["modules"]["compute_features"](torch.randn(2, 16000))
    assert hparams["modules"]["embedding_model"](feats).shape == (2, 1, 512)


@pytest.fixture
def custom_model(monkeypatch):
    """What stands beside SpeechBrain's template, as far as a YAML can tell."""

    class Stub(torch.nn.Module):
        def __init__(self, **options):
            super().__init__()

    module = types.ModuleType("custom_model")
    module.Xvector = module.Classifier = Stub
    monkeypatch.setitem(sys.modules, "custom_model", module)


@pytest.mark.parametrize("script", YAMLS)
def test_a_yaml_names_our_front_end_and_knows_its_size(
    script, export, tmp_path, custom_model
):
    text = (PLUGIN / YAMLS[script]).read_text()
    given = {"export": str(export), "data_folder": "x", "output_folder": str(tmp_path)}
    hparams = load_hyperpyyaml(text, given)
    (front_end,) = [
        m for m in hparams["modules"].values() if isinstance(m, FrozenEncoder)
    ]
    assert front_end.freeze and front_end.output_size == 8
    with pytest.raises(ValueError, match="16000 Hz .* 8000 Hz"):
        load_hyperpyyaml(text, {**given, "sample_rate": 8000})
    with pytest.raises(ExportError, match="there is no export at"):
        load_hyperpyyaml(text, {**given, "export": str(tmp_path / "nowhere")})
