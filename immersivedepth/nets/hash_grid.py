"""Values at points of the unit cube: hashed grids of several resolutions and a small network, in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PRIMES = (1, 2_654_435_761, 805_459_861)


class HashGrid(nn.Module):
    """Trilinear features of `levels` grids from `coarsest` to `finest` cells a side; vertices share table entries."""

    def __init__(self, levels: int, features: int, log2_size: int, coarsest: int, finest: int) -> None:
        super().__init__()
        growth = (finest / coarsest) ** (1 / max(levels - 1, 1))
        self.sizes = [round(coarsest * growth**level) for level in range(levels)]
        self.entries = 1 << log2_size
        self.tables = nn.ParameterList(
            nn.Parameter(torch.empty(self.entries, features).uniform_(-1e-4, 1e-4)) for _ in range(levels)
        )
        self.width = levels * features

    def forward(self, points: Tensor) -> Tensor:  # [N, 3] in 0..1 -> [N, width]
        """Features of all levels side by side."""
        return torch.cat(
            [self._level(points * size, table) for size, table in zip(self.sizes, self.tables, strict=True)], 1
        )

    def _level(self, at: Tensor, table: Tensor) -> Tensor:
        low = at.floor()
        part = at - low
        whole = low.long()
        numbers, weights = [], []
        for corner in range(8):
            step = [(corner >> axis) & 1 for axis in range(3)]
            key = torch.zeros_like(whole[:, 0])
            weight = torch.ones_like(part[:, 0])
            for axis in range(3):
                key = key ^ ((whole[:, axis] + step[axis]) * PRIMES[axis])
                weight = weight * (part[:, axis] if step[axis] else 1 - part[:, axis])
            numbers.append(key & (self.entries - 1))
            weights.append(weight)
        return F.embedding_bag(torch.stack(numbers, 1), table, per_sample_weights=torch.stack(weights, 1), mode="sum")


class HashedValues(nn.Module):
    """A hash grid and a network of `layers` hidden layers on top of it."""

    def __init__(self, grid: HashGrid, hidden: int, layers: int, channels: int) -> None:
        super().__init__()
        widths = [grid.width, *[hidden] * layers]
        parts: list[nn.Module] = [grid]
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            parts += [nn.Linear(before, after), nn.ReLU()]
        self.net = nn.Sequential(*parts, nn.Linear(widths[-1], channels))

    def forward(self, points: Tensor) -> Tensor:  # [N, 3] in 0..1 -> [N, channels]
        """Raw values."""
        values: Tensor = self.net(points)
        return values
