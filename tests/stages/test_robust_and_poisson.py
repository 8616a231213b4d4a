"""Blends in which the majority, or the gradients, decide: planted seams, outliers, sky and holes."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from immersivedepth.geometry import icosahedron, pinhole, sphere
from immersivedepth.scene import Aligned, Rig
from immersivedepth.stages.blend.feather import Feather
from immersivedepth.stages.blend.poisson import Poisson
from immersivedepth.stages.blend.robust import Robust

VIEWS, SIDE, SIZE = 20, 64, (48, 96)
BLENDS = [Robust(), Poisson()]


def _distance(rays: Tensor) -> Tensor:
    """A smooth closed surface around the camera."""
    d = rays / rays.norm(dim=-1, keepdim=True)
    return 2 + 0.5 * d[..., 0] - 0.3 * d[..., 2] + 0.2 * (3 * d[..., 1]).sin()


def _aligned(tan: float = 1.2, noise: float = 0.01) -> Aligned:
    rig = Rig(pinhole.look_along(icosahedron.face_centres()), torch.full((VIEWS,), tan), SIDE)
    distance = _distance(pinhole.view_rays(rig.rotation, rig.tan_half_fov, SIDE))[:, None]
    return Aligned(distance, rig, torch.ones_like(distance), report={"noise": noise})


def _error(distance: Tensor) -> Tensor:
    return (distance[0] / _distance(sphere.erp_rays(*SIZE)) - 1).abs()


@pytest.mark.parametrize("blend", BLENDS)
def test_exact_views_give_the_exact_surface(blend):
    geometry = blend(_aligned(), SIZE)
    assert geometry.mask.all()
    assert _error(geometry.distance).max() < 2e-3  # curvature between two view pixels of 2 degrees
    assert not geometry.metric
    assert geometry.report["blend"]["covered"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("blend", BLENDS)
def test_a_wrong_patch_of_one_view_is_outvoted(blend):
    aligned = _aligned()
    distance = aligned.distance.clone()
    distance[6, 0, 20:44, 20:44] *= 1.8
    spoiled = replace(aligned, distance=distance)
    plain, voted = _error(Feather()(spoiled, SIZE).distance), _error(blend(spoiled, SIZE).distance)
    assert plain.max() > 0.1
    # Where only two views look, one of them cannot be outvoted.
    assert voted.mean() < 0.2 * plain.mean()
    assert (voted < 0.01).float().mean() > 0.985


@pytest.mark.parametrize("blend", BLENDS)
def test_sky_stays_infinite_and_does_not_bend_what_is_below(blend):
    aligned = _aligned()
    up = pinhole.view_rays(aligned.rig.rotation, aligned.rig.tan_half_fov, SIDE)
    up = (up[..., 2] > 0.5 * up.norm(dim=-1))[:, None]
    geometry = blend(replace(aligned, distance=aligned.distance.masked_fill(up, torch.inf)), SIZE)
    assert geometry.sky is not None
    rays = sphere.erp_rays(*SIZE)
    assert geometry.sky[0][rays[..., 2] > 0.55].all()
    assert geometry.distance[geometry.sky].isinf().all()
    low = rays[..., 2] < 0.45
    assert geometry.mask[0][low].all()
    assert _error(geometry.distance)[low].max() < 5e-3


@pytest.mark.parametrize("blend", BLENDS)
def test_what_no_view_knows_stays_unknown(blend):
    aligned = _aligned()
    rays = pinhole.view_rays(aligned.rig.rotation, aligned.rig.tan_half_fov, SIDE)
    hole = (rays[..., 0] > 0.9 * rays.norm(dim=-1))[:, None]
    geometry = blend(replace(aligned, weight=(~hole).float()), SIZE)
    front = sphere.erp_rays(*SIZE)[..., 0]
    assert not geometry.mask[0][front > 0.93].any()
    assert geometry.distance[0][front > 0.93].eq(0).all()
    assert _error(geometry.distance)[front < 0.87].max() < 5e-3


def test_poisson_leaves_no_step_where_views_end():
    aligned = _aligned(noise=0.05)
    tilt = torch.linspace(-0.04, 0.04, SIDE)[:, None].expand(SIDE, SIDE)
    distance = aligned.distance * torch.exp(tilt)  # views agree in the middle and part towards their borders
    tilted = replace(aligned, distance=distance)

    def roughness(found: Tensor) -> float:
        error = (found[0] / _distance(sphere.erp_rays(*SIZE))).log()
        return float((error - (error.roll(1, 1) + error.roll(-1, 1)) / 2)[8:-8].abs().mean())

    hard = Poisson(length=1.0, margin=0.05)(tilted, SIZE).distance
    assert roughness(hard) < 0.6 * roughness(Robust(margin=0.05)(tilted, SIZE).distance)


@pytest.mark.parametrize("blend", BLENDS)
def test_the_seam_is_a_place_like_any_other(blend):
    aligned = _aligned()
    turn = torch.tensor([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
    noisy = aligned.distance * torch.exp(0.02 * torch.randn(VIEWS, 1, SIDE, SIDE, generator=torch.Generator()))
    rig = aligned.rig
    here = blend(replace(aligned, distance=noisy), SIZE).distance
    turned = Rig(turn @ rig.rotation, rig.tan_half_fov, SIDE)
    there = blend(replace(aligned, distance=noisy, rig=turned), SIZE).distance
    torch.testing.assert_close(there.roll(SIZE[1] // 2, -1), here, rtol=1e-4, atol=0)  # float32 rays


@pytest.mark.parametrize("blend", BLENDS)
def test_normals_are_joined(blend):
    aligned = _aligned()
    rays = pinhole.view_rays(aligned.rig.rotation, aligned.rig.tan_half_fov, SIDE)
    inward = -torch.nn.functional.normalize(rays, dim=-1).permute(0, 3, 1, 2)
    geometry = blend(replace(aligned, normal=inward), SIZE)
    assert geometry.normal is not None
    torch.testing.assert_close(geometry.normal, -sphere.erp_rays(*SIZE).permute(2, 0, 1), rtol=0, atol=2e-3)
