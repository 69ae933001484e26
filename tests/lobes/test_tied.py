"""Tied weights."""

import copy
import math

import pytest
import torch

from speechbrain_vae.export import read_export, write_export
from speechbrain_vae.lobes.autoencoder import Autoencoder
from speechbrain_vae.lobes.bottlenecks import DeterministicBottleneck
from speechbrain_vae.lobes.encoders import ConvEncoder
from speechbrain_vae.lobes.tied import StackedEncoder, TiedDecoder, transposed
from speechbrain_vae.nnet.likelihoods import GaussianLikelihood
from speechbrain_vae.nnet.ppca import PPCA, windows

F = 6
YAML = """
features: !new:speechbrain_vae.lobes.features.LogMel
encoder: !new:speechbrain_vae.lobes.tied.StackedEncoder
    sizes: [12, 4]
    stride: 2
autoencoder: !new:speechbrain_vae.lobes.autoencoder.Autoencoder
    encoder: !ref <encoder>
    bottleneck: !new:speechbrain_vae.lobes.bottlenecks.DeterministicBottleneck
        input_size: 4
    decoder: !new:speechbrain_vae.lobes.tied.TiedDecoder
        encoder: !ref <encoder>
    likelihood: !new:speechbrain_vae.nnet.likelihoods.GaussianLikelihood
        size: 80
"""
ENCODERS = {
    "linear": lambda: StackedEncoder(F, [3], stride=2),
    "stacked": lambda: StackedEncoder(F, [8, 5, 3], stride=3),
    "convolutional": lambda: StackedEncoder(
        F, [8, 3], stride=2, kernel_size=3, stem_kernel_size=4
    ),
    "10 ms": lambda: StackedEncoder(F, [8, 3], stride=1, kernel_size=3),
    "weight norm": lambda: StackedEncoder(F, [8, 5, 3], normalisation="weight"),
}
NORMALISED = {
    "layer": lambda: StackedEncoder(F, [8, 8, 3], kernel_size=3, normalisation="layer"),
    "batch": lambda: StackedEncoder(F, [8, 8, 3], normalisation="batch"),
    "residual": lambda: StackedEncoder(F, [8, 8, 8, 3], residual=True),
}


def tied(encoder):
    return Autoencoder(
        encoder,
        DeterministicBottleneck(encoder.output_size),
        TiedDecoder(encoder),
        GaussianLikelihood(encoder.input_size, "fixed"),
    )


def largest_angle(a, b):
    """The largest principal angle between the rows of two matrices, in degrees."""
    a, b = (torch.linalg.qr(m.double().T)[0] for m in (a, b))
    cosine = torch.linalg.svdvals(a.T @ b).min().clamp(max=1)
    return math.degrees(math.acos(cosine))


def test_linear_tied_autoencoder_spans_the_pca_subspace():
    torch.manual_seed(0)
    stride, latent_size = 2, 3
    # Frames that resemble their neighbours, as those of speech do.
    feats = torch.randn(8, 101, F) @ torch.randn(F, F)
    feats = 0.5 * (feats[:, 1:] + feats[:, :-1])
    feats = feats - feats.mean((0, 1))
    model = tied(StackedEncoder(F, [latent_size], stride=stride))
    ppca = PPCA(stride, feats)
    components = ppca.vectors[:, :latent_size].T

    def subspace():
        # [D, stride, F] to windows [D, stride * F]
        return model.encoder.convs[0].weight.detach().flatten(1)

    assert largest_angle(subspace(), components) > 20
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 800)
    for _ in range(800):
        optimiser.zero_grad()
        model(feats).loss.backward()
        optimiser.step()
        annealing.step()
    assert largest_angle(subspace(), components) < 0.5
    error = model(feats).squared_error.item()
    assert error == pytest.approx(ppca.mse(feats, latent_size), rel=1e-3)
    # The optimum is an orthonormal basis, though nothing asked for one.
    gram = subspace() @ subspace().T
    torch.testing.assert_close(gram, torch.eye(latent_size), atol=0.01, rtol=0)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_decoder_is_the_transpose_of_the_encoder(name):
    encoder = ENCODERS[name]()
    encoder.finish_options = ("none", torch.nn.Identity, 0.0)
    for finish in encoder.finishes:
        finish.activation = torch.nn.Identity()
    for conv in encoder.convs:
        conv.bias.data.zero_()
    x = torch.randn(1, 12, F)
    latent = torch.randn(1, 12 // encoder.stride, 3)
    inner = (encoder(x) * latent).sum()
    transposed = (x * TiedDecoder(encoder)(latent)).sum()
    torch.testing.assert_close(inner, transposed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS | NORMALISED)
def test_a_padded_utterance_gives_the_numbers_of_the_utterance_alone(name):
    model = tied((ENCODERS | NORMALISED)[name]())
    feats = torch.randn(1, 20, F)
    padded = torch.cat([feats, torch.full((1, 13, F), 7.0)], 1)
    alone, out = model(feats), model(padded, torch.tensor([20 / 33]))
    assert int(out.latent_frames) == int(alone.latent_frames)
    torch.testing.assert_close(out.loss, alone.loss)
    frames = alone.bottleneck.features.shape[1]
    torch.testing.assert_close(
        out.bottleneck.features[:, :frames], alone.bottleneck.features
    )
    assert not out.bottleneck.features[:, frames:].any()


def test_layers_of_one_size_carry_their_input_on():
    encoder = NORMALISED["residual"]()
    for conv in encoder.convs[1:3]:
        conv.weight.data.zero_()
        conv.bias.data.zero_()
    first, second, third, _ = encoder.layers(torch.randn(1, 12, F))
    assert torch.equal(first, second) and torch.equal(first, third)
    latent = torch.randn(1, 6, 3)
    first, *_, stem = reversed(encoder.convs)
    hidden = torch.nn.functional.gelu(transposed(first, latent.mT, torch.zeros(8)))
    expected = transposed(stem, hidden, torch.zeros(F)).mT
    torch.testing.assert_close(TiedDecoder(encoder)(latent), expected)


@pytest.mark.parametrize("name", ["layer", "batch"])
def test_the_decoder_normalises_with_numbers_of_its_own(name):
    model = tied(NORMALISED[name]())
    names = [n for n, _ in model.decoder.named_parameters() if "norm" in n]
    assert names == [
        f"finishes.{i}.norm.{p}" for i in (0, 1) for p in ("weight", "bias")
    ]
    model(torch.randn(2, 12, F)).loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_weights_are_saved_once_and_stay_shared_in_a_copy():
    model = tied(ENCODERS["stacked"]())
    names = list(model.state_dict())
    assert [n for n in names if n.startswith("decoder")] == [
        f"decoder.biases.{i}" for i in range(3)
    ]
    for other in (copy.deepcopy(model), copy.deepcopy(model).double()):
        (encoder,) = other.decoder.tied
        assert encoder is other.encoder is not model.encoder


def test_both_halves_train_the_shared_weight():
    model = tied(ENCODERS["linear"]())
    feats = torch.randn(2, 8, F)
    conv = model.encoder.convs[0]
    latent = model.encode(feats)[0].latent
    (from_decoder,) = torch.autograd.grad(
        model.decode(latent.detach()).square().sum(), conv.weight
    )
    (from_both,) = torch.autograd.grad(model.decode(latent).square().sum(), conv.weight)
    assert from_decoder.any()
    assert not torch.allclose(from_both, from_decoder)


def test_an_export_comes_back_as_one_shared_encoder(tmp_path):
    from hyperpyyaml import load_hyperpyyaml

    hparams = load_hyperpyyaml(YAML)
    model = hparams["autoencoder"]
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    write_export(tmp_path / "export", YAML, hparams["features"], model)
    loaded = read_export(tmp_path / "export").autoencoder
    (encoder,) = loaded.decoder.tied
    assert encoder is loaded.encoder
    feats = torch.randn(2, 9, 80)
    torch.testing.assert_close(loaded(feats).loss, model.eval()(feats).loss)


def test_windows_of_the_linear_encoder_are_those_of_pca():
    encoder = ENCODERS["linear"]()
    feats = torch.randn(1, 9, F)
    weight = encoder.convs[0].weight.flatten(1)
    expected = windows(feats[0], 2) @ weight.T + encoder.convs[0].bias
    torch.testing.assert_close(encoder(feats)[0, :4], expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TiedDecoder(ConvEncoder(F, 8)), "got ConvEncoder"),
        (lambda: StackedEncoder(F, []), "sizes"),
        (lambda: StackedEncoder(F, [3], kernel_size=2), "kernel_size must be odd"),
        (lambda: StackedEncoder(F, [3], stem_kernel_size=3), "even number"),
    ],
)
def test_bad_options_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
