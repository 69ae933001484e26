"""The speech recognition recipe."""

import csv
import importlib.util

import pytest
import sentencepiece
import torch

from benchmarks.loading import RECIPES, load_recipe
from speechbrain_vae.dataio.text import train_units
from speechbrain_vae.export import read_export

from .processes import in_two_processes
from .tone_corpus import results, tone_corpus

recipe = load_recipe("ASR")
SMALL = ("--hidden_size", 48, "--dropout", 0, "--lr", 0.01)
SMALL_CONFORMER = ("--hidden_size", 16, "--num_layers", 1, "--num_heads", 2)


def command(tmp_path, *options, yaml="speechocean762_bilstm.yaml", run="run"):
    """Arguments that train ``hparams/<yaml>`` on the tones."""
    return [
        str(RECIPES / "ASR" / "hparams" / yaml),
        *("--data_folder", str(tmp_path / "corpus")),
        *("--output_folder", str(tmp_path / run)),
        *("--feature_cache", str(tmp_path / "cache"), "--device", "cpu"),
        *("--noprogressbar", "--num_workers", "0"),
        *map(str, options),
    ]


def test_two_utterances_are_learnt_without_an_error(tmp_path):
    tone_corpus(tmp_path / "corpus", times=12)
    short = ("--number_of_epochs", 12, "--batch_seconds", 2, "--frame_shift", 0.02)
    recipe.main(command(tmp_path, *short, *SMALL))
    found, run = results(tmp_path / "run"), tmp_path / "run"
    assert found["test.WER"] == found["test.CER"] == 0
    with open(run / "wer_by_speaker.csv", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert list(row.items()) == [
        ("speaker", "0003"),
        ("utterances", "2"),
        ("words", "5"),
        ("WER", "0.0"),
        ("CER", "0.0"),
    ]
    assert "%WER 0.00 [ 0 / 5" in (run / "wer.txt").read_text()
    assert (run / "cer.txt").is_file()

    # The same command with another search tests the recogniser it finds.
    (run / "wer.txt").unlink()
    recipe.main(command(tmp_path, *short, *SMALL, "--search", "beam"))
    assert "%WER 0.00 [ 0 / 5" in (run / "wer.txt").read_text()


def test_every_yaml_of_the_recipe_trains(tmp_path):
    tone_corpus(tmp_path / "corpus", times=4)
    entries = recipe.open_corpus(recipe.open_experiment(command(tmp_path))[0], "words")
    for path in sorted((RECIPES / "ASR" / "hparams").glob("*.yaml")):
        size = SMALL_CONFORMER if "conformer" in path.name else SMALL
        options = ("--number_of_epochs", 1, "--vocab_size", 8, *size)
        argv = command(tmp_path, *options, yaml=path.name, run=path.stem)
        recipe.run(*recipe.open_experiment(argv), entries)
        assert results(tmp_path / path.stem).keys() == {
            f"{split}.{name}"
            for split in ("valid", "test")
            for name in ("loss", "WER", "CER")
        }


def test_tokens_are_read_as_embeddings(tiny_codec, tmp_path):
    tone_corpus(tmp_path / "corpus")
    source = ("--features", tiny_codec, "--layer", "tokens")
    recipe.main(command(tmp_path, "--number_of_epochs", 1, *SMALL, *source))
    (saved,) = (tmp_path / "run" / "save").glob("CKPT*/adapter.ckpt")
    assert [tuple(e.shape) for e in torch.load(saved).values()] == [(7, 64)] * 2


def test_an_encoder_that_is_not_frozen_learns(tiny_export, tmp_path):
    tone_corpus(tmp_path / "corpus")
    source = ("--features", tiny_export, "--freeze", False)
    recipe.main(command(tmp_path, "--number_of_epochs", 1, *SMALL, *source))
    (saved,) = (tmp_path / "run" / "save").glob("CKPT*/front_end.ckpt")
    trained = torch.load(saved, weights_only=True)
    export = read_export(tiny_export).autoencoder.state_dict()
    stem = "encoder.stem.weight"
    assert not torch.equal(trained[f"source.encoder.autoencoder.{stem}"], export[stem])


def test_units_give_back_the_text_and_are_trained_once(tmp_path):
    texts = ["IT'S  A", "ÄHM", "A IT"] * 20
    for unit_type, size in (("char", 0), ("unigram", 12), ("bpe", 12)):
        units = train_units(texts, tmp_path, unit_type, size)
        for text in texts:
            assert units.decode(units.encode(text)).split() == text.split()
            assert 0 not in units.encode(text)
    (path,) = tmp_path.glob("bpe-*.model")
    kept = sentencepiece.SentencePieceProcessor(model_file=str(path))
    stamp = path.stat().st_mtime_ns
    assert train_units(texts, tmp_path, "bpe", 12).encode(texts) == kept.encode(texts)
    assert path.stat().st_mtime_ns == stamp
    train_units(texts[1:2], tmp_path, "char")
    assert len(list(tmp_path.glob("char-*.model"))) == 2


def test_utterances_with_more_units_than_frames_are_counted(tmp_path):
    units = train_units(["AB", "BBA"], tmp_path, "char")
    entries = {
        "two and the space before them": {"words": "AB", "duration": 0.12},
        "a blank between equal ones": {"words": "BBA", "duration": 0.16},
        "just enough": {"words": "BBA", "duration": 0.2},
    }
    assert recipe.warn_of_too_many_units(entries, units, 0.04) == 1
    assert recipe.warn_of_too_many_units(entries, units, 0.05) == 3


def test_a_character_that_training_never_saw_ends_in_one_line(tmp_path):
    tone_corpus(tmp_path / "corpus", test=["BAD DAD", "BAÇ"])
    with pytest.raises(SystemExit, match="the train set has no character Ç, the test"):
        recipe.main(command(tmp_path))


def test_a_test_set_without_transcripts_ends_in_one_line(tmp_path):
    tone_corpus(tmp_path / "corpus", test=["", ""])
    with pytest.raises(SystemExit, match="no utterance of the test set has words"):
        recipe.main(command(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--unit_type", "word"), "unit_type is one of char, unigram, bpe; got 'word'"),
        (("--unit_type", "bpe", "--vocab_size", 900), "900 bpe units cannot be made"),
        (("--search", "viterbi"), "search is greedy or beam; got 'viterbi'"),
        (("--ngram", "lm.arpa"), "greedy search takes no ngram; add --search beam"),
        (("--search", "beam", "--ngram", "lm.arpa"), "lm.arpa does not exist"),
        (("--features", "results/none/1/export"), "results/none/1/export"),
        (("--freeze", False), "fbank_cmvn has one layer and nothing to train"),
        (("--sample_rate", 8000, "--features", "EXPORT"), "cannot take 8000 Hz"),
    ],
)
def test_what_cannot_be_done_ends_in_one_line(options, message, tiny_export, tmp_path):
    tone_corpus(tmp_path / "corpus")
    options = [tiny_export if option == "EXPORT" else option for option in options]
    with pytest.raises(SystemExit, match=message) as error:
        recipe.main(command(tmp_path, *options))
    assert "\n" not in str(error.value)


@pytest.mark.skipif(importlib.util.find_spec("kenlm") is not None, reason="has kenlm")
def test_an_ngram_without_kenlm_ends_in_one_line(tmp_path):
    tone_corpus(tmp_path / "corpus")
    (tmp_path / "lm.arpa").touch()
    options = ("--search", "beam", "--ngram", tmp_path / "lm.arpa")
    with pytest.raises(SystemExit, match="kenlm .* not installed") as error:
        recipe.main(command(tmp_path, *options))
    assert "\n" not in str(error.value)


def test_two_processes_train_an_encoder_that_is_not_frozen(tiny_export, tmp_path):
    tone_corpus(tmp_path / "corpus", times=4)
    source = ("--features", tiny_export, "--layer", "encoder", "--freeze", False)
    options = ("--number_of_epochs", 2, "--batch_seconds", 1)
    in_two_processes("ASR", command(tmp_path, *options, *SMALL, *source))
    assert results(tmp_path / "run")["test.WER"] <= 100
    assert "speaker" in (tmp_path / "run" / "wer_by_speaker.csv").read_text()
    saved, *_ = (tmp_path / "run" / "save").glob("CKPT*/front_end.ckpt")
    trained = torch.load(saved, weights_only=True)
    export = read_export(tiny_export).autoencoder.state_dict()
    assert any(
        not torch.equal(trained[f"source.encoder.autoencoder.{name}"], value)
        for name, value in export.items()
    )
