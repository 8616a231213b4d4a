"""How wrong a result is."""

from __future__ import annotations

from .geometry import sphere
from .scene import Geometry, Truth


def abs_rel(geometry: Geometry, truth: Truth) -> float:
    """Mean of |distance / true - 1| over the trusted pixels, weighted by solid angle.

    A result without a metric scale is first multiplied by the median of true / distance.
    """
    height, width = geometry.distance.shape[-2:]
    true = truth.trace(sphere.erp_rays(height, width, geometry.distance.device)).distance
    keep = geometry.mask[0] & true.isfinite() & geometry.distance[0].isfinite() & (geometry.distance[0] > 0)
    if not keep.any():
        return float("nan")
    ratio = (geometry.distance[0] / true)[keep].double()
    if not geometry.metric:
        ratio = ratio / ratio.median()
    weight = sphere.solid_angles(height, width, ratio.device).expand(height, width)[keep].double()
    return float(((ratio - 1).abs() * weight).sum() / weight.sum())
