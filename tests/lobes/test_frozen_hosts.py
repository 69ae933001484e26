"""The frozen front end inside small recipes that call it as SpeechBrain's do."""

import io
import os

import pytest
import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.checkpoints import Checkpointer

from conftest import TINY_MODEL, tiny_model
from speechbrain_vae.export import write_export
from speechbrain_vae.lobes.frozen import FrozenEncoder
from tests.processes import run_two

REPRESENTATIONS = ["features", "encoder", "layers"]


def waveforms():
    """Two utterances, the second half as long, and their relative lengths."""
    wavs = torch.randn(2, 12000) / 10
    wavs[1, 6000:] = 0
    return wavs, torch.tensor([1.0, 0.5])


@pytest.fixture(params=["utterance", "global"])
def export(request, tmp_path):
    """Exports with both kinds of normalisation."""
    hparams, text = tiny_model(request.param)
    return write_export(tmp_path, text, hparams["features"], hparams["autoencoder"])


class HostBrain(sb.Brain):
    """Makes the calls that SpeechBrain's recipes make."""

    def compute_forward(self, batch, stage):
        wavs, wav_lens = batch
        frontend = self.modules.frontend
        feats = frontend(wavs, wav_lens) if self.lengths else frontend(wavs)
        return self.modules.head(feats)

    def compute_objectives(self, predictions, batch, stage):
        return predictions.pow(2).mean()


def host(frontend, lengths=False, checkpoints=None, **run_opts):
    """A recipe with a linear head; its checkpointer is asked for all it holds."""
    head = torch.nn.Linear(frontend.output_size, 3)
    checkpointer = checkpoints and Checkpointer(
        checkpoints, recoverables={"frontend": frontend, "head": head}
    )
    brain = HostBrain(
        modules={"frontend": frontend, "head": head},
        opt_class=lambda parameters: torch.optim.Adam(parameters, 1e-2),
        run_opts={"device": "cpu", **run_opts},
        checkpointer=checkpointer,
    )
    brain.lengths = lengths
    return brain


def train(brain, epochs=2):
    """Train on two batches."""
    batches = torch.utils.data.DataLoader([waveforms()] * 2, batch_size=None)
    brain.fit(range(epochs), batches, progressbar=False)


def states(frontend):
    """A copy of all weights and buffers of the autoencoder."""
    return {k: v.clone() for k, v in frontend.autoencoder.state_dict().items()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_a_host_recipe_trains_its_head_and_not_the_front_end(
    export, representation, lengths, precision
):
    frontend = FrozenEncoder(export, representation=representation)
    batch = waveforms()
    before, state = frontend(*batch).detach(), states(frontend)
    brain = host(frontend, lengths, precision=precision)
    head = brain.modules.head.weight.detach().clone()
    train(brain)
    assert not torch.equal(brain.modules.head.weight, head)
    for name, value in frontend.autoencoder.state_dict().items():
        assert torch.equal(value, state[name]), name
    if representation == "layers":
        assert frontend.weights.any()
    else:
        torch.testing.assert_close(frontend(*batch), before)


def test_a_probe_of_weighted_layers_gives_the_weights_alone_to_an_optimiser(export):
    weighted_ssl_model = FrozenEncoder(export, representation="layers")
    optimiser = torch.optim.Adam([weighted_ssl_model.weights], 0.1)
    weighted_ssl_model.train()
    before = states(weighted_ssl_model)
    weighted_ssl_model(waveforms()[0]).pow(2).sum().backward()
    optimiser.step()
    assert weighted_ssl_model.weights.detach().abs().min() > 0
    for name, value in weighted_ssl_model.autoencoder.state_dict().items():
        assert torch.equal(value, before[name]), name


CODEC = """
    bottleneck: !new:speechbrain_vae.lobes.bottlenecks.QuantisedBottleneck
        input_size: 12
        quantiser: !new:speechbrain_vae.nnet.quantisers.{quantiser}
            dim: 8
            codebook_size: 6
            {options}
"""


def write_codec(folder, quantiser="ProductQuantizer", options="groups: 2"):
    """An export of a small discrete model."""
    start = TINY_MODEL.index("    bottleneck")
    end = TINY_MODEL.index("    decoder")
    text = TINY_MODEL[:start].format(normalisation="utterance") + TINY_MODEL[end:]
    text += CODEC.format(quantiser=quantiser, options=options)
    torch.manual_seed(3)
    hparams = load_hyperpyyaml(io.StringIO(text))
    for parameter in hparams["autoencoder"].parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    # One training step sets the codes going.
    hparams["autoencoder"].train()
    hparams["autoencoder"](hparams["features"](torch.randn(2, 16000))[0])
    return write_export(folder, text, hparams["features"], hparams["autoencoder"])


def test_a_codec_host_embeds_the_tokens_of_every_frame(tmp_path):
    codec = FrozenEncoder(write_codec(tmp_path)).train()
    wavs, wav_lens = waveforms()
    before = states(codec)
    tokens, codes = codec.encode(wavs, wav_lens)
    assert tokens.dtype == torch.long and tokens.shape == (2, 38, 2)
    assert tokens.min() >= 0 and tokens.max() < 6 and len(tokens.unique()) > 1
    torch.nn.Embedding(6, 4)(tokens)
    assert torch.equal(codes, codec(wavs, wav_lens))
    numbers = FrozenEncoder(tmp_path, representation="tokens")
    assert numbers.output_size == 2
    valid = numbers(wavs, wav_lens)
    assert (valid[1, 19:] == -1).all()
    assert torch.equal(valid[0].long(), tokens[0])
    assert torch.equal(valid[1, :19].long(), tokens[1, :19])
    for name, value in codec.autoencoder.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_normalised_tokens_are_refused(tmp_path):
    with pytest.raises(ValueError, match="output_norm"):
        FrozenEncoder(write_codec(tmp_path), representation="tokens", output_norm=True)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_an_unfrozen_front_end_is_fine_tuned(tiny_export, representation):
    frontend = FrozenEncoder(tiny_export, freeze=False, representation=representation)
    before = states(frontend)
    brain = host(frontend)
    train(brain, epochs=1)
    assert frontend.autoencoder.encoder.training
    after = frontend.autoencoder.state_dict()
    for name, parameter in frontend.autoencoder.named_parameters():
        # A decoder has no gradient here, and DDP would wait for it.
        assert parameter.requires_grad != torch.equal(after[name], before[name]), name
        assert parameter.requires_grad or not name.startswith("encoder."), name
        assert not (parameter.requires_grad and name.startswith("decoder.")), name


def test_a_discrete_front_end_is_fine_tuned_around_its_codes(tmp_path):
    frontend = FrozenEncoder(write_codec(tmp_path), freeze=False)
    before = states(frontend)
    train(host(frontend), epochs=1)
    after = frontend.autoencoder.state_dict()
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    assert "encoder.stem.weight" in changed
    assert not any("quantiser" in name for name in changed)


def test_features_without_a_gradient_are_refused_for_fine_tuning(tmp_path):
    export = write_codec(tmp_path, "NSVQ", "seed: 0")
    for representation in ("features", "tokens"):
        with pytest.raises(ValueError, match='"encoder" or "layers" .--layer'):
            FrozenEncoder(export, freeze=False, representation=representation)
    FrozenEncoder(export, freeze=False, representation="encoder")


@pytest.mark.parametrize(
    ("representation", "freeze"),
    [("features", True), ("layers", True), ("features", False)],
)
def test_a_checkpoint_holds_what_was_trained_and_brings_it_back(
    tiny_export, tmp_path, representation, freeze
):
    def build():
        return FrozenEncoder(tiny_export, freeze=freeze, representation=representation)

    frontend = build()
    brain = host(frontend, checkpoints=tmp_path)
    train(brain)
    brain.checkpointer.save_checkpoint()
    (path,) = tmp_path.glob("CKPT*/frontend.ckpt")
    saved = torch.load(path, weights_only=True)
    if freeze:
        assert list(saved) == (["weights"] if representation == "layers" else [])
    resumed = build()
    host(resumed, checkpoints=tmp_path).checkpointer.recover_if_possible()
    wavs, wav_lens = waveforms()
    frontend.eval(), resumed.eval()
    assert torch.equal(frontend(wavs, wav_lens), resumed(wavs, wav_lens))
    other = FrozenEncoder(tiny_export, freeze=not freeze)
    with pytest.raises(ValueError, match="another freeze or representation"):
        host(other, checkpoints=tmp_path).checkpointer.recover_if_possible()


def _ddp_process(rank, folder, export, representation, freeze):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    frontend = FrozenEncoder(export, freeze=freeze, representation=representation)
    before = states(frontend)
    brain = host(frontend, distributed_backend="gloo")
    torch.manual_seed(rank)  # Waveforms of its own.
    train(brain)
    after = states(frontend)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    trained = {k: p.detach() for k, p in brain.modules.named_parameters()}
    torch.save((moved, trained), f"{folder}/{rank}.pt")


@pytest.mark.parametrize(
    ("representation", "freeze"),
    [("features", True), ("layers", True), ("features", False)],
)
def test_two_processes_train_one_recipe(tiny_export, tmp_path, representation, freeze):
    run_two(_ddp_process, tmp_path, str(tiny_export), representation, freeze)
    (moved, first), (_, second) = (torch.load(tmp_path / f"{r}.pt") for r in (0, 1))
    assert any(name.startswith("head.module.") for name in first)
    for name in first:
        assert torch.equal(first[name], second[name]), name
    assert ("encoder.stem.weight" in moved) == (not freeze)
    if freeze:
        assert not moved
