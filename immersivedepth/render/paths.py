"""Ways for a camera through the free space around a panorama's centre.

All that the panorama sees is a star around its centre: a point is free when it is nearer than the surface in its
direction. Every way here is brought inside that star, so no pose stands in a wall or in a thing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import InputError, Range, check_shapes
from ..geometry import pinhole, sphere
from .protocol import PANORAMA, Pose

EYE_ROWS = 20 / 512  # share of the rows, around the horizon, that bound horizontal ways
LEAST_WINDOW, BLUR_WINDOW = 1 / 16, 1 / 64  # of the turn: the minimum filter and sigma of the Gaussian
FREE_SHARE = 0.9  # of the way to the surface: nothing stands nearer to a surface than a tenth of that
NEIGHBOURHOOD = 2  # pixels around a direction whose nearest surface counts
SWAPS = 10_000  # tries of the search for a short way through all anchors
SMOOTHING = 1 / 9  # sigma of a dense way's smoothing, as a share of its poses: 20 of 180
DETAIL = 1024  # columns at which a ring is traced before it is divided by length


@dataclass(frozen=True)
class Path:
    """Where a camera goes and where it looks."""

    positions: Tensor  # [N, 3]
    look: Tensor  # [N, 3], unit

    def __post_init__(self) -> None:
        check_shapes("Path", positions=(self.positions, "N 3"), look=(self.look, "N 3"))

    def __len__(self) -> int:
        return len(self.positions)

    def poses(self, kind: str) -> list[Pose]:
        """Panoramas keep the world's axes, so that a film of them does not turn; perspective views look ahead."""
        turns = torch.eye(3).expand(len(self), 3, 3) if kind == PANORAMA else pinhole.look_along(self.look)
        return [Pose(turn, place) for turn, place in zip(turns, self.positions, strict=True)]


@dataclass
class CirclePoseSampler:
    """Rings around the centre at shares of the free space, poses evenly along each; odd rings by half a step apart."""

    traverse_ratios: tuple[Annotated[float, Range(0.0, FREE_SHARE)], ...] = (0.2, 0.4, 0.6)
    n_anchors_per_ratio: Annotated[int, Range(1, 1024)] = 8
    height: float = 0.0  # of the rings above the centre, in the unit of the distances

    def __call__(self, distance: Tensor) -> Path:  # [1, H, W]
        """The anchors, ring by ring, looking outwards."""
        free = clearance(distance)
        rings = []
        for i, ratio in enumerate(self.traverse_ratios):
            ring = along_ring(free * ratio, self.n_anchors_per_ratio, 0.5 * (i % 2))
            rings.append(F.pad(ring, (0, 1), value=self.height))
        positions = inside(torch.cat(rings), distance)
        return Path(positions, outwards(positions))


@dataclass
class DenseTravel:
    """A short smooth way through the anchors of rings, at even steps, looking ahead and to the right."""

    traverse_ratios: tuple[Annotated[float, Range(0.0, FREE_SHARE)], ...] = (0.2, 0.4, 0.6)
    n_anchors_per_ratio: Annotated[int, Range(1, 1024)] = 8
    poses: Annotated[int, Range(2, 100_000)] = 60
    seed: Annotated[int, Range(0)] = 0

    def __call__(self, distance: Tensor) -> Path:  # [1, H, W]
        """The whole way."""
        anchors = CirclePoseSampler(self.traverse_ratios, self.n_anchors_per_ratio)(distance).positions
        way = even_steps(anchors[short_order(anchors, self.seed)], self.poses)
        way = inside(smooth(way, self.poses * SMOOTHING), distance)
        ahead = F.normalize(torch.gradient(way, dim=0)[0] if len(way) > 1 else way, dim=-1)
        left = torch.linalg.cross(way.new_tensor([0.0, 0.0, 1.0]).expand_as(ahead), ahead)
        return Path(way, F.normalize(ahead - left, dim=-1))


@dataclass
class Orbit:
    """Once around the centre on one ring, looking inwards across it or outwards."""

    ratio: Annotated[float, Range(0.0, FREE_SHARE)] = 0.3
    poses: Annotated[int, Range(1, 100_000)] = 60
    look: Literal["outwards", "inwards"] = "outwards"

    def __call__(self, distance: Tensor) -> Path:  # [1, H, W]
        """The whole round."""
        ring = F.pad(along_ring(clearance(distance) * self.ratio, self.poses, 0.0), (0, 1))
        positions = inside(ring, distance)
        away = outwards(positions)
        return Path(positions, away if self.look == "outwards" else -away)


def clearance(distance: Tensor) -> Tensor:  # [1, H, W] -> [W]
    """How far one may go in each column's direction at eye height, smoothed downwards, around the seam."""
    check_shapes("clearance", distance=(distance, "1 H W"))
    height, width = distance.shape[-2:]
    half = max(1, round(height * EYE_ROWS / 2))
    rows = slice(height // 2 - half, height // 2 + half)
    flat = known(distance)[0, rows] * sphere.latitudes(height)[rows].cos().to(distance)[:, None]
    least = flat.amin(0)
    window = max(1, round(width * LEAST_WINDOW / 2))
    low = -F.max_pool1d(F.pad(-least[None, None], (window, window), mode="circular"), 2 * window + 1, 1)
    kernel = sphere.gaussian(max(width * BLUR_WINDOW, 0.5)).to(distance)
    pad = len(kernel) // 2
    return F.conv1d(F.pad(low, (pad, pad), mode="circular"), kernel[None, None])[0, 0]


def known(distance: Tensor) -> Tensor:  # [1, H, W] -> [1, H, W]
    """Distances with sky as far as the farthest surface, and holes as near as the nearest."""
    good = distance[distance.isfinite() & (distance > 0)]
    if not len(good):
        raise InputError("no distance is known, so there is no free space to go through")
    out = torch.where(distance > 0, distance, good.amin())
    return torch.where(out.isfinite(), out, good.amax())


def inside(positions: Tensor, distance: Tensor, share: float = FREE_SHARE) -> Tensor:  # [N, 3], [1, H, W] -> [N, 3]
    """Positions drawn towards the centre until none is farther than a share of the way to the nearest surface."""
    reach = known(distance)
    near = -F.max_pool2d(-sphere.pad_erp(reach, NEIGHBOURHOOD), 2 * NEIGHBOURHOOD + 1, 1)
    limit = share * sphere.sample_erp(near, sphere.rays_to_erp(positions), "nearest")[..., 0]
    length = positions.norm(dim=-1)
    return positions * (limit / length.clamp_min(1e-9)).clamp_max(1.0)[:, None]


def outwards(positions: Tensor) -> Tensor:  # [N, 3]
    """Away from the centre; straight ahead for what stands in it."""
    away = torch.where(positions.norm(dim=-1, keepdim=True) > 1e-9, positions, positions.new_tensor([1.0, 0.0, 0.0]))
    return F.normalize(away, dim=-1)


def along_ring(radius: Tensor, count: int, shift: float) -> Tensor:  # [W] -> [count, 2]
    """Points at even distances along the closed curve of a radius per column, begun `shift` of a step further."""
    width = len(radius)
    turn = sphere.longitudes(max(DETAIL, width)).to(radius)
    at = (0.5 - turn / (2 * math.pi)) * width - 0.5
    low = at.floor().long()
    part = at - low
    reach = radius[low % width] * (1 - part) + radius[(low + 1) % width] * part
    curve = torch.stack([turn.cos(), turn.sin()], -1) * reach[:, None]
    closed = torch.cat([curve, curve[:1]])
    length = torch.cat([radius.new_zeros(1), closed.diff(dim=0).norm(dim=-1).cumsum(0)])
    return _at_lengths(closed, length, (torch.arange(count).to(radius) + shift) / count * length[-1])


def even_steps(way: Tensor, count: int) -> Tensor:  # [N, 3] -> [count, 3]
    """Points at even distances along an open line, its ends included."""
    length = torch.cat([way.new_zeros(1), way.diff(dim=0).norm(dim=-1).cumsum(0)])
    return _at_lengths(way, length, torch.linspace(0, 1, count).to(way) * length[-1])


def smooth(way: Tensor, sigma: float) -> Tensor:  # [N, 3] -> [N, 3]
    """Gaussian along the way; the ends go on as they are."""
    kernel = sphere.gaussian(max(sigma, 0.1)).to(way)
    pad = len(kernel) // 2
    return F.conv1d(F.pad(way.T[:, None], (pad, pad), mode="replicate"), kernel[None, None])[:, 0].T


def short_order(points: Tensor, seed: int) -> list[int]:
    """An order in which all points are met on a short open way: reversals of parts are kept where they shorten it."""
    random = np.random.default_rng(seed)
    between = torch.cdist(points.double(), points.double()).numpy()
    order = np.arange(len(points))
    for _ in range(SWAPS if len(points) > 2 else 0):
        i, j = np.sort(random.integers(0, len(points), 2))
        before = between[order[i - 1], order[i]] if i else 0.0
        after = between[order[j], order[j + 1]] if j + 1 < len(points) else 0.0
        new_before = between[order[i - 1], order[j]] if i else 0.0
        new_after = between[order[i], order[j + 1]] if j + 1 < len(points) else 0.0
        if new_before + new_after < before + after:
            order[i : j + 1] = order[i : j + 1][::-1].copy()
    return [int(i) for i in order]


def _at_lengths(way: Tensor, length: Tensor, wanted: Tensor) -> Tensor:
    after = torch.searchsorted(length, wanted.contiguous()).clamp(1, len(length) - 1)
    part = (wanted - length[after - 1]) / (length[after] - length[after - 1]).clamp_min(1e-12)
    return way[after - 1] + (way[after] - way[after - 1]) * part[:, None]
