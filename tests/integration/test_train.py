"""train.py, from a folder to an export."""

import os
import re
import signal
import subprocess
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from benchmarks.loading import load_script
from speechbrain_vae.inference import FeatureEncoder
from speechbrain_vae.lobes.frozen import FrozenEncoder
from speechbrain_vae.lobes.targets import FramesAhead
from speechbrain_vae.run_lock import run_lock
from speechbrain_vae.run_settings import load_settings
from speechbrain_vae.weights import read_weights

from .training import (
    ENVIRONMENT,
    ROOT,
    TINY,
    command,
    last_line,
    noise_corpus,
    train,
    write_noise,
)


def weights(folder):
    """The weights of the export of a run."""
    return read_weights(folder / "run" / "export" / "autoencoder.safetensors")


def test_vae_on_real_speech_beats_pca_windows_and_exports(shared_data, tmp_path):
    corpus = shared_data / "speechocean762"
    report = train(
        "vae.yaml",
        tmp_path,
        corpus,
        *("--corpus", "speechocean762", "--number_of_epochs", 1, "--noprogressbar"),
        # One epoch has no time to anneal.
        *("--lr", 0.0003),
    )
    test = report["test"]
    # -27.4 at 1,600 dimensions a second, as the corpus's own tables split it.
    assert test["ppca_nats_per_frame"] == pytest.approx(-27.4, abs=0.3)
    assert test["elbo_nats_per_frame"] > test["ppca_nats_per_frame"]
    assert test["active_units"] >= report["latent_dim"] / 2
    assert report["test"]["speakers"] == 20
    assert report["frame_shift"] == 0.02

    export = report["export"]
    wav, _ = soundfile.read(next((corpus / "WAVE").rglob("*.flac")), dtype="float32")
    wavs = torch.from_numpy(wav)[None]
    features = FeatureEncoder.from_hparams(export).encode_batch(wavs)
    assert features.shape == (1, (1 + len(wav) // 160 + 1) // 2, 64)
    torch.testing.assert_close(FrozenEncoder(export)(wavs), features)


KILLS = {
    "while preparing": lambda run: (run / "manifests").exists(),
    "in the first epoch": lambda run: len(checkpoints(run)) > 0,
    "in a later epoch": lambda run: (run / "train_log.txt").exists(),
}


def checkpoints(run):
    """Folders of checkpoints, finished or not."""
    return list((run / "save").glob("CKPT*"))


def end_when(reached, number, folder, arguments):
    """Start a command, and send it a signal; its exit status and what it wrote."""
    with open(folder / "output.txt", "w+") as output:
        process = subprocess.Popen(
            arguments,
            cwd=folder,
            env=ENVIRONMENT,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Tests that run in the background ignore SIGINT, and so would it.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        while not reached(folder / "run"):
            assert process.poll() is None, "ended before the signal"
            time.sleep(0.002)
        os.kill(process.pid, number)
        process.wait()
        output.seek(0)
        return process.returncode, output.read()


def test_three_kills_end_with_the_weights_of_an_undisturbed_run(tmp_path):
    corpus = noise_corpus(tmp_path / "corpus")
    options = [
        *TINY,
        *("--number_of_epochs", 3, "--batch_seconds", 2.5),
        *("--ckpt_interval_minutes", 0, "--ckpt_interval_steps", 3),
        *("--num_workers", 0),
    ]
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    calm.mkdir()
    killed.mkdir()
    train("vae.yaml", calm, corpus, *options)
    for reached in KILLS.values():
        arguments = command("vae.yaml", killed, corpus, *options)
        end_when(reached, signal.SIGKILL, killed, arguments)
        assert not (killed / "run" / "report.json").exists()
    train("vae.yaml", killed, corpus, *options)
    expected, resumed = weights(calm), weights(killed)
    assert expected.keys() == resumed.keys()
    for name in expected:
        assert torch.equal(expected[name], resumed[name]), name


def test_an_interruption_ends_in_one_line_and_the_same_command_goes_on(tmp_path):
    corpus = noise_corpus(tmp_path / "corpus")
    options = [*TINY, "--number_of_epochs", 3, "--batch_seconds", 2.5]
    status, output = end_when(
        lambda run: any(run.glob("save/CKPT*/CKPT.yaml")),
        signal.SIGINT,
        tmp_path,
        command("vae.yaml", tmp_path, corpus, *options),
    )
    assert status == 130 and "Traceback" not in output
    last = "interrupted; give the same command again to go on"
    assert output.splitlines()[-1] == last
    train("vae.yaml", tmp_path, corpus, *options)
    log = (tmp_path / "run" / "train_log.txt").read_text()
    epochs = [line[:8] for line in log.splitlines() if "valid" in line]
    assert epochs == ["epoch: 1", "epoch: 2", "epoch: 3"]


def test_a_run_that_patience_ended_is_not_trained_on(tmp_path):
    corpus = noise_corpus(tmp_path / "corpus")
    options = [*TINY, "--number_of_epochs", 5, "--patience", 1]
    # The first epoch leaves the model as it is; the second has a rate that spoils it.
    options += ["--lr", 1e-12, "--lr_final", 2, "--lr_warmup_steps", 0]
    for _ in range(2):
        report = train("vae.yaml", tmp_path, corpus, *options)
        assert report["stopped_by"] == "patience"
        assert report["train"]["epochs"] == 2
        assert report["valid"]["best_epoch"] == 1


OTHERS = [
    (("--beta", 8), "holds a run with beta: 1.0, this one has 8;"),
    (("--kernel_size", 5), "holds a run with kernel_size: 3, this one has 5;"),
    (("--corpus_options", "{speaker: none}"), "holds a run with corpus_options: {},"),
]


def test_a_folder_with_a_run_of_other_settings_stays_as_it_is(tmp_path):
    corpus = noise_corpus(tmp_path / "corpus")
    (tmp_path / "elsewhere").mkdir()
    options = [*TINY, "--number_of_epochs", 1]
    train("vae.yaml", tmp_path, corpus, *options)

    def contents():
        files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in files if path.suffix != ".lock"}

    before = contents()
    elsewhere = "holds a run with data_folder: .*/corpus, this one has .*/elsewhere;"
    cases = [(corpus, *other) for other in OTHERS]
    for data, others, message in [*cases, (tmp_path / "elsewhere", (), elsewhere)]:
        last = last_line("vae.yaml", tmp_path, data, *options, *others)
        assert re.search(message, last), last
    assert contents() == before
    report = train("vae.yaml", tmp_path, corpus, *options, "--patience", 2)
    assert report["train"]["epochs"] == 1


def test_a_run_goes_on_with_its_own_recordings_and_epochs_only(tmp_path):
    corpus = noise_corpus(tmp_path / "corpus")
    new = corpus / "s0" / "9.flac"
    train("vae.yaml", tmp_path, corpus, *TINY, "--number_of_epochs", 1)
    write_noise(new, 1.0, 9)
    last = last_line("vae.yaml", tmp_path, corpus, *TINY, "--number_of_epochs", 2)
    assert last.startswith("error: the corpus has changed since")
    assert "s0-9 is new; make it what it was, or choose another --output_fol" in last
    new.unlink()
    report = train("vae.yaml", tmp_path, corpus, *TINY, "--number_of_epochs", 2)
    assert report["train"]["epochs"] == 2
    last = last_line("vae.yaml", tmp_path, corpus, *TINY, "--number_of_epochs", 1)
    assert last.startswith("error: ") and last.count("epoch 2") == 1
    assert last.endswith("of 1: give --number_of_epochs 2, or more")


def test_other_choices_of_the_yaml_train_from_the_command_line(tmp_path):
    corpus = noise_corpus(tmp_path / "corpus", speakers=4, utterances=3)
    report = train(
        "vae.yaml",
        tmp_path,
        corpus,
        *TINY,
        *("--normalisation", "global", "--stride", 1, "--variance", "predicted"),
        *("--prior", "learned", "--free_bits", 0.01, "--warmup_steps", 5),
        *("--corpus_options", "{speaker: none, valid_fraction: 0.2}"),
        *("--precision", "bf16", "--grad_accumulation_factor", 2),
        *("--number_of_epochs", 1),
    )
    assert report["frame_shift"] == 0.01
    assert report["train"]["speakers"] == 1
    wavs = torch.randn(2, 8000) / 10
    features = FeatureEncoder.from_hparams(report["export"]).encode_batch(wavs)
    assert features.shape == (2, 51, 8) and features.isfinite().all()


def test_a_folder_of_bad_files_is_trained_on_and_they_are_named(tmp_path):
    corpus = noise_corpus(tmp_path / "corpus", speakers=4, utterances=2)
    bad = corpus / "s0"
    (bad / "text.wav").write_text("This is not audio.")
    (bad / "empty.wav").touch()
    soundfile.write(bad / "silence.wav", np.zeros(16000), 16000)
    write_noise(bad / "telephone.wav", 2, 77, rate=8000)
    write_noise(corpus / "s1" / "lecture.wav", 1800, 78)
    report = train("vae.yaml", tmp_path, corpus, *TINY, "--number_of_epochs", 1)
    assert report["skipped_files"] == 3
    for name in ("text.wav", "empty.wav", "silence.wav"):
        assert any(name in line for line in report["skipped"])
    hours = sum(report[split]["hours"] for split in ("train", "valid", "test"))
    assert hours > 0.5


def test_features_are_the_same_before_and_after_export(tiny_export):
    from conftest import tiny_model

    hparams, _ = tiny_model()
    wavs = torch.randn(3, 9000) / 10
    wavs[1, 5000:] = 0
    feats, lengths = hparams["features"](wavs)
    code, _ = hparams["autoencoder"].eval().encode(feats, lengths)
    loaded = FeatureEncoder.from_hparams(tiny_export).encode_batch(wavs)
    torch.testing.assert_close(loaded, code.features, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--corpus", "libirspeech"], "librispeech"),
        (["--data_folder", "/elsewhere"], "data_folder is given twice"),
        (["--batch_secnods", "3"], "batch_secnods"),
        (["--normalisation", "speaker"], "utterance, shrunk, global, none"),
        (["--corpus_options", "{min_seconds: banana}"], "must be a number"),
        (["--corpus_options", "{seed: 3}"], "corpus_options has seed, which a run"),
        (["--device", "banana"], "PyTorch cannot use the device 'banana' here"),
    ],
)
def test_what_a_user_can_get_wrong_ends_in_one_line(options, message, tmp_path):
    corpus = noise_corpus(tmp_path / "corpus", 1, 1, 0.5)
    done = subprocess.run(
        command("vae.yaml", tmp_path, corpus, *options),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last, done.stderr[-2000:]
    # SpeechBrain writes those of its log to the standard output.
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--lr banana", "lr must be a number; got 'banana'"),
        ("--lr -1", "lr must be more than 0"),
        ("--lr_final -1", "lr_final must be at least 0"),
        ("--seed banana", "seed must be a number"),
        ("--patience null", "patience must be a number"),
        ("--batch_seconds 0", "batch_seconds must be more than 0"),
        ("--num_buckets 0", "num_buckets must be a whole number, at least 1; got 0"),
        ("--num_workers -1", "num_workers must be a whole number, at least 0"),
        ("--blocks -1", "blocks must be a whole number"),
        ("--n_mels 80.5", "n_mels must be a whole number, at least 1; got 80.5"),
        ("--stride 1.5", "stride must be a whole number, at least 1; got 1.5"),
        ("--latent_size -3", "latent_size must be a whole number, at least 1"),
        ("--channels 0", "channels must be a whole number, at least 1"),
        ("--max_grad_norm -1", "max_grad_norm must be more than 0"),
        ("--max_grad_norm=0", "max_grad_norm must be more than 0"),
        ("--data_folder ", "data_folder is given without a value"),
        ("--data_folder=", "data_folder is given without a value"),
        ("--data_folder --lr 1", "data_folder is given without a value"),
        ("--data_folder ''", "data_folder must be a path, such as ./1; got ''"),
        ("--lr 1 --lr=2", "lr is given twice"),
        ("lr 0.5", r"options as --name value, .*got .*vae.yaml, lr, 0.5$"),
        ("--noprogressbar 0.5", "options as --name value, .*got .*vae.yaml, 0.5$"),
        ("--hop_length 0", "hop_length must be"),
        ("--number_of_epochs 0", "number_of_epochs must be a whole number"),
        ("--grad_accumulation_factor 0", "grad_accumulation_factor must be a whole"),
        ("--grad_accumulation_factor -2", "grad_accumulation_factor must be a whole"),
        ("--optimizer_step_limit banana", "optimizer_step_limit must be a whole"),
        ("--activation_checkpointing banana", "must be True or False; got 'banana'"),
        ("--corpus_options [1]", "corpus_options must be names and values"),
        ("--encoder banana", "encoder must be names and values"),
        ("--opt_class {momentum:}", "the YAML cannot be built: .*momentum"),
        ("--feature_cache 2024", "feature_cache must be a path, such as ./1; got 2024"),
        ("--device cpu --precision fp16", "give --precision bf16"),
        ("--device cpu --eval_precision fp16", "give --precision bf16"),
        ("--compile --compile_module_keys banana", "modules: autoencoder, features"),
        ("--data_parallel_count 2", "no key data_parallel_count"),
        ("--batch_secnods 3", "no key batch_secnods; similar ones: batch_seconds"),
    ],
)
def test_settings_that_cannot_be_used_are_named(options, message, tmp_path):
    refused("vae.yaml", options, message, tmp_path)


OF_SOME_MODELS = {
    "recurrent_vae.yaml": {
        "--piece_frames 1.5": "piece_frames must be a whole number, at least 0",
        "--piece_frames 1": "piece_frames must be 0 or at least the stride of 2",
    },
    "gumbel_vq.yaml": {
        "--temperature 1": "temperature must be a list such as",
        "--temperature [1,low]": "each of temperature must be a number; got 'low'",
    },
}


@pytest.mark.parametrize("recipe", OF_SOME_MODELS)
def test_settings_of_some_models_are_named_too(recipe, tmp_path):
    for options, message in OF_SOME_MODELS[recipe].items():
        refused(recipe, options, message, tmp_path)


def refused(recipe, options, message, folder):
    recipe = [str(ROOT / "hparams" / recipe), "--output_folder", str(folder)]
    with pytest.raises(ValueError, match=message):
        load_settings([*recipe, *options.split(" ")])


def test_a_value_may_hold_an_equals_sign_and_a_run_option_come_twice(tmp_path):
    recipe = str(ROOT / "hparams" / "vae.yaml")
    folder = f"{tmp_path}/lr=1, again"
    given = ["--noprogressbar", recipe, "--output_folder", folder]
    given += ["--device", "banana", "--device", "cpu"]
    hparams, run_opts, _, _ = load_settings(given)
    assert hparams["save_folder"] == f"{folder}/save" and run_opts["noprogressbar"]


def test_the_home_folder_is_one_for_all_that_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = str(ROOT / "hparams" / "vae.yaml")
    paths = {"output_folder": "x", "data_folder": "data", "feature_cache": "cache"}
    options = [f"--{name}=~/{path}" for name, path in paths.items()]
    hparams, _, _, overrides = load_settings([recipe, *options])
    for name, path in paths.items():
        assert hparams[name] == str(tmp_path / path)
    assert hparams["save_folder"] == str(tmp_path / "x" / "save")
    assert "~" not in overrides


def test_without_a_yaml_one_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"python train.py .*; got no YAML"):
        load_settings(["--data_folder", str(tmp_path)])
    with pytest.raises(ValueError, match="is a folder; give a YAML such as"):
        load_settings([str(tmp_path)])


def test_a_package_that_is_not_there_is_missed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = "tensorboard: .*pip install tensorboard"
    refused("vae.yaml", "--tensorboard True", message, tmp_path)


@pytest.mark.parametrize("text", ["", "- lr"])
def test_a_yaml_without_settings_is_named(text, tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"empty.yaml has no settings"):
        load_settings([str(path)])


def test_an_output_folder_that_is_a_file_ends_in_one_line(tmp_path):
    (tmp_path / "run").touch()
    arguments = command("vae.yaml", tmp_path, tmp_path)
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and last.endswith("is a file; give a folder")


def test_a_missing_folder_ends_in_one_line(tmp_path):
    arguments = command("vae.yaml", tmp_path, tmp_path / "nowhere")
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert "nowhere" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_start_that_cannot_be_is_refused_before_the_corpus_is_looked_at(tmp_path):
    options = ["--init_from", "./nothing"]
    arguments = command("vae.yaml", tmp_path, tmp_path / "nowhere", *options)
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: there is no export at ./nothing")


def test_a_second_run_in_the_same_folder_ends_in_one_line(tmp_path):
    corpus = noise_corpus(tmp_path / "corpus", 1, 1, 0.5)
    with run_lock(tmp_path / "run"):
        arguments = command("vae.yaml", tmp_path, corpus)
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and f"process {os.getpid()} on" in last
    assert not (tmp_path / "run" / "hyperparams.yaml").exists()


def test_without_a_folder_a_named_corpus_says_what_is_missing(tmp_path):
    arguments = command("vae.yaml", tmp_path, "x", "--corpus", "timit")
    place = arguments.index("--data_folder")
    del arguments[place : place + 2]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert "error: corpus timit needs its folder" in done.stderr


def test_a_target_beyond_every_utterance_is_refused():
    check = load_script(ROOT / "train.py").check_target
    model = SimpleNamespace(target=FramesAhead(20))
    check(model, [torch.zeros(5, 2), torch.zeros(30, 2)])
    with pytest.raises(ValueError, match="lower shift"):
        check(model, [torch.zeros(5, 2), torch.zeros(20, 2)])
