"""Several models become one prediction."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from immersivedepth.checks import ConfigError
from immersivedepth.config import build
from immersivedepth.geometry import pinhole
from immersivedepth.scene import Kind, Prediction, Rig
from immersivedepth.stages.fuse.best_of import BestOf
from immersivedepth.stages.fuse.stack import Stack
from immersivedepth.stages.fuse.weighted_sum import WeightedSum

VIEWS, SIDE = 3, 24


def _rig() -> Rig:
    forward = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0.1, 1]])
    return Rig(pinhole.look_along(forward), torch.full((VIEWS,), 0.8), SIDE)


def _disparity(seed: int = 0) -> Tensor:
    return 0.2 + torch.rand(VIEWS, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def _prediction(values: Tensor, kind: Kind = Kind.AFFINE_DISPARITY, **more: Tensor) -> Prediction:
    return Prediction(values, (kind,) * VIEWS, _rig(), **more)


def test_stack_keeps_all_maps_and_says_who_looked():
    a = _prediction(_disparity(0), sky=torch.ones(VIEWS, 1, SIDE, SIDE, dtype=torch.bool))
    b = _prediction(_disparity(1), Kind.METRIC_DISTANCE, confidence=torch.full((VIEWS, 1, SIDE, SIDE), 0.25))
    both = Stack()({"a": a, "b": b})
    assert both.kinds == (Kind.AFFINE_DISPARITY,) * 3 + (Kind.METRIC_DISTANCE,) * 3
    assert both.models == ("a",) * 3 + ("b",) * 3
    torch.testing.assert_close(both.values, torch.cat([a.values, b.values]))
    assert both.confidence is not None
    assert both.sky is not None
    assert both.confidence[:3].eq(1).all()
    assert both.confidence[3:].eq(0.25).all()
    assert both.sky[:3].all()
    assert not both.sky[3:].any()
    assert len(both.rig) == 6


def test_stack_of_one_model_is_that_model():
    a = _prediction(_disparity())
    assert Stack()({"a": a}) is a


def test_stack_refuses_maps_of_different_size():
    small = Prediction(torch.ones(1, 1, 8, 8), (Kind.AFFINE_DEPTH,), Rig(torch.eye(3)[None], torch.ones(1), 8))
    with pytest.raises(ConfigError, match="a 24, b 8"):
        Stack()({"a": _prediction(_disparity()), "b": small})


def test_weighted_sum_undoes_scale_and_shift_of_each_view():
    a = _prediction(_disparity())
    scale = torch.tensor([0.1, 3.0, 50.0])[:, None, None, None]
    b = _prediction(a.values * scale - 2.0)
    fused = WeightedSum({"a": 1.0, "b": 0.4})({"a": a, "b": b})
    torch.testing.assert_close(fused.values, a.values, rtol=1e-4, atol=1e-5)  # float32 of numbers up to 60
    assert fused.models == ("a + b",) * VIEWS


def test_weighted_sum_weighs_what_the_models_disagree_on():
    a = _prediction(_disparity())
    spoiled = a.values.clone()
    spoiled[:, :, :4, :4] += 1.0  # a minority, which the robust fit ignores
    fused = WeightedSum({"a": 1.0, "b": 0.25})({"a": a, "b": _prediction(2 * spoiled)})
    want = a.values.clone()
    want[:, :, :4, :4] += 0.25 / 1.25
    torch.testing.assert_close(fused.values, want, rtol=0, atol=2e-3)  # the floor of the absolute-value weights


def test_weighted_sum_of_distance_and_disparity_has_the_kind_of_the_heavier():
    a = _prediction(_disparity())
    lengths = pinhole.ray_lengths(a.rig.tan_half_fov, SIDE)[:, None]
    b = _prediction(lengths / a.values, Kind.METRIC_DISTANCE)
    fused = WeightedSum({"b": 2.0})({"a": _prediction(5 * a.values - 3), "b": b})
    assert fused.kinds == (Kind.METRIC_DISTANCE,) * VIEWS
    torch.testing.assert_close(fused.values, b.values, rtol=1e-4, atol=0)


def test_weighted_sum_leaves_unknown_pixels_to_the_others():
    a = _prediction(_disparity())
    holes = a.values.clone()
    holes[:, :, 3] = torch.nan
    fused = WeightedSum({"b": 2.0})({"a": a, "b": _prediction(holes)})
    torch.testing.assert_close(fused.values, a.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fuse", [WeightedSum(), BestOf(), Stack()])
def test_without_any_model_there_is_nothing_to_fuse(fuse):
    with pytest.raises(ConfigError, match="at least one model"):
        fuse({})


def test_weighted_sum_refuses_bad_weights_and_affine_depth():
    a = _prediction(_disparity())
    with pytest.raises(ConfigError, match="a=-1"):
        WeightedSum({"a": -1})({"a": a, "b": a})
    with pytest.raises(ConfigError, match="count 0"):
        WeightedSum({"a": 0.0, "b": 0.0})({"a": a, "b": a})
    with pytest.raises(ConfigError, match="b predicts affine depth"):
        WeightedSum()({"a": a, "b": replace(a, kinds=(Kind.AFFINE_DEPTH,) * VIEWS)})


def test_best_of_takes_the_surer_model_and_needs_confidence():
    a, half = _disparity(), torch.full((VIEWS, 1, SIDE, SIDE), 0.5)
    sure = half.clone()
    sure[..., :5] = 0.9
    other = a.clone()
    other[..., :5] += 0.3
    fused = BestOf()({"a": _prediction(a, confidence=half), "b": _prediction(7 * other + 1, confidence=sure)})
    torch.testing.assert_close(fused.values, other, rtol=0, atol=2e-3)
    assert fused.confidence is not None
    torch.testing.assert_close(fused.confidence, sure)
    with pytest.raises(ConfigError, match="b give no confidence"):
        BestOf()({"a": _prediction(a, confidence=half), "b": _prediction(a)})


def test_the_original_preset_weighs_its_two_networks_as_the_original_did(compose):
    config = compose("experiment=seed_original")
    assert set(config["predict"]) == {"omnidata_depth", "depth_anything_v2"}
    fuse = build(config["fuse"])
    assert isinstance(fuse, WeightedSum)
    assert fuse.weights == {"omnidata_depth": 1.0, "depth_anything_v2": 0.4}
    # Where the two disagree by d, the mean lies 0.4 / 1.4 of d away from the heavier.
    low, high = _disparity(), _disparity()
    high[..., :4] += 0.07
    fused = fuse({"omnidata_depth": _prediction(low), "depth_anything_v2": _prediction(high)})
    torch.testing.assert_close(
        fused.values[..., :4] - low[..., :4], torch.full_like(low[..., :4], 0.02), rtol=0, atol=2e-3
    )
