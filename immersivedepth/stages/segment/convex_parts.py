"""Things, told apart without any network: by their shape first, and a little by their colour."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...checks import Range
from ...geometry import filters, robust, segments, sphere
from ...geometry.normals import normals_from_distance
from ...scene import Geometry, Instances, Panorama, unit_image
from .valid_geometry import ValidGeometry

_COLOUR_SPREAD = 25.0  # of CIE Lab, a clear difference between two materials
_FLAT = math.radians(10)  # patches that meet at a smaller angle are one surface
_STEP = 0.25  # of log distance, a clear difference within a patch
_CLEAN = 2e-3  # noise of log distance, below which nothing is smoothed
_WINDOW = 3.0  # pixels, standard deviation of the smoother
_EDGE = 4.0  # standard deviations of the noise that the smoother takes for a step
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
        known = distance > 0
        colour = _lab(sphere.resize_erp(unit_image(panorama.image), *size).cpu()) / _COLOUR_SPREAD
        log = torch.where(known, distance, 1.0).log()
        noise = _noise(log, known)
        if noise > _CLEAN:  # normals of single pixels would be noise alone
            pixel = math.pi / rows
            smooth = filters.guided(log, log, _WINDOW * pixel, _EDGE * noise, known)
            log = torch.where(known, smooth, log)
            distance = torch.where(known, log.exp(), 0.0)
        normal = normals_from_distance(distance)
        features = torch.cat([log / _STEP, normal / math.radians(self.max_angle), colour * self.colour])
        labels = segments.superpixels(features, known, self.patches, 1.0)
        joined = self._join(labels, distance, colour)
        labels = _absorb(joined, self.min_area)
        return sphere.resize_erp(labels, height, width, "nearest").to(geometry.distance.device)

    def _join(self, labels: Tensor, distance: Tensor, colour: Tensor) -> Tensor:
        """Superpixels to things."""
        rays = sphere.erp_rays(*distance.shape[-2:])
        plane, centre, tint = _patches(labels, distance, colour, rays)
        first, second, which, here, there = segments.borders(labels)
        at = F.normalize(rays.reshape(-1, 3)[here] + rays.reshape(-1, 3)[there], dim=-1)
        # How far apart the two planes stand where the patches meet: nothing at a fold, a lot where one hides the other.
        ends = [(plane[side[which]] * at).sum(-1).clamp_min(1e-6).log() for side in (first, second)]
        length = sphere.solid_angles(*distance.shape[-2:]).sqrt().expand(distance.shape[-2:]).reshape(-1)[here]
        gap = _mean((ends[0] - ends[1]).abs().clamp_max(1), which, length, len(first))
        border = torch.zeros(len(first)).index_add_(0, which, length)
        normal = -F.normalize(plane, dim=-1)
        turn = (normal[first] * normal[second]).sum(-1).clamp(-1, 1).acos()
        bulge = ((normal[first] - normal[second]) * (centre[first] - centre[second])).sum(-1) > 0
        turn = (turn - _FLAT).clamp_min(0) * torch.where(bulge, _CONVEX_COST, 1.0)
        cost = gap / self.max_gap + turn / math.radians(self.max_angle)
        cost = cost + self.colour * (tint[first] - tint[second]).norm(dim=-1)
        number = segments.merge(int(labels.max()), first.tolist(), second.tolist(), cost.tolist(), border.tolist(), 1.0)
        return torch.from_numpy(number)[labels.long()].int()


def _patches(
    labels: Tensor, distance: Tensor, colour: Tensor, rays: Tensor
) -> tuple[Tensor, Tensor, Tensor]:  # [N + 1, 3] each
    """Of every region: m of the plane 1 / distance = m . ray that fits best, its middle on that plane, its colour."""
    count, own = int(labels.max()) + 1, labels.reshape(-1).long()
    ray, inside = rays.reshape(-1, 3).double(), own > 0
    inverse = torch.where(inside, 1 / distance.reshape(-1).clamp_min(1e-9), 0.0).double()
    weight = sphere.solid_angles(*distance.shape[-2:]).expand(distance.shape[-2:]).reshape(-1).double() * inside
    mass = torch.zeros(count, dtype=torch.float64).index_add_(0, own, weight).clamp_min(1e-15)
    direction = torch.zeros(count, 3, dtype=torch.float64).index_add_(0, own, ray * weight[:, None])
    direction = F.normalize(direction, dim=-1)
    mean = torch.zeros(count, dtype=torch.float64).index_add_(0, own, inverse * weight) / mass
    # Relative errors are what a network makes; a weak pull towards a sphere keeps thin regions from tilting at will.
    relative = inverse / mean[own].clamp_min(1e-12)
    matrix = torch.zeros(count, 9, dtype=torch.float64)
    matrix = matrix.index_add_(0, own, (ray[:, :, None] * ray[:, None]).reshape(-1, 9) * weight[:, None])
    right = torch.zeros(count, 3, dtype=torch.float64).index_add_(0, own, ray * (relative * weight)[:, None])
    pull = 1e-5 * mass[:, None]
    matrix = matrix.reshape(-1, 3, 3) + torch.diag_embed(pull.expand(-1, 3)) + 1e-15 * torch.eye(3)
    plane = torch.linalg.solve(matrix, right + pull * direction) * mean[:, None]
    reach = (plane * direction).sum(-1, keepdim=True)
    tint = torch.zeros(count, 3).index_add_(0, own, colour.reshape(3, -1).T * weight[:, None].float())
    return plane.float(), (direction / reach.clamp_min(1e-9)).float(), tint / mass[:, None].float()


def _noise(log: Tensor, known: Tensor) -> float:
    """Standard deviation of white noise of log distance, from distances to the mean of the neighbours."""
    around = sphere.pad_erp(log, 1)
    middle = (around[:, :-2, 1:-1] + around[:, 2:, 1:-1] + around[:, 1:-1, :-2] + around[:, 1:-1, 2:]) / 4
    return float(robust.spread((log - middle)[known])) / math.sqrt(1.25)


def _mean(values: Tensor, which: Tensor, weight: Tensor, count: int) -> Tensor:
    total = torch.zeros(count).index_add_(0, which, values * weight)
    return total / torch.zeros(count).index_add_(0, which, weight).clamp_min(1e-12)


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


def _lab(image: Tensor) -> Tensor:  # [3, H, W] -> [3, H, W]
    pixels = np.ascontiguousarray(image.clamp(0, 1).permute(1, 2, 0).numpy(), np.float32)
    return torch.from_numpy(cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)).permute(2, 0, 1)
