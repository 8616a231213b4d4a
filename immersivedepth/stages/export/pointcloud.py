"""A coloured point cloud that any 3D program opens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from ...checks import Range
from ...files import write_bytes
from ...geometry import sphere
from ...scene import Geometry, Panorama, unit_image


@dataclass
class PointCloud:
    """Binary PLY of the trusted pixels, thinned evenly over the sphere."""

    max_points: Annotated[int, Range(1)] = 1_000_000
    seed: Annotated[int, Range(0)] = 0

    def __call__(self, geometry: Geometry, panorama: Panorama, folder: Path) -> list[Path]:
        import trimesh  # takes half a second to import

        height, width = panorama.size
        keep = (geometry.mask & geometry.distance.isfinite())[0].cpu()
        area = sphere.solid_angles(height, width).expand(height, width)[keep]
        # Rows near the poles hold many pixels for little area: each pixel stays with a chance in proportion to its
        # solid angle, and the largest such share within the limit is taken.
        chance = area / area.max() if len(area) else area
        chance = chance * min(1.0, self.max_points / max(float(chance.sum()), 1.0))
        random = torch.rand(len(chance), generator=torch.Generator().manual_seed(self.seed))
        chosen = keep.clone()
        chosen[keep] = random < chance
        points = (geometry.distance[0].cpu()[..., None] * sphere.erp_rays(height, width))[chosen].numpy()
        colours = (unit_image(panorama.image).cpu().permute(1, 2, 0)[chosen].clamp(0, 1) * 255).round().byte().numpy()
        cloud = trimesh.PointCloud(points, colors=np.hstack([colours, np.full((len(points), 1), 255, np.uint8)]))
        return [write_bytes(folder / "points.ply", cloud.export(file_type="ply"))]
