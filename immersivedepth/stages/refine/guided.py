"""Distances smoothed where the surface is, along the edges that the picture shows, at the panorama's full size."""

import math
from dataclasses import dataclass, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from ...checks import Range
from ...geometry import plane_filter, sphere
from ...scene import Geometry, Panorama, unit_image

_ACROSS = 4  # samples per radius of the window
_JUMP = 0.06  # of log distance among a pixel's neighbours: half-way between two surfaces
_WIDEST = 0.01  # of a pixel's trust: at least this much is left when its own distance is doubted


@dataclass
class Guided:
    """Joint bilateral plane fits; geometry smaller than the panorama is brought to its size on the way.

    With `sharpen`, pixels next to depth edges are doubted and take the surface of the neighbours of their colour:
    for distances with soft edges but little noise.
    """

    radius: Annotated[float, Range(0.01, 30)] = 3.0
    colour: Annotated[float, Range(0.001, 10)] = 0.1
    step: Annotated[float, Range(0.001, 10)] = 0.1
    rounds: Annotated[int, Range(1, 10)] = 2
    sharpen: bool = False

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry:
        """Filter the distance; sky and unknown pixels stay what they are."""
        geometry = resized(geometry, panorama.size)
        known = geometry.distance.isfinite() & (geometry.distance > 0)
        distance = torch.where(known, geometry.distance, 0.0)
        log = torch.where(known, distance, 1.0).log()
        guide = unit_image(panorama.image).to(distance)
        offsets = plane_filter.disc(log.shape[-2], math.radians(self.radius), _ACROSS)
        current = log
        for _ in range(self.rounds):
            trust = _away_from_edges(current) if self.sharpen else torch.ones_like(log)
            steps = self.step / trust.clamp_min(_WIDEST)
            current = plane_filter.smooth(distance, guide, trust, current, offsets, self.colour, steps)
        return replace(geometry, distance=torch.where(known, current.exp(), geometry.distance))


def _away_from_edges(log: Tensor) -> Tensor:  # [1, H, W], in 0..1
    around = sphere.pad_erp(log, 1)[None]
    jump = F.max_pool2d(around, 3, 1)[0] + F.max_pool2d(-around, 3, 1)[0]
    return 1 / (1 + (jump / _JUMP) ** 4)


def resized(geometry: Geometry, size: tuple[int, int]) -> Geometry:
    """The same geometry with as many pixels as the panorama has: distances bilinear in their inverse, masks nearest."""
    if tuple(geometry.distance.shape[-2:]) == size:
        return geometry
    known = geometry.distance.isfinite() & (geometry.distance > 0)
    share = sphere.resize_erp(known.to(geometry.distance), *size)
    inverse = sphere.resize_erp(torch.where(known, 1 / geometry.distance, 0.0), *size) / share.clamp_min(1e-6)
    there = sphere.resize_erp(known, *size, "nearest")
    nearest = sphere.resize_erp(geometry.distance, *size, "nearest")
    instances = geometry.instances
    if instances is not None:
        instances = replace(instances, labels=sphere.resize_erp(instances.labels, *size, "nearest"))
    return replace(
        geometry,
        distance=torch.where(there & (inverse > 0), 1 / inverse.clamp_min(1e-12), nearest),
        mask=sphere.resize_erp(geometry.mask, *size, "nearest"),
        normal=_nearest(geometry.normal, size),
        sky=_nearest(geometry.sky, size),
        spread=_nearest(geometry.spread, size),
        instances=instances,
    )


def _nearest(image: Tensor | None, size: tuple[int, int]) -> Tensor | None:
    return None if image is None else sphere.resize_erp(image, *size, "nearest")
