"""What the original did to depth: treat it as a picture and make it crisper. It looks better and measures worse."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from ...checks import ConfigError
from ...scene import Geometry, Panorama
from ..protocols import Enhance

_LEAST = 1e-3  # of the greatest inverse distance; what falls below is as far as that


@dataclass
class PictureFilters:
    """Applies enhancers to 1 - inverse distance / its maximum, as a grey picture."""

    steps: dict[str, Any]

    def __post_init__(self) -> None:
        if not self.steps:
            raise ConfigError("refine.picture_filters.steps: expected at least one enhancer, as under conf/enhance")

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry:
        """Filter; sky and unknown pixels stay what they are."""
        known = geometry.distance.isfinite() & (geometry.distance > 0)
        if not known.any():
            return geometry
        inverse = torch.where(known, 1 / geometry.distance, 0.0)
        greatest = inverse.max()
        grey = (1 - inverse / greatest).expand(3, -1, -1)
        picture = Panorama(grey, mask=known)
        steps: dict[str, Enhance] = self.steps
        for step in steps.values():
            picture = step(picture)
        found = (1 - picture.image.mean(0, keepdim=True)).clamp_min(_LEAST) * greatest
        return replace(geometry, distance=torch.where(known, 1 / found, geometry.distance))
