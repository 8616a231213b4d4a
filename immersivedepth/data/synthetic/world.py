"""A synthetic world: its solids, and where one looks from. It is the exact truth for every ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...checks import InputError, ShapeError
from ...scene import Hits
from . import scene_tables, shapes, tracing
from .scene_tables import Tables, stack_tables
from .shading import albedo_at, shade, sky_colour, tone


@dataclass(frozen=True)
class World:
    """One scene seen from one pose. Scene frame: z up, floor or ground near z = 0, metres."""

    tables: Tables  # one scene
    position: Tensor  # [3], of the camera in the scene frame
    rotation: Tensor  # [3, 3], panorama axes (+x forward, +y left, +z up) to scene axes
    about: dict[str, Any]  # how it was made: kind, seed, style, options
    closed: bool = False  # True: no ray leaves the world
    free: tuple[tuple[float, float, float, float, float, float], ...] = ()  # boxes in which a camera may stand

    def trace(self, rays: Tensor, colour: bool = False, *, width: float = 0.0, sample: int = 0) -> Hits:
        """Follow rays [..., 3] of any length, in panorama axes, from the camera.

        `width` is the angle of a pixel in radian, which textures finer than that blur over; `sample` chooses the
        place on each lamp (0: its middle), so that the mean over samples has soft shadows. Both change colour alone.
        """
        found = follow([self], rays[None], colour, width, sample)
        return Hits(*(part[0] for part in found))

    def at(self, position: Sequence[float] | Tensor, rotation: Tensor | None = None) -> World:
        """The same world seen from another place in the scene frame; the rotation stays unless one is given."""
        place = torch.as_tensor(position, dtype=torch.float32, device=self.position.device)
        turn = self.rotation if rotation is None else rotation.to(self.position)
        return replace(self, position=place, rotation=turn)

    def clearance(self, positions: Tensor) -> Tensor:  # [..., 3] in the scene frame -> [...]
        """Distance in metres to the nearest surface, negative inside a solid or outside a hollow one."""
        points = positions.to(self.position).reshape(1, -1, 3)
        scene = torch.zeros(1, dtype=torch.int64, device=points.device)
        everything = torch.ones(1, self.tables.rows.shape[1], dtype=torch.bool, device=points.device)
        candidates = tracing.rank(self.tables, scene, everything)
        found = torch.empty_like(points[..., 0])
        for tiles, need in candidates.groups(points.shape[1]):
            found[tiles] = tracing.closest(self.tables, candidates, tiles, need, points[tiles])
        return found.reshape(positions.shape[:-1])

    def to(self, device: torch.device | str) -> World:
        """The same world on another device."""
        return replace(
            self, tables=self.tables.to(device), position=self.position.to(device), rotation=self.rotation.to(device)
        )

    @property
    def recipe(self) -> dict[str, Any]:
        """All that `load_world` needs to make this world and pose again, in JSON's types."""
        return {**self.about, "position": self.position.tolist(), "rotation": self.rotation.tolist()}


def trace_batch(
    worlds: Sequence[World], rays: Tensor, colour: bool = False, *, width: float | Tensor = 0.0, sample: int = 0
) -> Hits:
    """Follow rays [B, ..., 3], each world its own, in one go; the hits are those of B single traces."""
    if len(worlds) != len(rays):
        raise ShapeError(
            f"trace_batch.rays: expected one set for each of the {len(worlds)} worlds, got {list(rays.shape)}"
        )
    return Hits(*follow(worlds, rays, colour, width, sample))


def follow(worlds: Sequence[World], rays: Tensor, colour: bool, width: float | Tensor, sample: int) -> list[Tensor]:
    """Distance, normal, instance, sky and, if wanted, colour for rays [B, ..., 3], in the order of `Hits`; the width of
    a pixel in radian is one for all or one for each world [B].
    """
    if rays.shape[-1] != 3 or rays.ndim < 2:
        raise ShapeError(f"trace.rays: expected [..., 3], got {list(rays.shape[1:])}")
    tables = worlds[0].tables if len(worlds) == 1 else stack_tables([world.tables for world in worlds])
    position = torch.stack([world.position for world in worlds])
    rotation = torch.stack([world.rotation for world in worlds])
    batch, lead = len(rays), rays.shape[1:-1]
    h, w = (lead[-2], lead[-1]) if len(lead) > 1 else (1, lead[-1] if lead else 1)
    if rays.numel() == 0:
        raise InputError("trace: expected at least one ray, got none. Check the shape of the rays.")
    image = rays.to(position).reshape(batch, -1, h, w, 3)
    tiling = tracing.Tiling.of((batch, image.shape[1], h, w))
    tiles = F.normalize(tiling.cut(image), dim=-1)
    scene = torch.arange(batch, device=position.device).repeat_interleave(tiling.per_scene)
    turn, origin = rotation[scene], position[scene]
    widths = torch.as_tensor(width, dtype=position.dtype, device=position.device).expand(batch)[scene]
    tiles = _rotate(tiles, turn)
    candidates = tracing.in_cones(tables, scene, origin, tiles)
    n = tiles.shape[1]
    parts: list[Tensor] = [
        tiles.new_zeros(len(tiles), n),
        tiles.new_zeros(len(tiles), n, 3),
        torch.zeros(len(tiles), n, dtype=torch.int64, device=tiles.device),
        torch.zeros(len(tiles), n, dtype=torch.bool, device=tiles.device),
    ]
    if colour:
        parts.append(tiles.new_zeros(len(tiles), n, 3))
    for group, need in candidates.groups(n):
        found = _group(tables, candidates, group, need, origin[group], tiles[group], colour, widths[group], sample)
        for part, values in zip(parts, found, strict=True):
            part[group] = values
    parts[1] = _rotate(parts[1], turn.transpose(1, 2))
    return [tiling.join(part).reshape(batch, *lead, *part.shape[2:]) for part in parts]


def _rotate(vectors: Tensor, turn: Tensor) -> Tensor:  # [T, n, 3], [T, 3, 3] -> [T, n, 3]
    """Written out for the same reason as `shapes.to_local`."""
    x, y, z = vectors.unbind(-1)
    m = turn[:, None]
    return torch.stack([m[..., i, 0] * x + m[..., i, 1] * y + m[..., i, 2] * z for i in range(3)], dim=-1)


def _group(
    tables: Tables,
    candidates: tracing.Candidates,
    group: Tensor,
    need: list[int],
    origin: Tensor,
    rays: Tensor,
    colour: bool,
    width: Tensor,
    sample: int,
) -> list[Tensor]:
    """Distance, normal in the scene frame, instance, sky and colour of the tiles of one group."""
    distance, row = tracing.nearest(tables, candidates, group, need, origin, rays)
    sky = distance > shapes.MISS
    hit = ~sky
    distance = torch.where(sky, torch.inf, distance)
    rows = tables.rows.reshape(-1, shapes.COLUMNS)[row.reshape(-1)]
    reach = torch.where(sky, 0.0, distance)
    points = origin[:, None] + reach[..., None] * rays
    flat = points.reshape(-1, 3)
    unit = _local_points(rows, flat)
    local = shapes.local_normal(rows, unit)
    normal = F.normalize(_to_scene(rows, local), dim=-1).reshape(rays.shape)
    # Seen from within, or from below a disc, the normal still looks at the camera.
    normal = torch.where((normal * rays).sum(-1, keepdim=True) > 0, -normal, normal)
    normal = torch.where(sky[..., None], 0.0, normal)
    instance = torch.where(sky, 0, rows[:, shapes.INSTANCE].reshape(sky.shape).to(torch.int64))
    if not colour:
        return [distance, normal, instance, sky]
    scene = candidates.scene[group]
    slant = -(normal * rays).sum(-1).clamp(-1, -0.03)
    patch = (reach * width[:, None] / slant.sqrt()).reshape(-1)
    albedo = albedo_at(rows, unit, local, patch).reshape(rays.shape)
    rows = rows.reshape(*rays.shape[:2], -1)
    linear = shade(tables, scene, rays, points, normal, albedo, rows, reach, hit, sample)
    dome = tables.sky[scene]
    haze = 1 - torch.exp(-reach * dome[:, None, scene_tables.HAZE])
    linear = linear + (dome[:, None, scene_tables.HORIZON] - linear) * haze[..., None]
    each = dome[:, None].expand(-1, rays.shape[1], -1)
    if bool(sky.any()):
        linear[sky] = sky_colour(each[sky], rays[sky], width[:, None].expand_as(sky)[sky])
    return [distance, normal, instance, sky, tone(linear, dome[:, None, scene_tables.EXPOSURE, None])]


def _local_points(rows: Tensor, points: Tensor) -> Tensor:  # [N, F], [N, 3] -> [N, 3]
    x, y, z = (points - rows[:, shapes.CENTRE]).unbind(-1)
    m = rows[:, shapes.MATRIX]
    return torch.stack([m[:, i] * x + m[:, i + 1] * y + m[:, i + 2] * z for i in (0, 3, 6)], dim=-1)


def _to_scene(rows: Tensor, normal: Tensor) -> Tensor:
    """Normals go back by the transposed matrix."""
    x, y, z = normal.unbind(-1)
    m = rows[:, shapes.MATRIX]
    return torch.stack([m[:, i] * x + m[:, i + 3] * y + m[:, i + 6] * z for i in range(3)], dim=-1)
