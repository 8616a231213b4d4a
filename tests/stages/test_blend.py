import pytest
import torch
import torch.nn.functional as F

from immersivedepth.geometry import directions, icosahedron, pinhole, sphere
from immersivedepth.scene import Aligned, Rig
from immersivedepth.stages.blend import lookup
from immersivedepth.stages.blend.feather import Feather
from immersivedepth.stages.blend.nearest import Nearest

SIZE = (48, 96)
blends = pytest.mark.parametrize("blend", [Feather(), Nearest()], ids=["feather", "nearest"])


def rig(resolution=40, tan=1.19):
    return Rig(pinhole.look_along(icosahedron.face_centres()), torch.full((20,), tan), resolution)


def room(rays):
    """Distance to the walls of a box around the camera, and their normals."""
    rays = F.normalize(rays.double(), dim=-1)
    low, high = torch.tensor([-2.1, -1.7, -1.4]).double(), torch.tensor([2.7, 3.1, 1.3]).double()
    reach = torch.where(rays > 0, high / rays, low / rays).abs()  # inf along a wall
    distance, axis = reach.min(-1)
    return distance.float(), -F.one_hot(axis, 3).float() * rays.gather(-1, axis[..., None]).sign().float()


def views_of(scene, rig, **more):
    distance = scene(pinhole.view_rays(rig.rotation, rig.tan_half_fov, rig.resolution))[:, None]
    return Aligned(distance, rig, torch.ones_like(distance), **more)


def distance_of(rays):
    return room(rays)[0]


def ground(rays):
    """A floor below, sky above."""
    rays = F.normalize(rays, dim=-1)
    return torch.where(rays[..., 2] < -0.05, -1.5 / rays[..., 2], torch.inf)


@blends
def test_planes_come_back_exactly(blend):
    geometry = blend(views_of(distance_of, rig(), metric=True), SIZE)
    true = distance_of(sphere.erp_rays(*SIZE))
    error = (geometry.distance[0] / true - 1).abs()
    assert geometry.mask.all()
    assert geometry.metric
    # Between the pixels of a plane the inverse depth is linear: only rounding is left. Where two walls meet, a view's
    # pixel of 0.06 rad cannot say where.
    assert error.median() < 1e-6
    assert error.mean() < 1e-3
    assert error.max() < 0.1
    assert geometry.spread.median() < 1e-6


@blends
def test_any_size_and_set_of_views(blend):
    views = Rig(pinhole.look_along(directions.cube_faces()), torch.full((6,), 1.4), 33)
    for height in (5, 48, 131):
        geometry = blend(views_of(distance_of, views), (height, 2 * height))
        true = distance_of(sphere.erp_rays(height, 2 * height))
        assert geometry.mask.all()
        assert (geometry.distance[0] / true - 1).abs().median() < 1e-6


@blends
def test_turning_the_world_turns_the_result(blend):
    step = 7
    turn = directions.yaw(2 * torch.pi * step / SIZE[1])
    at_rest = views_of(distance_of, rig())
    turned = Rig(turn @ at_rest.rig.rotation, at_rest.rig.tan_half_fov, at_rest.rig.resolution)
    found = blend(Aligned(at_rest.distance, turned, at_rest.weight), SIZE)
    wanted = blend(at_rest, SIZE)
    # +y is left: turning to the left rolls the columns to the left. At creases and between two views that look
    # equally directly, rounding may decide otherwise.
    error = (found.distance / wanted.distance.roll(-step, -1) - 1).abs()
    assert error.mean() < 1e-4
    assert error.median() < 1e-6


@blends
def test_depth_edges_leave_nothing_in_mid_air(blend):
    def pillar(rays):
        near = F.normalize(rays, dim=-1)[..., 0] > 0.97  # a ball of radius 14 degrees in front of a far sphere
        return torch.where(near, 1.0, 4.0)

    distance = Nearest()(views_of(pillar, rig(64)), SIZE).distance
    assert ((distance < 1.05) | (distance > 3.8)).all()
    # Feather mixes views that disagree on which side a pixel lies, but no neighbours within a view: fewer in between.
    counts = [
        int(((d > 1.1) & (d < 3.6)).sum())
        for d in (Feather(edge_ratio=r)(views_of(pillar, rig(64)), SIZE).distance for r in (1.05, 1e9))
    ]
    assert counts[0] < 0.6 * counts[1]


@blends
def test_sky_stays_sky(blend):
    geometry = blend(views_of(ground, rig(64)), SIZE)
    up = sphere.erp_rays(*SIZE)[..., 2]
    pixel = torch.pi / SIZE[0]
    assert geometry.sky[0][up > -0.05 + pixel].all()
    assert not geometry.sky[0][up < -0.05 - pixel].any()
    assert geometry.distance[geometry.sky].isinf().all()
    assert not (geometry.mask & geometry.sky).any()
    assert (geometry.mask | geometry.sky).all()
    floor = up < -0.05 - 2 * pixel
    assert (geometry.distance[0][floor] * -up[floor] / 1.5 - 1).abs().max() < 1e-4  # sky is not mixed into the floor
    assert geometry.report["blend"]["sky"] == pytest.approx(0.525, abs=0.02)


@blends
def test_what_nobody_knows_is_zero_and_not_trusted(blend):
    aligned = views_of(distance_of, rig())
    rays = F.normalize(pinhole.view_rays(aligned.rig.rotation, aligned.rig.tan_half_fov, 40), dim=-1)
    weight = (rays[..., 2] > -0.5).float()[:, None]
    junk = torch.where(weight > 0, aligned.distance, torch.nan)
    junk[:, :, ::7] = torch.where(weight[:, :, ::7] > 0, junk[:, :, ::7], -3.0)
    geometry = blend(Aligned(junk, aligned.rig, weight), SIZE)
    up = sphere.erp_rays(*SIZE)[..., 2]
    assert geometry.mask[0][up > -0.42].all()
    assert not geometry.mask[0][up < -0.58].any()
    assert (geometry.distance[~geometry.mask] == 0).all()
    assert geometry.distance.isfinite().all()
    assert geometry.spread.isfinite().all()
    true = distance_of(sphere.erp_rays(*SIZE))
    error = (geometry.distance[0] / true - 1).abs()[geometry.mask[0]]
    assert error.median() < 1e-6
    assert error.max() < 0.1
    assert geometry.report["blend"]["covered"] == pytest.approx(0.75, abs=0.02)  # above sin = -0.5
    assert geometry.report["blend"]["views_per_direction"]["least"] == 0


@blends
def test_zero_is_not_a_distance(blend):
    aligned = views_of(distance_of, rig())
    geometry = blend(Aligned(torch.zeros_like(aligned.distance), aligned.rig, aligned.weight), SIZE)
    assert not geometry.mask.any()
    assert not geometry.sky.any()
    assert geometry.distance.abs().max() == 0


@blends
def test_normals_are_unit_and_those_of_the_walls(blend):
    views = rig()
    normal = room(pinhole.view_rays(views.rotation, views.tan_half_fov, views.resolution))[1].permute(0, 3, 1, 2)
    geometry = blend(views_of(distance_of, views, normal=normal), SIZE)
    wanted = room(sphere.erp_rays(*SIZE))[1].permute(2, 0, 1)
    assert torch.allclose(geometry.normal.norm(dim=0), torch.ones(SIZE), atol=1e-5)
    assert ((geometry.normal - wanted).norm(dim=0) < 1e-5).float().mean() > 0.85  # all but the corners of the room


def test_spread_and_mean_are_those_of_the_views():
    # Four copies of a view ahead, whose logarithms differ by known amounts.
    offsets, weights = torch.tensor([-0.3, 0.1, 0.2, 0.4]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    views = Rig(pinhole.look_along(torch.tensor([[1.0, 0, 0]]).expand(4, 3)), torch.ones(4), 9)
    distance = pinhole.ray_lengths(views.tan_half_fov, 9)[:, None] * 2 * offsets.exp()[:, None, None, None]
    weight = weights[:, None, None, None].expand_as(distance)
    geometry = Feather()(Aligned(distance, views, weight), SIZE)
    mean = float((offsets * weights).sum() / 10)
    spread = float((((offsets - mean) ** 2 * weights).sum() / 10).sqrt())
    middle = (0, SIZE[0] // 2, SIZE[1] // 2)
    cosine = float(sphere.erp_rays(*SIZE)[middle[1:]][0])
    assert float(geometry.distance[middle]) == pytest.approx(2 * 2.718281828**mean / cosine, rel=1e-5)
    assert float(geometry.spread[middle]) == pytest.approx(spread, rel=1e-5)
    assert geometry.report["blend"]["views_per_direction"]["mean"] == pytest.approx(4 / 6, rel=0.02)


def test_nearest_takes_the_most_direct_view():
    views = rig()
    index = torch.arange(1.0, 21)[:, None, None, None].expand(20, 1, 40, 40)
    depth = pinhole.ray_lengths(views.tan_half_fov, 40)[:, None]
    geometry = Nearest()(Aligned(index * depth, views, torch.ones_like(index)), SIZE)
    rays = sphere.erp_rays(*SIZE)
    cosine, best = (rays @ views.rotation[:, :, 2].T).max(-1)
    assert (torch.round(geometry.distance[0] * cosine) - 1 == best).float().mean() > 0.999  # but for ties


def test_running_mean_against_numpy():
    values, weights = torch.rand(2, 6, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values += 1e4  # where squares would cancel
    total, mean, square = torch.zeros(3, 50, dtype=torch.float64)
    total += lookup.NOTHING
    for value, weight in zip(values, weights, strict=True):
        lookup.add_weighted(total, mean, square, value, weight)
    wanted = (values * weights).sum(0) / weights.sum(0)
    assert torch.allclose(mean, wanted, atol=1e-7)
    assert torch.allclose(square, ((values - wanted).square() * weights).sum(0), atol=1e-6)


@blends
def test_report_keeps_what_the_aligner_said(blend):
    aligned = views_of(distance_of, rig())
    geometry = blend(Aligned(aligned.distance, aligned.rig, aligned.weight, report={"align": "exact"}), SIZE)
    assert geometry.report["align"] == "exact"
    assert geometry.report["blend"]["covered"] == 1
    assert geometry.report["blend"]["views_per_direction"] == {
        "mean": pytest.approx(20 * 4 * torch.asin(torch.tensor(1.19**2 / (1 + 1.19**2))).item() / 12.566, rel=0.02),
        "least": 2,
    }


@pytest.mark.parametrize("name", ["feather", "nearest"])
def test_configs_say_what_the_classes_default_to(compose, name):
    from immersivedepth.config import build

    built = build(compose(f"blend={name}")["blend"], "blend")
    assert built == type(built)()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@blends
def test_on_the_gpu(blend):
    here = views_of(distance_of, rig())
    there = Rig(here.rig.rotation.cuda(), here.rig.tan_half_fov.cuda(), 40)
    geometry = blend(Aligned(here.distance.cuda(), there, here.weight.cuda()), SIZE)
    assert geometry.distance.is_cuda
    wanted = blend(here, SIZE)
    assert (geometry.distance.cpu() / wanted.distance - 1).abs().mean() < 1e-4
