"""The numbers of one scene, or of a batch of scenes padded to the same size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import shapes

# Columns of the lights. A sun is a direction, a lamp a position.
AT = slice(0, 3)
LAMP = 3  # 1: lamp, 0: sun
INTENSITY = slice(4, 7)
FACING = slice(7, 10)
ACROSS = slice(10, 13)
ALONG = slice(13, 16)
REACH = 16  # metres; 0 fills up a batch
LIGHT_COLUMNS = 17

# Columns of the sky.
ZENITH = slice(0, 3)
HORIZON = slice(3, 6)
ABOVE = slice(6, 9)  # ambient light on surfaces that look up
BELOW = slice(9, 12)
SUN = slice(12, 15)
GLOW = slice(15, 18)
CLOUDS = 18
CLOUD_SCALE = 19
SKY_SEED = 20
EXPOSURE = 21
HAZE = 22
SKY_COLUMNS = 23


@dataclass(frozen=True)
class Tables:
    """Solids sorted by kind, lights and sky; B scenes."""

    rows: Tensor  # [B, P, shapes.COLUMNS]
    counts: tuple[int, int, int, int]  # how many of the P rows are of each kind
    lights: Tensor  # [B, L, LIGHT_COLUMNS]
    sky: Tensor  # [B, SKY_COLUMNS]

    def ranges(self) -> list[tuple[int, int, int]]:
        """Kind, first row and row after the last of each kind that is there."""
        spans, start = [], 0
        for kind, count in enumerate(self.counts):
            if count:
                spans.append((kind, start, start + count))
            start += count
        return spans

    def to(self, device: torch.device | str) -> Tables:
        """The same scenes on another device."""
        return Tables(self.rows.to(device), self.counts, self.lights.to(device), self.sky.to(device))


def stack_tables(tables: Sequence[Tables]) -> Tables:
    """Many scenes as one batch; what fills up is never met."""
    counts = [max(t.counts[kind] for t in tables) for kind in range(len(shapes.KINDS))]
    lights = max(t.lights.shape[1] for t in tables)
    batch = []
    for t in tables:
        parts = list(t.rows.split(t.counts, dim=1))
        for kind, (part, count) in enumerate(zip(parts, counts, strict=True)):
            # Unit solids, so that their numbers stay finite where one of them fills up a group of tiles.
            blank = part.new_zeros(1, count - part.shape[1], shapes.COLUMNS)
            blank[..., shapes.MATRIX] = torch.eye(3, device=part.device).flatten()
            blank[..., shapes.HALF] = 1
            blank[..., shapes.RADIUS] = -1
            blank[..., shapes.KIND] = kind
            parts[kind] = torch.cat([part, blank], dim=1)
        batch.append(torch.cat(parts, dim=1))
    lamps = [torch.cat([t.lights, t.lights.new_zeros(1, lights - t.lights.shape[1], LIGHT_COLUMNS)], 1) for t in tables]
    sky = torch.cat([t.sky for t in tables])
    return Tables(torch.cat(batch), (counts[0], counts[1], counts[2], counts[3]), torch.cat(lamps), sky)
