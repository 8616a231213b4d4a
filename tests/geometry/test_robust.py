"""Estimates that a minority cannot move."""

import pytest
import torch

from immersivedepth.geometry import robust


@pytest.mark.parametrize(
    ("values", "weights", "want"),
    [
        ([3.0, 1.0, 2.0], [1.0, 1.0, 1.0], 2.0),
        ([3.0, 1.0], [1.0, 1.0], 2.0),  # split evenly: between the two
        ([1.0, 5.0, 9.0], [1.0, 1.0, 5.0], 9.0),
        ([1.0, 5.0, 9.0], [0.0, 1.0, 0.0], 5.0),
        ([4.0], [0.2], 4.0),
    ],
)
def test_weighted_medians(values, weights, want):
    values, weights = torch.tensor(values), torch.tensor(weights)
    assert robust.weighted_median(values, weights).item() == want
    layers = robust.layer_median(values[:, None].expand(-1, 3), weights[:, None].expand(-1, 3))
    assert layers.tolist() == [want] * 3


def test_layers_without_weight_say_nothing():
    assert robust.layer_median(torch.ones(4, 2), torch.zeros(4, 2)).tolist() == [0, 0]


def test_spread_is_the_deviation_of_gaussian_noise_whatever_a_tenth_does():
    noise = 0.3 * torch.randn(20000, generator=torch.Generator().manual_seed(0))
    assert robust.spread(noise).item() == pytest.approx(0.3, rel=0.02)  # 20,000 samples
    noise[:2000] = 1e6
    assert robust.spread(noise).item() < 0.36
    assert robust.spread(noise[:0]).item() == 0


def test_weights_are_those_of_their_losses():
    r = torch.tensor([0.0, 0.1, 1.0, 10.0], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(0.5)
    loss = (r**2 / (1 + (r / scale) ** 2)).sum() / 2  # Geman-McClure
    (slope,) = torch.autograd.grad(loss, r)
    torch.testing.assert_close(robust.geman_mcclure(r, scale) * r, slope)
    weight = robust.least_absolute(r, torch.tensor(0.2))
    torch.testing.assert_close((weight * r)[2:], torch.tensor([0.2, 0.2], dtype=torch.float64))
    assert weight[:2].tolist() == [1, 1]
