"""Two panoramas side by side or one above the other: angles, distances, and the view in which matches lie on rows.

theta is the angle at the reference camera between the direction towards the second camera and a point; seen from the
second camera the point has moved by the parallax alpha >= 0 away from that direction. With baseline b, by the law of
sines, the distance is b sin(theta + alpha) / sin(alpha).

The Cassini view is the panorama turned so that its pole is the direction towards the second camera, and laid on its
side: rows are the azimuth psi around the baseline and wrap, columns are theta, falling from pi at the left edge to 0 at
the right. What is at column x in the reference is at x - disparity in the second panorama, disparity >= 0, on the same
row.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ..checks import check_shapes
from . import sphere

Side = Literal["right", "up"]  # where the second camera stands, seen from the reference

# Towards the second camera, and the direction of psi = 0; world axes.
_AXES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "right": ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0)),
    "up": ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0)),
}


def parallax(distance: Tensor, theta: Tensor, baseline: float | Tensor) -> Tensor:
    """Alpha of points at a distance from the reference camera; 0 at infinity."""
    finite = torch.where(distance.isfinite(), distance, 1.0)
    alpha = torch.atan2(baseline * theta.sin(), finite - baseline * theta.cos())
    return torch.where(distance.isfinite(), alpha, 0.0)


def distance_from(alpha: Tensor, theta: Tensor, baseline: float | Tensor) -> Tensor:
    """Distance from the reference camera; infinity where there is no parallax."""
    sine = alpha.sin()
    seen = sine > 0
    return torch.where(seen, baseline * (theta + alpha).sin() / torch.where(seen, sine, 1.0), math.inf)


def second_distance(alpha: Tensor, theta: Tensor, baseline: float | Tensor) -> Tensor:
    """Distance from the second camera."""
    sine = alpha.sin()
    seen = sine > 0
    return torch.where(seen, baseline * theta.sin() / torch.where(seen, sine, 1.0), math.inf)


def thetas(columns: int) -> Tensor:  # [n], float64
    """Theta of the columns of a Cassini view."""
    return math.pi * (1 - (torch.arange(columns, dtype=torch.float64) + 0.5) / columns)


def to_pixels(alpha: Tensor, columns: int) -> Tensor:
    """Disparity in pixels of a Cassini view with so many columns."""
    return alpha * (columns / math.pi)


def to_angle(disparity: Tensor, columns: int) -> Tensor:
    """Parallax of a disparity in pixels."""
    return disparity * (math.pi / columns)


def frame(side: Side) -> Tensor:  # [3, 3]
    """World axes of the turned panorama: its forward, left and up as columns."""
    pole, forward = (torch.tensor(v, dtype=torch.float64) for v in _AXES[side])
    return torch.stack([forward, torch.linalg.cross(pole, forward, dim=0), pole], dim=1)


def cassini_rays(rows: int, columns: int, side: Side, device: torch.device | None = None) -> Tensor:  # [m, n, 3]
    """Unit rays in world axes through the pixels of a Cassini view."""
    turned = sphere.erp_rays(columns, rows, device)  # [n, m, 3], its rows are theta from 0 on
    return _laid(turned.movedim(-1, 0)).movedim(0, -1) @ frame(side).to(turned).T


def to_cassini(
    erp: Tensor, side: Side, mode: str = "bilinear", size: tuple[int, int] | None = None
) -> Tensor:  # [C, H, W] -> [C, rows, columns]
    """A panorama's picture or map in the view where matches lie on rows; W rows, H columns without a size."""
    check_shapes("to_cassini", erp=(erp, "_ _ _"))
    rows, columns = size or (erp.shape[-1], erp.shape[-2])
    uv = sphere.rays_to_erp(cassini_rays(rows, columns, side, erp.device))
    return sphere.sample_erp(erp, uv, mode).movedim(-1, 0)


def from_cassini(
    cassini: Tensor, side: Side, mode: str = "bilinear", size: tuple[int, int] | None = None
) -> Tensor:  # [C, rows, columns] -> [C, H, W]
    """Back to the panorama, around the seam and over all poles: as high as the view is wide, unless a size is given."""
    height, width = size or (cassini.shape[-1], cassini.shape[-2])
    rays = sphere.erp_rays(height, width, cassini.device) @ frame(side).to(cassini)
    return sphere.sample_erp(_laid(cassini), sphere.rays_to_erp(rays), mode).movedim(-1, 0)


def sight(theta: Tensor) -> Tensor:
    """How well a distance can be seen there, 0..1: not at all towards and away from the second camera."""
    return theta.sin()


def _laid(image: Tensor) -> Tensor:
    """From the turned panorama to its Cassini view and back: transposed, with theta running to the left."""
    return image.flip(-2).transpose(-2, -1) if image.shape[-1] > image.shape[-2] else image.transpose(-2, -1).flip(-2)
