"""Planted scales, shifts and bends come back; what must not matter does not."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from immersivedepth.checks import ConfigError
from immersivedepth.data.synthetic import make_world, render_rig
from immersivedepth.geometry import directions, fields, icosahedron, pinhole
from immersivedepth.scene import Aligned, Kind, Prediction, Rig
from immersivedepth.stages.align import solver
from immersivedepth.stages.align.anchors import Anchors
from immersivedepth.stages.align.global_affine import GlobalAffine
from immersivedepth.stages.align.grid_affine import GridAffine
from immersivedepth.stages.align.identity import Identity
from immersivedepth.stages.align.joint_field import JointField

VIEWS, SIDE = 20, 64


def _rig(tan: float = 1.0) -> Rig:
    return Rig(pinhole.look_along(icosahedron.face_centres()), torch.full((VIEWS,), tan), SIDE)


def _room(rays: Tensor) -> Tensor:
    """Distance to the walls of a box, 1.4 m above its floor, off its centre."""
    d = rays / rays.norm(dim=-1, keepdim=True)
    low, high = torch.tensor([-2.2, -3.0, -1.4]), torch.tensor([2.9, 2.1, 1.3])
    return torch.where(d > 0, high / d.clamp_min(1e-9), low / d.clamp_max(-1e-9)).amin(-1)


def _truth(rig: Rig) -> tuple[Tensor, Tensor]:  # [V, h, w] each
    rays = pinhole.view_rays(rig.rotation, rig.tan_half_fov, rig.resolution)
    return _room(rays), rays.norm(dim=-1)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _disparities(rig: Rig, bend: Tensor | float = 0.0, seed: int = 0) -> Prediction:
    """True disparities under a random scale and shift for each view."""
    distance, lengths = _truth(rig)
    disparity = lengths / distance * torch.exp(torch.as_tensor(bend))
    scale = torch.exp(0.5 * _random(len(rig), 1, 1, seed=seed))
    shift = 0.4 * _random(len(rig), 1, 1, seed=seed + 1)
    return Prediction((scale * (disparity + shift))[:, None], (Kind.AFFINE_DISPARITY,) * len(rig), rig)


def _error(aligned: Aligned) -> Tensor:  # [V, h, w]
    """Relative error after one factor for all views."""
    log = (aligned.distance[:, 0] / _truth(aligned.rig)[0]).log()
    return (log - log.median()).abs()


@pytest.mark.parametrize("align", [GlobalAffine(), GridAffine()])
def test_planted_scale_and_shift_of_every_view_come_back(align):
    aligned = align(_disparities(_rig()))
    assert _error(aligned).max() < 2e-3  # a wall's corner between two pixels of one view
    assert _error(aligned).mean() < 2e-4
    assert not aligned.metric
    assert aligned.report["notes"] == []


def test_without_alignment_the_same_views_disagree():
    assert _error(Identity()(_disparities(_rig()))).nanmean() > 0.05


def test_affine_depth_and_plain_distances_come_back_too():
    rig = _rig()
    distance, lengths = _truth(rig)
    scale, shift = torch.exp(0.3 * _random(VIEWS, 1, 1)), _random(VIEWS, 1, 1, seed=1)
    depth = Prediction((scale * distance / lengths + shift)[:, None], (Kind.AFFINE_DEPTH,) * VIEWS, rig)
    assert _error(GlobalAffine()(depth)).mean() < 2e-3  # depth between pixels is not linear on planes
    plain = Prediction((scale * distance)[:, None], (Kind.SCALE_DISTANCE,) * VIEWS, rig)
    assert _error(GlobalAffine()(plain)).mean() < 2e-4


def test_metric_views_stay_metric_though_each_errs_and_one_is_far_off():
    rig = _rig()
    distance, _ = _truth(rig)
    scale = torch.exp(0.03 * _random(VIEWS, 1, 1))
    scale *= torch.exp(-scale.log().median())
    scale[5] = 2.0
    metric = Prediction((scale * distance)[:, None], (Kind.METRIC_DISTANCE,) * VIEWS, rig)
    aligned = GlobalAffine()(metric)
    assert aligned.metric
    ratio = aligned.distance[:, 0] / distance
    assert (ratio - 1).abs().max() < 0.01


def test_one_metric_model_makes_a_stack_metric():
    rig = _rig()
    distance, _ = _truth(rig)
    affine = _disparities(rig)
    both = Rig(torch.cat([rig.rotation] * 2), torch.cat([rig.tan_half_fov] * 2), SIDE)
    kinds = affine.kinds + (Kind.METRIC_DISTANCE,) * VIEWS
    aligned = GlobalAffine()(Prediction(torch.cat([affine.values, distance[:, None]]), kinds, both))
    assert aligned.metric
    assert (aligned.distance[:, 0] / torch.cat([distance, distance]) - 1).abs().max() < 0.01


def test_camera_height_and_known_points_set_the_scale():
    prediction = _disparities(_rig())
    floor = GlobalAffine(anchors=Anchors(camera_height=1.4))(prediction)
    points = GlobalAffine(anchors=Anchors(points=[[0.0, 0.0, 2.9], [90.0, 0.0, 2.1]]))(prediction)
    for aligned in (floor, points):
        assert aligned.metric
        assert (aligned.distance[:, 0] / _truth(aligned.rig)[0] - 1).abs().mean() < 2e-3


@pytest.mark.parametrize("point", [[0.0, 91.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0]])
def test_anchors_that_cannot_be_are_refused(point):
    with pytest.raises(ConfigError, match="points"):
        Anchors(points=[point])


def test_a_known_bend_is_found_and_removed():
    rig = _rig()
    coefficients = 0.03 * _random(VIEWS, len(fields.orders(3)), seed=3)
    bend = fields.raster(coefficients, 3, SIDE)
    stiff, soft = GlobalAffine()(_disparities(rig, bend)), GridAffine()(_disparities(rig, bend))
    # What all views bend alike cannot be seen, so part of the bend stays.
    assert _error(soft).mean() < 0.65 * _error(stiff).mean()


def test_the_size_of_the_bending_is_found_by_degree():
    rig = _rig()
    by_degree = torch.tensor([0.03, 0.02, 0.01, 0.005])
    coefficients = _random(VIEWS, len(fields.orders(4)), seed=3) * by_degree[fields.orders(4).sum(1) - 1]
    prediction = _disparities(rig, fields.raster(coefficients, 4, SIDE))
    maps, overlap = solver.standardise(prediction), solver.find_overlap(rig, 8000)
    start = solver.solve(solver.Equations(maps, overlap, None, 0))
    found = solver.solve(solver.Equations(maps, overlap, None, 6), start, turns=12).variance.sqrt()
    ratio = found[:4] / by_degree
    assert ratio.min() > 0.6  # 40 to 100 coefficients each, so chance alone gives about 15 %
    assert ratio.max() < 1.6
    assert found[4:].max() < 0.005


def test_noise_does_not_shrink_the_shifts():
    # Plain least squares on log distance prefers small shifts, which scale the noise down: it fails here by far.
    rig = _rig()
    distance, lengths = _truth(rig)
    disparity = lengths / distance * torch.exp(0.1 * _random(VIEWS, SIDE, SIDE))
    prediction = Prediction(disparity[:, None], (Kind.AFFINE_DISPARITY,) * VIEWS, rig)
    maps, overlap = solver.standardise(prediction), solver.find_overlap(rig, 12000)
    solution = solver.solve(solver.Equations(maps, overlap, None, 0))
    plain = disparity.flatten(1)
    median = plain.median(1).values
    width = (plain - median[:, None]).abs().mean(1)
    true = width / median / maps.bound  # of disparities without a shift, p is disparity / median
    assert ((solution.shift / true).log().mean()).abs() < 0.05


def test_one_wrong_view_does_not_bend_the_others():
    prediction = _disparities(_rig(1.2))
    values = prediction.values.clone()
    values[3, 0, : SIDE // 2] = values[3].median()
    error = _error(GlobalAffine()(replace(prediction, values=values)))
    error[3] = 0
    assert error.mean() < 1e-3


def test_sky_and_distrusted_pixels_have_no_say():
    prediction = _disparities(_rig())
    odd = torch.zeros(VIEWS, 1, SIDE, SIDE, dtype=torch.bool)
    odd[:, :, : SIDE // 3] = True
    spoiled = torch.where(odd, prediction.values.amin(), prediction.values)
    sky = GlobalAffine()(replace(prediction, values=spoiled, sky=odd))
    assert sky.distance[odd].isinf().all()
    assert _error(sky)[~odd[:, 0]].mean() < 1e-3
    doubt = GlobalAffine()(replace(prediction, values=spoiled, confidence=(~odd).float()))
    assert doubt.weight[odd].eq(0).all()
    assert doubt.distance.isfinite().all()
    assert _error(doubt)[~odd[:, 0]].mean() < 1e-3


def test_holes_of_a_map_weigh_nothing():
    prediction = _disparities(_rig())
    values = prediction.values.clone()
    values[2, 0, 10:20, 10:20] = torch.nan
    values[4] = torch.nan
    for align in (GlobalAffine(), Identity()):
        aligned = align(replace(prediction, values=values))
        assert aligned.distance.isfinite().all()
        assert aligned.weight[4].eq(0).all()
        assert aligned.weight[2, 0, 10:20, 10:20].eq(0).all()


def test_disparities_stay_positive_whatever_the_noise():
    prediction = _disparities(_rig())
    values = prediction.values * (1 + 0.5 * _random(*prediction.values.shape, seed=9))
    aligned = GridAffine()(replace(prediction, values=values))
    assert aligned.distance.isfinite().all()
    assert (aligned.distance > 0).all()


@pytest.mark.parametrize("align", [GlobalAffine(), GridAffine()])
def test_order_turn_and_units_do_not_matter(align):
    prediction = _disparities(_rig(), bend=fields.raster(0.02 * _random(VIEWS, 9, seed=3), 3, SIDE))
    base = align(prediction).distance
    order = torch.randperm(VIEWS, generator=torch.Generator().manual_seed(1))
    rig = Rig(prediction.rig.rotation[order], prediction.rig.tan_half_fov[order], SIDE)
    shuffled = align(replace(prediction, values=prediction.values[order], rig=rig)).distance
    torch.testing.assert_close(shuffled, base[order], rtol=1e-6, atol=0)
    turn = torch.linalg.qr(_random(3, 3))[0]
    turn = turn * torch.linalg.det(turn)
    rig = Rig(turn @ prediction.rig.rotation, prediction.rig.tan_half_fov, SIDE)
    torch.testing.assert_close(align(replace(prediction, rig=rig)).distance, base, rtol=1e-3, atol=0)
    values = prediction.values.clone()
    values[0], values[1] = 1000 * values[0], values[1] + 5
    # float32 loses the digits of a small map on a large shift
    torch.testing.assert_close(align(replace(prediction, values=values)).distance, base, rtol=1e-4, atol=0)
    assert torch.equal(align(prediction).distance, base)


def test_without_overlap_a_prior_is_used_and_said():
    rig = Rig(pinhole.look_along(torch.tensor([[1.0, 0, 0], [-1, 0, 0]])), torch.full((2,), 0.5), SIDE)
    aligned = GlobalAffine()(_disparities(rig))
    assert aligned.report["views"][0]["shift_from_prior"]
    assert aligned.report["views"][0]["residual"] is None
    assert len(aligned.report["notes"]) == 2
    assert aligned.distance.isfinite().all()


def test_a_flat_scene_does_not_tell_the_shift():
    rig = _rig()
    lengths = pinhole.ray_lengths(rig.tan_half_fov, SIDE)
    # The inside of a sphere: every view sees the same fall of disparity, and scale and shift trade places.
    flat = Prediction(
        lengths[:, None] * (1 + 0.05 * _random(VIEWS, 1, SIDE, SIDE)), (Kind.AFFINE_DISPARITY,) * VIEWS, rig
    )
    room = GlobalAffine()(_disparities(rig)).report["views"][0]["shift_std"]
    assert GlobalAffine()(flat).report["views"][0]["shift_std"] > 20 * room


def test_views_that_fit_best_as_spheres_are_named():
    # Six cube views of a bare hall: the lower one sees nothing but flat floor, which any shift fits well enough.
    rig = Rig(pinhole.look_along(directions.cube_faces()), torch.full((6,), math.tan(math.radians(52.5))), 32)
    disparity = 1 / render_rig(make_world("b1_hall"), rig, 0).depth
    middle = disparity.flatten(1).median(1).values[:, None, None, None]
    random = torch.Generator().manual_seed(0)
    scale = torch.exp(0.5 * torch.randn(6, 1, 1, 1, generator=random))
    spoiled = scale * (disparity + (torch.rand(6, 1, 1, 1, generator=random) - 0.5) * middle)
    notes = GlobalAffine()(Prediction(spoiled, (Kind.AFFINE_DISPARITY,) * 6, rig)).report["notes"]
    assert any("5] fit their neighbours best as spheres" in note for note in notes), notes
    assert not any("as spheres" in note for note in GlobalAffine()(_disparities(_rig())).report["notes"])


def test_the_bound_of_a_shift_is_that_of_the_map_unless_hardly_anything_lies_below_its_median():
    # Halls have maps whose low side is a fifth of the high one: a tighter bound cut off their right shifts.
    values = torch.linspace(0, 1, SIDE * SIDE).reshape(1, 1, SIDE, SIDE).repeat(VIEWS, 1, 1, 1)
    for part, own in ((0.2, True), (0.02, False)):
        skew = torch.where(values < 0.5, part * (values - 0.5), values - 0.5)
        maps = solver.standardise(Prediction(skew, (Kind.AFFINE_DISPARITY,) * VIEWS, _rig()))
        least = -float(maps.value.amin()) * (1 - 0.01)  # two thousandths of the pixels lie beyond
        high = float(maps.value.amax())
        assert (float(maps.bound[0]) * least > 0.99) == own
        assert float(maps.bound[0]) < 1 / (0.1 * high)


def test_gauge_is_the_geometric_mean_of_the_views_median_depths():
    aligned = GlobalAffine()(_disparities(_rig()))
    depth = aligned.distance[:, 0] / pinhole.ray_lengths(aligned.rig.tan_half_fov, SIDE)
    middle = depth.flatten(1).median(1).values.log()
    assert middle.mean().item() == pytest.approx(0, abs=0.01)  # of two middle pixels, disparity and depth take either


def test_normal_equations_equal_those_of_a_plain_matrix():
    prediction = _disparities(_rig())
    equations = solver.Equations(solver.standardise(prediction), solver.find_overlap(prediction.rig, 300), None, 2)
    o = equations.overlap
    shift = torch.full((VIEWS,), 0.5, dtype=torch.float64)
    jacobian = equations.jacobian(shift)
    columns = jacobian.shape[1]
    plain = torch.zeros(len(o.first), VIEWS * columns, dtype=torch.float64)
    for pair, (a, b) in enumerate(zip(o.first.tolist(), o.second.tolist(), strict=True)):
        for row, sign in ((a, 1), (b, -1)):
            at = int(o.view[row]) * columns
            plain[pair, at : at + columns] += sign * jacobian[row]
    weight = torch.rand(len(o.first), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    residual = _random(len(o.first), seed=4).double()
    matrix, right = equations.normal(jacobian, weight, residual)
    torch.testing.assert_close(matrix, plain.T @ (weight[:, None] * plain), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(right, -plain.T @ (weight * residual), rtol=1e-9, atol=1e-9)


def test_the_jacobian_is_the_derivative():
    prediction = _disparities(_rig())
    equations = solver.Equations(solver.standardise(prediction), solver.find_overlap(prediction.rig, 300), None, 3)
    x = torch.cat([_random(VIEWS, 1), torch.full((VIEWS, 1), 0.4), 0.1 * _random(VIEWS, 9, seed=2)], 1).double()
    jacobian = equations.jacobian(x[:, 1]).clone()
    for column in range(x.shape[1]):
        ahead, behind = x.clone(), x.clone()
        ahead[:, column] += 1e-5
        behind[:, column] -= 1e-5
        difference = [equations.log_distance(y[:, 0], y[:, 1], y[:, 2:]) for y in (ahead, behind)]
        torch.testing.assert_close(jacobian[:, column], (difference[0] - difference[1]) / 2e-5, rtol=1e-5, atol=1e-7)


def test_identity_takes_each_kind_at_its_word():
    rig = Rig(torch.eye(3).expand(4, 3, 3), torch.ones(4), 8)
    lengths = pinhole.ray_lengths(rig.tan_half_fov, 8)
    kinds = (Kind.AFFINE_DISPARITY, Kind.AFFINE_DEPTH, Kind.SCALE_DISTANCE, Kind.METRIC_DISTANCE)
    values = torch.stack([torch.full((1, 8, 8), 0.5), *[torch.full((1, 8, 8), 2.0)] * 3])
    aligned = Identity()(Prediction(values, kinds, rig))
    torch.testing.assert_close(aligned.distance[:2, 0], 2 * lengths[:2])  # depth 2, along the ray
    torch.testing.assert_close(aligned.distance[2:], values[2:])
    assert not aligned.metric


@pytest.mark.slow
def test_joint_field_pulls_the_scales_together():
    rig = Rig(pinhole.look_along(icosahedron.face_centres()), torch.ones(VIEWS), 32)
    distance, _ = _truth(rig)
    scale = torch.exp(0.3 * _random(VIEWS, 1, 1))
    prediction = Prediction((scale * distance)[:, None], (Kind.SCALE_DISTANCE,) * VIEWS, rig)
    align = JointField(steps=60, levels=4, log_size=12, rays=64)
    aligned = align(prediction)
    log = (aligned.distance[:, 0] / distance).log()
    assert (log - log.median()).abs().mean() < 0.1  # 0.24 as predicted
    assert torch.equal(align(prediction).distance, aligned.distance)


def test_legendre_fields_have_mean_zero_and_mean_square_one():
    t = (torch.arange(400, dtype=torch.float64) + 0.5) / 200 - 1
    y, x = torch.meshgrid(t, t, indexing="ij")
    values = fields.basis(torch.stack([x, y], -1).reshape(-1, 2), 5)
    assert values.shape[1] == len(fields.orders(5)) == 20
    torch.testing.assert_close(values.mean(0), torch.zeros(20, dtype=torch.float64), rtol=0, atol=1e-3)
    gram = values.T @ values / len(values)
    torch.testing.assert_close(gram, torch.eye(20, dtype=torch.float64), rtol=0, atol=2e-3)  # sum for an integral
    one = torch.zeros(1, 20, dtype=torch.float64)
    one[0, 7] = math.pi
    picture = fields.raster(one, 5, 400)[0]
    torch.testing.assert_close(picture.reshape(-1), math.pi * values[:, 7], rtol=1e-12, atol=1e-12)


def test_half_precision_maps_are_worked_on_in_single():
    prediction = _disparities(_rig())
    half = replace(prediction, values=prediction.values.half(), confidence=torch.ones_like(prediction.values).half())
    for align in (GlobalAffine(), GridAffine()):
        aligned = align(half)
        assert aligned.distance.dtype == torch.float32
        assert _error(aligned).mean() < 2e-3  # half precision has three digits, and shifts magnify
