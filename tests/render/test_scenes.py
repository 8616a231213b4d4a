"""Meshes and splats from anywhere in rooms whose look and shape are known."""

import math

import pytest
import torch

from immersivedepth.data.synthetic import make_world
from immersivedepth.data.synthetic.render import erp_maps
from immersivedepth.geometry import sphere
from immersivedepth.render import raster
from immersivedepth.render.holes import close_holes
from immersivedepth.render.layers import hidden, layers
from immersivedepth.render.mesh import MeshScene
from immersivedepth.render.paths import Orbit
from immersivedepth.render.protocol import Camera, Frame, Pose, Scene
from immersivedepth.render.splats import SplatScene

H = 64
SCENES = {"mesh": MeshScene, "splats": SplatScene}
CAMERAS = [Camera("panorama", H, 2 * H), Camera("perspective", 48, 64, 90)]


def sphere_seen_from(position, rays):  # distance to the unit sphere from inside
    along = (rays * position).sum(-1)
    return -along + (along.square() + 1 - position.square().sum()).sqrt()


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda c: c.kind)
@pytest.mark.parametrize("name", SCENES)
def test_a_sphere_from_off_its_centre_is_exact(name, camera):
    image = (sphere.erp_rays(H, 2 * H) * 0.5 + 0.5).permute(2, 0, 1)  # colour tells the direction
    scene = SCENES[name](image, torch.ones(1, H, 2 * H))
    assert isinstance(scene, Scene)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    pose = Pose(turn * torch.linalg.det(turn), torch.tensor([0.2, -0.3, 0.25]))
    frame = scene.render(pose, camera)
    rays = camera.rays() @ pose.rotation.T
    wanted = sphere_seen_from(pose.position, rays)
    # Facets of pi / H lie within 1 - cos(pi / 2 H) of the sphere, and twice that where they are seen aslant.
    assert (frame.distance[0] / wanted - 1).abs().max() < 4 * (1 - math.cos(math.pi / H))
    colour = ((rays * wanted[..., None] + pose.position) * 0.5 + 0.5).permute(2, 0, 1)
    assert (frame.image - colour).abs().mean() < 0.005
    assert (frame.image - colour).abs().max() < 0.05  # two pixels: no hole, no wrong piece
    assert frame.seen.all()


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda c: c.kind)
def test_spans_hold_every_pixel_of_a_cap(camera):
    random = torch.Generator().manual_seed(2)
    centre = torch.nn.functional.normalize(torch.randn(300, 3, generator=random), dim=-1)
    centre = torch.cat([centre, torch.tensor([[0.0, 0, 1], [0, 0, -1], [-1, 0, 0], [-1, 1e-4, 0]])])
    cap = torch.rand(len(centre), generator=random) * 0.3 + 1e-3
    rays = camera.rays().reshape(-1, 3)
    inside = centre @ rays.T >= cap.cos()[:, None]
    given = torch.zeros_like(inside)
    for thing, pixel in raster.pairs(centre, cap, camera):
        assert not given[thing, pixel].any()  # none twice
        given[thing, pixel] = True
    assert (given | ~inside).all()
    assert given.sum() < 3 * inside.sum() + 20 * len(centre)  # and few in vain


@pytest.mark.parametrize("name", SCENES)
def test_from_the_centre_it_looks_as_the_panorama(name):
    world = make_world("room", seed=4)
    maps = erp_maps(world, H, 2 * H)
    frame = SCENES[name](maps.image, maps.distance).render(Pose(torch.eye(3), torch.zeros(3)), CAMERAS[0])
    # A pixel of this small picture is 3 degrees wide, so edges are many; splats soften them, cuts of meshes move them.
    assert -10 * (frame.image - maps.image).square().mean().log10() > 22  # dB
    known = maps.distance.isfinite()
    assert (frame.distance / maps.distance - 1)[known].abs().median() < 0.005
    assert frame.seen.float().mean() > 0.8  # gaps of cuts count as not seen


@pytest.mark.parametrize("fill", ["harmonic", "navier_stokes", "mark"])
def test_what_was_not_seen_is_filled_or_left_open(fill):
    maps = erp_maps(make_world("room", seed=4), H, 2 * H)
    pose = Orbit(0.4, 3)(maps.distance).poses("panorama")[0]
    frame = MeshScene(maps.image, maps.distance, fill).render(pose, CAMERAS[0])
    share = frame.seen.float().mean()
    assert 0.5 < share < 0.999
    if fill == "mark":
        assert (frame.distance[~frame.seen] == 0).float().mean() > 0.5
    else:
        assert (frame.distance > 0).all()
        assert frame.image.isfinite().all()


def test_hidden_surfaces_go_on_behind_a_ball():
    rays = sphere.erp_rays(H, 2 * H)
    wall = torch.full((1, H, 2 * H), 4.0)
    ball = (rays[..., 0] > math.cos(0.4))[None]
    distance = torch.where(ball, 1.0, wall)
    mask, far, rim = hidden(distance, 4)
    assert (mask & ~ball).sum() == 0
    assert mask.sum() > 0.4 * ball.sum()
    assert (far[mask] == 4).all()
    assert not (rim & ball).any()
    image = torch.where(ball, 1.0, 0.25).expand(3, -1, -1)
    parts = layers(image, distance)
    assert (parts.hidden_distance[mask] - 4).abs().max() < 0.01
    assert (parts.hidden_image[:, mask[0]] - 0.25).abs().max() < 0.01


def test_holes_take_the_far_side():
    distance = torch.full((1, 16, 32), 1.0)
    distance[..., 16:] = 10.0
    image = (distance / 10).expand(3, -1, -1)
    covered = torch.ones_like(distance, dtype=torch.bool)
    covered[:, 6:10, 13:17] = False
    frame = Frame(torch.where(covered, image, 0), torch.where(covered, distance, 0), covered)
    closed = close_holes(frame, covered, Camera("perspective", 16, 32))
    assert closed.distance[~covered].min() > 4  # a plain mean of 1 and 10 by inverse distance would give 1.8
    assert closed.distance[~covered].median() > 7
    assert torch.equal(closed.image[:, covered[0]], image[:, covered[0]])
    assert not closed.seen[~covered].any()
