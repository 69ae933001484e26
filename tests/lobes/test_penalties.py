"""Penalties of the autoencoder."""

import math

import pytest
import torch

from speechbrain_vae.lobes.autoencoder import Autoencoder
from speechbrain_vae.lobes.bottlenecks import (
    DeterministicBottleneck,
    QuantisedBottleneck,
)
from speechbrain_vae.lobes.decoders import ConvDecoder, RecurrentDecoder
from speechbrain_vae.lobes.encoders import ConvEncoder, RecurrentEncoder
from speechbrain_vae.lobes.penalties import (
    ActivityPenalty,
    ContractivePenalty,
    SparsityPenalty,
    WeightPenalty,
)
from speechbrain_vae.lobes.tied import StackedEncoder, TiedDecoder
from speechbrain_vae.nnet.likelihoods import GaussianLikelihood
from speechbrain_vae.nnet.quantisers import VectorQuantizer

F, H, D = 6, 8, 3
PENALTIES = {
    "sparsity": lambda: SparsityPenalty(0.3),
    "activity": lambda: ActivityPenalty(0.3),
    "contractive": lambda: ContractivePenalty(0.3, probes=2),
    "weights": lambda: WeightPenalty(l1=0.01, l2=0.02),
}


def autoencoder(*penalties, latent_size=D, activation=torch.nn.Sigmoid):
    torch.manual_seed(0)
    model = Autoencoder(
        ConvEncoder(F, H, blocks=1, stride=2),
        DeterministicBottleneck(H, latent_size, activation),
        ConvDecoder(latent_size, F, H, blocks=1, stride=2),
        GaussianLikelihood(F, "fixed"),
        penalties=penalties,
    )
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def squared_jacobian(model, feats):
    """The squared Frobenius norm of the features' exact Jacobian."""
    jacobian = torch.autograd.functional.jacobian(
        lambda x: model.encode(x)[0].features, feats, create_graph=True
    )
    return (jacobian**2).sum()


def gradients(model, loss):
    parameters = [*model.encoder.parameters(), *model.bottleneck.parameters()]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


def test_the_contractive_penalty_of_one_number_is_exact_and_so_is_its_gradient():
    model = autoencoder(ContractivePenalty(0.5), latent_size=1)
    feats = torch.randn(1, 2, F)
    exact = 0.5 * squared_jacobian(model, feats) / 2
    out = model(feats)
    torch.testing.assert_close(out.penalties["ContractivePenalty"], exact)
    penalty = out.loss - out.reconstruction_loss
    torch.testing.assert_close(
        gradients(model, penalty), gradients(model, exact), atol=1e-6, rtol=1e-4
    )


def test_the_contractive_penalty_is_unbiased():
    model = autoencoder(ContractivePenalty(1.0, probes=3000))
    feats = torch.randn(2, 7, F)
    exact = squared_jacobian(model, feats) / 14
    out = model(feats)
    torch.testing.assert_close(
        out.penalties["ContractivePenalty"], exact, rtol=0.03, atol=0
    )
    found = gradients(model, out.loss - out.reconstruction_loss)
    expected = gradients(model, exact)
    assert (found - expected).norm() < 0.05 * expected.norm()


def test_the_contractive_penalty_flattens_the_encoder():
    feats = torch.randn(4, 20, F)
    norms = []
    for penalties in ((), (ContractivePenalty(3.0),)):
        model = autoencoder(*penalties)
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(60):
            optimiser.zero_grad()
            model(feats).loss.backward()
            optimiser.step()
        norms.append(squared_jacobian(model, feats).item())
    assert norms[1] < 0.5 * norms[0]


def test_a_recurrent_encoder_can_be_contracted():
    model = Autoencoder(
        RecurrentEncoder(F, H, 1),
        DeterministicBottleneck(H, D),
        RecurrentDecoder(D, F, H),
        GaussianLikelihood(F),
        penalties=[ContractivePenalty(0.1)],
    )
    model(torch.randn(2, 5, F)).loss.backward()
    assert all(p.grad.isfinite().all() for p in model.encoder.parameters())


@pytest.mark.parametrize("name", PENALTIES)
def test_padding_does_not_change_a_penalty(name):
    model = autoencoder(Signs(0.3) if name == "contractive" else PENALTIES[name]())
    feats = torch.randn(1, 21, F)
    padded = torch.cat([feats, torch.full((1, 13, F), 7.0)], 1)
    outs = []
    # An item of padding alone must not count either.
    for batch, lengths in (
        (feats, None),
        (padded, torch.tensor([21 / 34])),
        (padded.expand(2, -1, -1), torch.tensor([21 / 34, 0.0])),
    ):
        outs.append(model(batch, lengths))
    for out in outs[1:]:
        torch.testing.assert_close(out.loss, outs[0].loss)
        assert out.penalties.keys() == outs[0].penalties.keys()


class Signs(ContractivePenalty):
    """With signs that do not depend on the shape of the batch."""

    def forward(self, autoencoder, inputs, lengths, code):
        draw = torch.randint_like
        generator = torch.Generator().manual_seed(4)
        signs = torch.randint(2, (40, D), generator=generator)
        torch.randint_like = lambda x, _: signs[: x.shape[1]].expand_as(x)
        try:
            return super().forward(autoencoder, inputs, lengths, code)
        finally:
            torch.randint_like = draw


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_belong_to_the_training_loss_alone(name):
    model = autoencoder(PENALTIES[name]())
    feats = torch.randn(2, 9, F)
    out = model(feats)
    (value,) = out.penalties.values()
    assert value > 0 and not value.requires_grad
    torch.testing.assert_close(out.loss.detach(), out.reconstruction_loss + value)
    out.loss.backward()
    model.eval()
    out = model(feats)
    assert out.penalties == {}
    torch.testing.assert_close(out.loss, out.reconstruction_loss)
    assert feats.requires_grad is False
    assert not [name for name in model.state_dict() if name.startswith("penalties")]


def test_sparsity_is_the_absolute_latent_per_input_frame():
    model = autoencoder(SparsityPenalty(0.3), activation=torch.nn.Identity)
    feats, lengths = torch.randn(2, 10, F), torch.tensor([1.0, 0.5])
    latent = model.encode(feats, lengths)[0].features
    expected = 0.3 * (latent[0].abs().sum() + latent[1, :3].abs().sum()) / 15
    value = model(feats, lengths).penalties["SparsityPenalty"]
    torch.testing.assert_close(value, expected.detach())


def test_activity_is_the_divergence_between_bernoulli_means():
    penalty = ActivityPenalty(0.5, target=0.1)
    model = autoencoder(penalty)
    feats, lengths = torch.randn(2, 10, F), torch.tensor([1.0, 0.5])
    latent = model.encode(feats, lengths)[0].features
    mean = torch.cat([latent[0], latent[1, :3]]).mean(0)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Bernoulli(torch.full((D,), 0.1)),
        torch.distributions.Bernoulli(mean),
    ).sum()
    value = model(feats, lengths).penalties["ActivityPenalty"]
    torch.testing.assert_close(value, 0.5 * expected.detach())


@pytest.mark.parametrize(
    ("penalty", "activation"),
    [
        (SparsityPenalty(2.0), torch.nn.Identity),
        (ActivityPenalty(5.0, target=0.05), torch.nn.Sigmoid),
    ],
)
def test_sparsity_makes_an_overcomplete_code_sparse(penalty, activation):
    feats = torch.randn(4, 40, 2) @ torch.randn(2, F)
    small = []
    for penalties in ((), (penalty,)):
        weights = WeightPenalty(l2=0.01)
        model = autoencoder(*penalties, weights, latent_size=16, activation=activation)
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(150):
            optimiser.zero_grad()
            model(feats).loss.backward()
            optimiser.step()
        latent = model.encode(feats)[0].features
        small.append(float((latent.abs() < 0.1 * latent.abs().max()).float().mean()))
        error = model(feats).squared_error
    assert small[1] > small[0] + 0.2
    assert error < 0.6 * feats.var()


def test_weight_penalty_counts_weights_once_and_nothing_else():
    encoder = StackedEncoder(F, [5, 4], stride=2)
    bottleneck = DeterministicBottleneck(4)
    model = Autoencoder(
        encoder, bottleneck, TiedDecoder(encoder), GaussianLikelihood(F)
    )
    weights = [conv.weight for conv in encoder.convs]
    expected = sum(0.1 * w.abs().sum() + 0.2 * (w**2).sum() for w in weights)
    found = WeightPenalty(0.1, 0.2)(model, None, None, None)
    torch.testing.assert_close(found, expected)


def test_weight_penalty_sees_recurrent_and_normalised_weights_but_no_codebook():
    encoder = ConvEncoder(F, H, blocks=1, normalisation="weight")
    quantiser = VectorQuantizer(dim=D, codebook_size=4)
    model = torch.nn.ModuleList(
        [encoder, QuantisedBottleneck(H, quantiser), torch.nn.GRU(D, 2)]
    )
    block = encoder.stack.blocks[0]
    weights = [encoder.stem.weight, block.wide.weight, block.pointwise.weight]
    weights += [model[1].linear.weight]
    weights += [model[2].weight_ih_l0, model[2].weight_hh_l0]
    expected = sum((w**2).sum() for w in weights)
    found = WeightPenalty(l2=1.0)(model, None, None, None)
    torch.testing.assert_close(found, expected)


def test_a_latent_without_a_derivative_cannot_be_contracted():
    model = autoencoder(ContractivePenalty(1.0))
    model.bottleneck = QuantisedBottleneck(H, VectorQuantizer(D, codebook_size=4))
    with pytest.raises(ValueError, match="continuous bottleneck"):
        model(torch.randn(2, 20, F))


def test_activity_of_unbounded_units_is_refused():
    model = autoencoder(ActivityPenalty(1.0), activation=torch.nn.Identity)
    with pytest.raises(ValueError, match="torch.nn.Sigmoid"):
        model(10 * torch.randn(2, 20, F))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SparsityPenalty(0), "weight must be positive; got 0"),
        (lambda: ActivityPenalty(1.0, target=1.0), "between 0 and 1; got 1.0"),
        (lambda: ActivityPenalty(-1.0), "weight"),
        (lambda: ContractivePenalty(1.0, probes=0), "probes"),
        (lambda: ContractivePenalty(math.nan), "weight"),
        (lambda: WeightPenalty(), "one must be positive"),
        (lambda: WeightPenalty(l1=-1.0, l2=1.0), "must not be negative"),
    ],
)
def test_bad_options_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(("penalty", "enabled"), [("contractive", 0), ("sparsity", 1)])
def test_second_derivatives_are_not_asked_of_cudnn(penalty, enabled):
    model = autoencoder(PENALTIES[penalty]())
    seen = []
    for part in (model.encoder, model.decoder):
        part.register_forward_pre_hook(
            lambda *_: seen.append(torch.backends.cudnn.enabled)
        )
    feats = torch.randn(1, 8, F)
    model(feats).loss.backward()
    model.eval()(feats)
    assert seen == [enabled, True, True, True]
    assert torch.backends.cudnn.enabled
