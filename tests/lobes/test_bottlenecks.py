"""The Gaussian bottleneck."""

import pytest
import torch

from speechbrain_vae.lobes.bottlenecks import GaussianBottleneck


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
    bottleneck = GaussianBottleneck(8, 4, beta=2.0, warmup_steps=4)
    x = torch.randn(1, 3, 8)
    assert [float(bottleneck(x).stats["beta"]) for _ in range(5)] == [
        0.5,
        1.0,
        1.5,
        2.0,
        2.0,
    ]
    resumed = GaussianBottleneck(8, 4, beta=2.0, warmup_steps=4)
    resumed.load_state_dict(bottleneck.state_dict())
    assert float(resumed.eval()(x).stats["beta"]) == 2.0


def test_free_bits_cost_the_same_below_the_threshold():
    bottleneck = GaussianBottleneck(8, 4, free_bits=50.0)
    out = bottleneck(torch.randn(2, 5, 8))
    assert float(out.loss) == pytest.approx(200.0)
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
