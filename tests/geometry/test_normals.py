import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from immersivedepth.geometry import sphere
from immersivedepth.geometry.normals import local_axes, normals_from_distance, to_local, to_world


def degrees(found, wanted):  # [3, H, W] twice -> [H, W]
    # By the chord: acos of a dot product near one has lost half of its digits.
    return torch.rad2deg(2 * torch.asin(((found - wanted).norm(dim=0) / 2).clamp(max=1)))


def plane(height, normal, offset=1.5):
    rays = sphere.erp_rays(height, 2 * height)
    cosine = rays @ normal
    return torch.where(cosine > 0.1, offset / cosine, 0.0)[None], cosine


@settings(deadline=None, max_examples=25)
@given(st.integers(16, 80), st.floats(-math.pi, math.pi), st.floats(-math.pi / 2, math.pi / 2))
def test_planes_are_exact_in_every_direction(height, longitude, latitude):
    normal = sphere.grid_rays(torch.tensor([latitude]).double(), torch.tensor([longitude]).double())[0, 0]
    distance, cosine = plane(height, normal)
    found = normals_from_distance(distance)
    # Inside of the plane's own border, poles and seam included: float32 points, no error of the method.
    inner = cosine > 0.1 + 4 * math.pi / height
    assert degrees(found, -normal[:, None, None])[inner].max() < 0.01


def test_rounding_at_the_poles_of_a_large_panorama():
    distance, cosine = plane(512, torch.tensor([0.0, 0, 1]))
    # Neighbouring columns of the first row are 2e-5 apart; differences of those would be 0.3 degrees wrong.
    assert (
        degrees(normals_from_distance(distance), torch.tensor([0.0, 0, -1])[:, None, None])[cosine > 0.2].max() < 0.005
    )


def test_spheres_converge_with_the_square_of_the_pixel():
    centre, radius = torch.tensor([0.5, 0.2, -0.4]), 2.0
    mean = []
    for height in (32, 64):
        rays = sphere.erp_rays(height, 2 * height)
        along = rays @ centre
        distance = along + (along.square() + radius**2 - centre @ centre).sqrt()
        wanted = -(rays * distance[..., None] - centre).permute(2, 0, 1) / radius
        error = degrees(normals_from_distance(distance[None]), wanted)
        assert error.max() < 0.2
        mean.append(float(error.mean()))
    assert mean[1] < mean[0] / 3.5


def test_a_depth_edge_stays_sharp():
    # A wall ahead, and in front of its left half a nearer one.
    distance, cosine = plane(64, torch.tensor([1.0, 0, 0]))
    distance[..., :60] *= 0.5
    found = normals_from_distance(distance)
    assert degrees(found, torch.tensor([-1.0, 0, 0])[:, None, None])[cosine > 0.25].max() < 0.1


def test_nothing_known_has_no_normal():
    distance = torch.full((1, 8, 16), 2.0)
    distance[0, 3, 5], distance[0, 4, 9] = 0, torch.inf
    found = normals_from_distance(distance)
    assert found.isfinite().all()
    assert found[:, 3, 5].tolist() == [0, 0, 0] == found[:, 4, 9].tolist()
    known = torch.ones(8, 16, dtype=torch.bool)
    known[3, 5] = known[4, 9] = False
    # The neighbours of a hole use the side that is left, a pixel from the middle: half a pixel of 22 degrees off.
    wanted = -sphere.erp_rays(8, 16).permute(2, 0, 1)
    assert degrees(found, wanted)[known].max() < 12
    assert normals_from_distance(torch.zeros(1, 8, 16)).abs().max() == 0


def test_normals_turn_with_the_world():
    distance = torch.rand(1, 12, 24, generator=torch.Generator().manual_seed(0)) + 1
    turn = sphere.longitudes(24)[0] - sphere.longitudes(24)[6]  # a quarter to the left
    rotation = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert float(turn) == pytest.approx(math.pi / 2)
    turned = normals_from_distance(distance.roll(-6, -1))
    wanted = torch.einsum("ij,jhw->ihw", rotation, normals_from_distance(distance).roll(-6, -1))
    # Near-degenerate random pixels amplify the rounding of the rays.
    assert torch.allclose(turned, wanted, atol=1e-4)


def test_they_face_the_camera_and_are_unit():
    distance = torch.rand(1, 20, 40, generator=torch.Generator().manual_seed(1)) + 1
    found = normals_from_distance(distance)
    assert ((found * sphere.erp_rays(20, 40).permute(2, 0, 1)).sum(0) <= 0).all()
    assert torch.allclose(found.norm(dim=0), torch.ones(20, 40), atol=1e-5)


def test_gradients():
    # How much either neighbour counts is held fixed; around equal distances that is also exact.
    distance = torch.full((1, 4, 8), 1.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(normals_from_distance, (distance,))


def test_local_axes_are_right_down_and_away():
    axes = local_axes(32)
    flat = axes.permute(2, 3, 0, 1)
    torch.testing.assert_close(flat @ flat.mT, torch.eye(3).expand(32, 64, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(flat), torch.ones(32, 64))  # right x down = away
    rays = sphere.erp_rays(32, 64).movedim(-1, 0)
    torch.testing.assert_close(axes[2], rays)
    # A step to the right in the picture goes right, one down goes down.
    assert ((rays.roll(-1, -1) - rays) * axes[0]).sum(0).min() > 0
    assert ((rays[:, 1:] - rays[:, :-1]) * axes[1][:, 1:]).sum(0).min() > 0


def test_local_and_world_are_inverse_and_turning_only_shifts_local_ones():
    normal = torch.nn.functional.normalize(torch.randn(2, 3, 16, 32, generator=torch.Generator().manual_seed(0)), dim=1)
    local = to_local(normal)
    torch.testing.assert_close(to_world(local), normal)
    # A quarter turn about the vertical: world +x becomes +y.
    quarter = torch.stack([-normal[:, 1], normal[:, 0], normal[:, 2]], 1).roll(-8, -1)
    torch.testing.assert_close(to_local(quarter), local.roll(-8, -1), atol=1e-5, rtol=1e-5)
