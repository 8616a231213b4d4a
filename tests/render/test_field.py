"""Radiance fields: the shell and its march, what the pool teaches, and views against the truth."""

import math
from dataclasses import replace

import pytest
import torch

from immersivedepth.checks import ResourceError
from immersivedepth.data.synthetic import make_world
from immersivedepth.data.synthetic.render import erp_maps
from immersivedepth.geometry import sphere
from immersivedepth.render.field.hash import Hash
from immersivedepth.render.field.inpaint import NavierStokes, Nothing, Telea
from immersivedepth.render.field.pool import Known, Pool
from immersivedepth.render.field.shell import Shell, composed, distortion
from immersivedepth.render.field.splat import Splat
from immersivedepth.render.field.voxel import Voxel
from immersivedepth.render.paths import CirclePoseSampler
from immersivedepth.render.protocol import Camera, Pose, Scene

ROWS = 64
CAMERA = Camera("panorama", ROWS, 2 * ROWS)
HERE = Pose(torch.eye(3), torch.zeros(3))


def whole(image, distance):
    return Known.of(torch.zeros(3), image, distance, torch.ones_like(distance, dtype=torch.bool))


@pytest.fixture(scope="module")
def room():
    world = make_world("room", seed=1)
    return world, erp_maps(world, ROWS, 2 * ROWS, 1)


@pytest.fixture(scope="module")
def voxels(room):
    field = Voxel(ROWS).field()
    field.start(Pool([whole(room[1].image, room[1].distance)]))
    return field


def psnr(a, b, part):
    return float(-10 * (a - b).square().mean(0)[part[0]].mean().log10())


def test_corners_find_their_vertices_over_seam_and_poles():
    shell = Shell(16, 1.0, 2.0)
    shell.add(torch.arange(shell.index.numel()))
    flat = torch.tensor([3, 1000, 2500])
    number, weight = shell.corners(shell.vertex(flat) * 1.0000001)
    best = number.gather(1, weight.argmax(1, keepdim=True))[:, 0]
    assert torch.equal(best, shell.index.flatten()[flat].long())
    torch.testing.assert_close(weight.sum(1), torch.ones(3))
    near_pole = torch.tensor([[0.01, 0.02, 1.5], [-0.01, 1e-4, -1.5], [-1.5, 1e-4, 0.0]])
    number, weight = shell.corners(near_pole)
    found = shell.vertex(number.flatten() - 1).reshape(3, 8, 3)
    apart = (torch.einsum("nc,ncx->nx", weight, found) - near_pole).norm(dim=-1)
    assert (apart < 0.2).all()  # the vertices lie around the points, also beyond the pole and the seam


def test_steps_are_even_in_cells_and_miss_nothing():
    shell = Shell(32, 1.0, 4.0)
    rays = sphere.erp_rays(32, 64).flatten(0, 1)
    centre = (math.log(2.0) - shell.low) / shell.cell
    j, i = torch.meshgrid(torch.arange(32), torch.arange(64), indexing="ij")
    shell.add(shell.flat(i.flatten(), j.flatten(), torch.full((2048,), int(centre))))
    origin = torch.tensor([0.5, -0.3, 0.2]).expand_as(rays)
    samples = shell.march(origin, rays)
    assert samples.valid.any(1).all()
    base = (origin * rays).sum(-1)
    true = -base + (4 - origin.square().sum(-1) + base.square()).sqrt()  # to the sphere of radius 2
    gaps = torch.where(samples.valid, (samples.along - true[:, None]).abs(), torch.inf).amin(1)
    assert (gaps < 2 * shell.cell).all()
    points = origin[:, None] + samples.along[..., None] * rays[:, None]
    ahead = (points[:, 1:8] - points[:, :7]).norm(dim=-1) / points[:, :7].norm(dim=-1)
    assert (ahead / (shell.cell * 0.5) - 1).abs().max() < 0.05


def test_weights_and_spread():
    shell = Shell(16, 1.0, 2.0)
    shell.add(torch.arange(shell.index.numel()))
    rays = torch.tensor([[1.0, 0.0, 0.0]])
    samples = shell.march(torch.zeros(1, 3), rays)
    weights, left = composed(torch.full((len(samples.points),), 0.7), samples)
    torch.testing.assert_close(weights.sum() + left[0], torch.tensor(1.0))
    torch.testing.assert_close(left[0], torch.exp(-0.7 * samples.step[samples.valid].sum()))
    two = torch.tensor([[0.5, 0.5]])
    spread = distortion(two, torch.tensor([[1.0, math.e]]), 0.0)
    torch.testing.assert_close(spread, torch.tensor([0.5]))  # 2 * 0.5 * 0.5 * (log e - log 1)


def test_too_fine_a_grid_is_refused():
    with pytest.raises(ResourceError, match="rows"):
        Shell(2048, 0.1, 100.0)


def test_voxels_show_the_panorama_and_the_views_beside_it(room, voxels):
    world, source = room
    assert isinstance(voxels, Scene)
    own = voxels.render(HERE, CAMERA)
    assert psnr(own.image, source.image, own.seen) > 40
    pose = CirclePoseSampler((0.2,), 2)(source.distance).poses("panorama")[0]
    assert float(pose.position.norm()) < float(source.distance.min())
    true = erp_maps(world.at(world.position + world.rotation @ pose.position), ROWS, 2 * ROWS, 1)
    frame = voxels.render(pose, CAMERA)
    assert psnr(frame.image, true.image, frame.seen) > 22
    part = frame.seen & true.distance.isfinite()
    assert ((frame.distance - true.distance).abs() / true.distance)[part].median() < 0.01
    assert (frame.distance > 0).all()
    view = voxels.render(pose, Camera("perspective", 24, 32, 75.0))
    assert view.image.shape == (3, 24, 32)


def test_what_was_not_seen_is_left_open_on_request(room, voxels):
    pose = CirclePoseSampler((0.5,), 1)(room[1].distance).poses("panorama")[0]
    filled = voxels.render(pose, CAMERA)
    voxels.fill = "mark"
    try:
        marked = voxels.render(pose, CAMERA)
    finally:
        voxels.fill = "harmonic"
    assert not filled.seen.all()
    assert (marked.distance[~marked.seen] == 0).all()
    assert torch.equal(marked.seen, filled.seen)


def test_sky_stays_sky():
    rays = sphere.erp_rays(ROWS, 2 * ROWS)
    distance = torch.where(rays[..., 2] > 0, torch.inf, 1.6 / -rays[..., 2].clamp_max(-0.05))[None]
    image = torch.where(rays[..., 2:].permute(2, 0, 1) > 0, torch.tensor([0.2, 0.4, 0.9])[:, None, None], 0.5)
    field = Voxel(ROWS).field()
    field.start(Pool([whole(image, distance)]))
    frame = field.render(Pose(torch.eye(3), torch.tensor([0.3, 0.0, 0.0])), CAMERA)
    assert frame.distance[0, 8].isinf().all()
    assert (frame.image[2, 8] > 0.85).all()
    assert frame.distance[0, -8].isfinite().all()


def test_rays_that_may_not_teach():
    image, distance = torch.rand(3, 32, 64), torch.full((1, 32, 64), 2.0)
    distance[:, 10:20, 20:30] = 1.0
    distance[:, 5, 5], distance[:, 6, 40] = 0.0, torch.inf
    view = whole(image, distance)
    kept = view.kept(0.01, 0.15)
    assert not kept[5, 5]
    assert not kept[6, 40]
    assert not kept[10, 20:30].any()
    assert kept[15, 25]
    rays = Pool([view]).rays(0.01, 0.15)
    assert len(rays) == int(kept.sum())
    assert torch.equal(rays.colour, image.permute(1, 2, 0)[kept])
    view.normal = torch.linalg.cross(view.normal, view.normal.roll(1, 0), dim=0)
    view.normal = view.normal / view.normal.norm(dim=0).clamp_min(1e-9)
    assert view.kept(0.01, 0.9).sum() < kept.sum()


def test_visible_and_in_the_way():
    view = whole(torch.zeros(3, 16, 32), torch.full((1, 16, 32), 2.0))
    points = torch.tensor([[2.0, 0.0, 0.0], [1.5, 0.0, 0.0], [2.5, 0.0, 0.0]])
    assert view.seen_from_here(points, 0.01).tolist() == [True, False, False]
    assert view.hides(points, 0.01).tolist() == [False, True, False]


def test_a_hash_field_learns_a_sphere():
    image = torch.tensor([0.8, 0.3, 0.1])[:, None, None].expand(3, 32, 64).contiguous()
    pool = Pool([whole(image, torch.full((1, 32, 64), 2.0))])
    torch.manual_seed(0)
    field = Hash(rows=32, levels=4, log2_size=10, coarsest=4, finest=64, hidden=16).field()
    field.start(pool)
    rays = pool.rays(0.01, 0.15)
    generator = torch.Generator().manual_seed(0)
    losses = {False: [], True: []}
    for appearance in (False, True):
        chosen = field.appearance_parameters() if appearance else field.geometry_parameters()
        optimiser = torch.optim.Adam(chosen, 1e-2)
        for _ in range(60):
            taught = field.teach(rays, generator, appearance)
            loss = (taught.distance - rays.distance).abs().mean() + taught.left.mean()
            if appearance:
                loss = (taught.colour - rays.colour).abs().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses[appearance].append(float(loss.detach()))
    assert losses[False][-1] < 0.3 * losses[False][0]
    assert losses[True][-1] < 0.3 * losses[True][0]
    frame = field.render(HERE, Camera("panorama", 16, 32))
    assert (frame.distance / 2 - 1).abs().median() < 0.03
    assert (frame.image[0] - 0.8).abs().median() < 0.1


@pytest.mark.parametrize("inpaint", [NavierStokes(), Telea()])
def test_holes_take_the_colours_around_them(inpaint):
    image = torch.full((3, 32, 64), 0.6)
    unseen = torch.zeros(1, 32, 64, dtype=torch.bool)
    unseen[:, 10:16, 60:] = unseen[:, 10:16, :4] = True  # over the seam
    broken = torch.where(unseen, 0.0, image)
    out = inpaint(broken, unseen)
    assert (out - 0.6).abs().max() < 0.02
    assert torch.equal(out[:, ~unseen[0]], broken[:, ~unseen[0]])


def test_nothing_is_nothing():
    assert Nothing()(torch.zeros(3, 2, 4), torch.zeros(1, 2, 4, dtype=torch.bool)) is None


def test_splats_are_moved_to_where_the_surface_is():
    image = torch.rand(3, 32, 64, generator=torch.Generator().manual_seed(0))
    pool = Pool([whole(image, torch.full((1, 32, 64), 2.0))])
    field = Splat().field()
    field.start(pool)
    rays = replace(pool.rays(0.01, 0.15), distance=torch.full((32 * 64,), 2.1)[: len(pool.rays(0.01, 0.15))])
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(field.geometry_parameters(), 5e-3)
    for _ in range(60):
        loss = (field.teach(rays, generator, False).distance / rays.distance - 1).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    frame = field.render(HERE, Camera("panorama", 32, 64))
    assert (frame.distance / 2.1 - 1).abs().median() < 0.01
    before = (field.teach(rays, generator, True).colour - rays.colour).abs().mean()
    optimiser = torch.optim.Adam(field.appearance_parameters(), 1e-2)
    for _ in range(60):
        loss = (field.teach(rays, generator, True).colour - rays.colour).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.9 * float(before.detach())


def test_a_panorama_larger_than_the_grid(room):
    field = Voxel(16).field()
    field.start(Pool([whole(room[1].image, room[1].distance)]))
    frame = field.render(HERE, Camera("panorama", 16, 32))
    small = sphere.resize_erp(room[1].image, 16, 32)
    assert psnr(frame.image, small, frame.seen) > 30
