"""The network that mends whole panoramas."""

import pytest
import torch

from immersivedepth.geometry import sphere
from immersivedepth.geometry.normals import to_world
from immersivedepth.nets.whole_sphere import FARTHEST, NEAREST, WholeSphere, described, log_distance, scale_of


def _given(height=64):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, height, 2 * height, generator=generator)
    distance = 1 + 5 * torch.rand(2, 1, height, 2 * height, generator=generator)
    distance[..., :8, 10:20], distance[..., 40:44, :9] = torch.inf, 0
    return described(image, distance, 0.1 * torch.rand(distance.shape, generator=generator)), distance


def _taught():
    """One whose last layer says something."""
    torch.manual_seed(0)
    net = WholeSphere().eval()
    torch.nn.init.normal_(net.last.weight, std=0.05)
    return net


@torch.no_grad()
def test_before_it_has_learnt_it_gives_back_what_it_is_given():
    torch.manual_seed(0)
    given, distance = _given()
    log, sky, normal = WholeSphere()(given).split((1, 1, 3), 1)
    assert torch.allclose(log, log_distance(distance, scale_of(distance)))
    assert torch.equal(sky > 0, distance.isinf())
    rays = sphere.erp_rays(64, 128).movedim(-1, 0)
    torch.testing.assert_close(to_world(normal), -rays.expand(2, 3, 64, 128), atol=1e-5, rtol=0)


@torch.no_grad()
def test_it_knows_no_seam():
    given, _ = _given()
    net = _taught()
    there = net(given)
    assert (there - net(torch.zeros_like(given))).abs().max() > 0.1
    for columns in (32, 96):  # what its halvings keep
        torch.testing.assert_close(net(given.roll(columns, -1)), there.roll(columns, -1), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_it_looks_over_the_poles():
    """A change in the top row is seen half a turn around at once: below the pole both are neighbours."""
    given, _ = _given()
    net = _taught()
    other = given.clone()
    other[:, :3, 0, 0:4] += 1.0
    # Rows of the first level alone, whose filters reach a few pixels.
    stem = [net.down[0](net.stem(torch.nn.functional.pixel_unshuffle(x, 2))) for x in (given, other)]
    moved = (stem[0] - stem[1]).abs().amax((0, 1))
    mean = moved[20:28].mean()  # what the norm over all pixels makes of it
    assert moved[0, 0] > 20 * mean
    assert moved[0, 32] > 20 * mean


@torch.no_grad()
def test_the_scale_of_the_whole_is_kept():
    given, distance = _given()
    log = _taught()(given)[:, :1]
    known = distance.isfinite() & (distance > 0)
    area = sphere.solid_angles(64, 128).float() * known
    added = ((log - given[:, 3:4]) * area).sum((-3, -2, -1))
    assert added.abs().max() < 1e-3
    assert (log - given[:, 3:4]).abs().max() > 0.05


def test_what_it_is_given_does_not_change_with_the_unit_of_length():
    generator = torch.Generator().manual_seed(1)
    image, distance = torch.rand(1, 3, 32, 64, generator=generator), 1 + torch.rand(1, 1, 32, 64, generator=generator)
    spread = torch.zeros_like(distance)
    torch.testing.assert_close(described(image, distance, spread), described(image, 7 * distance, spread))
    assert float(scale_of(torch.full_like(distance, 3.0))) == pytest.approx(3.0, rel=1e-5)
    assert float(scale_of(torch.full_like(distance, torch.inf))) == 1.0


def test_logarithms_stay_within_bounds():
    distance = torch.tensor([0.0, 1e-9, 1.0, 1e9, torch.inf])
    found = log_distance(distance, torch.tensor(1.0))
    assert found.tolist() == [0.0, NEAREST, 0.0, FARTHEST, FARTHEST]
