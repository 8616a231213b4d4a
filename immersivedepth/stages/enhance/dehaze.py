"""Less haze, by the dark channel prior (He, Sun, Tang): somewhere nearby, some colour is almost absent."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ...checks import Range
from ...geometry import filters, sphere
from ...scene import Panorama, unit_image
from .colour import with_image

_HAZIEST = 0.001  # share of the sphere, the haziest part, whose brightest colour is that of the haze
_CLEAREST = 0.05  # least brightness of the haze; a black picture has none
_WORK = 512  # rows at which the transmission is found


@dataclass
class Dehaze:
    """Takes away `strength` of the haze that the dark channel suggests; meant for outdoors."""

    strength: Annotated[float, Range(0, 1)] = 0.9
    patch: Annotated[float, Range(0.1, 45)] = 2.0  # degrees, radius in which a dark colour is looked for
    sigma: Annotated[float, Range(0.1, 45)] = 4.0  # degrees, width of the guided filter on the transmission
    edge: Annotated[float, Range(0.001, 1)] = 0.03  # contrasts that the transmission follows
    least: Annotated[float, Range(0.01, 1)] = 0.1  # transmission never below this, for the noise in thick haze

    def __call__(self, panorama: Panorama) -> Panorama:
        """Undo image = clear * transmission + haze * (1 - transmission)."""
        image = unit_image(panorama.image)
        height, width = image.shape[-2:]
        small, known = image, panorama.mask
        if height > _WORK:
            small = sphere.resize_erp(image, _WORK, 2 * _WORK)
            known = None if known is None else sphere.resize_erp(known, _WORK, 2 * _WORK, "nearest")
        haze = _haze(small, self._dark(small, known), known)
        transmission = 1 - self.strength * self._dark(small / haze, known)
        smooth = filters.guided(image, transmission, math.radians(self.sigma), self.edge, known)
        return with_image(panorama, (image - haze) / smooth.clamp(self.least, 1) + haze)

    def _dark(self, image: Tensor, known: Tensor | None) -> Tensor:  # [3, H, W] -> [1, H, W]
        darkest = image.amin(0, keepdim=True)
        if known is not None:
            darkest = torch.where(known, darkest, 1.0)
        return filters.erode(darkest, math.radians(self.patch)).clamp(0, 1)


def _haze(image: Tensor, dark: Tensor, known: Tensor | None) -> Tensor:  # [3, 1, 1]
    """Mean colour of the haziest share of the sphere."""
    height, width = image.shape[-2:]
    area = sphere.solid_angles(height, width, image.device).expand(height, width)
    if known is not None:
        area = area * known[0]
    order = dark[0].flatten().argsort(descending=True, stable=True)
    ranked = area.flatten()[order].cumsum(0)
    chosen = order[ranked <= max(float(ranked[-1]) * _HAZIEST, float(ranked[0]))]
    weight = area.flatten()[chosen]
    colour = (image.flatten(1)[:, chosen] * weight).sum(1) / weight.sum().clamp_min(1e-12)
    return colour.clamp_min(_CLEAREST)[:, None, None]
