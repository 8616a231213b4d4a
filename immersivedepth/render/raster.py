"""Which pixels of any camera a thing can touch, and which thing is nearest in each: the plain z-buffer.

Things are bounded by a cap: a direction from the camera and an angle around it. A cap's reach in longitude and
latitude, or across and along a perspective picture, is exact, so that seam and poles need no care of their own.
Every pixel then meets its candidates by exact intersection, in chunks that keep memory bounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .protocol import PANORAMA, Camera

PAIRS = 1 << 21  # of things and pixels at once: some 100 MB of intermediate values


def spans(direction: Tensor, cap: Tensor, camera: Camera) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First column, number of columns, first row, number of rows [N] whose pixel centres lie in the caps' reach.

    Directions [N, 3] are unit, in the camera's axes; caps [N] are in radian. Columns of panoramas run around the seam.
    """
    x, y, z = direction.unbind(-1)
    if camera.kind == PANORAMA:
        around = _angle_about(torch.hypot(x, y), cap)
        u = (0.5 - torch.atan2(y, x) / (2 * math.pi)) * camera.width
        reach = around * (camera.width / (2 * math.pi))
        column, columns = _centres(u - reach, u + reach)
        columns = torch.where(around >= math.pi, camera.width, columns).clamp_max(camera.width)
        v = (0.5 - torch.atan2(z, torch.hypot(x, y)) / math.pi) * camera.height
        reach = cap * (camera.height / math.pi)
        row, rows = _centres((v - reach).clamp_min(0), (v + reach).clamp_max(camera.height))
        return column, columns, row, rows
    across, along = camera.tangents
    column, columns = _picture_span(x, z, cap, across, camera.width)
    row, rows = _picture_span(y, z, cap, along, camera.height)
    behind = torch.atan2(torch.hypot(x, y), z) - cap > math.atan(math.hypot(across, along))
    return column, columns.masked_fill(behind, 0), row, rows


def pairs(direction: Tensor, cap: Tensor, camera: Camera) -> Iterator[tuple[Tensor, Tensor]]:
    """Chunks of things [P] and pixels [P] (row * width + column) that may meet."""
    column, columns, row, rows = spans(direction, cap, camera)
    count = columns * rows
    things = count.nonzero()[:, 0]
    count = count[things]
    ends = count.cumsum(0)
    start = 0
    while start < len(things):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(torch.searchsorted(ends, done + PAIRS, right=True)))
        chosen, number = things[start:stop], count[start:stop]
        first = ends[start:stop] - number - done
        thing = torch.repeat_interleave(chosen, number)
        step = torch.arange(len(thing), device=thing.device) - torch.repeat_interleave(first, number)
        wide = columns[thing]
        x = (column[thing] + step % wide) % camera.width
        y = row[thing] + step.div(wide, rounding_mode="floor")
        yield thing, y * camera.width + x
        start = stop


Meet = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # things, rays [P, 3] -> distance [P], whether they meet [P]


def nearest(direction: Tensor, cap: Tensor, camera: Camera, rays: Tensor, meet: Meet) -> tuple[Tensor, Tensor]:
    """Distance to the nearest thing and its number, for all pixels [H W]; inf and -1 where there is none."""
    reach = rays.new_full((len(rays),), torch.inf)
    number = torch.full((len(rays),), -1, dtype=torch.int64, device=rays.device)
    for thing, pixel in pairs(direction, cap, camera):
        distance, met = meet(thing, rays[pixel])
        thing, pixel, distance = thing[met], pixel[met], distance[met]
        before = reach.clone()
        reach.scatter_reduce_(0, pixel, distance, "amin")
        wins = (distance == reach[pixel]) & (distance < before[pixel])
        number[pixel[wins]] = thing[wins]
    return reach, number


def _angle_about(level: Tensor, cap: Tensor) -> Tensor:
    """Half the angle that a cap takes around an axis, by the part of its direction that is level; pi if it holds it."""
    sine = cap.clamp_max(math.pi / 2).sin()
    return torch.where(level > sine, torch.asin((sine / level.clamp_min(1e-12)).clamp_max(1)), math.pi)


def _picture_span(side: Tensor, depth: Tensor, cap: Tensor, tangent: float, size: int) -> tuple[Tensor, Tensor]:
    angle, half = torch.atan2(side, depth), _angle_about(torch.hypot(side, depth), cap)
    limit = math.atan(tangent)
    low, high = (angle - half).clamp(-limit, limit), (angle + half).clamp(-limit, limit)
    first, count = _centres((low.tan() / tangent + 1) * size / 2, (high.tan() / tangent + 1) * size / 2)
    first = first.clamp(0, size - 1)
    count = torch.minimum(count, size - first)
    outside = ((angle - half) > limit) | ((angle + half) < -limit)
    return first, count.masked_fill(outside & (half < math.pi), 0)


def _centres(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The first whole i and the number of them with low <= i + 0.5 <= high, with a little to spare for rounding."""
    spare = 1e-3  # of a pixel
    first = (low - 0.5 - spare).ceil().long()
    return first, ((high - 0.5 + spare).floor().long() - first + 1).clamp_min(0)
