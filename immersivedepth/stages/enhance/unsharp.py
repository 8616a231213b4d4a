"""Crisper texture: the difference to a blurred copy, added once more."""

import math
from dataclasses import dataclass
from typing import Annotated

from ...checks import Range
from ...scene import Panorama, unit_image
from .colour import smoothed, with_image


@dataclass
class Unsharp:
    """Unsharp masking: image + amount * (image - blurred image)."""

    sigma: Annotated[float, Range(0.001, 90)] = 0.8  # degrees
    amount: Annotated[float, Range(0, 10)] = 0.3

    def __call__(self, panorama: Panorama) -> Panorama:
        """Sharpen all channels alike."""
        image = unit_image(panorama.image)
        return with_image(panorama, image + self.amount * (image - smoothed(panorama, image, math.radians(self.sigma))))
