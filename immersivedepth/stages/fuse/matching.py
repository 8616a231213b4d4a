"""Bring the maps of several models, view by view, onto the numbers of one of them."""

import torch
from torch import Tensor

from ...checks import ConfigError
from ...geometry import pinhole
from ...scene import Kind, Prediction

TURNS = 12  # of reweighting; least absolute values settle in fewer


def matched(predictions: dict[str, Prediction], reference: str) -> tuple[Tensor, Tensor]:
    """Disparities of all models on the reference's affine scale [M, V, 1, h, w], and where they are known.

    Depths can only be compared as disparities, and those of an affine depth are unknown: such models are refused.
    """
    base = predictions[reference]
    target, known = _disparity(reference, base)
    maps, valid = [], []
    for name, prediction in predictions.items():
        value, ok = _disparity(name, prediction)
        if value.shape != target.shape or not torch.equal(prediction.rig.rotation, base.rig.rotation):
            raise ConfigError(f"fuse: {name} and {reference} look at different views; use fuse=stack")
        if name != reference:
            lines = [_fit(x[a & b], y[a & b]) for x, y, a, b in zip(value, target, ok, known, strict=True)]
            scale, shift = torch.stack(lines).float()[..., None, None, None].unbind(1)
            value = value * scale + shift
        maps.append(value)
        valid.append(ok)
    return torch.stack(maps), torch.stack(valid)


def back(disparity: Tensor, like: Prediction) -> Tensor:  # [V, 1, h, w]
    """Fused disparities as the kind of the reference; where a distance would not be positive, the reference's own."""
    lengths = pinhole.ray_lengths(like.rig.tan_half_fov, like.rig.resolution)[:, None]
    is_disparity = torch.tensor([k is Kind.AFFINE_DISPARITY for k in like.kinds], device=disparity.device)
    distance = torch.where(disparity > 0, lengths / disparity.clamp_min(1e-30), like.values)
    return torch.where(is_disparity[:, None, None, None], disparity, distance)


def _disparity(name: str, prediction: Prediction) -> tuple[Tensor, Tensor]:
    if Kind.AFFINE_DEPTH in prediction.kinds:
        raise ConfigError(f"fuse: {name} predicts affine depth, which has no disparity to average; use fuse=stack")
    lengths = pinhole.ray_lengths(prediction.rig.tan_half_fov, prediction.rig.resolution)[:, None]
    is_disparity = torch.tensor([k is Kind.AFFINE_DISPARITY for k in prediction.kinds], device=lengths.device)
    is_disparity = is_disparity[:, None, None, None]
    known = prediction.values.isfinite() & (is_disparity | (prediction.values > 0))
    if prediction.sky is not None:
        known = known & ~prediction.sky
    value = torch.where(known, prediction.values, 1.0)
    return torch.where(is_disparity, value, lengths / torch.where(known, value, lengths)) * known, known


def _fit(x: Tensor, y: Tensor) -> Tensor:  # [2]
    """Scale and shift from x to y by least absolute values; a fit that would turn near into far keeps the order."""
    stride = max(1, len(x) // 20000)
    x, y = x[::stride].double(), y[::stride].double()
    if len(x) < 16:
        return torch.tensor([1.0, 0.0], dtype=torch.float64, device=x.device)
    middle_x, middle_y = x.median(), y.median()
    spread_x, spread_y = (x - middle_x).abs().mean().clamp_min(1e-30), (y - middle_y).abs().mean()
    a, b = (x - middle_x) / spread_x, (y - middle_y) / spread_y.clamp_min(1e-30)
    weight = torch.ones_like(a)
    slope = shift = a.new_zeros(())
    for _ in range(TURNS):
        total = weight.sum()
        mean_a, mean_b = (weight * a).sum() / total, (weight * b).sum() / total
        covariance = (weight * (a - mean_a) * (b - mean_b)).sum()
        slope = (covariance / (weight * (a - mean_a).square()).sum().clamp_min(1e-12)).clamp_min(0.05)
        shift = mean_b - slope * mean_a
        weight = 1 / (slope * a + shift - b).abs().clamp_min(1e-3)
    scale = slope * spread_y / spread_x
    return torch.stack([scale, middle_y + shift * spread_y - scale * middle_x])
