"""The phone recognition recipe."""

import pytest
import torch

from benchmarks.loading import RECIPES, load_recipe
from speechbrain_vae.export import read_export

from .processes import in_two_processes
from .tone_corpus import results, tone_corpus

recipe = load_recipe("PhoneRecognition")


def command(yaml, tmp_path, *options):
    """Arguments that train ``hparams/<yaml>`` on the tones."""
    return [
        str(RECIPES / "PhoneRecognition" / "hparams" / yaml),
        *("--data_folder", str(tmp_path / "corpus"), "--noprogressbar"),
        *("--output_folder", str(tmp_path / "run")),
        *("--feature_cache", str(tmp_path / "cache"), "--device", "cpu"),
        *map(str, options),
    ]


@pytest.mark.parametrize(
    ("yaml", "bar", "options"),
    [
        ("linear.yaml", 10, ("--lr", 0.1)),
        ("bilstm.yaml", 0, ("--lr", 0.01, "--hidden_size", 24, "--dropout", 0)),
    ],
)
def test_two_utterances_are_learnt(yaml, bar, options, tmp_path):
    tone_corpus(tmp_path / "corpus", times=12)
    short = ("--number_of_epochs", 8, "--batch_seconds", 2)
    recipe.main(command(yaml, tmp_path, *short, *options))
    assert results(tmp_path / "run")["test.PER"] <= bar
    assert "000300001, %WER 0.00" in (tmp_path / "run" / "per.txt").read_text()


def test_tokens_are_read_as_embeddings(tiny_codec, tmp_path):
    tone_corpus(tmp_path / "corpus")
    source = ("--features", tiny_codec, "--layer", "tokens")
    recipe.main(command("linear.yaml", tmp_path, "--number_of_epochs", 2, *source))
    assert {"valid.PER", "test.PER"} <= results(tmp_path / "run").keys()


def test_an_encoder_that_is_not_frozen_learns(tiny_export, tmp_path):
    tone_corpus(tmp_path / "corpus")
    source = ("--features", tiny_export, "--layer", "encoder", "--freeze", False)
    recipe.main(command("linear.yaml", tmp_path, "--number_of_epochs", 1, *source))
    (saved,) = (tmp_path / "run" / "save").glob("CKPT*/front_end.ckpt")
    trained = torch.load(saved, weights_only=True)
    export = read_export(tiny_export).autoencoder.state_dict()
    changed = [
        name
        for name, value in export.items()
        if not torch.equal(trained[f"source.encoder.autoencoder.{name}"], value)
    ]
    assert any(name.startswith("encoder.") for name in changed)
    assert not any(name.startswith("decoder.") for name in changed)


def test_the_phones_of_timit_are_folded_and_others_keep_their_39():
    folded = ["SIL", "IH", "SIL", "T", "SH"]
    entries = {"train": {"a": {"phones": "h# ix q tcl t zh"}}}
    assert recipe.phone_labels(entries)["train"]["a"] == folded
    entries = {"train": {"a": {"phones": "AA1 ZH"}}}
    assert recipe.phone_labels(entries)["train"]["a"] == ["AA", "ZH"]


def test_the_test_set_is_left_alone_when_rates_are_chosen(tmp_path):
    tone_corpus(tmp_path / "corpus")
    argv = command("linear.yaml", tmp_path, "--number_of_epochs", 1)
    hparams, run_opts = recipe.open_experiment(argv)
    entries = recipe.open_corpus(hparams, "phones")
    found = recipe.run(hparams, run_opts, entries, test=False)
    assert {name.split(".")[0] for name in found} == {"valid"}


def test_a_phone_that_training_never_saw_ends_in_one_line(tmp_path):
    tone_corpus(tmp_path / "corpus", test=["BAD DAD", "BAZE"])
    with pytest.raises(SystemExit, match="the train set has no phone E, Z, the test"):
        recipe.main(command("linear.yaml", tmp_path))


def test_tokens_of_a_continuous_model_end_in_one_line(tiny_export, tmp_path):
    tone_corpus(tmp_path / "corpus")
    source = ("--features", tiny_export, "--layer", "tokens")
    with pytest.raises(SystemExit, match="continuous model and has no tokens"):
        recipe.main(command("linear.yaml", tmp_path, *source))


def test_a_corpus_without_phones_ends_in_one_line(tmp_path):
    tone_corpus(tmp_path / "corpus")
    (tmp_path / "corpus" / "resource" / "text-phone").unlink()
    with pytest.raises(SystemExit, match="no utterance of the train set has phones"):
        recipe.main(command("linear.yaml", tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "banana"), "error: PyTorch cannot use the device 'banana' here"),
        (("--lr", "fast"), "error: lr must be a number; got 'fast'"),
        (("--hidden_size", 1.5), "error: hidden_size must be a whole number"),
        (("--model", "{colour: 1}"), "error: the YAML cannot be built: .*colour"),
    ],
)
def test_settings_that_cannot_be_used_end_in_one_line(options, message, tmp_path):
    tone_corpus(tmp_path / "corpus")
    with pytest.raises(SystemExit, match=message):
        recipe.main(command("bilstm.yaml", tmp_path, *options))


def test_two_processes_learn_it_too(tmp_path):
    tone_corpus(tmp_path / "corpus", times=12)
    options = ("--number_of_epochs", 10, "--batch_seconds", 1, "--lr", 0.1)
    argv = command("linear.yaml", tmp_path, *options)
    in_two_processes("PhoneRecognition", argv)
    assert results(tmp_path / "run")["test.PER"] <= 10
    assert "000300001, %WER" in (tmp_path / "run" / "per.txt").read_text()
