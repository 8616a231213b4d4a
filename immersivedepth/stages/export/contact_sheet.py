"""All views on one sheet: what each saw, what became of it, and where it differs from the result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from ...checks import Range
from ...data import images
from ...geometry import pinhole, sphere, warp
from ...scene import Aligned, Geometry, Panorama
from ...visual.colours import Picture, Scale, colour_difference, colour_distance, colour_normal, distance_scale
from ...visual.grids import grid, rgb_picture


@dataclass
class ContactSheet:
    """views.png: a column for each view; below, the log of its distance over the result's, in red and blue."""

    side: Annotated[int, Range(32, 1024)] = 192
    most: Annotated[int, Range(1, 1000)] = 60
    residual: Annotated[float, Range(0.001, 5)] = 0.1

    def __call__(self, geometry: Geometry, panorama: Panorama, folder: Path) -> list[Path]:
        """Write the sheet; nothing where the views are not remembered."""
        if geometry.aligned is None:
            return []
        return [images.write_png(folder / "views.png", self.sheet(geometry, geometry.aligned, panorama))]

    def sheet(self, geometry: Geometry, aligned: Aligned, panorama: Panorama) -> Picture:
        """The sheet itself."""
        rows: dict[str, list[Picture]] = {"image": [], "distance": [], "residual": []}
        if aligned.normal is not None:
            rows["normal"] = []
        scale = distance_scale(geometry.distance[0].cpu().numpy(), geometry.mask[0].cpu().numpy())
        titles = []
        for view in range(min(len(aligned.rig), self.most)):
            rig = type(aligned.rig)(
                aligned.rig.rotation[view : view + 1], aligned.rig.tan_half_fov[view : view + 1], aligned.rig.resolution
            )
            difference = residuals(geometry, aligned, view)
            rows["image"].append(rgb_picture(warp.erp_to_views(panorama.image, rig)[0]))
            rows["distance"].append(_in_colours(aligned.distance[view], scale))
            rows["residual"].append(colour_difference(difference.cpu().numpy(), self.residual))
            if aligned.normal is not None:
                rows["normal"].append(colour_normal(aligned.normal[view].permute(1, 2, 0).cpu().numpy()))
            size = difference[difference.isfinite()].abs()
            titles.append(f"{view}: {100 * float(size.median()):.1f} %" if len(size) else f"{view}")
        return grid(rows, titles, self.side)


def residuals(geometry: Geometry, aligned: Aligned, view: int) -> Tensor:  # [h, w]
    """Log of a view's distance over that of the result, nan where either knows nothing."""
    rig = aligned.rig
    rays = pinhole.view_rays(rig.rotation[view : view + 1], rig.tan_half_fov[view : view + 1], rig.resolution)[0]
    known = geometry.distance.isfinite() & (geometry.distance > 0)
    there = sphere.sample_erp(torch.where(known, geometry.distance, 0.0), sphere.rays_to_erp(rays), "nearest")[..., 0]
    own = aligned.distance[view, 0]
    good = (aligned.weight[view, 0] > 0) & own.isfinite() & (own > 0) & (there > 0)
    return torch.where(good, (own / there.clamp_min(1e-12)).log(), torch.nan)


def _in_colours(distance: Tensor, scale: Scale) -> Picture:
    return colour_distance(distance[0].cpu().numpy(), scale)
