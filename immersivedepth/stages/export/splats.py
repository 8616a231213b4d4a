"""The panorama as 3D Gaussian splats, in the PLY that their viewers read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from ...checks import Range
from ...files import atomic
from ...geometry import sphere
from ...render.splats import Splats as Discs
from ...render.splats import splats
from ...scene import Geometry, Panorama, unit_image

BAND0 = 0.28209479177387814  # the constant spherical harmonic, 1 / (2 sqrt(pi)): colour = 0.5 + BAND0 * f_dc
FLATNESS = 0.05  # thickness of a splat, in its width
FIELDS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)


@dataclass
class Splats:
    """One splat for each trusted pixel, or for larger ones within a limit: in the surface, as wide as its share of it.

    Axes are the world's (+x forward, +y left, +z up).
    """

    max_splats: Annotated[int, Range(1)] = 1_000_000
    opacity: Annotated[float, Range(0.01, 0.9999)] = 0.99

    def __call__(self, geometry: Geometry, panorama: Panorama, folder: Path) -> list[Path]:
        """splats.ply."""
        discs = self.discs(geometry, panorama)
        with atomic(folder / "splats.ply") as temporary:
            _write(temporary, discs, self.opacity)
        return [folder / "splats.ply"]

    def discs(self, geometry: Geometry, panorama: Panorama) -> Discs:
        """The splats of the largest grid that keeps within the limit."""
        image = unit_image(panorama.image).cpu()
        distance, keep, normal = geometry.distance.cpu().float(), geometry.mask.cpu(), geometry.normal
        # Columns thin out towards the poles: 2 / pi of H * 2 H pixels make a splat.
        height = min(distance.shape[-2], max(2, math.floor(math.sqrt(self.max_splats * math.pi / 4))))
        while True:
            size = (height, 2 * height)
            small = sphere.resize_erp(distance, *size, "nearest")
            facing = None if normal is None else sphere.resize_erp(normal.cpu().float(), *size, "nearest")
            kept = sphere.resize_erp(keep, *size, "nearest")
            discs = splats(sphere.resize_erp(image, *size), small, facing, kept)
            if len(discs.centre) <= self.max_splats:
                return discs
            height = min(height - 1, math.floor(height * math.sqrt(self.max_splats / len(discs.centre))))


def quaternions(axes: Tensor) -> Tensor:  # [N, 3, 3] -> [N, 4]
    """Rotations as w, x, y, z, by the greatest of the four, so that none is divided by little."""
    m = axes.double()
    xx, yy, zz = m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]
    squares = torch.stack([1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz], 1)  # 4 q^2
    wx, wy, wz = m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]  # 4 q0 q
    xy, xz, yz = m[:, 0, 1] + m[:, 1, 0], m[:, 0, 2] + m[:, 2, 0], m[:, 1, 2] + m[:, 2, 1]
    w2, x2, y2, z2 = squares.unbind(1)
    products = torch.stack([w2, wx, wy, wz, wx, x2, xy, xz, wy, xy, y2, yz, wz, xz, yz, z2], 1).reshape(-1, 4, 4)
    row = products[torch.arange(len(m)), squares.argmax(1)]
    return torch.nn.functional.normalize(row, dim=-1)


def _write(path: Path, discs: Discs, opacity: float) -> None:
    from plyfile import PlyData, PlyElement

    scale = torch.cat([discs.sigma, discs.sigma.amin(1, keepdim=True) * FLATNESS], 1).log()
    columns = torch.cat(
        [
            discs.centre,
            discs.axes[..., 2],
            (discs.colour - 0.5) / BAND0,
            torch.full_like(discs.sigma[:, :1], math.log(opacity / (1 - opacity))),
            scale,
            quaternions(discs.axes).to(scale),
        ],
        1,
    ).numpy()
    rows = np.ascontiguousarray(columns, "<f4").view([(name, "<f4") for name in FIELDS])[:, 0]
    PlyData([PlyElement.describe(rows, "vertex")], byte_order="<").write(str(path))
