"""The YAMLs for large corpora, on tiny ones of the same layout."""

import re

import pytest
import yaml
from hyperpyyaml import load_hyperpyyaml

from speechbrain_vae.dataio.manifests import read_manifests
from speechbrain_vae.dataio.shard import shard_corpus
from speechbrain_vae.run_settings import with_base

from .training import ROOT, train, write_noise

SMALL = [
    *("--hidden_size", 16, "--num_layers", 1, "--latent_size", 8, "--noprogressbar"),
    *("--number_of_epochs", 1, "--batch_seconds", 4, "--num_workers", 0),
]


def librispeech(folder):
    """The layout of LibriSpeech, two utterances in each subset."""
    subsets = [f"train-{name}" for name in ("clean-100", "clean-360", "other-500")]
    for number, subset in enumerate([*subsets, "dev-clean", "dev-other", "test-clean"]):
        chapter = folder / "LibriSpeech" / subset / str(number) / "7"
        for utt in range(2):
            path = chapter / f"{number}-7-000{utt}.flac"
            write_noise(path, 1.5, 10 * number + utt)
        lines = [f"{number}-7-000{utt} A WORD" for utt in range(2)]
        (chapter / f"{number}-7.trans.txt").write_text("\n".join(lines) + "\n")
    return folder / "LibriSpeech"


def libri_light(folder):
    """The layout of Libri-Light: SIZE/SPEAKER/BOOK/FILE.flac, two books a speaker."""
    for speaker in range(1, 5):
        for number in range(4):
            book = f"a_book_{speaker}_{number // 2}_librivox_64kb_mp3"
            name = f"{number:02d}_a_book_64kb.flac"
            path = folder / "libri-light" / "medium" / str(speaker) / book / name
            write_noise(path, 1.5, 10 * speaker + number)
    return folder / "libri-light"


def documented_options():
    """The options of the corpus that the YAML tells to give."""
    text = (ROOT / "hparams" / "large" / "libri_light.yaml").read_text()
    return yaml.safe_load(re.search(r'"({.*})"', text)[1])


def test_librispeech_960_trains_on_its_layout(tmp_path):
    corpus = librispeech(tmp_path)
    report = train("large/predictive_vae_960.yaml", tmp_path, corpus, *SMALL)
    assert report["corpus"] == "librispeech"
    counts = [report[split]["utterances"] for split in ("train", "valid", "test")]
    assert counts == [6, 4, 2]


def test_libri_light_trains_on_shards(tmp_path):
    corpus, shards = libri_light(tmp_path) / "medium", tmp_path / "shards"
    options = documented_options() | {"valid_fraction": 0.2, "test_fraction": 0.2}
    shard_corpus("folder", corpus, shards, workers=1, utterances=3, **options)
    speakers = [
        {entry["spk_id"] for entry in entries.values()}
        for entries in read_manifests(shards / "manifests").values()
    ]
    assert sorted(name for found in speakers for name in found) == list("1234")
    report = train("large/libri_light.yaml", tmp_path, shards, *SMALL)
    assert report["corpus"] == "shards" and report["latent_dim"] == 8


@pytest.mark.parametrize("path", sorted((ROOT / "hparams" / "large").glob("*.yaml")))
def test_a_large_yaml_says_what_differs_and_no_more(path):
    base, overrides = with_base(path, "")
    with open(base, encoding="utf-8") as file:
        # An override that the base does not have is refused here.
        changed = load_hyperpyyaml(file, overrides)
    assert changed["hidden_size"] == 512
    assert len(overrides.splitlines()) < 20
