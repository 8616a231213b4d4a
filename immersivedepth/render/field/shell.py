"""Where a field may hold anything: thin shells in a grid of directions and log distances, and the march through them.

A cell at distance r is r * pi / rows wide in every direction, as the panorama's own pixels are: near things get fine
cells and far ones coarse ones, whatever the range of distances. Steps of a ray are even in those cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...checks import ResourceError
from ...geometry import sphere

BLOCK = 4  # cells along each side of a block of the occupancy
FINE = 8  # samples in a block's length
MARGIN = 6  # cells beyond the nearest and the farthest surface
MOST = 400_000_000  # vertices of a grid, of four bytes each


@dataclass(frozen=True)
class Samples:
    """Places along rays [R, S], front to back; those that are not valid lie nowhere."""

    along: Tensor  # [R, S], distance along the ray
    step: Tensor  # [R, S], length in cells that each sample stands for
    valid: Tensor  # [R, S], bool
    points: Tensor  # [N, 3], of the valid ones


class Shell:
    """The grid: which vertices it has, and what is where."""

    def __init__(self, rows: int, nearest: float, farthest: float) -> None:
        self.rows, self.columns = rows, 2 * rows
        self.cell = math.pi / rows
        self.low = math.log(nearest) - MARGIN * self.cell
        self.depths = math.ceil((math.log(farthest) + MARGIN * self.cell - self.low) / self.cell) + 1
        if self.rows * self.columns * self.depths > MOST:
            raise ResourceError(
                f"a grid of {rows} rows and {self.depths} depths is too large: set scene.rows to a smaller number"
            )
        self.index = torch.zeros(self.depths, rows, self.columns, dtype=torch.int32)  # 0: no vertex
        self.count = 1
        self.occupied: Tensor | None = None

    def to(self, device: torch.device | str) -> Shell:
        """Move it in place."""
        self.index = self.index.to(device)
        self.occupied = None
        return self

    def place(self, points: Tensor) -> Tensor:  # [..., 3] -> [..., 3]
        """Column, row and depth of points, in cells; vertices lie at whole numbers."""
        x, y, z = points.unbind(-1)
        level = torch.hypot(x, y)
        u = (0.5 - torch.atan2(y, x) / (2 * math.pi)) * self.columns - 0.5
        v = (0.5 - torch.atan2(z, level) / math.pi) * self.rows - 0.5
        k = (torch.hypot(level, z).clamp_min(1e-9).log() - self.low) / self.cell
        return torch.stack([u, v, k], -1)

    def vertex(self, flat: Tensor) -> Tensor:  # [N] -> [N, 3]
        """World positions of vertices by their place in the flattened index."""
        k, rest = flat.div(self.rows * self.columns, rounding_mode="floor"), flat % (self.rows * self.columns)
        rays = sphere.erp_rays(self.rows, self.columns, flat.device).flatten(0, 1)[rest]
        return rays * (k * self.cell + self.low).exp()[:, None]

    def flat(self, column: Tensor, row: Tensor, depth: Tensor) -> Tensor:
        """Places in the flattened index, around the seam and over the poles."""
        over = (row < 0) | (row >= self.rows)
        column = torch.where(over, column + self.rows, column) % self.columns
        row = torch.where(row < 0, -1 - row, torch.where(row >= self.rows, 2 * self.rows - 1 - row, row))
        return (depth.clamp(0, self.depths - 1) * self.rows + row) * self.columns + column

    def add(self, flat: Tensor) -> Tensor:  # [N] -> [M]
        """Give numbers to places that have none, in ascending order; what comes back are those places."""
        fresh = torch.unique(flat)
        line = self.index.flatten()
        fresh = fresh[line[fresh] == 0]
        line[fresh] = torch.arange(self.count, self.count + len(fresh), dtype=torch.int32, device=line.device)
        self.index = line.reshape(self.index.shape)
        self.count += len(fresh)
        self.occupied = None
        return fresh

    def corners(self, points: Tensor) -> tuple[Tensor, Tensor]:  # [N, 3] -> [N, 8], [N, 8]
        """Numbers and trilinear weights of the eight vertices around points; number 0 says there is none."""
        at = self.place(points)
        low = at.floor()
        part = at - low
        column, row, depth = low.long().unbind(-1)
        line = self.index.flatten()
        numbers, weights = [], []
        for dk in (0, 1):
            wk = part[:, 2] if dk else 1 - part[:, 2]
            for dj in (0, 1):
                wj = wk * (part[:, 1] if dj else 1 - part[:, 1])
                for di in (0, 1):
                    numbers.append(line[self.flat(column + di, row + dj, depth + dk)])
                    weights.append(wj * (part[:, 0] if di else 1 - part[:, 0]))
        return torch.stack(numbers, -1).long(), torch.stack(weights, -1)

    def blocks(self) -> Tensor:  # [K, J, I], bool
        """Blocks within two cells of a vertex: a step of one block's length through free ones can skip nothing."""
        if self.occupied is None:
            reach = BLOCK // 2 + 1
            there = self.index > 0
            for axis, circular in ((2, True), (1, False), (0, False)):
                there = _blocks_along(there, axis, reach, circular)
            # Over the poles: every column of the first and the last rows of blocks meets all others.
            for row in (0, -1):
                there[:, row] |= there[:, row].any(-1, keepdim=True)
            self.occupied = there
        return self.occupied

    def march(
        self, origins: Tensor, rays: Tensor, jitter: Tensor | None = None, part: slice = slice(None)
    ) -> Samples:  # [R, 3], [R, 3], [R]
        """Samples of rays in occupied blocks, front to back; `jitter` in 0..1 moves each ray's samples by a step.

        `part` names which of the occupied blocks that a ray meets are sampled.
        """
        blocks = self.blocks()
        first, height, base, count = self._range(origins, rays)
        total = int(count.max())
        step = self.cell * BLOCK
        tick = torch.arange(total, device=rays.device)
        middle = first[:, None] + (tick + 0.5) * step
        along = height[:, None] * middle.sinh() - base[:, None]
        at = self.place(origins[:, None] + along[..., None] * rays[:, None])
        low = at.floor().long().div(BLOCK, rounding_mode="floor")
        top = torch.tensor([blocks.shape[2], blocks.shape[1], blocks.shape[0]], device=rays.device)
        inside = (low[..., 2] >= 0) & (low[..., 2] < top[2]) & (tick < count[:, None])
        low = torch.minimum(low.clamp_min(0), top - 1)
        hit = blocks[low[..., 2], low[..., 1], low[..., 0]] & inside
        return self._fine(origins, rays, hit, (first, height, base), jitter, part)

    def _range(self, origins: Tensor, rays: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Where rays enter and leave the grid, in tau: along = height * sinh(tau) - base makes steps of tau even cells.

        base is how far the ray's nearest point to the centre lies behind its origin, height how far it is from it.
        """
        inner, outer = math.exp(self.low), math.exp(self.low + (self.depths - 1) * self.cell)
        base = (origins * rays).sum(-1)
        height = (origins.square().sum(-1) - base.square()).clamp_min(0).sqrt().clamp_min(inner * 1e-3)
        enter = torch.where(
            origins.norm(dim=-1) < inner, (inner**2 - height.square()).clamp_min(0).sqrt(), base
        )  # along + base
        leave = (outer**2 - height.square()).clamp_min(0).sqrt()
        first, last = (enter / height).asinh(), (leave / height).asinh()
        count = ((last - first) / (self.cell * BLOCK)).ceil().clamp_min(1).long()
        return first, height, base, count

    def _fine(
        self,
        origins: Tensor,
        rays: Tensor,
        hit: Tensor,
        way: tuple[Tensor, Tensor, Tensor],
        jitter: Tensor | None,
        part: slice,
    ) -> Samples:
        first, height, base = way
        ray, tick = hit.nonzero(as_tuple=True)
        rank = hit.long().cumsum(1)[ray, tick] - 1
        begin, end = part.start or 0, part.stop or hit.shape[1]
        ray, tick, rank = (each[(rank >= begin) & (rank < end)] for each in (ray, tick, rank))
        rank = rank - begin
        width = int(rank.max()) + 1 if len(rank) else 1
        ticks = torch.zeros(len(rays), width, dtype=torch.long, device=rays.device)
        valid = torch.zeros(len(rays), width, dtype=torch.bool, device=rays.device)
        ticks[ray, rank], valid[ray, rank] = tick, True
        parts = torch.arange(FINE, device=rays.device)
        shift = 0.5 if jitter is None else jitter[:, None, None]
        tau = first[:, None, None] + (ticks[..., None] + (parts + shift) / FINE) * (self.cell * BLOCK)
        along = (height[:, None, None] * tau.sinh() - base[:, None, None]).flatten(1)
        good = valid[..., None].expand(-1, -1, FINE).flatten(1)
        which, _ = good.nonzero(as_tuple=True)
        points = origins[which] + along[good][:, None] * rays[which]
        return Samples(along, torch.full_like(along, BLOCK / FINE), good, points)


def _blocks_along(there: Tensor, axis: int, reach: int, circular: bool) -> Tensor:
    size = there.shape[axis]
    count = math.ceil(size / BLOCK)
    start = torch.arange(count, device=there.device) * BLOCK
    out: Tensor | None = None
    for shift in range(-reach, BLOCK + reach):
        at = start + shift
        at = at % size if circular else at.clamp(0, size - 1)
        part = there.index_select(axis, at)
        out = part if out is None else out | part
    assert out is not None
    return out


def composed(density: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:  # [N] -> [R, S], [R]
    """Weights of all samples, and what light is left behind them, from optical depth per cell at the valid ones."""
    depth = torch.zeros_like(samples.along).masked_scatter(samples.valid, density) * samples.step
    before = depth.cumsum(1)
    left = torch.exp(-F.pad(before, (1, 0)))
    return left[:, :-1] - left[:, 1:], left[:, -1]


def distortion(weights: Tensor, along: Tensor, width: float) -> Tensor:  # [R, S], [R, S] -> [R]
    """Spread of the weights along each ray, in logarithms of distance: all pairs, and each with itself."""
    place = along.clamp_min(1e-9).log()
    below, moment = weights.cumsum(1) - weights, (weights * place).cumsum(1) - weights * place
    return (2 * weights * (place * below - moment) + weights.square() * width / 3).sum(1)
