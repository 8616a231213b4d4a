"""Filters on the sphere against spherical harmonics, slow loops and turned copies of their input."""

import math

import pytest
import torch
import torch.nn.functional as F

from immersivedepth.geometry import filters, sphere

H, W = 48, 96
RAYS = sphere.erp_rays(H, W)


def noise(channels=1, seed=0):
    return torch.rand(channels, H, W, generator=torch.Generator().manual_seed(seed))


def angles_to(i, j):  # [H, W]
    return torch.acos((RAYS @ RAYS[i, j]).clamp(-1, 1))


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("axis", [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.3, 0.5, 0.8)])
def test_blur_weakens_spherical_harmonics_as_a_gaussian_does(sigma, axis):
    height = 128
    rays = sphere.erp_rays(height, 2 * height)
    c = rays @ F.normalize(torch.tensor(axis), dim=0)
    for degree, harmonic in ((0, torch.ones_like(c)), (1, c), (2, 1.5 * c * c - 0.5)):
        error = (
            filters.blur(harmonic[None], sigma)[0] - harmonic * math.exp(-degree * (degree + 1) * sigma**2 / 2)
        ).abs()
        # The kernel is a product of two Gaussians: off by the order of sigma^2, and by a part of its own width about
        # the poles, where circles of latitude are far from straight.
        assert error.max() < 0.4 * degree * max(sigma, math.pi / height) + 1e-5
        away = sphere.latitudes(height).abs() < math.pi / 2 - 4 * max(sigma, 2 * math.pi / height)
        assert error[away].max() < 0.8 * degree * (degree + 1) * max(sigma, math.pi / height) ** 2 + 1e-5


def test_blur_is_as_wide_at_the_poles_as_at_the_equator():
    widths = []
    for row in (1, H // 8, H // 4, H // 2):
        point = torch.zeros(1, H, W)
        point[0, row, 20] = 1
        mass = filters.blur(point, 0.15)[0] * sphere.solid_angles(H, W)
        widths.append(float((mass * angles_to(row, 20) ** 2).sum() / mass.sum()) ** 0.5)
    assert max(widths) / min(widths) < 1.25  # a fixed pixel kernel misses this by a factor of ten and more
    assert widths[-1] == pytest.approx(0.15 * math.sqrt(2), rel=0.05)  # two dimensions, flat limit


@pytest.mark.parametrize("shift", [1, 31, W // 2])
def test_filters_know_no_seam(shift):
    image = noise(3)
    known = noise(1, 1) > 0.3
    for apply in (
        lambda x, k: filters.blur(x, 0.1),
        lambda x, k: filters.known_blur(x, k, 0.1),
        lambda x, k: filters.dilate(x, 0.2),
        lambda x, k: filters.erode(x, 0.2),
        lambda x, k: filters.guided(x, x[:1], 0.1, 0.2, k),
    ):
        turned = apply(image.roll(shift, -1), known.roll(shift, -1)).roll(-shift, -1)
        torch.testing.assert_close(turned, apply(image, known), atol=2e-5, rtol=1e-4)


def test_filters_know_no_pole():
    """Upside down in, upside down out; and a half turn about a horizontal axis, which carries one pole to the other."""
    image = noise(1)
    turn = lambda x: x.flip(-2, -1)  # noqa: E731 - half a turn about +x
    for apply in (lambda x: filters.blur(x, 0.2), lambda x: filters.dilate(x, 0.2)):
        torch.testing.assert_close(turn(apply(turn(image))), apply(image), atol=1e-5, rtol=1e-4)


def test_blur_leaves_constants_and_tiny_widths_alone():
    torch.testing.assert_close(filters.blur(torch.full((2, H, W), 7.0), 0.3), torch.full((2, H, W), 7.0))
    image = noise()
    torch.testing.assert_close(filters.blur(image, 1e-5), image, atol=1e-4, rtol=0)


def test_unknown_pixels_take_no_part():
    known = torch.ones(1, H, W, dtype=torch.bool)
    known[0, 10:20, 90:] = False
    image = torch.where(known, 3.0, torch.nan)
    torch.testing.assert_close(
        filters.known_blur(image, known, 0.05), torch.full((1, H, W), 3.0), atol=1e-3, rtol=0
    )  # windows with hardly any known pixel
    nothing = filters.known_blur(image, torch.zeros_like(known), 0.05)
    assert (nothing == 0).all()


@pytest.mark.parametrize("row", [0, 3, H // 2, H - 2])
def test_dilation_reaches_every_side_and_no_farther(row):
    radius, pixel = 0.3, math.pi / H
    point = torch.zeros(1, H, W, dtype=torch.bool)
    point[0, row, 5] = True
    reached, angle = filters.dilate(point, radius)[0], angles_to(row, 5)
    assert reached[angle < radius - pixel].all()
    # A window is a square at most, whose corner lies sqrt(2) away, or where it holds a pole a whole row.
    assert not reached[angle > 3 * radius + 2 * pixel].any()
    assert not filters.erode(~point, radius)[0][angle < radius - pixel].any()


def test_row_windows_match_a_loop():
    image = noise(2)
    window = torch.randint(0, W // 2, (H,), generator=torch.Generator().manual_seed(2)) * 2 + 1
    expected = torch.stack(
        [
            torch.stack(
                [image[:, i, [(j + k) % W for k in range(-(n // 2), n // 2 + 1)]].amax(-1) for j in range(W)], -1
            )
            for i, n in enumerate(window.tolist())
        ],
        dim=1,
    )
    assert torch.equal(filters._row_maximum(image, window), expected)


def test_guided_keeps_what_the_guide_shows():
    step = (RAYS[..., 0] > 0).float()[None]
    noisy = 2 + step + 0.2 * torch.randn(1, H, W, generator=torch.Generator().manual_seed(3))
    out = filters.guided(step.expand(3, -1, -1), noisy, 0.15, 0.05)
    blurred = filters.blur(noisy, 0.15)
    error = lambda x: float((x - 2 - step).square().mean().sqrt())  # noqa: E731
    assert error(out) < 0.25 * 0.2  # the noise of some thirty pixels is averaged, sqrt(30) = 5.5
    assert error(out) < 0.4 * error(blurred)


def test_guided_upsamples_to_the_guide():
    high = sphere.erp_rays(4 * H, 4 * W)
    step = (high[..., 0] > 0).float()[None]
    small = sphere.resize_erp(2 + 3 * step, H, W)
    out = filters.guided(step, small, 2 * math.pi / H, 0.02)
    assert out.shape == step.shape
    bilinear = sphere.resize_erp(small, 4 * H, 4 * W)
    assert (out - 2 - 3 * step).abs().mean() < 0.2 * (bilinear - 2 - 3 * step).abs().mean()


def test_solving_tiny_systems_matches_lapack():
    generator = torch.Generator().manual_seed(4)
    half = torch.randn(50, 3, 3, generator=generator, dtype=torch.float64)
    matrix = half @ half.mT + 0.1 * torch.eye(3, dtype=torch.float64)
    right = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(filters.solve_small(matrix, right), torch.linalg.solve(matrix, right))
