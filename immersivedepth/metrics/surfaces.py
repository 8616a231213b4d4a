"""Normals, the seam, the poles, and likeness as pictures."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..geometry import sphere
from ..geometry.robust import weighted_median

ANGLES = (11.25, 22.5, 30.0)  # degrees
POLAR = 75.0  # degrees of latitude from which on a pixel belongs to a pole


def normal_angles(
    prediction: Tensor, target: Tensor, valid: Tensor, weight: Tensor
) -> dict[str, float]:  # [3, H, W] twice, [H, W] twice
    """Mean, median and root mean square angle in degrees, and the shares within 11.25, 22.5 and 30 degrees."""
    there = valid & (prediction.square().sum(0) > 0) & (target.square().sum(0) > 0)
    if not there.any():
        return {}
    a, b, w = prediction[:, there].double(), target[:, there].double(), weight[there]
    # The arc tangent is exact for small angles, where the arc cosine loses half of the digits.
    angle = torch.atan2(torch.linalg.cross(a, b, dim=0).norm(dim=0), (a * b).sum(0)).rad2deg()
    total = w.sum()
    out = {
        "normal_mean": float((w * angle).sum() / total),
        "normal_median": float(weighted_median(angle, w)),
        "normal_rmse": math.sqrt(float((w * angle.square()).sum() / total)),
    }
    return out | {f"normal_within_{limit:g}": float(w[angle < limit].sum() / total) for limit in ANGLES}


def seam_and_poles(prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, float]:  # [H, W] each
    """How much the log error changes across the seam, the same between other columns, and AbsRel around both poles.

    seam = mean over rows of |e(first column) - e(last column)|, e = ln p - ln g; inside = the same for neighbours.
    """
    good = valid & (prediction > 0) & prediction.isfinite()
    error = torch.where(good, prediction, 1.0).log() - torch.where(good, target, 1.0).log()
    step = (error - error.roll(-1, 1)).abs()  # the last column against the first
    both = good & good.roll(-1, 1)
    out = {}
    if both[:, -1].any():
        out["seam"] = float(step[:, -1][both[:, -1]].mean())
    if both[:, :-1].any():
        out["seam_inside"] = float(step[:, :-1][both[:, :-1]].mean())
    height, width = valid.shape
    latitude = sphere.latitudes(height).rad2deg()
    area = sphere.solid_angles(height, width).double().expand(height, width)
    for name, rows in (("pole_top", latitude > POLAR), ("pole_bottom", latitude < -POLAR)):
        there = good & rows[:, None]
        if there.any():
            relative = (prediction[there] / target[there] - 1).abs()
            out[name] = float((area[there] * relative).sum() / area[there].sum())
    return out


def likeness(prediction: Tensor, target: Tensor, valid: Tensor, most: float) -> dict[str, float]:  # [H, W] each
    """PSNR over valid pixels, SSIM over the map with holes taken as agreeing; both for values from 0 to `most`."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    square = float((prediction[valid] - target[valid]).square().mean())
    filled = torch.where(valid, prediction, target.nan_to_num(0.0, 0.0, 0.0))
    true = target.nan_to_num(0.0, 0.0, 0.0)
    ssim = structural_similarity_index_measure(filled[None, None], true[None, None], data_range=most)
    assert isinstance(ssim, Tensor)
    return {"psnr": 10 * math.log10(most**2 / square) if square else math.inf, "ssim": float(ssim)}
