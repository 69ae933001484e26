import pytest
import torch

from speechbrain_vae.nnet.quantisers import DiVeQ, SFDiVeQ


def test_without_noise_the_latent_of_diveq_is_the_code():
    torch.manual_seed(0)
    quantiser, x = DiVeQ(6, 8, noise_variance=0.0), torch.randn(2, 200, 6)
    quantiser(x)
    out = quantiser(x)
    assert torch.allclose(out.latent, out.features, atol=1e-5)


def test_noise_keeps_the_length_of_the_error():
    torch.manual_seed(0)
    quantiser, x = DiVeQ(6, 8, noise_variance=0.1), torch.randn(2, 200, 6)
    quantiser(x)
    out = quantiser(x)
    error = (out.features - x).norm(dim=2)
    assert torch.allclose((out.latent - x).norm(dim=2), error, atol=1e-5)
    assert not torch.allclose(out.latent, out.features, atol=1e-3)


def test_without_noise_the_latent_of_sfdiveq_is_a_point_of_the_curve():
    torch.manual_seed(0)
    quantiser, x = SFDiVeQ(6, 8, noise_variance=0.0), torch.randn(2, 200, 6)
    quantiser(x)
    latent = quantiser(x).latent.detach()
    _, _, points = quantiser.project(latent)
    assert torch.allclose(points, latent, atol=1e-4)
    # No nearer than the projection: the point is dithered, not the best one.
    exact = (quantiser.eval()(x).features - x).norm(dim=2)
    assert ((latent - x).norm(dim=2) >= exact - 1e-4).all()


@pytest.mark.parametrize("cls", [DiVeQ, SFDiVeQ])
def test_training_moves_the_codes_by_the_decoder_loss(cls):
    torch.manual_seed(0)
    quantiser, x = cls(6, 8), torch.randn(2, 200, 6)
    quantiser(x)
    out = quantiser(x)
    out.latent.square().sum().backward()
    grad = quantiser.codebook.weight.grad
    assert torch.isfinite(grad).all() and (grad[1:-1].abs().sum(1) > 0).all()


@pytest.mark.parametrize("cls", [DiVeQ, SFDiVeQ])
def test_an_exact_hit_gives_finite_gradients(cls):
    torch.manual_seed(0)
    quantiser = cls(4, 8, noise_variance=0.0)
    quantiser(torch.randn(1, 200, 4))
    x = quantiser.codebook.weight.detach()[None].clone().requires_grad_()
    out = quantiser(x)
    (out.latent.square().sum() + out.loss).backward()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(quantiser.codebook.weight.grad).all()


@pytest.mark.parametrize("cls", [DiVeQ, SFDiVeQ])
def test_a_negative_variance_is_refused(cls):
    with pytest.raises(ValueError, match="noise_variance must not be negative; got -1"):
        cls(4, 8, noise_variance=-1)
