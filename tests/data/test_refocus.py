"""Another focus for a picture with depth."""

import numpy as np
import torch

from immersivedepth.data.refocus import LAYERS, blurred, focused, quantiles_of, refocus


def scene():
    """Fine stripes; the left half is near, the right half far."""
    stripes = (torch.arange(64) % 2).float().expand(3, 32, 64)
    depth = torch.linspace(1, 10, 64).expand(1, 32, 64).contiguous()
    return stripes, depth


def contrast(image):
    return (image[0, 16, 1:] - image[0, 16, :-1]).abs()


def test_it_is_sharp_at_the_focus_and_blurred_away_from_it():
    image, depth = scene()
    quantiles = quantiles_of(depth)
    near = contrast(focused(image, depth, quantiles, float(quantiles[2]), 2.0))
    far = contrast(focused(image, depth, quantiles, float(quantiles[9]), 2.0))
    assert near[9:15].mean() > 0.5 > near[50:60].mean()
    assert far[54:60].mean() > far[4:10].mean()


def test_a_tiny_aperture_leaves_all_as_it_is():
    image, depth = scene()
    quantiles = quantiles_of(depth)
    assert torch.allclose(focused(image, depth, quantiles, float(quantiles[5]), 0.005), image, atol=1e-6)


def test_a_flat_picture_stays_flat():
    _, depth = scene()
    flat = torch.full((3, 32, 64), 0.3)
    for seed in range(10):
        assert torch.allclose(refocus(flat, depth, np.random.default_rng(seed)), flat, atol=1e-5)


def test_layers_are_of_equal_size():
    depth = torch.rand(1, 50, 50, generator=torch.Generator().manual_seed(0)) + 1
    quantiles = quantiles_of(depth)
    counts = torch.histc(torch.bucketize(depth.flatten(), quantiles[1:-1]).float(), LAYERS)
    assert (counts - 250).abs().max() < 15
    assert quantiles[0] < depth.min()
    assert depth.max() < quantiles[-1]


def test_blur_is_a_gaussian_of_its_sigma():
    image = torch.zeros(3, 41, 41)
    image[:, 20, 20] = 1
    out = blurred(image, 2.0)[0]
    t = torch.arange(41.0) - 20
    assert abs(float(out.sum()) - 1) < 1e-5
    spread = float((out.sum(0) * t**2).sum()) ** 0.5
    assert 1.2 < spread < 2.0  # the kernel is cut at one and a half sigma
    assert torch.equal(blurred(image, 0.05), image)


def test_without_depth_nothing_changes():
    image, _ = scene()
    assert torch.equal(refocus(image, torch.zeros(1, 32, 64), np.random.default_rng(0)), image)
