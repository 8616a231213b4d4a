"""Follows rays through batches of scenes: tiles of rays, solids that can matter for each tile, nearest hits.

Tiles are the batch. For every tile only solids whose bounding ball touches the cone of its rays are cast, so a small
object costs where it is seen and nowhere else. Tiles with like numbers of solids go together, in groups small enough
for the cache on a CPU and large enough to fill a GPU. Culling and grouping never change a result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import shapes
from .scene_tables import Tables

_TILE = 1024  # rays
_SIDE = 32
_PLANES = 8  # of the pyramids and prisms around bundles of rays
_SLACK = 1e-3  # radians and relative, by which cones and balls are widened against rounding
_ROWS = 1 << 20  # more than the rows of any scene
_AWAY = 1e30  # metres
_PAIRS = {"cpu": 1 << 18, "cuda": 1 << 25}  # rays times solids that are worked on at once


def pair_budget(device: torch.device) -> int:
    """How many pairs of ray and solid are worked on at once."""
    return _PAIRS.get(device.type, 1 << 22)


@dataclass(frozen=True)
class Tiling:
    """How rays [B, V, h, w, C] are cut into tiles [B * V * down * right, n, C]; edges are repeated to fill the last."""

    shape: tuple[int, int, int, int]  # B, V, h, w
    down: int
    right: int
    height: int  # of a tile
    width: int

    @staticmethod
    def of(shape: tuple[int, int, int, int]) -> Tiling:
        h, w = shape[2:]
        down = max(math.ceil(h / _SIDE), 1)
        height = max(math.ceil(h / down), 1)
        right = max(math.ceil(w * height / _TILE), 1)
        return Tiling(shape, down, right, height, max(math.ceil(w / right), 1))

    @property
    def per_scene(self) -> int:
        return self.shape[1] * self.down * self.right

    def cut(self, image: Tensor) -> Tensor:
        b, v, h, w = self.shape
        tall, wide = self.down * self.height, self.right * self.width
        if (tall, wide) != (h, w):
            row = torch.arange(tall, device=image.device).clamp_max(h - 1)
            column = torch.arange(wide, device=image.device).clamp_max(w - 1)
            image = image[:, :, row][:, :, :, column]
        parts = image.reshape(b * v, self.down, self.height, self.right, self.width, -1)
        return parts.transpose(2, 3).reshape(-1, self.height * self.width, image.shape[-1])

    def join(self, tiles: Tensor) -> Tensor:
        """The way back, for [T, n] or [T, n, C]."""
        b, v, h, w = self.shape
        rest = tiles.shape[2:]
        parts = tiles.reshape(b * v, self.down, self.right, self.height, self.width, *rest).transpose(2, 3)
        image = parts.reshape(b, v, self.down * self.height, self.right * self.width, *rest)
        return image[:, :, :h, :w]


@dataclass(frozen=True)
class Candidates:
    """For every tile the solids that can matter, of each kind those first that do."""

    scene: Tensor  # [T], which scene of the batch
    spans: list[tuple[int, int, int]]  # kind, first row, end row
    order: list[Tensor]  # per kind [T, P], rows within the kind
    counts: list[Tensor]  # per kind [T]

    def groups(self, rays_per_tile: int) -> Iterator[tuple[Tensor, list[int]]]:
        """Tiles to work on together, and how many solids of each kind they need."""
        if not self.counts:
            return
        counts = torch.stack(self.counts, -1)  # [T, kinds]
        load = counts.sum(-1)
        tiles = load.argsort(stable=True)
        table = counts[tiles].tolist()
        budget = pair_budget(self.scene.device)
        start, need = 0, list(table[0]) if table else []
        for i, row in enumerate(table):
            grown = [max(a, b) for a, b in zip(need, row, strict=True)]
            if i > start and (i + 1 - start) * max(sum(grown), 4) * rays_per_tile > budget:
                yield tiles[start:i], need
                start, grown = i, list(row)
            need = grown
        if table:
            yield tiles[start:], need

    def gather(self, rows: Tensor, tiles: Tensor, need: list[int]) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Per kind: the shape columns [G, K, F] of the solids of some tiles, their rows in the flat table, and a
        distance [G, K] to add, which takes away those that only fill up.
        """
        scene = self.scene[tiles]
        flat = rows.reshape(-1, rows.shape[-1])
        for (kind, start, _), order, counts, k in zip(self.spans, self.order, self.counts, need, strict=True):
            if k == 0:
                continue
            index = order[tiles, :k] + start + scene[:, None] * rows.shape[1]
            idle = (torch.arange(k, device=rows.device) >= counts[tiles, None]).to(rows.dtype) * _AWAY
            yield kind, flat[:, shapes.SHAPE][index], index, idle


def rank(tables: Tables, scene: Tensor, matters: Tensor) -> Candidates:
    """Put the solids first that matter [T, P] to each tile."""
    spans = tables.ranges()
    order, counts = [], []
    for _, start, stop in spans:
        part = matters[:, start:stop]
        order.append(part.to(torch.uint8).argsort(dim=-1, descending=True, stable=True))
        counts.append(part.sum(-1))
    return Candidates(scene, spans, order, counts)


def _bodies(tables: Tables, scene: Tensor, columns: slice) -> Tensor:
    """Some columns for every tile [T, P, C], or for all of them at once [1, P, C]."""
    part = tables.rows[..., columns]
    return part if len(part) == 1 else part[scene]


def _there(tables: Tables, scene: Tensor) -> Tensor:
    return _bodies(tables, scene, slice(shapes.RADIUS, shapes.RADIUS + 1))[..., 0] >= 0


def _shining(tables: Tables, scene: Tensor) -> Tensor:
    """Solids that give light cast no shadow: lamps stand inside them."""
    return _bodies(tables, scene, slice(shapes.EMISSION, shapes.EMISSION + 1))[..., 0] > 0


def _beyond(
    centre: Tensor, edges: Tensor, normal: Tensor, limit: Tensor
) -> Tensor:  # normal [T, 3], limit [T] -> [T, P]
    """Whether all of a box [.., P] has normal . p > limit."""
    inner = _along(centre, normal)
    for i in range(3):
        inner = inner - _along(edges[..., 3 * i : 3 * i + 3], normal).abs()
    return inner > limit[:, None] + _SLACK * (1 + limit[:, None].abs())


def _along(vectors: Tensor, normal: Tensor) -> Tensor:  # [.., P, 3], [T, 3] -> [T, P]
    x, y, z = vectors.unbind(-1)
    return torch.addcmul(torch.addcmul(x * normal[:, :1], y, normal[:, 1:2]), z, normal[:, 2:])


def _around(axis: Tensor) -> list[Tensor]:
    """Eight directions across an axis [T, 3]."""
    least = F.one_hot(axis.abs().argmin(-1), 3).to(axis.dtype)
    first = F.normalize(torch.linalg.cross(axis, least), dim=-1)
    second = torch.linalg.cross(axis, first)
    return [math.cos(k * math.pi / 4) * first + math.sin(k * math.pi / 4) * second for k in range(_PLANES)]


def in_cones(tables: Tables, scene: Tensor, origin: Tensor, rays: Tensor, far: Tensor | None = None) -> Candidates:
    """Solids that rays [T, n, 3] from origins [T, 3] may meet: those that reach into the eight-sided pyramid around
    each cone of rays, and, if `far` [T] is given,
    cast a shadow and are no further along its axis.
    """
    mean = rays.mean(1)
    axis = F.normalize(mean, dim=-1)  # [T, 3]
    cosine = (rays * axis[:, None]).sum(-1).amin(-1).clamp(-1, 1)
    # Wide bundles of rays have no pyramid worth the name: everything matters to them.
    narrow = (cosine > 0.17) & (mean.norm(dim=-1) > 0.1)
    angle = cosine.acos() + _SLACK
    centre, edges = _bodies(tables, scene, shapes.CENTRE), _bodies(tables, scene, shapes.EDGES)
    off = torch.zeros(len(rays), tables.rows.shape[1], dtype=torch.bool, device=rays.device)
    for across in _around(axis):
        # The plane through the origin that touches the cone on the side of -across; its outside is away from the axis.
        normal = -(angle.sin()[:, None] * axis + angle.cos()[:, None] * across)
        off |= _beyond(centre, edges, normal, (normal * origin).sum(-1))
    off &= narrow[:, None]
    if far is not None:
        off |= _beyond(centre, edges, axis, (axis * origin).sum(-1) + far) & narrow[:, None]
        off |= _shining(tables, scene)
    return rank(tables, scene, ~off & _there(tables, scene))


def towards_lamp(tables: Tables, scene: Tensor, points: Tensor, used: Tensor, lamp: Tensor) -> Candidates:
    """Solids that may stand between those points [T, n, 3] that are used [T, n] and lamps at [T, 3]."""
    path = points - lamp[:, None]
    length = path.norm(dim=-1)
    far = torch.where(used, length, 0.0).amax(-1)
    rays = path / length.clamp_min(1e-6)[..., None]
    # Rays that do not count are replaced by one that does.
    some = used.to(torch.uint8).argmax(-1)
    rays = torch.where(used[..., None], rays, rays.gather(1, some[:, None, None].expand(-1, 1, 3)))
    return in_cones(tables, scene, lamp, rays, far)


def towards_sun(tables: Tables, scene: Tensor, points: Tensor, used: Tensor, sun: Tensor) -> Candidates:
    """Solids that may stand between points [T, n, 3] and suns in the directions [T, 3]."""
    centre, edges = _bodies(tables, scene, shapes.CENTRE), _bodies(tables, scene, shapes.EDGES)
    off = torch.zeros(len(points), tables.rows.shape[1], dtype=torch.bool, device=points.device)
    for normal in [*_around(sun), -sun]:
        highest = torch.where(used, (points * normal[:, None]).sum(-1), -math.inf).amax(-1)
        off |= _beyond(centre, edges, normal, highest)
    return rank(tables, scene, ~(off | _shining(tables, scene)) & _there(tables, scene))


def near_balls(tables: Tables, scene: Tensor, centre: Tensor, radius: Tensor) -> Candidates:
    """Solids that may come into balls (centre [T, 3], radius [T])."""
    apart = (_bodies(tables, scene, shapes.CENTRE) - centre[:, None]).norm(dim=-1)
    limit = radius[:, None] + _SLACK
    close = apart <= (_bodies(tables, scene, slice(shapes.RADIUS, shapes.RADIUS + 1))[..., 0] + limit) * (1 + _SLACK)
    # The box around a solid is a better bound than its ball for what is long or flat.
    off = _bodies(tables, scene, shapes.CENTRE) - centre[:, None]
    edges, half = _bodies(tables, scene, shapes.EDGES), _bodies(tables, scene, shapes.HALF)
    out = torch.zeros_like(apart)
    for i in range(3):
        along = (off * edges[..., 3 * i : 3 * i + 3]).sum(-1).abs() / half[..., i].clamp_min(1e-9)
        out = out + (along - half[..., i]).clamp_min(0) ** 2
    hollow = _bodies(tables, scene, slice(shapes.HOLLOW, shapes.HOLLOW + 1))[..., 0] > 0
    return rank(tables, scene, (hollow | (close & (out.sqrt() <= limit))) & _there(tables, scene))


def nearest(
    tables: Tables, candidates: Candidates, tiles: Tensor, need: list[int], origin: Tensor, rays: Tensor
) -> tuple[Tensor, Tensor]:
    """First hits of rays [G, n, 3] from origins [G, 3]: distance [G, n] (above MISS: none) and row of the flat table.

    The winner is found by one minimum over whole numbers that hold the bits of the distance above the row, since
    positive floats sort like their bit patterns, and an argmin over solids costs more than all of the casting.
    """
    x, y, z = (v.contiguous() for v in rays.unbind(-1))
    best = torch.full(x.shape, torch.iinfo(torch.int64).max, dtype=torch.int64, device=rays.device)
    base = candidates.scene[tiles] * tables.rows.shape[1]
    for kind, rows, index, idle in candidates.gather(tables.rows, tiles, need):
        t = shapes.cast(kind, rows, shapes.local_origin(rows, origin), shapes.to_local(rows, x, y, z))
        t += idle[..., None]
        key = t.view(torch.int32).to(torch.int64).mul_(_ROWS).add_((index - base[:, None])[..., None])
        best = torch.minimum(best, key.amin(1))
    found = best < torch.iinfo(torch.int64).max
    distance = (best // _ROWS).to(torch.int32).view(torch.float32)
    return torch.where(found, distance, math.inf), torch.where(found, best % _ROWS, 0) + base[:, None]


def blocked(
    tables: Tables, candidates: Candidates, tiles: Tensor, need: list[int], points: Tensor, to: Tensor, lamp: Tensor
) -> Tensor:
    """Whether anything stands between points [G, n, 3] and lamps at `to` [G, 3], or suns towards it; [G, n], bool."""
    x, y, z = (v.contiguous() for v in points.unbind(-1))
    least = torch.full(x.shape, shapes.MISS, device=points.device)
    sign = -lamp[:, None, None]  # a lamp's direction is position - point, a sun's is its own
    for kind, rows, _, idle in candidates.gather(tables.rows, tiles, need):
        place = shapes.to_local(rows, x, y, z)
        centre = shapes.local_origin(rows, torch.zeros_like(to))
        target = shapes.to_local(rows, *(v[:, None] for v in to.unbind(-1)))  # [G, K, 1]
        o = [p + c for p, c in zip(place, centre, strict=True)]
        d = [torch.addcmul(g, sign, p) for g, p in zip(target, place, strict=True)]
        t = shapes.cast(kind, rows, (o[0], o[1], o[2]), (d[0], d[1], d[2]))
        t += idle[..., None]
        least = torch.minimum(least, t.amin(1))
    return least < torch.where(lamp > 0, 1.0, shapes.MISS)[:, None]


def closest(tables: Tables, candidates: Candidates, tiles: Tensor, need: list[int], points: Tensor) -> Tensor:
    """Distance from points [G, n, 3] to the nearest solid, negative inside; [G, n], inf where none is a candidate."""
    x, y, z = (v.contiguous() for v in points.unbind(-1))
    least = torch.full(x.shape, math.inf, device=points.device)
    for kind, rows, _, idle in candidates.gather(tables.rows, tiles, need):
        place = shapes.to_local(rows, x, y, z)
        origin = shapes.local_origin(rows, torch.zeros_like(points[:, 0]))
        p = [a + b for a, b in zip(place, origin, strict=True)]
        d = shapes.gap(kind, rows, (p[0], p[1], p[2])) + idle[..., None]
        least = torch.minimum(least, d.amin(1))
    return least
