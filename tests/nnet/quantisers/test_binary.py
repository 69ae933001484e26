"""Binary codes with a straight-through gradient."""

import copy
import math

import pytest
import torch

from speechbrain_vae.nnet.quantisers.binary import BinaryQuantizer


@pytest.mark.parametrize("mode", ["sign", "bernoulli"])
@pytest.mark.parametrize("dim, size", [(4, 16), (8, 16), (3, 2)])
def test_lookup_gives_back_what_evaluation_gave(mode, dim, size):
    torch.manual_seed(0)
    quantiser = BinaryQuantizer(dim, size, mode=mode).eval()
    out = quantiser(torch.randn(2, 30, dim), torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(quantiser.lookup(out.indices), out.latent)
    assert torch.equal(out.features, out.latent)
    assert int(out.indices.max()) < size


def test_without_maps_the_latent_is_the_sign_and_the_index_its_bits():
    quantiser = BinaryQuantizer(3, 8).eval()
    out = quantiser(torch.tensor([[[0.2, -3.0, 0.0], [-1.0, -1.0, 4.0]]]))
    assert out.latent.tolist() == [[[1, -1, 1], [-1, -1, 1]]]
    assert out.indices.flatten().tolist() == [0b101, 0b100]


def test_gradient_of_the_sign_is_the_identity_within_one():
    quantiser = BinaryQuantizer(4, 16, commitment=0, diversity=0)
    x = torch.tensor([[[0.5, -0.9, 1.5, -2.0]]], requires_grad=True)
    quantiser(x).latent.sum().backward()
    assert x.grad.flatten().tolist() == [1, 1, 0, 0]


def test_gradient_of_bernoulli_is_that_of_its_mean():
    quantiser = BinaryQuantizer(4, 16, mode="bernoulli", diversity=0)
    x = torch.randn(1, 5, 4, requires_grad=True)
    quantiser(x).latent.sum().backward()
    torch.testing.assert_close(x.grad, 1 - x.detach().tanh() ** 2)


def test_bernoulli_bits_have_the_mean_of_the_hyperbolic_tangent():
    torch.manual_seed(0)
    quantiser = BinaryQuantizer(2, 4, mode="bernoulli")
    x = torch.tensor([[[0.3, -1.0]]])
    out = quantiser(x.expand(1, 50_000, 2))
    torch.testing.assert_close(
        out.latent.mean((0, 1)), x.tanh().flatten(), atol=0.02, rtol=0
    )
    assert out.features.unique(dim=1).tolist() == [[[1, -1]]]


def test_loss_is_commitment_plus_missing_entropy():
    quantiser = BinaryQuantizer(2, 4, commitment=0.5, diversity=3.0)
    balanced = torch.tensor([[[3.0, 3.0], [-3.0, -3.0]]])
    assert float(quantiser(balanced).loss) == pytest.approx(0.5 * 8, rel=1e-4)
    stuck = torch.full((1, 6, 2), 20.0)
    expected = 0.5 * 2 * 19**2 + 3 * 2 * math.log(2)
    assert float(quantiser(stuck).loss) == pytest.approx(expected, rel=1e-4)


def test_padding_changes_neither_loss_nor_gradient():
    torch.manual_seed(0)
    alone = BinaryQuantizer(4, 64)
    padded = copy.deepcopy(alone)
    x = torch.randn(1, 60, 4)
    out = alone(x)
    longer = torch.cat([x, torch.full((1, 20, 4), float("nan"))], 1)
    other = padded(longer, torch.tensor([0.75]))
    for result in (out, other):
        (result.loss + result.latent.square().sum()).backward()
    assert out.loss == other.loss
    for p, q in zip(alone.parameters(), padded.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_an_empty_batch_has_no_loss():
    quantiser = BinaryQuantizer(4, 16)
    assert quantiser(torch.randn(1, 20, 4), torch.zeros(1)).loss == 0


def test_nan_names_the_module():
    with pytest.raises(ValueError, match=r"BinaryQuantizer\(dim=4"):
        BinaryQuantizer(4, 16)(torch.full((1, 2, 4), float("nan")))


@pytest.mark.parametrize("size", [1, 3, 100])
def test_codebook_sizes_other_than_powers_of_two_are_refused(size):
    with pytest.raises(ValueError, match=f"power of two.*{size}"):
        BinaryQuantizer(4, size)


def test_more_codes_than_can_be_counted_are_refused():
    BinaryQuantizer(4, 2**20)
    with pytest.raises(ValueError, match=r"2\*\*21: for more bits take Product"):
        BinaryQuantizer(4, 2**21)


@pytest.mark.parametrize(
    "options, named", [({"mode": "tanh"}, "mode"), ({"diversity": -1}, "diversity")]
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        BinaryQuantizer(4, 16, **options)
