"""How wrong the geometry of a panorama is."""

from __future__ import annotations

from ..geometry import sphere
from ..scene import Geometry, Truth


def abs_rel(geometry: Geometry, truth: Truth, rows: int = 256) -> float:
    """Mean of |distance / true - 1| over the trusted pixels of about so many rows, weighted by solid angle.

    A result without a metric scale is first multiplied by the median of true / distance.
    """
    height, width = geometry.distance.shape[-2:]
    every = max(1, height // rows)  # tracing a furnished world takes its time
    some = (slice(every // 2, None, every), slice(every // 2, None, every))
    distance, trusted = geometry.distance[0][some], geometry.mask[0][some]
    true = truth.trace(sphere.erp_rays(height, width, distance.device)[some]).distance
    keep = trusted & true.isfinite() & distance.isfinite() & (distance > 0)
    if not keep.any():
        return float("nan")
    ratio = (distance / true)[keep].double()
    if not geometry.metric:
        ratio = ratio / ratio.median()
    weight = sphere.solid_angles(height, width, ratio.device).expand(height, width)[some][keep].double()
    return float(((ratio - 1).abs() * weight).sum() / weight.sum())
