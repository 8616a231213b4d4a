"""Geometry -> Geometry that says where it can be trusted."""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
import torch.nn.functional as F

from ..checks import Range
from ..geometry import sphere
from ..scene import Geometry, Panorama


class Identity:
    """Trust what the blend trusts."""

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry:
        return geometry


@dataclass
class ValidGeometry:
    """Distrust the sky, depth edges, pixels whose views disagree, and what a partial panorama does not show."""

    edge_ratio: Annotated[float, Range(1)] = 1.25
    max_spread: Annotated[float, Range(0)] = 0.5

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry:
        distance = geometry.distance
        mask = geometry.mask & distance.isfinite() & (distance > 0)
        # Holes take no part in the ratio: they are marked already.
        log = distance.clamp(1e-6, 1e6).log()
        around = sphere.pad_erp(torch.stack([log, mask.to(log)]), 1)  # [2, 1, H + 2, W + 2]
        near, known = around[0], around[1] > 0
        farthest = F.max_pool2d(torch.where(known, near, -torch.inf)[None], 3, 1)[0]
        nearest = -F.max_pool2d(torch.where(known, -near, -torch.inf)[None], 3, 1)[0]
        mask &= (farthest - nearest).exp() <= self.edge_ratio
        if geometry.spread is not None:
            mask &= geometry.spread <= self.max_spread
        if geometry.sky is not None:
            mask &= ~geometry.sky
        if panorama.mask is not None:
            mask &= panorama.mask
        return replace(geometry, mask=mask)
