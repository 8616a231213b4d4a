"""Spherical stereo against closed forms, recorded numbers and traced rooms."""

import json
import math
from pathlib import Path

import pytest
import torch

from immersivedepth.data.making.three_d60 import moved
from immersivedepth.data.synthetic import make_world
from immersivedepth.geometry import sphere, stereo

SIDES = ("right", "up")
OFFSET = {"right": (0.0, -0.26, 0.0), "up": (0.0, 0.0, 0.26)}
TABLE = json.loads((Path(__file__).parent / "spherical_disparity.json").read_text())


@pytest.mark.parametrize("row", TABLE["table"], ids=lambda r: f"{r['r']} m {r['theta_deg']} deg")
def test_the_recorded_table(row):
    theta = torch.tensor(math.radians(row["theta_deg"]), dtype=torch.float64)
    distance = torch.tensor(row["r"], dtype=torch.float64)
    alpha = stereo.parallax(distance, theta, TABLE["baseline"])
    assert float(alpha) == pytest.approx(row["alpha_rad"], rel=1e-12)
    assert float(stereo.to_pixels(alpha, 256)) == pytest.approx(row["disp_px_256"], rel=1e-12)
    assert float(stereo.distance_from(alpha, theta, TABLE["baseline"])) == pytest.approx(row["r"], rel=1e-12)
    assert float(stereo.second_distance(alpha, theta, TABLE["baseline"])) == pytest.approx(
        row["r_other_camera"], rel=1e-9
    )


@pytest.mark.parametrize("side", SIDES)
def test_angles_are_those_of_points_in_space(side):
    """Independent of the formulas: points, two cameras, dot products."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(500, 3, generator=generator, dtype=torch.float64) * 3
    baseline = torch.tensor(OFFSET[side], dtype=torch.float64)
    pole = stereo.frame(side)[:, 2]
    assert torch.allclose(pole * 0.26, baseline)

    def angle(vectors):
        return torch.acos((vectors @ pole / vectors.norm(dim=-1)).clamp(-1, 1))

    theta, alpha = angle(points), angle(points - baseline) - angle(points)
    found = stereo.parallax(points.norm(dim=-1), theta, 0.26)
    assert (found - alpha).abs().max() < 1e-7  # arccosine near the poles
    assert found.min() >= 0
    back = stereo.distance_from(found, theta, 0.26)
    assert torch.allclose(back, points.norm(dim=-1), rtol=1e-8)
    assert torch.allclose(stereo.second_distance(found, theta, 0.26), (points - baseline).norm(dim=-1), rtol=1e-8)


def test_infinity_has_no_parallax_and_comes_back():
    alpha = stereo.parallax(torch.tensor([math.inf]), torch.tensor([1.0]), 0.26)
    assert alpha.tolist() == [0.0]
    assert stereo.distance_from(alpha, torch.tensor([1.0]), 0.26).tolist() == [math.inf]


@pytest.mark.parametrize("side", SIDES)
def test_rays_of_the_cassini_view_are_where_they_should_be(side):
    rays = stereo.cassini_rays(64, 32, side).double()
    towards = torch.tensor(OFFSET[side], dtype=torch.float64) / 0.26
    theta = torch.acos((rays @ towards).clamp(-1, 1))
    want = stereo.thetas(32).expand(64, 32)
    assert (theta - want).abs().max() < 1e-5
    assert want[0, -1] < 0.1 < 3 < want[0, 0]  # theta = 0, towards the second camera, is at the right edge
    middle = rays[32, 15:17].mean(0)  # psi = 0 looks forward
    assert middle[0] > 0.99


@pytest.mark.parametrize("side", SIDES)
def test_there_and_back(side):
    rays = sphere.erp_rays(64, 128)
    picture = torch.stack([rays[..., 0], rays[..., 1] * rays[..., 2], rays[..., 2] ** 2])
    back = stereo.from_cassini(stereo.to_cassini(picture, side), side)
    assert (back - picture).abs().max() < 0.01  # two bilinear lookups of a smooth function


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("size", [(64, 32), (256, 128)])
def test_views_and_panoramas_of_any_size(side, size):
    """Both directions meet the exact values of a smooth function at the rays of the size that was asked for."""
    rays = sphere.erp_rays(48, 96).movedim(-1, 0)
    view = stereo.to_cassini(rays, side, size=size)
    assert (view.movedim(0, -1) - stereo.cassini_rays(*size, side)).abs().max() < 0.01  # bilinear over 1/15 radian
    back = stereo.from_cassini(view, side, size=(40, 80))
    assert (back.movedim(0, -1) - sphere.erp_rays(40, 80)).abs().max() < 0.01


@pytest.mark.parametrize("side", SIDES)
def test_there_and_back_by_nearest_keeps_values(side):
    labels = torch.arange(32 * 64, dtype=torch.float32).reshape(1, 32, 64)
    found = stereo.to_cassini(labels, side, "nearest")
    assert found.shape == (1, 64, 32)
    assert set(found.unique().tolist()) <= set(labels.unique().tolist())


def test_the_view_of_an_up_pair_is_the_panorama_laid_on_its_side():
    picture = torch.rand(3, 16, 32, generator=torch.Generator().manual_seed(0))
    found = stereo.to_cassini(picture, "up")
    assert torch.allclose(found, picture.flip(-2).transpose(-2, -1), atol=2e-4)  # bilinear at pixel centres


@pytest.mark.parametrize("side", SIDES)
def test_matches_of_a_traced_room_lie_on_rows(side):
    """Shifting the second view by the disparity of the true distance gives the first; another sign or none does not."""
    world = make_world("room", 3)
    second = moved(world, OFFSET[side])
    rays = stereo.cassini_rays(256, 128, side)
    first, other = world.trace(rays), second.trace(rays)
    theta = stereo.thetas(128).float().expand(256, 128)
    disparity = stereo.to_pixels(stereo.parallax(first.distance, theta, 0.26), 128)
    column = torch.arange(128).expand(256, 128)

    def mismatch(at):
        inside = (at >= 0) & (at <= 127)
        low = at.floor().long().clamp(0, 126)
        share = (at - low).clamp(0, 1)
        d = other.distance.gather(1, low) * (1 - share) + other.distance.gather(1, low + 1) * share
        alpha = stereo.parallax(first.distance, theta, 0.26)
        want = stereo.second_distance(alpha, theta, 0.26)
        both = inside & d.isfinite() & want.isfinite()
        return ((d / want).log().abs()[both]).median()

    assert mismatch(column - disparity) < 1e-3
    assert mismatch(column.float()) > 1e-2
    assert mismatch(column + disparity) > 1e-2


def test_near_the_poles_nothing_can_be_seen():
    sight = stereo.sight(stereo.thetas(64))
    assert sight.argmax() in (31, 32)
    assert sight[0] < 0.03
