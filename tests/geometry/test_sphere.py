import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from immersivedepth.checks import ShapeError
from immersivedepth.geometry import sphere

heights = st.integers(2, 40)


def random(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_axes_of_the_world():
    rays = sphere.erp_rays(2, 4)  # latitudes +-45, longitudes 135, 45, -45, -135
    h, s = 0.5, math.sqrt(0.5)
    assert torch.allclose(rays[0, 1], torch.tensor([h, h, s]), atol=1e-7)
    assert torch.allclose(rays[1, 2], torch.tensor([h, -h, -s]), atol=1e-7)
    assert torch.allclose(rays[0, 0], torch.tensor([-h, h, s]), atol=1e-7)


@settings(deadline=None, max_examples=20)
@given(heights)
def test_rays_are_unit_and_come_back_to_pixel_centres(height):
    rays = sphere.erp_rays(height, 2 * height)
    assert torch.allclose(rays.norm(dim=-1), torch.ones(()), atol=1e-6)  # rounding of three squares
    uv = sphere.rays_to_erp(rays * 7.5)
    v, u = torch.meshgrid(
        (torch.arange(height) + 0.5) / height, (torch.arange(2 * height) + 0.5) / (2 * height), indexing="ij"
    )
    # Next to a pole, rounding of float32 rays turns into that much latitude.
    assert torch.allclose(uv, torch.stack([u, v], dim=-1), atol=1e-5)


def test_rays_beyond_a_pole_come_down_the_other_side():
    beyond = sphere.grid_rays(torch.tensor([math.pi / 2 + 0.1], dtype=torch.float64), sphere.longitudes(8))
    other = sphere.grid_rays(torch.tensor([math.pi / 2 - 0.1], dtype=torch.float64), sphere.longitudes(8) + math.pi)
    assert torch.allclose(beyond, other, atol=1e-7)


@settings(deadline=None, max_examples=20)
@given(heights)
def test_solid_angles_make_the_sphere(height):
    angles = sphere.solid_angles(height, 2 * height)
    assert float(angles.double().sum()) * 2 * height == pytest.approx(4 * math.pi, rel=1e-6)  # float32 rows


def test_solid_angle_of_the_polar_cap():
    # The first of three rows is a cap of 60 degrees around the pole: 2 pi (1 - cos 60).
    assert float(sphere.solid_angles(3, 6)[0, 0]) * 6 == pytest.approx(math.pi, rel=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 8), st.integers(0, 4))
def test_padding_is_what_the_rays_beyond_the_border_meet(height, pad):
    width, pad = 2 * height, min(pad, height)
    image = torch.arange(height * width).reshape(1, height, width)
    padded = sphere.pad_erp(image, pad)
    for i in range(-pad, height + pad):
        for j in range(-pad, width + pad):
            row, column = i, j
            if not 0 <= row < height:  # over the pole: mirrored, half a turn on
                row, column = (-1 - row if row < 0 else 2 * height - 1 - row), column + height
            assert padded[0, i + pad, j + pad] == image[0, row, column % width]


def test_padding_refuses_more_than_there_is():
    with pytest.raises(ShapeError, match="pad from 0 to 4 for 8x4, got 5"):
        sphere.pad_erp(torch.zeros(1, 4, 8), 5)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_sampling_at_pixel_centres_gives_the_pixels(mode):
    image = random(2, 6, 12)
    out = sphere.sample_erp(image, sphere.rays_to_erp(sphere.erp_rays(6, 12)), mode)
    assert torch.allclose(out.permute(2, 0, 1), image, atol=1e-5)  # 12 pixels times the rounding of u


def test_sampling_against_a_loop():
    height, width = 5, 10
    image = random(1, height, width, dtype=torch.float64)
    uv = random(200, 2, seed=1, dtype=torch.float64)
    padded = sphere.pad_erp(image, 1)[0].numpy()
    for (u, v), found in zip(uv.tolist(), sphere.sample_erp(image, uv)[:, 0].tolist(), strict=True):
        x, y = u * width + 0.5, v * height + 0.5
        i, j = int(y), int(x)
        a, b = y - i, x - j
        wanted = (1 - a) * ((1 - b) * padded[i, j] + b * padded[i, j + 1])
        wanted += a * ((1 - b) * padded[i + 1, j] + b * padded[i + 1, j + 1])
        assert found == pytest.approx(wanted, abs=1e-12)


def test_sampling_is_continuous_at_the_seam_and_over_the_poles():
    image = random(1, 8, 16, dtype=torch.float64)
    v = torch.linspace(0, 1, 33, dtype=torch.float64)
    seam = [sphere.sample_erp(image, torch.stack([torch.full_like(v, u), v], -1)) for u in (0.0, 1.0)]
    assert torch.allclose(*seam, atol=1e-12)
    u = torch.linspace(0, 1, 33, dtype=torch.float64)
    for pole in (0.0, 1.0):
        here = sphere.sample_erp(image, torch.stack([u, torch.full_like(u, pole)], -1))
        across = sphere.sample_erp(image, torch.stack([(u + 0.5) % 1, torch.full_like(u, pole)], -1))
        assert torch.allclose(here, across, atol=1e-12)


def test_sampling_passes_gradients():
    image = random(1, 4, 8, dtype=torch.float64).requires_grad_()
    rays = (random(6, 3, seed=2, dtype=torch.float64) - 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda i, r: sphere.sample_erp(i, sphere.rays_to_erp(r)), (image, rays))


@pytest.mark.parametrize(("old", "new"), [(8, 4), (9, 4), (7, 5), (8, 3)])
def test_shrinking_is_the_average_over_areas(old, new):
    image = random(1, old, 2 * old, dtype=torch.float64)
    fine = (
        image.repeat_interleave(new, -1).repeat_interleave(new, -2)[0].numpy()
    )  # each new pixel is old x old of these
    wanted = fine.reshape(new, old, 2 * new, old).mean((1, 3))
    found = sphere.resize_erp(image, new, 2 * new)[0].numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 12), st.integers(2, 24))
def test_resizing_keeps_constants_types_and_turns(old, new):
    for value in (torch.full((1, old, 2 * old), 0.3), torch.full((1, old, 2 * old), 200, dtype=torch.uint8)):
        out = sphere.resize_erp(value, new, 2 * new)
        assert out.shape == (1, new, 2 * new)
        assert out.dtype == value.dtype
        assert torch.allclose(out.double(), value[0, 0, 0].double(), atol=1e-6)
    # Half a turn of the world before or after is the same: the seam is no place of its own.
    image = random(2, old, 2 * old, dtype=torch.float64)
    turned = sphere.resize_erp(image.roll(old, -1), new, 2 * new)
    assert torch.allclose(turned, sphere.resize_erp(image, new, 2 * new).roll(new, -1), atol=1e-12)


def test_growing_is_sampling_at_the_new_centres():
    image = random(3, 5, 10)
    wanted = sphere.sample_erp(image, sphere.rays_to_erp(sphere.erp_rays(13, 26))).permute(2, 0, 1)
    assert torch.allclose(sphere.resize_erp(image, 13, 26), wanted, atol=1e-5)


def test_nearest_keeps_labels():
    labels = torch.arange(8, dtype=torch.int32).reshape(1, 2, 4)
    assert torch.equal(sphere.resize_erp(labels, 4, 8, "nearest")[0, ::2, ::2], labels[0])
    assert sphere.resize_erp(labels > 3, 1, 2, "nearest").dtype == torch.bool
    with pytest.raises(ValueError, match="expected mode bilinear or nearest, got 'cubic'"):
        sphere.resize_erp(labels, 4, 8, "cubic")


def test_filtering_against_a_loop():
    image = random(2, 6, 12, dtype=torch.float64)
    rows, columns = random(3, seed=1, dtype=torch.float64), random(5, seed=2, dtype=torch.float64)
    padded = sphere.pad_erp(image, 2)
    found = sphere.filter_erp(image, rows, columns)
    for i in range(6):
        for j in range(12):
            window = padded[:, i + 1 : i + 4, j : j + 5]
            wanted = torch.einsum("chw,h,w->c", window, rows, columns)
            assert torch.allclose(found[:, i, j], wanted, atol=1e-12)
    with pytest.raises(ShapeError, match="odd length, got 2 and 5"):
        sphere.filter_erp(image, rows[:2], columns)


def test_gaussian_is_normalized_and_as_wide_as_asked():
    kernel = sphere.gaussian(2.0).double()
    at = torch.arange(len(kernel)) - len(kernel) // 2
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-6)
    assert float((kernel * at**2).sum()) == pytest.approx(4, rel=0.05)  # cut at three sigma: 3 % of variance is lost
