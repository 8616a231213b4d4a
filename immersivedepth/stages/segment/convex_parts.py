"""Things, told apart without any network: by their shape first, and a little by their colour."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated

import cv2
import numpy as np
import torch
from torch import Tensor

from ...checks import Range
from ...geometry import patches, segments, sphere
from ...scene import Geometry, Instances, Panorama, unit_image
from .valid_geometry import ValidGeometry

_COLOUR_SPREAD = 25.0  # of CIE Lab, a clear difference between two materials
_FLAT = math.radians(10)  # patches that meet at a smaller angle are one surface
_CONVEX_COST = 0.25  # of a fold that bulges towards the camera, against one that caves in


@dataclass
class ConvexParts:
    """Patches of like shape are joined across convex folds and kept apart at gaps and concave folds.

    A thing on the floor meets it in a concave fold, and its own faces meet in convex ones (as in LCCP, Stein 2014).
    """

    valid: ValidGeometry = field(default_factory=ValidGeometry)
    rows: Annotated[int, Range(32, 2048)] = 256
    patches: Annotated[int, Range(20, 50000)] = 2500
    max_gap: Annotated[float, Range(0.001, 1)] = 0.06
    max_angle: Annotated[float, Range(1, 90)] = 35.0
    colour: Annotated[float, Range(0, 10)] = 0.15
    min_area: Annotated[float, Range(0, 1)] = 0.0005

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry:
        """Find the valid mask first, then the instances."""
        geometry = self.valid(geometry, panorama)
        labels = self.labels(geometry, panorama)
        count = int(labels.max())
        return replace(geometry, instances=Instances(labels, (0,) * count))

    def labels(self, geometry: Geometry, panorama: Panorama) -> Tensor:  # [1, H, W], int32
        """The instances alone."""
        height, width = geometry.distance.shape[-2:]
        rows = min(self.rows, height)
        size = rows, 2 * rows
        known = geometry.distance.isfinite() & (geometry.distance > 0)
        distance = sphere.resize_erp(torch.where(known, geometry.distance, 0.0), *size, "nearest").cpu()
        colour = lab(sphere.resize_erp(unit_image(panorama.image), *size).cpu())
        labels, distance = patches.patches(distance, colour, self.patches, self.colour)
        labels = _absorb(self._join(labels, distance, colour), self.min_area)
        return sphere.resize_erp(labels, height, width, "nearest").to(geometry.distance.device)

    def _join(self, labels: Tensor, distance: Tensor, colour: Tensor) -> Tensor:
        """Patches to things."""
        labels = patches.flat_regions(labels, distance, self.max_gap / 2, _FLAT)
        folds = patches.folds(labels, patches.fit_planes(labels, distance))
        area = sphere.solid_angles(*labels.shape[-2:]).expand(labels.shape[-2:]).reshape(-1)
        count, own = int(labels.max()), labels.reshape(-1).long()
        tint = patches.sums(own, colour.reshape(3, -1).T * area[:, None], count + 1)
        tint = tint / patches.sums(own, area, count + 1).clamp_min(1e-12)[:, None]
        turn = (folds.turn - _FLAT).clamp_min(0) * torch.where(folds.bulge, _CONVEX_COST, 1.0)
        cost = folds.gap / self.max_gap + turn / math.radians(self.max_angle)
        cost = cost + self.colour * (tint[folds.first] - tint[folds.second]).norm(dim=-1)
        return patches.merged(labels, folds, cost)


def lab(image: Tensor) -> Tensor:  # [3, H, W] -> [3, H, W]
    """CIE Lab; a length of one is a clear difference between two materials."""
    pixels = np.ascontiguousarray(image.clamp(0, 1).permute(1, 2, 0).numpy(), np.float32)
    return torch.from_numpy(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)).permute(2, 0, 1) / _COLOUR_SPREAD


def _absorb(labels: Tensor, min_area: float) -> Tensor:  # [1, H, W] -> [1, H, W]
    """Regions of less than that share of the sphere go to the neighbour they border most, or vanish without any."""
    share = sphere.solid_angles(*labels.shape[-2:]).expand(labels.shape[-2:]).reshape(-1) / (4 * math.pi)
    while True:
        count = int(labels.max())
        area = torch.zeros(count + 1).index_add_(0, labels.reshape(-1).long(), share)
        small = (area < min_area) & (torch.arange(count + 1) > 0)
        if not small.any():
            return labels
        first, second, which, here, _ = segments.borders(labels)
        border = torch.zeros(len(first)).index_add_(0, which, share.sqrt()[here])
        target = torch.arange(count + 1)
        best = torch.zeros(count + 1)
        for i, j, n in zip(first.tolist(), second.tolist(), border.tolist(), strict=True):
            for a, b in ((i, j), (j, i)):
                if small[a] and n > best[a] and area[b] >= area[a] and (area[b] > area[a] or b < a):
                    best[a], target[a] = n, b
        target[small & (best == 0)] = 0  # islands in the unknown, and the largest of a heap of small ones
        for _ in range(count):
            following = target[target]
            if torch.equal(following, target):
                break
            target = following
        labels = segments.renumber(target[labels.long()].int())
