"""Density and colour by hash grids and small networks, as in the original: for GPUs, or patience."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor, nn

from ...checks import Range
from ...nets.hash_grid import HashedValues, HashGrid
from .base import MarchedField
from .pool import Pool

MOST = 8.0  # of the logarithm of optical depth per cell
NEAR = 0.2  # where the nearest cells lie in the unit ball


@dataclass
class Hash:
    """conf/scene/hash.yaml; the numbers are the original's."""

    rows: Annotated[int, Range(8, 2048)] = 512  # of the grid that says where anything may be
    levels: Annotated[int, Range(1, 32)] = 16
    features: Annotated[int, Range(1, 16)] = 2
    log2_size: Annotated[int, Range(4, 24)] = 18
    coarsest: Annotated[int, Range(1)] = 16
    finest: Annotated[int, Range(1)] = 4096
    hidden: Annotated[int, Range(1)] = 64
    rate: Annotated[float, Range(0)] = 1.0  # of the learning rate

    def field(self) -> HashField:
        """An empty one."""
        return HashField(self)

    def values(self, layers: int, channels: int) -> HashedValues:
        """New values at random."""
        grid = HashGrid(self.levels, self.features, self.log2_size, self.coarsest, self.finest)
        return HashedValues(grid, self.hidden, layers, channels)


class HashField(MarchedField):
    """The shell only says where samples are taken; geometry begins anew with every fit, appearance goes on."""

    def __init__(self, settings: Hash) -> None:
        super().__init__(settings.rows)
        self.settings = settings
        self.geometry = settings.values(1, 1)
        self.appearance = settings.values(2, 3)

    def start(self, pool: Pool) -> None:
        """The shell of the pool, and a geometry that knows nothing yet."""
        super().start(pool)
        device = pool.source.image.device
        self.geometry = self.settings.values(1, 1)
        self.to(device)

    def begin(self, depth: Tensor, colour: Tensor) -> None:
        """Nothing is kept at vertices."""

    def geometry_parameters(self) -> list[nn.Parameter]:
        """Of the density."""
        return list(self.geometry.parameters())

    def appearance_parameters(self) -> list[nn.Parameter]:
        """Of the colour."""
        return list(self.appearance.parameters())

    def density(self, points: Tensor) -> Tensor:  # [N, 3] -> [N]
        """The exponential of a raw value."""
        raw: Tensor = self.geometry(self._cube(points))
        return raw[:, 0].clamp_max(MOST).exp()

    def colour(self, points: Tensor) -> Tensor:  # [N, 3] -> [N, 3]
        """The same from all sides."""
        raw: Tensor = self.appearance(self._cube(points))
        return raw.sigmoid()

    def _cube(self, points: Tensor) -> Tensor:
        """Into the unit cube: directions as they are, distances by their logarithms."""
        reach = points.norm(dim=-1, keepdim=True).clamp_min(1e-9)
        share = (reach.log() - self.shell.low) / (self.shell.cell * self.shell.depths)
        return points / reach * (NEAR + (1 - NEAR) * share.clamp(0, 1)) * 0.5 + 0.5
