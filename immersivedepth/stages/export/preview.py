"""Pictures of the geometry for people: distance in colours, normals as RGB, and all of it on one sheet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from ...checks import Range
from ...data import images
from ...scene import Geometry, Panorama
from ...visual.colours import ColourMap, colour_distance, colour_normal, distance_scale
from ...visual.grids import rgb_picture, shrunk
from ...visual.lettering import colour_bar

_BAR = 0.06  # height of the colour bar, as a share of the picture's height


@dataclass
class Preview:
    """distance.png, normal.png and overview.png; near is at the upper end of the colours, evenly in log distance."""

    max_width: Annotated[int, Range(64, 16384)] = 2048
    colours: ColourMap = "turbo"

    def __call__(self, geometry: Geometry, panorama: Panorama, folder: Path) -> list[Path]:
        """Write them; the overview has the panorama above and a colour bar with the range."""
        distance = geometry.distance[0].cpu().numpy()
        scale = distance_scale(distance, geometry.mask[0].cpu().numpy(), self.colours)
        pictures = {"distance": colour_distance(distance, scale)}
        if geometry.normal is not None:
            pictures["normal"] = colour_normal(geometry.normal.permute(1, 2, 0).cpu().numpy())
        paths = [images.write_png(folder / f"{name}.png", picture) for name, picture in pictures.items()]
        height, width = distance.shape
        bar = colour_bar(width, max(24, round(_BAR * height)), scale, " m" if geometry.metric else "")
        sheet = [rgb_picture(panorama.image), pictures.pop("distance"), bar, *pictures.values()]
        return [*paths, images.write_png(folder / "overview.png", shrunk(np.vstack(sheet), self.max_width))]
