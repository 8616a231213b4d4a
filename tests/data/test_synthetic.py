"""Synthetic worlds against closed forms, a marching reference, brute force, and themselves."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from importlib.resources import files

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from immersivedepth.checks import ConfigError, InputError, ShapeError
from immersivedepth.data.synthetic import (
    KINDS,
    STYLES,
    World,
    erp_maps,
    load_world,
    make_world,
    render_batch,
    render_erp,
    render_pinhole,
    render_rig,
    shapes,
    standing_places,
    trace_batch,
    tracing,
)
from immersivedepth.data.synthetic.builder import Builder, Draw, Material
from immersivedepth.data.synthetic.render import _erp_rays
from immersivedepth.data.synthetic.shading import jitter
from immersivedepth.data.synthetic.textures import Spots, Texture, hashed, noise, paint
from immersivedepth.geometry.pinhole import look_along, view_rays
from immersivedepth.geometry.sphere import erp_rays
from immersivedepth.scene import Rig

Inside = Callable[[NDArray[np.float64]], NDArray[np.bool_]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors: threads only cost here."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def world_of(fill: Callable[[Builder], object]) -> World:
    """A world that holds what `fill` builds, the camera at the origin."""
    build = Builder(Draw("test"))
    fill(build)
    build.sky(zenith=(0.2, 0.3, 0.6), horizon=(0.6, 0.6, 0.6), above=(0.3, 0.3, 0.3), below=(0.2, 0.2, 0.2))
    return World(build.tables(), torch.zeros(3), torch.eye(3), {"kind": "test"})


def random_rays(count: int, seed: int) -> Tensor:
    rays = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return rays / rays.norm(dim=-1, keepdim=True)


# One solid of each kind at a random pose, built and, independently, as a test for points of being inside.


def turned(angles: tuple[float, float, float]) -> NDArray[np.float64]:
    """Yaw about z, times pitch about y, times roll about x."""
    yaw, pitch, roll = angles
    c, s = math.cos, math.sin
    about_z = np.array([[c(yaw), -s(yaw), 0], [s(yaw), c(yaw), 0], [0, 0, 1]])
    about_y = np.array([[c(pitch), 0, s(pitch)], [0, 1, 0], [-s(pitch), 0, c(pitch)]])
    about_x = np.array([[1, 0, 0], [0, c(roll), -s(roll)], [0, s(roll), c(roll)]])
    return about_z @ about_y @ about_x


def some_box(build: Builder, rng: random.Random) -> Inside:
    centre, size, angles = place(rng), tuple(rng.uniform(0.4, 2.0) for _ in range(3)), pose(rng)
    build.box(centre, size, Material(), yaw=angles[0], pitch=angles[1], roll=angles[2])  # type: ignore[arg-type]
    turn, half = turned(angles), np.array(size) / 2
    return lambda p: (np.abs((p - np.array(centre)) @ turn) <= half).all(-1)


def some_roof(build: Builder, rng: random.Random) -> Inside:
    centre, size, yaw = place(rng), tuple(rng.uniform(0.8, 2.0) for _ in range(3)), rng.uniform(0, 6)
    build.box(centre, size, Material(), yaw=yaw, diamond=True)  # type: ignore[arg-type]
    turn, half = turned((yaw, 0, 0)), np.array(size) / 2

    def inside(p: NDArray[np.float64]) -> NDArray[np.bool_]:
        q = np.abs((p - np.array(centre)) @ turn) / half
        return (q[..., 0] <= 1) & (q[..., 1] + q[..., 2] <= 1)

    return inside


def some_ball(build: Builder, rng: random.Random) -> Inside:
    centre, radii, yaw = place(rng), tuple(rng.uniform(0.3, 1.2) for _ in range(3)), rng.uniform(0, 6)
    build.ball(centre, radii, Material(), yaw=yaw)  # type: ignore[arg-type]
    turn = turned((yaw, 0, 0))
    return lambda p: (((p - np.array(centre)) @ turn / np.array(radii)) ** 2).sum(-1) <= 1


def some_frustum(build: Builder, rng: random.Random) -> Inside:
    base, low, high = place(rng), rng.uniform(0.3, 0.9), rng.choice((None, 0.0, 0.2, 1.1))
    height, angles = rng.uniform(0.5, 2.0), pose(rng)
    build.frustum(base, low, height, Material(), top=high, yaw=angles[0], pitch=angles[1], roll=angles[2])
    turn, top = turned(angles), low if high is None else high

    def inside(p: NDArray[np.float64]) -> NDArray[np.bool_]:
        q = (p - np.array(base)) @ turn
        share = q[..., 2] / height
        return (share >= 0) & (share <= 1) & (np.hypot(q[..., 0], q[..., 1]) <= low + (top - low) * share)

    return inside


def place(rng: random.Random) -> tuple[float, float, float]:
    """Two and a half to five metres away, so that the origin is in nothing."""
    v = np.array([rng.gauss(0, 1) for _ in range(3)])
    x, y, z = (rng.uniform(2.5, 5) * v / np.linalg.norm(v)).tolist()
    return x, y, z


def pose(rng: random.Random) -> tuple[float, float, float]:
    return rng.uniform(0, 6), rng.uniform(-1, 1), rng.uniform(-1, 1)


def marched(inside: Inside, rays: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slow reference: walk along rays until a point is inside, then halve the step; and how long they stay inside."""
    steps = np.arange(0, 9, 0.004)
    entry, chord = np.full(len(rays), np.inf), np.zeros(len(rays))
    for i, ray in enumerate(rays):
        within = inside(steps[:, None] * ray)
        chord[i] = within.sum() * 0.004
        if within.any():
            high = steps[within.argmax()]
            low = high - 0.004
            for _ in range(30):
                middle = (low + high) / 2
                low, high = (low, middle) if inside(middle * ray) else (middle, high)
            entry[i] = high
    return entry, chord


@pytest.mark.parametrize("make", [some_box, some_roof, some_ball, some_frustum])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_solids_are_where_marching_finds_them(make: Callable[[Builder, random.Random], Inside], seed: int) -> None:
    rng, found = random.Random(seed), []
    world = world_of(lambda build: found.append(make(build, rng)))
    centre = world.tables.rows[0, 0, shapes.CENTRE]
    rays = centre / centre.norm() + 0.25 * random_rays(200, seed)
    rays = rays / rays.norm(dim=-1, keepdim=True)
    hits = world.trace(rays)
    entry, chord = marched(found[0], rays.double().numpy())
    assert np.isfinite(entry).sum() > 20
    traced = hits.distance.double().numpy()
    misses = np.isinf(traced) != np.isinf(entry)
    assert not (misses & (chord > 0.02)).any()
    assert misses.sum() <= 4  # of 200: what is only grazed the walk may step over
    both = np.isfinite(traced) & np.isfinite(entry) & (chord > 0.02)
    # Float32 at five metres: one part in 1e7 of it, times ten for the slopes of grazed surfaces.
    assert np.abs(traced[both] - entry[both]).max() < 3e-5


def test_sphere_from_any_place_inside() -> None:
    world = make_world("sphere", radius=2.0)
    rays = random_rays(5000, 0) * 3  # any length
    assert torch.allclose(world.trace(rays).distance, torch.tensor(2.0), rtol=1e-6)
    moved = world.at([0.5, -0.7, 1.1])
    unit = rays.double() / 3
    b = unit @ torch.tensor([0.5, -0.7, 1.1], dtype=torch.float64)
    expected = -b + (b * b + 4 - (0.25 + 0.49 + 1.21)).sqrt()
    hits = moved.trace(rays)
    assert torch.allclose(hits.distance.double(), expected, rtol=3e-6)
    points = torch.tensor([0.5, -0.7, 1.1], dtype=torch.float64) + expected[:, None] * unit
    assert torch.allclose(hits.normal.double(), -points / 2, atol=3e-6)


def test_cube_room_is_its_closed_form() -> None:
    half = torch.tensor([2.0, 3.0, 1.5])
    world = make_world("cube_room", half=half.tolist())
    rays = erp_rays(64, 128)
    along = half / rays.abs().clamp_min(1e-12)
    hits = world.trace(rays)
    assert torch.allclose(hits.distance, along.amin(-1), rtol=1e-6)
    # At the edges two walls are equally near and either normal is right.
    two = along.sort(dim=-1).values
    clear = two[..., 1] - two[..., 0] > 1e-4
    wall = -torch.nn.functional.one_hot(along.argmin(-1), 3) * rays.sign()
    assert torch.equal(hits.normal[clear], wall[clear])
    assert not hits.sky.any()
    assert (hits.instance == 1).all()


def test_plane_disc_cylinder_and_cone_in_closed_form() -> None:
    world = world_of(lambda b: b.disc((0, 0, -1.6), math.inf, Material()))
    rays = torch.tensor([[1.0, 0, -1], [0, 0, -1], [1, 0, 0.1], [1, 0, 0], [3, 0, -0.01]])
    assert torch.allclose(
        world.trace(rays).distance,
        torch.tensor([1.6 * 2**0.5, 1.6, math.inf, math.inf, 160 * (9 + 1e-4) ** 0.5]),
        rtol=1e-6,
    )
    disc = world_of(lambda b: b.disc((0, 0, 2), 0.5, Material()))
    rays = torch.tensor([[0.2499, 0, 1], [0.2501, 0, 1], [0, -0.1, 1]])
    assert disc.trace(rays).sky.tolist() == [False, True, False]
    assert torch.allclose(disc.trace(rays).normal[0], torch.tensor([0.0, 0, -1]))  # from below it looks down
    post = world_of(lambda b: b.frustum((3, 0, -2), 0.5, 4.0, Material()))
    assert torch.allclose(
        post.trace(torch.tensor([[1.0, 0, 0], [1, 0, 0.5]])).distance, torch.tensor([2.5, 2.5 * 1.25**0.5])
    )
    cone = world_of(lambda b: b.frustum((3, 0, -1), 1.0, 2.0, Material(), top=0.0))
    # Half way up the radius is 0.5; the surface normal leans up by atan(1/2).
    hits = cone.trace(torch.tensor([[1.0, 0, 0]]))
    assert torch.allclose(hits.distance, torch.tensor([2.5]))
    assert torch.allclose(hits.normal, torch.tensor([[-2.0, 0, 1]]) / 5**0.5, atol=1e-6)
    # The mirror nappe above the tip is no part of it.
    assert cone.trace(torch.tensor([[3.0, 0, 1.2]])).sky.all()


@pytest.mark.parametrize(("kind", "seed"), [("room", 0), ("interior", 1), ("outdoor", 2), ("b1_hall", 3)])
def test_culling_never_changes_what_is_hit(kind: str, seed: int) -> None:
    world = make_world(kind, seed)
    rays = erp_rays(40, 80)
    hits = world.trace(rays)
    flat = (rays.reshape(-1, 3) / rays.reshape(-1, 3).norm(dim=-1, keepdim=True)).double() @ world.rotation.T.double()
    x, y, z = flat.float()[None].unbind(-1)
    best = torch.full((flat.shape[0],), math.inf)
    instance = torch.zeros(flat.shape[0], dtype=torch.int64)
    for number, (k, start, stop) in enumerate(world.tables.ranges()):
        rows = world.tables.rows[:, start:stop]
        t = shapes.cast(k, rows, shapes.local_origin(rows, world.position[None]), shapes.to_local(rows, x, y, z))
        t, index = t[0].min(0)
        better = (t < best) & (t < shapes.MISS)
        best = torch.where(better, t, best)
        instance = torch.where(better, rows[0, index, shapes.INSTANCE].long(), instance)
        assert number < 4
    sky = torch.isinf(best)
    assert torch.equal(sky, hits.sky.reshape(-1))
    # The rays were turned in another order, so that they differ in their last bit; edges may fall to either side.
    near = torch.isclose(best, hits.distance.reshape(-1), rtol=1e-4)
    assert near.float().mean() > 0.998
    assert (instance == hits.instance.reshape(-1)).float().mean() > 0.998


def test_work_sizes_never_change_a_bit_of_the_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world("room", 3)
    rays = erp_rays(60, 120)
    first = world.trace(rays, colour=True, width=0.05)
    monkeypatch.setitem(tracing._PAIRS, "cpu", 1 << 13)
    monkeypatch.setattr(tracing, "_SIDE", 13)
    monkeypatch.setattr(tracing, "_TILE", 200)
    again = world.trace(rays, colour=True, width=0.05)
    assert torch.equal(first.distance, again.distance)
    assert torch.equal(first.normal, again.normal)
    assert torch.equal(first.instance, again.instance)
    # Sines and powers are computed in vectors with a scalar rest, which may differ in the last bit.
    assert (first.colour - again.colour).abs().max() < 1e-4


def test_seeds_decide_everything_and_nothing_else_does() -> None:
    torch.manual_seed(5)
    random.seed(5)
    np_state = np.random.get_state()[1].copy()  # noqa: NPY002
    state, python = torch.get_rng_state(), random.getstate()
    for kind in ("room", "interior", "outdoor", "b1_room"):
        first, again, other = make_world(kind, 7), make_world(kind, 7), make_world(kind, 8)
        for a, b in ((first.tables.rows, again.tables.rows), (first.tables.lights, again.tables.lights)):
            assert torch.equal(a, b)
        assert torch.equal(first.position, again.position)
        rays = erp_rays(16, 32)
        assert torch.equal(first.trace(rays, colour=True).colour, again.trace(rays, colour=True).colour)
        assert not torch.equal(first.trace(rays).distance, other.trace(rays).distance)
    assert torch.equal(state, torch.get_rng_state())
    assert python == random.getstate()
    assert (np.random.get_state()[1] == np_state).all()  # noqa: NPY002


@pytest.mark.parametrize("kind", KINDS)
def test_recipes_survive_json(kind: str) -> None:
    options = {"cube_room": {"half": [1, 2, 3]}, "sphere": {"radius": 1.5}, "interior": {"rooms": 4}}.get(kind, {})
    world = make_world(kind, 11, **options)
    world = world.at(world.position + 0.1, look_along(torch.tensor([[1.0, 2.0, 0.3]]))[0])
    again = load_world(json.loads(json.dumps(world.recipe)))
    rays = erp_rays(12, 24)
    one, two = world.trace(rays, colour=True), again.trace(rays, colour=True)
    assert torch.equal(one.distance, two.distance)
    assert torch.equal(one.colour, two.colour)
    assert again.recipe == world.recipe


@pytest.mark.parametrize("kind", ["room", "interior", "outdoor"])
def test_normals_are_unit_face_the_camera_and_are_those_of_the_shape(kind: str) -> None:
    world = make_world(kind, 5)
    rays = erp_rays(48, 96)
    hits = world.trace(rays)
    seen = ~hits.sky
    assert torch.allclose(hits.normal[seen].norm(dim=-1), torch.tensor(1.0), atol=1e-5)
    assert ((hits.normal * rays).sum(-1)[seen] <= 1e-6).all()
    assert (hits.normal[hits.sky] == 0).all()
    assert (hits.instance[hits.sky] == 0).all()
    assert (hits.instance[seen] > 0).all()
    assert torch.equal(torch.isinf(hits.distance), hits.sky)
    # Two rays close by span the tangent plane, wherever they meet the same smooth surface.
    step = 1e-3
    across = torch.linalg.cross(rays, torch.tensor([0.31, 0.44, 0.84]).expand_as(rays))
    along = torch.linalg.cross(rays, across)
    point = hits.distance[..., None] * rays
    smooth = seen & (-(hits.normal * rays).sum(-1) > 0.1)
    slopes = []
    for shift in (across, along):
        beside = rays + step * shift / shift.norm(dim=-1, keepdim=True)
        beside = beside / beside.norm(dim=-1, keepdim=True)
        there = world.trace(beside)
        same = (there.instance == hits.instance) & ((there.normal * hits.normal).sum(-1) > 0.9999)
        # One object may have parallel faces behind each other.
        same &= (there.distance - hits.distance).abs() < 0.05 * hits.distance
        smooth &= same
        tangent = there.distance[..., None] * beside - point
        slopes.append((tangent * hits.normal).sum(-1).abs() / tangent.norm(dim=-1))
    assert smooth.float().mean() > 0.3
    slope = torch.stack(slopes).amax(0)[smooth]
    # Curved surfaces bend by step / radius; float32 points are 1e-7 of the distance over tangents of 1e-3 of it.
    # Parallel boards of one object right behind each other are left, a few in a thousand.
    assert (slope < 2e-2).float().mean() > 0.995
    assert slope.median() < 1e-3


def test_pinholes_know_depth_from_distance() -> None:
    world = make_world("room", 2)
    rig = Rig(look_along(random_rays(3, 1)), torch.tensor([1.0, 0.7, 1.3]), 24)
    maps = render_rig(world, rig)
    rays = view_rays(rig.rotation, rig.tan_half_fov, 24)
    assert maps.image is not None
    assert maps.depth is not None
    assert maps.image.shape == (3, 3, 24, 24)
    cosine = 1 / rays.norm(dim=-1)
    straight = world.trace(rays)
    # The same rays up to the last bit; at edges they may meet either side.
    assert torch.isclose(maps.distance[:, 0], straight.distance, rtol=1e-5).float().mean() > 0.995
    finite = torch.isfinite(maps.distance[:, 0])
    assert torch.allclose(maps.depth[:, 0][finite], (maps.distance[:, 0] * cosine)[finite], rtol=1e-5)
    assert torch.equal(torch.isinf(maps.depth), maps.sky)
    k = torch.tensor([[12 / 0.7, 0, 12.0], [0, 12 / 0.7, 12.0], [0, 0, 1]])
    single = render_pinhole(world, k, 24, 24, rig.rotation[1])
    assert torch.isclose(single.distance, maps.distance[1], rtol=1e-5).float().mean() > 0.995
    # A shifted principal point is a crop: the right half of the picture.
    right = k.clone()
    right[0, 2] -= 12
    half = render_pinhole(world, right, 24, 12, rig.rotation[1])
    assert half.image is not None
    assert half.image.shape == (3, 24, 12)
    assert torch.isclose(half.distance, single.distance[..., 12:], rtol=1e-5).float().mean() > 0.995


def test_the_view_axis_meets_a_wall_at_its_depth() -> None:
    world = make_world("cube_room", half=[2, 3, 1.5])
    maps = render_rig(world, Rig(look_along(torch.tensor([[1.0, 0, 0], [0, -1, 0]])), torch.tensor([0.5, 0.5]), 8))
    assert maps.depth is not None
    assert torch.allclose(maps.depth[0], torch.tensor(2.0), rtol=1e-6)  # a wall square to the axis: constant depth
    assert torch.allclose(maps.depth[1], torch.tensor(3.0), rtol=1e-6)
    assert maps.distance[0, 0, 0, 0] > 2.1


def test_panoramas_wrap_and_turn() -> None:
    assert torch.equal(_erp_rays(32, 64, 0.5, 0.5, torch.device("cpu")), erp_rays(32, 64))
    world = make_world("room", 4)
    yaw = 2 * math.pi * 16 / 64  # sixteen columns to the left
    turn = torch.tensor([[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]])
    one, two = erp_maps(world, 32, 64), erp_maps(world.at(world.position, world.rotation @ turn), 32, 64)
    assert one.image is not None
    assert two.image is not None
    # Turned rays differ in the last bit, which matters only to pixels exactly on an edge.
    assert torch.isclose(one.distance.roll(16, -1), two.distance, rtol=1e-4).float().mean() > 0.995
    assert ((one.image.roll(16, -1) - two.image).abs().amax(0) < 0.01).float().mean() > 0.98
    # Left and right border are neighbours like any others.
    jump = (one.image[..., 0] - one.image[..., -1]).abs().mean()
    usual = (one.image[..., 1:] - one.image[..., :-1]).abs().mean()
    assert jump < 4 * usual


def test_moving_the_camera_keeps_the_world_in_place() -> None:
    world = make_world("b1_room", 0)
    rays = erp_rays(24, 48)
    points = world.position + (world.trace(rays).distance[..., None] * rays) @ world.rotation.T
    moved = world.at(world.position + torch.tensor([0.2, -0.1, 0.1]), torch.eye(3))
    back = points - moved.position
    seen = moved.trace(back).distance
    # Everything seen before is at most hidden by something nearer, never further away.
    assert (seen <= back.norm(dim=-1) * (1 + 1e-4)).all()
    assert torch.isclose(seen, back.norm(dim=-1), rtol=1e-4).float().mean() > 0.8


def test_shadows_fall_behind_what_stands_in_the_light() -> None:
    white = Material((0.7, 0.7, 0.7))

    def scene(blocker: bool, sun: bool) -> World:
        def fill(build: Builder) -> None:
            build.disc((0, 0, -1), math.inf, white)
            if blocker:
                build.box((4, 0, 0.5), (0.6, 0.6, 0.1), white)
            if sun:
                build.sun(0.0, math.pi / 2 - 1e-3, (1.5, 1.5, 1.5))
            else:
                build.light((4, 0, 2), (8, 8, 8))

        return world_of(fill)

    below, beside = torch.tensor([[4.0, 0, -1]]), torch.tensor([[2.0, 2.0, -1]])
    for sun in (False, True):
        free, hidden = scene(False, sun), scene(True, sun)
        lit, dark = (w.trace(below, colour=True).colour for w in (free, hidden))
        assert (dark < 0.75 * lit).all()
        same = [w.trace(beside, colour=True).colour for w in (free, hidden)]
        assert torch.allclose(same[0], same[1], atol=1e-6)


def test_corners_are_darker_than_walls() -> None:
    world = world_of(lambda b: b.box((0, 0, 0), (4, 4, 4), Material((0.6, 0.6, 0.6)), hollow=True))
    colour = world.trace(torch.tensor([[1.0, 0.3, 0.0], [1.0, 0.98, 0.0]]), colour=True).colour
    assert colour is not None
    assert (colour[1] < 0.9 * colour[0]).all()


def test_clearance_is_the_distance_to_the_nearest_surface() -> None:
    cube = make_world("cube_room", half=[2, 3, 1.5])
    assert torch.allclose(
        cube.clearance(torch.tensor([[0.0, 0, 0], [1.9, 0, 0], [0, 0, 5]])), torch.tensor([1.5, 0.1, -3.5])
    )
    ball = make_world("sphere", radius=2.0)
    assert torch.allclose(ball.clearance(torch.tensor([[0.0, 0, 0], [0, 1.5, 0]])), torch.tensor([2.0, 0.5]), atol=1e-5)
    rays = random_rays(60000, 2)[None].reshape(1, 200, 300, 3)
    for kind, seed in (("room", 1), ("b1_room", 2), ("outdoor", 3)):
        world = make_world(kind, seed)
        nearest = world.trace(rays).distance.amin()
        clear = world.clearance(world.position)
        # Sixty thousand rays are about a degree apart and come close to the nearest point; ellipsoids are approximate.
        assert 0.9 * nearest <= clear <= 1.02 * nearest
    solid = world_of(lambda b: b.box((0, 0, 0), (2, 2, 2), Material()))
    assert solid.clearance(torch.zeros(3)) == -1


def test_batches_are_their_single_worlds() -> None:
    worlds = [make_world("room", 0), make_world("outdoor", 1), make_world("b1_room", 2), make_world("interior", 3)]
    rays = torch.stack([random_rays(30 * 20, i).reshape(30, 20, 3) for i in range(4)])
    batch = trace_batch(worlds, rays, colour=True, width=0.01)
    for i, world in enumerate(worlds):
        single = world.trace(rays[i], colour=True, width=0.01)
        assert torch.equal(batch.distance[i], single.distance)
        assert torch.equal(batch.normal[i], single.normal)
        assert torch.equal(batch.instance[i], single.instance)
        assert torch.equal(batch.sky[i], single.sky)
        assert (batch.colour[i] - single.colour).abs().max() < 1e-4  # last bits of sines, through textures
    turn, spread = look_along(random_rays(4, 9)), torch.tensor([0.5, 1.0, 1.0, 0.8])
    maps = render_batch(worlds, turn, spread, 16)
    for i, world in enumerate(worlds):
        one = render_rig(world, Rig(turn[i : i + 1], spread[i : i + 1], 16))
        assert torch.isclose(maps.distance[i], one.distance[0], rtol=1e-5).float().mean() > 0.99
        assert ((maps.image[i] - one.image[0]).abs() < 1e-3).float().mean() > 0.99


@pytest.mark.parametrize(("kind", "count"), [("room", 60), ("interior", 30), ("outdoor", 40), ("b1_corridor", 20)])
def test_many_seeds_make_sound_worlds(kind: str, count: int) -> None:
    rays = erp_rays(16, 32)
    medians = []
    for seed in range(1000, 1000 + count):
        world = make_world(kind, seed)
        hits = world.trace(rays)
        assert world.clearance(world.position) >= 0.3, (kind, seed)
        assert hits.distance.min() >= 0.29, (kind, seed)
        if world.closed:
            assert not hits.sky.any(), (kind, seed)
        if kind == "outdoor":
            assert 0.2 < hits.sky.float().mean() < 0.6, (kind, seed)
            assert hits.instance.unique().numel() > 6, (kind, seed)
        finite = hits.distance[torch.isfinite(hits.distance)]
        assert finite.max() < (60 if world.closed else 2e5)
        assert world.tables.rows.isfinite().all()
        assert hits.instance.unique().numel() >= 2, (kind, seed)
        medians.append(round(float(finite.median()), 4))
    assert len(set(medians)) >= count - 1
    if kind == "room":
        assert 1.0 < float(np.median(medians)) < 4.0


def test_closed_and_open_rooms_both_occur_and_styles_are_kept() -> None:
    worlds = [make_world("room", seed) for seed in range(30)]
    assert {w.closed for w in worlds} == {True, False}
    assert len({w.about["style"] for w in worlds}) >= 6
    for kind, names in STYLES.items():
        pictures = []
        for style in names:
            world = make_world(kind, 3, style=style)
            assert world.recipe["style"] == style
            pictures.append(world.trace(erp_rays(8, 16), colour=True).colour)
        spread = torch.stack(pictures).std(0).mean()
        assert spread > 0.03  # they do not look alike


def test_places_to_stand_are_free_and_different() -> None:
    world = make_world("interior", 2)
    places = standing_places(world, 0, 8)
    assert (world.clearance(places) >= 0.3).all()
    assert torch.equal(places, standing_places(world, 0, 8))
    assert (torch.cdist(places, places) + torch.eye(8)).min() > 0.01


@pytest.mark.parametrize("texture", list(Texture))
def test_textures_are_colours_and_fade_to_one(texture: Texture) -> None:
    count = 4000
    generator = torch.Generator().manual_seed(int(texture))
    flat = (torch.rand(count, 2, generator=generator) - 0.5) * 6

    def spots(width: float) -> Spots:
        ones = torch.ones(count)
        return Spots(
            solid=torch.cat([flat, 0.3 * torch.ones(count, 1)], -1),
            flat=flat, unit=flat / 3, extent=3 * torch.ones(count, 2),
            a=torch.tensor([0.7, 0.5, 0.3]).expand(count, 3), b=torch.tensor([0.2, 0.3, 0.4]).expand(count, 3),
            c=torch.tensor([0.1, 0.6, 0.1]).expand(count, 3),
            scale=0.3 * ones, aspect=1.5 * ones, seed=12.3 * ones, width=width * ones,
        )  # fmt: skip

    fine, coarse = paint(texture, spots(0.0)), paint(texture, spots(2.0))
    assert fine.shape == (count, 3)
    assert fine.isfinite().all()
    assert fine.min() >= 0
    assert fine.max() <= 1.2
    if texture in (Texture.PLAIN,):
        assert fine.std(0).max() == 0
        return
    assert fine.std(0).max() > 0.01
    if texture in (Texture.CARPET, Texture.PAINTING, Texture.BOOKS, Texture.ROAD, Texture.FACADE):
        return  # large features that two metres cannot blur away
    # What cannot be resolved has nearly the mean colour of what can.
    assert coarse.std(0).max() < 0.35 * fine.std(0).max() + 0.02
    assert (coarse.mean(0) - fine.mean(0)).abs().max() < 0.07


def test_noise_is_smooth_bounded_and_repeatable() -> None:
    p = (torch.rand(20000, 3, generator=torch.Generator().manual_seed(0)) - 0.5) * 200
    value = noise(p)
    assert value.min() >= 0
    assert value.max() <= 1
    assert (value.mean(0) - 0.5).abs().max() < 0.02
    # Smoothstep between cells rises by at most 1.5 per unit and axis.
    assert (noise(p + 1e-3) - value).abs().max() < 3 * 1.5 * 1e-3 * 1.1 + 1e-4  # float32 at 100: 1e-5, times slope
    cells = torch.arange(40000).reshape(200, 200)
    chance = hashed(cells // 200 - 100, cells % 200, torch.tensor(3.0))
    assert 0.49 < chance.mean() < 0.51
    assert (chance.std() - 12**-0.5).abs() < 0.01
    assert len(chance.unique()) > 39900


def test_supersampling_is_the_mean_over_rays_and_lamp_places() -> None:
    assert jitter(0) == (0.0, 0.0)
    places = torch.tensor([jitter(i) for i in range(64)])
    assert places.abs().max() <= 1
    assert (places.mean(0)).abs().max() < 0.05
    world = make_world("b1_room", 1)
    picture = render_erp(world, 12, 24, supersample=2)
    assert picture.truth is world
    total = torch.zeros(12, 24, 3)
    for k, (dy, dx) in enumerate([(0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)]):
        rays = _erp_rays(12, 24, dy, dx, torch.device("cpu"))
        colour = world.trace(rays, colour=True, width=math.pi / 24, sample=k).colour
        assert colour is not None
        total += colour
    assert torch.allclose(picture.image, total.movedim(-1, 0) / 4, atol=1e-6)
    assert picture.image.min() >= 0
    assert picture.image.max() <= 1
    with pytest.raises(ShapeError, match="width = 2"):
        render_erp(world, 12, 25)


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="kind: expected one of room"):
        make_world("castle")
    with pytest.raises(ConfigError, match="style: expected one of nordic"):
        make_world("room", style="gothic")
    with pytest.raises(ConfigError, match="rooms: expected no option"):
        make_world("room", rooms=3)
    with pytest.raises(InputError, match="expected a key 'kind'"):
        load_world({"seed": 3})
    world = make_world("sphere")
    with pytest.raises(ShapeError, match=r"expected \[..., 3\]"):
        world.trace(torch.zeros(4, 2))
    with pytest.raises(InputError, match="at least one ray"):
        world.trace(torch.zeros(0, 3))
    with pytest.raises(ShapeError, match="2 worlds"):
        trace_batch([world, world], torch.zeros(3, 4, 3))


def test_rays_of_any_shape_come_back_in_it() -> None:
    world = make_world("b1_room", 0)
    rays = random_rays(2 * 3 * 5 * 7, 0)
    whole = world.trace(rays)
    assert whole.distance.shape == (210,)
    for shape in ((2, 3, 5, 7), (6, 35), (210,)):
        hits = world.trace(rays.reshape(*shape, 3))
        assert hits.distance.shape == shape
        assert hits.normal.shape == (*shape, 3)
        assert torch.equal(hits.distance.reshape(-1), whole.distance)
    assert world.trace(rays[0]).distance.shape == ()
    assert world.trace(rays[0]).distance == whole.distance[0]


def test_the_shipped_room_is_its_recipe() -> None:
    import cv2

    folder = files("immersivedepth").joinpath("assets")
    world = load_world(json.loads(folder.joinpath("room.world.json").read_text()))
    data = np.frombuffer(folder.joinpath("room.png").read_bytes(), np.uint8)
    image = torch.from_numpy(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].copy())
    height, width = image.shape[:2]
    assert (height, width) == (1024, 2048)
    rows, columns = torch.meshgrid(torch.arange(40, 1000, 90), torch.arange(30, 2048, 170), indexing="ij")
    side = 4  # rays along one side of a pixel
    total = torch.zeros(*rows.shape, 3)
    for k in range(side * side):
        dy, dx = (k // side + 0.5) / side, (k % side + 0.5) / side
        rays = _erp_rays(height, width, dy, dx, torch.device("cpu"))[rows, columns]
        colour = world.trace(rays, colour=True, width=math.pi / (height * side), sample=k).colour
        assert colour is not None
        total += colour
    error = (total / side**2 * 255 - image[rows, columns]).abs().amax(-1)
    # Rounding to eight bits, and one ray of sixteen that falls to the other side of an edge in another processor.
    assert (error <= 0.51).float().mean() > 0.95
    assert error.max() < 24


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_sees_the_same_world() -> None:
    for kind in ("room", "outdoor"):
        world = make_world(kind, 0)
        rays = erp_rays(128, 256)
        here, there = (
            world.trace(rays, colour=True, width=0.02),
            world.to("cuda").trace(rays.cuda(), colour=True, width=0.02),
        )
        assert torch.isclose(here.distance, there.distance.cpu(), rtol=1e-4).float().mean() > 0.999
        assert (here.instance == there.instance.cpu()).float().mean() > 0.999
        assert ((here.colour - there.colour.cpu()).abs().amax(-1) < 0.01).float().mean() > 0.99
