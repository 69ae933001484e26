"""Autoencoders put together from parts."""

import math

import pytest
import torch

from speechbrain_vae.lobes.autoencoder import Autoencoder
from speechbrain_vae.lobes.bottlenecks import (
    DeterministicBottleneck,
    GaussianBottleneck,
)
from speechbrain_vae.lobes.decoders import ConvDecoder, RecurrentDecoder
from speechbrain_vae.lobes.encoders import ConvEncoder, RecurrentEncoder
from speechbrain_vae.lobes.targets import (
    AdditiveNoise,
    Denoising,
    FramesAhead,
    Reconstruction,
)
from speechbrain_vae.nnet.likelihoods import GaussianLikelihood, LaplaceLikelihood
from speechbrain_vae.nnet.ppca import PPCA

F, D = 6, 4


def perturb(model):
    """Give every weight a value that counts; the blocks start as the identity."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def conv_pair(stride, **options):
    encoder = ConvEncoder(F, 16, blocks=2, stride=stride, dilation_growth=2, **options)
    return encoder, lambda size: ConvDecoder(
        D, size, 16, blocks=2, stride=stride, **options
    )


def recurrent_pair(stride, bidirectional, layers=1, **options):
    options["bidirectional"] = bidirectional
    encoder = RecurrentEncoder(F, 8, 2, stride, **options)
    return encoder, lambda size: RecurrentDecoder(D, size, 8, layers, stride, **options)


PAIRS = {
    "conv 10 ms": lambda: conv_pair(1),
    "conv 20 ms": lambda: conv_pair(2),
    "conv 30 ms": lambda: conv_pair(3),
    "conv layer norm": lambda: conv_pair(2, normalisation="layer"),
    "conv batch norm": lambda: conv_pair(2, normalisation="batch"),
    "conv weight norm": lambda: conv_pair(2, normalisation="weight"),
    "conv not residual": lambda: conv_pair(2, residual=False),
    "gru": lambda: recurrent_pair(1, False),
    "gru 20 ms": lambda: recurrent_pair(2, False),
    "bidirectional": lambda: recurrent_pair(2, True),
    "gru residual": lambda: recurrent_pair(2, False, 3, residual=True),
    "gru layer norm": lambda: recurrent_pair(2, True, normalisation="layer"),
    "gru batch norm": lambda: recurrent_pair(2, False, 2, normalisation="batch"),
    "gru weight norm": lambda: recurrent_pair(2, True, normalisation="weight"),
    "gru sigmoid": lambda: recurrent_pair(1, False, activation=torch.nn.Sigmoid),
}
TARGETS = {
    "reconstruction": Reconstruction,
    "denoising": lambda: Denoising([AdditiveNoise(0.1)]),
    "ahead": lambda: FramesAhead(3),
}


def vae(pair="conv 20 ms", target="reconstruction", variance="bin", **bottleneck):
    encoder, decoder = PAIRS[pair]()
    likelihood = GaussianLikelihood(F, variance)
    return perturb(
        Autoencoder(
            encoder,
            GaussianBottleneck(encoder.output_size, D, **bottleneck),
            decoder(likelihood),
            likelihood,
            TARGETS[target](),
        )
    )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("pair", PAIRS)
def test_a_padded_utterance_gives_the_numbers_of_the_utterance_alone(
    pair, target, monkeypatch
):
    # The noise is the one number that a batch's shape may change.
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    model = vae(pair, target)
    model.train()
    feats = torch.randn(1, 21, F)
    alone = model(feats)
    padded = torch.cat([feats, torch.full((1, 13, F), 7.0)], 1)
    out = model(padded, torch.tensor([21 / 34]))
    assert int(out.frames) == int(alone.frames)
    assert int(out.latent_frames) == int(alone.latent_frames)
    for name in ("loss", "reconstruction_loss", "squared_error"):
        torch.testing.assert_close(getattr(out, name), getattr(alone, name))
    torch.testing.assert_close(
        out.bottleneck.stats["kl_per_dim"], alone.bottleneck.stats["kl_per_dim"]
    )
    frames = alone.bottleneck.features.shape[1]
    torch.testing.assert_close(
        out.bottleneck.features[:, :frames], alone.bottleneck.features
    )
    assert not out.bottleneck.features[:, frames:].any()


def test_in_training_the_pieces_of_an_utterance_are_sequences_of_their_own():
    model = vae("bidirectional")
    feats, lengths = torch.randn(2, 20, F), torch.tensor([1.0, 0.5])
    pieces = torch.stack([feats[0, :10], feats[0, 10:], feats[1, :10]])
    torch.manual_seed(1)
    expected = model(pieces)
    model.piece_frames = 11
    torch.manual_seed(1)
    torch.testing.assert_close(model(feats, lengths).loss, expected.loss)
    assert len(model.eval()(feats, lengths).bottleneck.latent) == 2


@pytest.mark.parametrize("pair", PAIRS)
def test_every_layer_has_one_frame_rate_and_the_last_is_the_output(pair):
    encoder, _ = PAIRS[pair]()
    encoder.eval()
    x, lengths = torch.randn(2, 11, F), torch.tensor([1.0, 5 / 11])
    layers = encoder.layers(x, lengths)
    frames = math.ceil(11 / encoder.stride)
    assert {layer.shape for layer in layers} == {(2, frames, encoder.output_size)}
    torch.testing.assert_close(encoder(x, lengths), layers[-1])
    valid = math.ceil(5 / encoder.stride)
    counts = encoder.output_lengths(x, lengths) * frames
    assert counts.round().tolist() == [frames, valid]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_one_frame_utterances_train(pair, frames):
    model = vae(pair)
    out = model(torch.randn(2, frames, F))
    out.loss.backward()
    assert out.loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_ahead_target_without_enough_frames_costs_only_the_bottleneck():
    out = vae(target="ahead")(torch.randn(1, 3, F))
    assert out.reconstruction_loss.item() == 0


def test_the_loss_is_the_negative_elbo_per_frame():
    model = vae("conv 20 ms")
    feats = torch.randn(2, 10, F)
    torch.manual_seed(5)
    out = model(feats)
    torch.manual_seed(5)
    code, _ = model.encode(feats)
    mean, logvar = model.likelihood.parameters_of(model.decoder(code.latent))
    normal = torch.distributions.Normal(mean, torch.exp(0.5 * logvar))
    nll = -normal.log_prob(feats).sum() / 20
    hidden = model.encoder(feats)
    posterior_mean, posterior_logvar = model.bottleneck.posterior(hidden)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(posterior_mean, torch.exp(0.5 * posterior_logvar)),
        torch.distributions.Normal(0.0, 1.0),
    ).sum()
    torch.testing.assert_close(out.reconstruction_loss, nll)
    torch.testing.assert_close(out.loss, nll + kl / 20)


@pytest.mark.parametrize("variance", ["bin", "global", "predicted"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_linear_start_equals_probabilistic_pca(stride, variance):
    torch.manual_seed(0)
    mixing = torch.randn(F, F)
    feats = torch.randn(40, 12, F) @ mixing
    feats = feats - feats.mean((0, 1))
    encoder = ConvEncoder(F, 24, blocks=2, stride=stride)
    likelihood = GaussianLikelihood(F, variance)
    decoder = ConvDecoder(3, likelihood.prediction_size, 24, blocks=2, stride=stride)
    model = Autoencoder(encoder, GaussianBottleneck(24, 3), decoder, likelihood)
    ppca = PPCA(stride, feats)
    ppca.mean.zero_()
    model.start_linear(ppca)
    code, _ = model.encode(feats)
    elbo = -torch.stack([model(feats).loss for _ in range(300)]).mean()
    exact = ppca.log_likelihood(feats, 3)
    # The bound of the optimal linear VAE is tight (Lucas et al. 2019).
    assert elbo.item() == pytest.approx(exact, abs=0.05)


def test_linear_start_names_the_part_that_cannot():
    model = vae("gru")
    with pytest.raises(ValueError, match="RecurrentEncoder"):
        model.start_linear(PPCA(1, [torch.randn(30, F)]))


def test_parts_that_do_not_fit_are_refused_at_construction():
    with pytest.raises(ValueError, match="one stride"):
        Autoencoder(
            ConvEncoder(F, 8, stride=2),
            GaussianBottleneck(8, D),
            ConvDecoder(D, F, 8, stride=1),
            GaussianLikelihood(F),
        )
    with pytest.raises(ValueError, match="output_size=12"):
        Autoencoder(
            ConvEncoder(F, 8),
            GaussianBottleneck(8, D),
            ConvDecoder(D, F, 8),
            GaussianLikelihood(F, "predicted"),
        )


def test_a_piece_shorter_than_a_latent_frame_is_refused():
    parts = ConvEncoder(F, 8), GaussianBottleneck(8, D), ConvDecoder(D, F, 8)
    with pytest.raises(ValueError, match="at least the stride of 2; got 1"):
        Autoencoder(*parts, GaussianLikelihood(F), piece_frames=1)


@pytest.mark.parametrize("variance", ["fixed", "global", "bin", "predicted"])
def test_every_variance_trains_below_its_start(variance):
    torch.manual_seed(0)
    model = vae("conv 20 ms", variance=variance)
    feats = torch.randn(4, 20, 2) @ torch.randn(2, F)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = model(feats).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1


def test_apc_is_a_recurrent_encoder_an_identity_and_a_frames_ahead_target():
    encoder = RecurrentEncoder(F, 8, 2)
    model = Autoencoder(
        encoder,
        DeterministicBottleneck(8),
        RecurrentDecoder(8, F, num_layers=0),
        LaplaceLikelihood(F, learned=False),
        FramesAhead(3),
    )
    feats = torch.randn(2, 12, F)
    before = model.encode(feats)[0].features[:, :6]
    feats[:, 6:] = 0
    torch.testing.assert_close(model.encode(feats)[0].features[:, :6], before)


def test_a_warm_start_takes_the_encoder_and_the_decoder_of_another_bottleneck():
    donor = vae()
    encoder, decoder = PAIRS["conv 20 ms"]()
    model = Autoencoder(
        encoder, DeterministicBottleneck(16, D), decoder(F), GaussianLikelihood(F)
    )
    model.warm_start(donor)
    feats = torch.randn(1, 12, F)
    torch.testing.assert_close(model.encoder(feats), donor.encoder(feats))
    latent = torch.randn(1, 6, D)
    torch.testing.assert_close(model.decode(latent), donor.decode(latent))


def test_a_warm_start_from_other_sizes_names_the_weight_that_does_not_fit():
    with pytest.raises(ValueError, match=r"encoder.*stem.weight is of shape"):
        vae("conv 20 ms").warm_start(vae("conv 10 ms"))


def test_a_corruption_that_works_in_place_leaves_the_target_clean():
    feats = torch.randn(2, 10, F)
    clean = feats.clone()
    target = Denoising([torch.nn.Dropout(0.5, inplace=True)])
    inputs, wanted, _ = target(feats)
    assert torch.equal(wanted, clean)
    assert not torch.equal(inputs, clean)


def test_an_overcomplete_latent_has_no_linear_start():
    encoder = ConvEncoder(F, 24, stride=1)
    model = Autoencoder(
        encoder,
        DeterministicBottleneck(24, F),
        ConvDecoder(F, F, 24, stride=1),
        GaussianLikelihood(F),
    )
    with pytest.raises(ValueError, match="linear_start: False"):
        model.start_linear(PPCA(1, [torch.randn(30, F)]))
