"""Large flat parts of the scene made flat: floors, walls, ceilings, table tops."""

import math
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from ...checks import Range
from ...geometry import patches, robust, segments, sphere
from ...scene import Geometry, Panorama

_PIECES = 2500  # from which the planes are put together
_ROUNDS = 5  # of the robust fit
_FLAT_SHARE = 0.6  # of a region has to lie on its plane
_BORDER = 2  # pixels of the work size over which a pixel may change to the plane next door


@dataclass
class Planes:
    """Patches that continue each other are joined, a plane is fitted to each large region, and near pixels snap to it.

    A pixel that is off by `tolerance` (of its distance) moves half of the way, one that is off by twice as much hardly.
    """

    min_area: Annotated[float, Range(0.0001, 1)] = 0.01
    tolerance: Annotated[float, Range(0.001, 1)] = 0.06
    max_angle: Annotated[float, Range(1, 45)] = 12.0
    max_gap: Annotated[float, Range(0.001, 1)] = 0.03
    rows: Annotated[int, Range(32, 2048)] = 256

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry:
        """Snap; normals, where there are any, become those of the planes."""
        height, width = geometry.distance.shape[-2:]
        known = geometry.distance.isfinite() & (geometry.distance > 0)
        distance = torch.where(known, geometry.distance, 0.0).cpu().float()
        labels = self._regions(distance)
        labels = sphere.resize_erp(labels, height, width, "nearest")
        planes, flat = _robust_planes(labels, distance, self.tolerance)
        at = _inverse_on(planes, labels)
        # Regions end on work-size pixels, planes do not: near a border the plane that fits best is taken.
        best = _misfit(at, distance)
        reach = max(1, round(_BORDER * height / self.rows))
        for dim, step in ((-1, reach), (-1, -reach), (-2, reach), (-2, -reach)):
            other = torch.where(_inside(height, dim, step), labels.roll(step, dim), labels)
            there = _inverse_on(planes, other)
            nearer = _misfit(there, distance) < best
            at, labels = torch.where(nearer, there, at), torch.where(nearer, other, labels)
            best = torch.where(nearer, _misfit(there, distance), best)
        share = torch.where(flat[labels.long()] & (at > 0), 1 / (1 + (best / self.tolerance) ** 4), 0.0)
        log = torch.where(distance > 0, distance, 1.0).log()
        snapped = torch.where(share > 0, log + share * (-at.clamp_min(1e-12).log() - log), log).exp()
        found = torch.where(known, snapped.to(geometry.distance), geometry.distance)
        report = {**geometry.report, "planes": {"count": int(flat.sum()), "moved": round(float(share.mean()), 4)}}
        normal = None if geometry.normal is None else self._normals(geometry.normal, found, planes, labels, share)
        return replace(geometry, distance=found, normal=normal, report=report)

    def _regions(self, distance: Tensor) -> Tensor:  # [1, rows, 2 rows]
        rows = min(self.rows, distance.shape[-2])
        small = sphere.resize_erp(distance, rows, 2 * rows, "nearest")
        labels, smooth = patches.patches(small, small.new_zeros(3, rows, 2 * rows), _PIECES, 0.0)
        labels = patches.flat_regions(labels, smooth, self.max_gap, math.radians(self.max_angle))
        area = sphere.solid_angles(rows, 2 * rows).expand(rows, 2 * rows).reshape(-1) / (4 * math.pi)
        share = patches.sums(labels.reshape(-1).long(), area, int(labels.max()) + 1)
        return segments.renumber(torch.where(share[labels.long()] >= self.min_area, labels, 0))

    def _normals(self, normal: Tensor, distance: Tensor, planes: Tensor, labels: Tensor, share: Tensor) -> Tensor:
        """Those of the planes where pixels snapped to them."""
        flat = -torch.nn.functional.normalize(planes, dim=-1)[labels[0].long()].permute(2, 0, 1).to(normal)
        return torch.where(share.to(normal) > 0.5, flat, normal) * distance.isfinite()


def _robust_planes(labels: Tensor, distance: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """The plane of every region, and whether enough of the region lies on it."""
    trust = torch.ones_like(distance)
    for _ in range(_ROUNDS):
        planes = patches.fit_planes(labels, distance, trust)
        misfit = _misfit(_inverse_on(planes, labels), distance)
        trust = robust.geman_mcclure(misfit.nan_to_num(posinf=1e3), torch.tensor(tolerance))
    own, count = labels.reshape(-1).long(), len(planes)
    area = sphere.solid_angles(*labels.shape[-2:]).expand(labels.shape[-2:]).reshape(-1)
    on = patches.sums(own, area * (misfit < tolerance).reshape(-1), count)
    flat = on > _FLAT_SHARE * patches.sums(own, area, count)
    flat[0] = False
    return planes, flat


def _inverse_on(planes: Tensor, labels: Tensor) -> Tensor:  # [1, H, W]
    """1 / distance of the plane of each pixel's region; 0 where there is none or it is behind."""
    rays = sphere.erp_rays(labels.shape[-2], labels.shape[-1])
    inverse = (planes[labels[0].long()] * rays).sum(-1)[None]
    return torch.where(labels > 0, inverse.clamp_min(0), 0.0)


def _misfit(inverse: Tensor, distance: Tensor) -> Tensor:
    """How far a pixel is from its plane, as a difference of log distance; infinite where there is none."""
    good = (inverse > 0) & (distance > 0)
    return torch.where(good, (inverse.clamp_min(1e-12) * distance.clamp_min(1e-12)).log().abs(), torch.inf)


def _inside(height: int, dim: int, step: int) -> Tensor:  # [1, H, 1], bool
    """Rows whose neighbour `step` rows away exists; columns always have one."""
    row = torch.arange(height)[None, :, None] - (step if dim == -2 else 0)
    return (row >= 0) & (row < height)
