"""Sets of viewing directions besides the icosahedron's, and how well a set covers the sphere."""

import math

import torch
from torch import Tensor

from . import sphere


def cube_faces() -> Tensor:  # [6, 3]
    """Front, left, back, right, up, down."""
    return torch.tensor([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.float32)


def fibonacci(count: int) -> Tensor:  # [N, 3]
    """Evenly spread unit directions from north to south, each a golden angle further round than the last."""
    step = torch.arange(count, dtype=torch.float64)
    up = 1 - (2 * step + 1) / count
    out = (1 - up.square()).sqrt()
    around = step * math.pi * (3 - math.sqrt(5))
    return torch.stack([out * around.cos(), out * around.sin(), up], dim=-1).float()


def yaw(angle: Tensor | float) -> Tensor:  # [...] -> [..., 3, 3]
    """Rotation about the vertical that turns +x towards +y, angle in radians."""
    angle = torch.as_tensor(angle, dtype=torch.float64)
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = [angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero, zero, zero, one]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3)).float()


def covering_angle(directions: Tensor, height: int = 90) -> float:
    """Degrees from the emptiest point of the sphere to the nearest direction, to half a pixel of an ERP grid."""
    rays = sphere.erp_rays(height, 2 * height, directions.device)
    nearest = (rays @ directions.T).amax(-1).min().clamp(-1, 1)
    return math.degrees(math.acos(nearest)) + 90 / height
