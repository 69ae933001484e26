"""Nothing mixes the CPU with a GPU: training, downstream tasks, inference."""

import copy
import multiprocessing
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from benchmarks.loading import RECIPES, load_recipe, load_script
from conftest import tiny_model
from speechbrain_vae.export import write_export
from speechbrain_vae.inference import FeatureEncoder
from speechbrain_vae.lobes.features import NORMALISATIONS
from speechbrain_vae.lobes.frozen import FrozenEncoder
from speechbrain_vae.nnet import distributed

from .integration.training import TINY, noise_corpus, write_noise
from .pretended_gpu import GpuTensor, pretended_gpu
from .properties.test_bottlenecks import BOTTLENECKS
from .recipes.tone_corpus import results, tone_corpus

ROOT = Path(__file__).resolve().parents[1]
HPARAMS = sorted(path.stem for path in (ROOT / "hparams").glob("*.yaml"))

pytestmark = pytest.mark.filterwarnings("ignore:for .* copying from a non-meta")


@pytest.fixture
def gpu():
    """The name of a device that a test may use as one."""
    with pretended_gpu() as device:
        yield str(device)


def test_what_a_gpu_refuses_is_refused(gpu):
    here, there = torch.ones(3), torch.ones(3, device=gpu)
    assert (there + torch.tensor(2.0)).tolist() == [3.0, 3.0, 3.0]
    assert torch.tensor([1.0, there[0]], device=gpu).tolist() == [1.0, 1.0]
    assert there[torch.tensor([0])].device == torch.device(gpu)
    assert here.copy_(2 * there).sum() == there.to("cpu").sum() + 3
    for mixed in (lambda: here + there, lambda: here.add_(there.sum())):
        with pytest.raises(RuntimeError, match=r"on the CPU|by one on the GPU"):
            mixed()
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    child = multiprocessing.get_context("fork").Process(target=there.exp)
    child.start()
    child.join()
    assert child.exitcode == 1


def losses(hparams, device):
    """Of some training steps, and of an evaluation, on noise."""
    features, model = hparams["features"].to(device), hparams["autoencoder"].to(device)
    optimiser = hparams["opt_class"](model.parameters())
    torch.manual_seed(0)
    feats = torch.randn(3, 30, features.size).to(device)
    lengths = torch.tensor([1.0, 0.7, 0.4]).to(device)
    found = []
    for training in (True, True, False):
        model.train(training)
        with torch.set_grad_enabled(training):
            loss = model(features.normalise(feats, lengths), lengths).loss
        if training:
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        found.append(float(loss.detach()))
    return found, loss


@pytest.mark.parametrize("recipe", HPARAMS)
def test_every_recipe_trains_as_on_the_cpu(recipe, tmp_path, gpu):
    text = (ROOT / "hparams" / f"{recipe}.yaml").read_text()
    overrides = {"output_folder": str(tmp_path)}
    if "\ncodebook_size:" in text:
        # Fewer codes than frames: where a code is a frame, its error is rounding alone.
        overrides["codebook_size"] = 8
    hparams = load_hyperpyyaml(text, overrides)
    features = hparams["features"]
    if features.needs_statistics:
        features.set_statistics(torch.zeros(80), torch.ones(80))
    expected, _ = losses(copy.deepcopy(hparams), "cpu")
    found, loss = losses(hparams, gpu)
    assert isinstance(loss, GpuTensor)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    # Where a code is nearly as near as another, rounding chooses.
    assert found == pytest.approx(expected, rel=0.05)


class Nccl:
    """Of ``torch.distributed`` what talks to others; alone, and for GPUs only."""

    @staticmethod
    def all_reduce(x, *_):
        """A sum over one process."""
        assert isinstance(x, GpuTensor)
        return x

    broadcast = all_reduce

    def __getattr__(self, name):
        values = {"get_rank": 0, "get_world_size": 1}
        return lambda: values.get(name, True)


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_every_bottleneck_trains_there(name, gpu, monkeypatch):
    monkeypatch.setattr(distributed, "distributed", Nccl())
    monkeypatch.setattr(distributed, "all_reduce", Nccl.all_reduce)
    torch.manual_seed(0)
    bottleneck = BOTTLENECKS[name]().to(gpu)
    lengths = torch.tensor([1.0, 0.5])
    for training in [True] * 6 + [False]:
        x = torch.randn(2, 60, 4, device=gpu, requires_grad=True)
        # Loaders give lengths on either device.
        out = bottleneck.train(training)(x, lengths.to(gpu) if training else lengths)
        assert isinstance(out.features, GpuTensor)
        if training:
            (out.loss + out.latent.square().mean()).backward()
            assert isinstance(x.grad, GpuTensor)
    if out.indices is not None:
        codes = bottleneck.quantiser.lookup(out.indices)
        assert codes.device == torch.device(gpu)


@pytest.mark.parametrize(
    "options",
    [
        ("vae.yaml", "--normalisation", "shrunk", "--num_workers", "1"),
        ("sfvq.yaml", "--feature_cache", "cache", "--codebook_size", "8"),
    ],
)
def test_train_py_trains_resumes_and_exports(options, tmp_path, monkeypatch, gpu):
    monkeypatch.chdir(tmp_path)
    noise_corpus(tmp_path / "noise", seconds=1.0)
    recipe, *options = options
    arguments = [str(ROOT / "hparams" / recipe), *TINY, *options, "--device", gpu]
    if "--feature_cache" not in options:
        arguments += ["--feature_cache", "null"]
    arguments += ["--data_folder", "noise", "--output_folder", "run"]
    script = load_script(ROOT / "train.py")
    for epochs in ("1", "2"):
        script.main([*arguments, "--number_of_epochs", epochs])
    assert (tmp_path / "run" / "export" / "hyperparams.yaml").is_file()
    assert (tmp_path / "run" / "report.json").is_file()


@pytest.mark.parametrize(
    "options",
    [
        ("--feature_cache", "cache"),
        ("--feature_cache", "null", "--num_workers", "1"),
        ("--freeze", "False", "--layer", "encoder"),
    ],
)
def test_a_downstream_task_takes_an_export(
    options, tiny_export, tmp_path, monkeypatch, gpu
):
    monkeypatch.chdir(tmp_path)
    tone_corpus(tmp_path / "corpus", times=2)
    load_recipe("PhoneRecognition").main(
        [
            str(RECIPES / "PhoneRecognition" / "hparams" / "bilstm.yaml"),
            *("--data_folder", "corpus", "--output_folder", "run", "--device", gpu),
            *("--features", str(tiny_export), "--number_of_epochs", "1"),
            *("--hidden_size", "8", "--noprogressbar", *options),
        ]
    )
    assert "test.PER" in results(tmp_path / "run")


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_encoders_give_the_features_of_the_cpu(normalisation, tmp_path, gpu):
    hparams, text = tiny_model(normalisation)
    export = str(
        write_export(
            tmp_path / "export", text, hparams["features"], hparams["autoencoder"]
        )
    )
    write_noise(tmp_path / "a.wav", 2.5, seed=1)
    wavs = torch.randn(2, 16000)

    def features(device):
        encoder = FeatureEncoder.from_hparams(export, run_opts={"device": device})
        frozen = FrozenEncoder(export).to(device)
        parts = [part for part, _ in encoder.stream_file(str(tmp_path / "a.wav"))]
        return (
            encoder.encode_batch(wavs),
            frozen(wavs.to(device), torch.tensor([1.0, 0.5]).to(device)),
            encoder.encode_file(str(tmp_path / "a.wav")),
            torch.cat([part.to("cpu") for part in parts]),
        )

    for found, expected in zip(features(gpu), features("cpu"), strict=True):
        torch.testing.assert_close(found.to("cpu"), expected, atol=1e-4, rtol=1e-3)


def test_a_front_end_outside_of_the_modules_follows_the_waveforms(tiny_export, gpu):
    wavs = torch.randn(2, 16000)
    expected = FrozenEncoder(tiny_export)(wavs)
    found = FrozenEncoder(tiny_export)(wavs.to(gpu))
    torch.testing.assert_close(found.to("cpu"), expected, atol=1e-4, rtol=1e-3)
    for options in ({"representation": "layers"}, {"freeze": False}):
        options = {"representation": "encoder", **options}
        front_end = FrozenEncoder(tiny_export, **options)
        with pytest.raises(ValueError, match="recipe's modules"):
            front_end(wavs.to(gpu))
        assert front_end.to(gpu)(wavs.to(gpu)).device == torch.device(gpu)
    with pytest.raises(ValueError, match="on the CPU alone"):
        FrozenEncoder(tiny_export, precision="int8")(wavs.to(gpu))
