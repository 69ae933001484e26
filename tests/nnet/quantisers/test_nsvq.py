import pytest
import torch

from speechbrain_vae.nnet.quantisers import NSVQ
from speechbrain_vae.nnet.quantisers.nsvq import ErrorAlong, random_directions


def started(dim=6, size=8, frames=400):
    torch.manual_seed(0)
    quantiser = NSVQ(dim, size)
    x = torch.randn(2, frames // 2, dim)
    quantiser(x)
    assert quantiser.codebook.started
    return quantiser, x


def test_the_noise_is_as_long_as_the_error():
    quantiser, x = started()
    out = quantiser(x)
    noise = (out.latent - x).norm(dim=2)
    assert torch.allclose(noise, (out.features - x).norm(dim=2), atol=1e-5)


def test_gradients_of_the_error_equal_autograd_in_float64():
    torch.manual_seed(0)
    x = torch.randn(12, 5, dtype=torch.double, requires_grad=True)
    codes = torch.randn(4, 5, dtype=torch.double, requires_grad=True)
    direction = torch.nn.functional.normalize(torch.randn(12, 5).double(), dim=1)
    index, position = torch.randint(3, (12,)), torch.rand(12).double()
    for t in (None, position):
        assert torch.autograd.gradcheck(
            lambda a, b, t=t: ErrorAlong.apply(a, b, index, t, direction), (x, codes)
        )


def test_gradients_match_finite_differences_in_expectation():
    # For a quadratic loss |y - target|^2 the mean over isotropic noise is
    # |x - target|^2 + |x - c|^2, whatever the codes and the frames.
    torch.manual_seed(0)
    frame, target = torch.randn(1, 6), torch.randn(1, 6)
    x = frame.expand(200_000, 6).clone().requires_grad_()
    codes = torch.randn(3, 6, requires_grad=True)
    index = torch.cdist(frame, codes).argmin().expand(len(x))
    error = ErrorAlong.apply(x, codes, index, None, random_directions(x))
    (x + error - target).square().sum(1).mean().backward()

    def expected(frame, codes):
        error = (frame - codes[index[0]]).square().sum()
        return (frame - target).square().sum() + error

    step = 1e-3
    for values, grad in ((frame, x.grad.sum(0, keepdim=True)), (codes, codes.grad)):
        for flat in range(values.numel()):
            moved = []
            for sign in (1, -1):
                copy = values.detach().double().clone()
                copy.view(-1)[flat] += sign * step
                pair = (copy, codes) if values is frame else (frame, copy)
                moved.append(expected(*pair))
            difference = (moved[0] - moved[1]).item() / (2 * step)
            assert abs(grad.reshape(-1)[flat].item() - difference) < 0.03


def test_an_exact_hit_gives_finite_gradients_and_the_code_itself():
    quantiser, _ = started()
    x = quantiser.codebook.weight.detach()[None].clone().requires_grad_()
    out = quantiser(x)
    assert torch.allclose(out.latent, out.features)
    out.latent.square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(quantiser.codebook.weight.grad).all()


def test_evaluation_gives_the_nearest_code():
    quantiser, x = started()
    out = quantiser.eval()(x)
    distances = torch.cdist(
        x.flatten(0, 1).double(), quantiser.codebook.weight.double()
    )
    assert torch.equal(out.indices.flatten(), distances.argmin(1))
    assert torch.equal(out.latent, quantiser.lookup(out.indices))


def test_training_by_the_decoder_loss_alone_lowers_the_error():
    quantiser, x = started(size=16)
    before = quantiser.eval()(x).stats["quantisation_error"]
    optimiser = torch.optim.Adam(quantiser.parameters(), lr=1e-2)
    quantiser.train()
    for _ in range(150):
        optimiser.zero_grad()
        (quantiser(x).latent - x).square().mean().backward()
        optimiser.step()
    assert quantiser.eval()(x).stats["quantisation_error"] < before


def test_a_negative_threshold_is_refused():
    with pytest.raises(ValueError, match="revive_below"):
        NSVQ(4, 8, revive_below=-1)
