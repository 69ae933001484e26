"""The Gaussian bottleneck."""

import pytest
import torch

from speechbrain_vae.lobes.bottlenecks import (
    CapacityGaussianBottleneck,
    GaussianBottleneck,
)


def test_features_are_deterministic_and_latents_are_samples_of_the_posterior():
    torch.manual_seed(0)
    bottleneck = GaussianBottleneck(8, 4)
    x = torch.randn(1, 1, 8).expand(1, 4000, 8)
    out = bottleneck(x)
    torch.testing.assert_close(out.features, bottleneck(x).features)
    mean, logvar = bottleneck.posterior(x)
    torch.testing.assert_close(out.latent.mean(1), mean[:, 0], atol=0.02, rtol=0)
    torch.testing.assert_close(out.latent.var(1).log(), logvar[:, 0], atol=0.15, rtol=0)


def test_learned_prior_lowers_the_divergence_to_a_shifted_posterior():
    mean, logvar = torch.full((1, 1, 4), 2.0), torch.full((1, 1, 4), -1.0)
    bottleneck = GaussianBottleneck(8, 4, prior="learned")
    assert bottleneck.kl_divergence(mean, logvar).sum() > 1
    bottleneck.prior_mean.data.fill_(2.0)
    bottleneck.prior_logvar.data.fill_(-1.0)
    assert bottleneck.kl_divergence(mean, logvar).abs().sum() < 1e-6
    assert bottleneck.sample(1000, 2).detach().mean() == pytest.approx(2.0, abs=0.1)


def test_warm_up_counts_training_steps_and_is_saved():
    x = torch.randn(1, 3, 8)
    full = GaussianBottleneck(8, 4, beta=2.0)
    cost = full(x).loss.item()
    bottleneck = GaussianBottleneck(8, 4, beta=2.0, warmup_steps=4)
    resumed = GaussianBottleneck(8, 4, beta=2.0, warmup_steps=4)
    bottleneck.load_state_dict(full.state_dict())
    bottleneck.step.zero_()
    shares = [bottleneck(x).loss.item() / cost for _ in range(5)]
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    resumed.load_state_dict(bottleneck.state_dict())
    assert resumed.eval()(x).loss.item() == pytest.approx(cost)


def test_losses_of_evaluation_do_not_depend_on_how_far_a_schedule_is():
    x = torch.randn(1, 3, 8)
    for growing, full in (
        (GaussianBottleneck(8, 4, warmup_steps=9), GaussianBottleneck(8, 4)),
        (
            CapacityGaussianBottleneck(8, 4, capacity_steps=9),
            CapacityGaussianBottleneck(8, 4, capacity_steps=0),
        ),
    ):
        full.load_state_dict(growing.state_dict())
        assert growing(x).loss != full(x).loss
        assert growing.eval()(x).loss == full.eval()(x).loss


def test_capacity_is_what_the_divergence_settles_at():
    torch.manual_seed(0)
    bottleneck = CapacityGaussianBottleneck(8, 4, capacity=3.0, capacity_steps=50)
    x = torch.randn(4, 20, 8)
    optimiser = torch.optim.Adam(bottleneck.parameters(), 0.02)
    for _ in range(400):
        out = bottleneck(x)
        optimiser.zero_grad()
        out.loss.backward()
        optimiser.step()
    assert out.stats["kl"].item() == pytest.approx(3.0, abs=0.3)


def test_free_bits_cost_the_same_below_the_threshold():
    bottleneck = GaussianBottleneck(8, 4, free_bits=50.0)
    out = bottleneck(torch.randn(2, 5, 8))
    assert out.loss.item() == pytest.approx(200.0)
    assert out.stats["kl"] < 200


def test_posterior_variance_is_bounded_for_huge_inputs():
    bottleneck = GaussianBottleneck(8, 4)
    torch.nn.init.normal_(bottleneck.logvar.weight)
    out = bottleneck(torch.randn(2, 5, 8) * 1e4)
    assert out.loss.isfinite() and out.latent.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": "gmm"}, "standard, learned"),
        ({"beta": -1}, "beta"),
        ({"free_bits": -0.1}, "free_bits"),
        ({"logvar_range": (3, -3)}, "low < high"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GaussianBottleneck(8, 4, **options)
