"""Losses of single pixels."""

import math
import statistics

import pytest
import torch
import torch.nn.functional as F

from immersivedepth.losses.masked import masked_cosine, masked_mean, standardised_depth
from immersivedepth.losses.supervision import masked


def masked_l1(prediction, target, valid):
    return masked(prediction, target, valid, "l1")


def masked_mse(prediction, target, valid):
    return masked(prediction, target, valid, "mse")


def test_sums_are_divided_by_the_count_of_all_images():
    prediction = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]]])
    target = torch.tensor([[[[0.0, 9.0]]], [[[1.0, 0.0]]]])
    valid = torch.tensor([[[[True, False]]], [[[True, True]]]])
    assert float(masked_l1(prediction, target, valid)) == pytest.approx((1 + 2 + 4) / 3)
    assert float(masked_mse(prediction, target, valid)) == pytest.approx((1 + 4 + 16) / 3)


def test_every_channel_of_a_valid_pixel_counts():
    values = torch.arange(6.0).view(1, 3, 1, 2)
    assert float(masked_mean(values, torch.tensor([[[[True, False]]]]))) == pytest.approx((0 + 2 + 4) / 3)


@pytest.mark.parametrize("loss", [masked_l1, masked_mse, masked_cosine])
def test_nothing_valid_costs_nothing_and_masked_infinities_do_no_harm(loss):
    prediction = torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.full((1, 3, 2, 2), torch.inf)
    found = loss(prediction, target, torch.zeros(1, 1, 2, 2, dtype=torch.bool))
    found.backward()
    assert float(found.detach()) == 0
    assert prediction.grad.abs().max() == 0


def test_cosine_of_stored_normals():
    g = torch.Generator().manual_seed(0)
    a, b = (F.normalize(torch.randn(2, 3, 4, 5, generator=g, dtype=torch.float64), dim=1) for _ in range(2))
    valid = torch.rand(2, 1, 4, 5, generator=g) > 0.4
    whole = [
        -sum(float(x) * float(y) for x, y in zip(a[i, :, r, c], b[i, :, r, c], strict=True))
        for i, _, r, c in valid.nonzero().tolist()
    ]
    found = masked_cosine((a + 1) / 2, (b + 1) / 2, valid)
    assert float(found) == pytest.approx(statistics.fmean(whole), rel=1e-12)
    assert float(masked_cosine((a + 1) / 2, (a + 1) / 2, valid)) == pytest.approx(-1, rel=1e-12)
    assert float(masked_cosine((1 - a) / 2, (a + 1) / 2, valid)) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("loss", [masked_l1, masked_mse, masked_cosine])
def test_gradients_are_those_of_finite_differences(loss):
    g = torch.Generator().manual_seed(2)
    prediction = torch.rand(2, 3, 2, 3, generator=g, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 3, 2, 3, generator=g, dtype=torch.float64)
    valid = torch.rand(2, 1, 2, 3, generator=g) > 0.3
    assert torch.autograd.gradcheck(lambda p: loss(p, target, valid), (prediction,))


def test_depth_is_standardised_by_its_central_part():
    """20 valid depths of which the two smallest and the two largest are wild."""
    middle = [1.0 + 0.1 * i for i in range(16)]
    values = [-1e3, -50.0, *middle, 70.0, 4e3]
    depth = torch.tensor([*values, 1e9], dtype=torch.float64).view(1, 1, 3, 7)
    valid = depth < 1e6
    found = standardised_depth(depth, valid).flatten()
    mean, deviation = statistics.fmean(middle), statistics.pstdev(middle)
    assert found[:20].tolist() == pytest.approx([(v - mean) / deviation for v in values], rel=1e-9)
    again = standardised_depth(5 * depth + 2, valid).flatten()
    torch.testing.assert_close(again[:20], found[:20], rtol=1e-9, atol=1e-12)


def test_each_image_is_standardised_by_itself():
    g = torch.Generator().manual_seed(1)
    depth = torch.rand(2, 1, 6, 6, generator=g) * torch.tensor([1.0, 30.0]).view(2, 1, 1, 1)
    valid = torch.ones_like(depth, dtype=torch.bool)
    together = standardised_depth(depth, valid)
    for i in range(2):
        torch.testing.assert_close(together[i], standardised_depth(depth[i : i + 1], valid[i : i + 1])[0])
    assert not math.isclose(float(depth[1].mean()), float(depth[0].mean()), rel_tol=0.5)


def test_an_image_without_depth_stays_a_number():
    assert standardised_depth(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2, dtype=torch.bool)).isfinite().all()
