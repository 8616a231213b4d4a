"""A sparse grid of densities and colours, begun from the known surface: the field for machines without a GPU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from ...checks import Range
from .base import MarchedField, blend, of_those

FLOOR, CEILING = -4.0, 4.0  # logarithms of optical depth per cell: nothing, and opaque
SLOPE = 3.0  # of that logarithm per cell, across the surface
# Half of the light is stopped in front of the surface: exp(MIDDLE) / SLOPE = log 2.
MIDDLE = math.log(SLOPE * math.log(2))


@dataclass
class Voxel:
    """conf/scene/voxel.yaml."""

    rows: Annotated[int, Range(8, 2048)] = 256  # of the grid of directions; no more than the panorama has
    rate: Annotated[float, Range(0)] = 0.1  # of the learning rate: it begins near its end

    def field(self) -> VoxelField:
        """An empty one."""
        return VoxelField(self.rows)


class VoxelField(MarchedField):
    """Values at the vertices of the shell, trilinear between them; where there is no vertex there is nothing."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.log_density = nn.Parameter(torch.full((1, 1), FLOOR))
        self.tint = nn.Parameter(torch.zeros(1, 3))

    def begin(self, depth: Tensor, colour: Tensor) -> None:
        """Densities that rise across the surface, and the colours of the pixels."""
        density = (SLOPE * depth + MIDDLE).clamp(FLOOR, CEILING)[:, None]
        self.log_density = nn.Parameter(torch.cat([self.log_density.data.to(density), density]))
        self.tint = nn.Parameter(torch.cat([self.tint.data.to(colour), colour]))

    def geometry_parameters(self) -> list[nn.Parameter]:
        """The densities."""
        return [self.log_density]

    def appearance_parameters(self) -> list[nn.Parameter]:
        """The colours."""
        return [self.tint]

    def density(self, points: Tensor) -> Tensor:  # [N, 3] -> [N]
        """Interpolated before the exponential, which keeps surfaces sharp within a cell."""
        number, weight = self.shell.corners(points)
        log = blend(self.log_density, number, weight)[:, 0]
        return (log.clamp_max(CEILING + 2).exp() - math.exp(FLOOR)).clamp_min(0)

    def colour(self, points: Tensor) -> Tensor:  # [N, 3] -> [N, 3]
        """The mean of the vertices that are there."""
        number, weight = self.shell.corners(points)
        return blend(self.tint, number, of_those(number, weight)).clamp(0, 1)
