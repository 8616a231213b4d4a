"""What can be looked at from anywhere, with what, and what comes out: the one language of all renderers.

Positions are in world axes with the panorama's centre as origin, in the unit of its distances.
A panoramic camera has world axes of its own (+x forward, +y left, +z up); a perspective one has view axes (OpenCV:
+x right, +y down, +z forward). A pose turns either into the world.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..checks import ConfigError, Range, check_shapes
from ..geometry import sphere

PANORAMA, PERSPECTIVE = "panorama", "perspective"


@dataclass(frozen=True)
class Pose:
    """Where a camera stands and how it is turned."""

    rotation: Tensor  # [3, 3], camera axes to world axes
    position: Tensor  # [3]

    def __post_init__(self) -> None:
        check_shapes("Pose", rotation=(self.rotation, "3 3"), position=(self.position, "3"))


@dataclass(frozen=True)
class Camera:
    """A panoramic camera (width is twice the height) or a perspective one with a horizontal field of view."""

    kind: Literal["panorama", "perspective"] = "panorama"
    height: Annotated[int, Range(2, 8192)] = 512
    width: Annotated[int, Range(2, 16384)] = 1024
    fov: Annotated[float, Range(1, 170)] = 75.0  # degrees, of perspective cameras

    def __post_init__(self) -> None:
        if self.kind == PANORAMA and self.width != 2 * self.height:
            raise ConfigError(f"a panoramic camera is twice as wide as high, not {self.width}x{self.height}")

    @property
    def tangents(self) -> tuple[float, float]:
        """Half the width and half the height of a perspective picture at depth one."""
        tan = math.tan(math.radians(self.fov) / 2)
        return tan, tan * self.height / self.width

    def rays(self, device: torch.device | str | None = None) -> Tensor:  # [H, W, 3]
        """Unit rays through the pixel centres, in the camera's own axes."""
        if self.kind == PANORAMA:
            return sphere.erp_rays(self.height, self.width, device)
        across, along = self.tangents
        x = ((torch.arange(self.width, device=device) + 0.5) / self.width * 2 - 1) * across
        y = ((torch.arange(self.height, device=device) + 0.5) / self.height * 2 - 1) * along
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        return torch.nn.functional.normalize(torch.stack([grid_x, grid_y, torch.ones_like(grid_x)], -1), dim=-1)


@dataclass(frozen=True)
class Frame:
    """What a camera sees."""

    image: Tensor  # [3, h, w], RGB in 0..1
    distance: Tensor  # [1, h, w], length of the ray; inf for sky, 0 where nothing is known
    seen: Tensor  # [1, h, w], bool, False where the panorama did not show it: filled or left open

    def __post_init__(self) -> None:
        check_shapes("Frame", image=(self.image, "3 h w"), distance=(self.distance, "1 h w"), seen=(self.seen, "1 h w"))


@runtime_checkable
class Scene(Protocol):
    """Anything that can be looked at from anywhere: a mesh, splats, a radiance field."""

    def render(self, pose: Pose, camera: Camera) -> Frame:
        """One view."""
        ...
