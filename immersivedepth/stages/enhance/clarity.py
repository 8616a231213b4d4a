"""More local contrast without halos at strong edges."""

import math
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ...checks import Range
from ...geometry import filters
from ...scene import Panorama
from .colour import change_lightness


@dataclass
class Clarity:
    """What an edge-keeping smoother takes out of the lightness is put back magnified."""

    sigma: Annotated[float, Range(0.001, 90)] = 2.0  # degrees
    edge: Annotated[float, Range(0.001, 1)] = 0.1  # contrasts well above this are edges and stay as they are
    gain: Annotated[float, Range(1, 10)] = 1.5

    def __call__(self, panorama: Panorama) -> Panorama:
        """Magnify the detail of the lightness."""

        def magnify(lightness: Tensor) -> Tensor:
            base = filters.guided(lightness, lightness, math.radians(self.sigma), self.edge, panorama.mask)
            return base + self.gain * (lightness - base)

        return change_lightness(panorama, magnify)
