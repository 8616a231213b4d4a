import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from immersivedepth.geometry import pinhole

angle = st.floats(-math.pi, math.pi)


def directions(count, seed=0):
    return torch.nn.functional.normalize(
        torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1
    )


def test_the_middle_looks_forward_and_the_corner_is_where_the_tangent_says():
    rays = pinhole.view_rays(torch.eye(3)[None], torch.tensor([2.0]), 4)
    # Pixel centres lie at -3/4, -1/4, 1/4, 3/4 of the half width.
    assert torch.equal(rays[0, 0, 3], torch.tensor([1.5, -1.5, 1.0]))
    assert torch.equal(rays[0, :, :, 2], torch.ones(4, 4))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0.2, 4), st.integers(1, 9))
def test_rays_come_back_to_their_pixels(seed, tan, resolution):
    rotation = pinhole.look_along(directions(1, seed)).double()
    rays = pinhole.view_rays(rotation, torch.tensor([tan]).double(), resolution)[0]
    xy, seen = pinhole.project_rays(3 * rays, rotation[0], tan)
    t = (torch.arange(resolution, dtype=torch.float64) + 0.5) / resolution * 2 - 1
    y, x = torch.meshgrid(t, t, indexing="ij")
    assert torch.allclose(xy, torch.stack([x, y], dim=-1), atol=1e-5)  # the rotation is float32
    assert seen.all()


def test_what_lies_behind_or_beside_is_not_seen():
    rays = torch.tensor([[0.0, 0, -1], [0, 0, 1], [1.01, 0, 1], [0.99, 0, 1], [0, -1.01, 1], [1, 0, 0]])
    _, seen = pinhole.project_rays(rays, torch.eye(3), 1.0)
    assert seen.tolist() == [False, True, False, True, False, False]


def test_views_are_level_rotations():
    forward = directions(200)
    rotation = pinhole.look_along(forward).double()
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).double().expand(200, 3, 3), atol=1e-6)  # float32
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(200).double(), atol=1e-6)
    assert torch.allclose(rotation[:, :, 2], forward, atol=1e-6)
    assert rotation[:, 2, 0].abs().max() < 1e-6  # right is horizontal
    assert (rotation[:, 2, 1] <= 0).all()  # down points down


def test_straight_up_and_down():
    up, down = pinhole.look_along(torch.tensor([[0.0, 0, 1], [0, 0, -1]]))
    # Columns: right is -y for both; up, the top of the image is towards -x, down, towards +x.
    assert torch.equal(up, torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]))
    assert torch.equal(down, torch.tensor([[0.0, -1, 0], [-1, 0, 0], [0, 0, -1]]))


def test_lengths_are_those_of_the_rays():
    tan = torch.tensor([0.7, 1.9])
    rays = pinhole.view_rays(pinhole.look_along(directions(2)), tan, 5)
    assert torch.allclose(pinhole.ray_lengths(tan, 5), rays.norm(dim=-1), atol=1e-6)


def test_gradients():
    rotation = pinhole.look_along(directions(1)).double().requires_grad_()
    tan = torch.tensor([1.2]).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda r, t: pinhole.view_rays(r, t, 3), (rotation, tan))
    rays = pinhole.view_rays(rotation, tan * 0.5, 3).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, r: pinhole.project_rays(x, r[0], 1.2)[0], (rays, rotation))


@pytest.mark.parametrize("resolution", [1, 2, 7])
def test_shapes(resolution):
    rays = pinhole.view_rays(pinhole.look_along(directions(3)), torch.ones(3), resolution)
    assert rays.shape == (3, resolution, resolution, 3)


def test_focal_length_width_and_field_of_view():
    """The original's helper printed f / 2 tan instead of 2 f tan, which gives 16 where 64 is right."""
    right = math.radians(90)
    assert pinhole.width_of(32, right) == pytest.approx(64)
    assert pinhole.focal_of(64, right) == pytest.approx(32)
    assert pinhole.cropped_to(100, right, math.radians(60)) == pytest.approx(100 * math.tan(math.radians(30)))


def test_an_apparent_way_moves_every_point_alike():
    """Points seen before and after the way, by any field of view, and the narrowed world by 90 degrees."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(50, 3, generator=generator, dtype=torch.float64) * 3 + torch.tensor([0.0, 0, 12])
    way = torch.tensor([0.4, -0.2, 0.7], dtype=torch.float64)
    for tangents in ([0.5, 0.5], [1.6, 0.9]):
        narrow = torch.tensor([*tangents, 1.0], dtype=torch.float64)
        apparent = pinhole.apparent_way(way, narrow[:2])
        for shift, other in ((0 * way, 0 * apparent), (way, apparent)):
            seen, found = points - shift, points / narrow - other
            assert torch.allclose(seen[:, :2] / seen[:, 2:] / narrow[:2], found[:, :2] / found[:, 2:])
            assert torch.allclose(seen[:, 2], found[:, 2])  # depth stays what it is
