"""Ways stay inside the room, and are as long and even as they say."""

import pytest
import torch

from immersivedepth.data.synthetic import make_world
from immersivedepth.geometry import sphere
from immersivedepth.render.paths import (
    CirclePoseSampler,
    DenseTravel,
    Orbit,
    along_ring,
    clearance,
    even_steps,
    inside,
    short_order,
)

SAMPLERS = [CirclePoseSampler((0.2, 0.4, 0.6, 0.85), 12), DenseTravel(poses=40), Orbit(0.6, 40)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_poses_stand_free_in_furnished_rooms(sampler, seed):
    world = make_world("room", seed=seed)
    distance = world.trace(sphere.erp_rays(128, 256)).distance[None]
    path = sampler(distance)
    room = world.clearance(world.position + path.positions @ world.rotation.T)
    assert room.min() > 0
    assert path.look.norm(dim=-1).sub(1).abs().max() < 1e-5


def test_clearance_of_a_cylinder_is_its_radius():
    height, width = 64, 128
    rays = sphere.erp_rays(height, width)
    distance = (2.0 / rays[..., :2].norm(dim=-1))[None]
    assert (clearance(distance) - 2.0).abs().max() < 1e-5


def test_rings_are_even_and_odd_rings_stand_between():
    distance = torch.full((1, 64, 128), 2.0)
    path = CirclePoseSampler((0.2, 0.4), 8)(distance)
    assert len(path) == 16
    first, second = path.positions[:8], path.positions[8:]
    steps = (first - first.roll(1, 0)).norm(dim=-1)
    assert steps.std() < 1e-3 * steps.mean()
    flat = clearance(distance).mean()
    assert (second.norm(dim=-1) - 0.4 * flat).abs().max() < 1e-3 * flat
    angle = torch.atan2(path.positions[:, 1], path.positions[:, 0])
    apart = (angle[:8] - angle[8:]).remainder(2 * torch.pi)
    assert (apart - torch.pi / 8).abs().max() < 0.01  # half of a step of 2 pi / 8


def test_a_ring_of_an_ellipse_has_even_steps():
    angle = sphere.longitudes(256).float()
    radius = 1 / ((angle.cos() / 3) ** 2 + angle.sin() ** 2).sqrt()
    ring = along_ring(radius, 24, 0.0)
    steps = (ring - ring.roll(1, 0)).norm(dim=-1)
    # Chords are shorter than arcs where the curve bends most: by 1 / 24 of their square over the radius of 1/3.
    assert steps.max() / steps.min() < 1.05


def test_positions_beyond_a_wall_are_drawn_back():
    distance = torch.full((1, 32, 64), 1.0)
    moved = inside(torch.tensor([[3.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]), distance)
    assert torch.allclose(moved, torch.tensor([[0.9, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]))


def test_short_order_finds_a_line():
    points = torch.tensor([[3.0, 0, 0], [0, 0, 0], [4, 0, 0], [1, 0, 0], [2, 0, 0]])
    way = points[short_order(points, 0)]
    assert way.diff(dim=0).norm(dim=-1).sum() == 4
    assert torch.allclose(even_steps(way, 9).diff(dim=0).norm(dim=-1), torch.full((8,), 0.5))


def test_a_dense_way_is_smooth_and_repeatable():
    world = make_world("room", seed=1)
    distance = world.trace(sphere.erp_rays(64, 128)).distance[None]
    one, two = DenseTravel(poses=180)(distance), DenseTravel(poses=180)(distance)
    assert torch.equal(one.positions, two.positions)
    assert len(one) == 180
    steps = one.positions.diff(dim=0).norm(dim=-1)
    assert steps.max() < 0.05 * distance.median()


@pytest.mark.parametrize("kind", ["panorama", "perspective"])
def test_poses_turn_cameras(kind):
    path = Orbit(poses=5)(torch.full((1, 32, 64), 2.0))
    for pose, look in zip(path.poses(kind), path.look, strict=True):
        level = kind == "panorama"
        ahead, wanted = ([1.0, 0, 0], torch.tensor([1.0, 0, 0])) if level else ([0.0, 0, 1], look)
        assert torch.allclose(pose.rotation @ torch.tensor(ahead), wanted, atol=1e-6)
