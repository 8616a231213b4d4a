"""Less noise and fewer compression blocks, at the price of fine detail."""

import math
from dataclasses import dataclass
from typing import Annotated

from ...checks import Range
from ...scene import Panorama, unit_image
from .colour import smoothed, with_image


@dataclass
class Gaussian:
    """Gaussian blur, as wide at the poles as at the equator."""

    sigma: Annotated[float, Range(0.001, 90)] = 0.1  # degrees

    def __call__(self, panorama: Panorama) -> Panorama:
        """Blur all channels alike."""
        return with_image(panorama, smoothed(panorama, unit_image(panorama.image), math.radians(self.sigma)))
