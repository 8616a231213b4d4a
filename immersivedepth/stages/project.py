"""Panorama -> Views: which way the cameras look, and what they see."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..checks import ConfigError, Range
from ..geometry import directions, icosahedron, pinhole, warp
from ..scene import Panorama, Rig, Views

WIDEST = 150.0  # degrees; wider pinhole views are mostly stretched border
CUBE_CORNER = 45.0  # degrees from the middle of a cube's face to the middle of its edges, where views must meet


def look(panorama: Panorama, rig: Rig, antialias: bool = True) -> Views:
    """Views of any rig on the panorama's device; images keep their type, mask and truth go with them."""
    device = panorama.image.device
    rig = Rig(rig.rotation.to(device), rig.tan_half_fov.to(device), rig.resolution)
    images = warp.erp_to_views(panorama.image, rig, antialias)
    mask = None if panorama.mask is None else warp.mask_to_views(panorama.mask, rig)
    return Views(images, rig, mask, panorama.truth)


@dataclass
class Icosahedron:
    """Twenty views, one along each face's centre; wider fields of view overlap more."""

    resolution: Annotated[int, Range(8, 4096)] = 512  # pixels along one side of a view
    fov: Annotated[float, Range(1, WIDEST)] = 100.0  # degrees
    antialias: bool = True  # average several samples where a view pixel covers several panorama pixels

    def __post_init__(self) -> None:
        _refuse_gaps("project.fov", self.fov, 2 * icosahedron.CORNER)

    def __call__(self, panorama: Panorama) -> Views:
        return look(panorama, _rig(icosahedron.face_centres(), self.fov, self.resolution), self.antialias)


@dataclass
class IcosahedronRings:
    """The twenty faces seen once for each ratio of half the view to the circumradius of the face: sixty views."""

    resolution: Annotated[int, Range(8, 4096)] = 512
    ratios: tuple[float, ...] = icosahedron.RING_RATIOS  # 80.1, 93.8 and 104.8 degrees
    yaw_seed: Annotated[int, Range(0)] | None = None  # turn each set of twenty by an angle of its own
    antialias: bool = True

    def __post_init__(self) -> None:
        self.ratios = tuple(self.ratios)
        widest = math.tan(math.radians(WIDEST / 2)) / math.tan(math.radians(icosahedron.CORNER))
        if not self.ratios or not all(1 <= ratio <= widest for ratio in self.ratios):
            raise ConfigError(
                f"project.ratios={list(self.ratios)}: expected numbers from 1 (views just reach the corners of their "
                f"faces) to {widest:.2f} (views of {WIDEST:g} degrees)"
            )

    def __call__(self, panorama: Panorama) -> Views:
        turns = torch.zeros(len(self.ratios))
        if self.yaw_seed is not None:
            own = torch.Generator().manual_seed(self.yaw_seed)
            turns = torch.rand(len(self.ratios), generator=own) * (2 * math.pi / 5)  # five-fold symmetry
        centres = icosahedron.face_centres()
        rigs = [
            _rig(centres @ directions.yaw(turn).T, icosahedron.ring_fov(ratio), self.resolution)
            for turn, ratio in zip(turns, self.ratios, strict=True)
        ]
        rotation, tan = torch.cat([rig.rotation for rig in rigs]), torch.cat([rig.tan_half_fov for rig in rigs])
        return look(panorama, Rig(rotation, tan, self.resolution), self.antialias)


@dataclass
class Cube:
    """Six views: front, left, back, right, up, down."""

    resolution: Annotated[int, Range(8, 4096)] = 768
    fov: Annotated[float, Range(1, WIDEST)] = 120.0  # with less, neighbours share too little to find their shifts
    antialias: bool = True

    def __post_init__(self) -> None:
        _refuse_gaps("project.fov", self.fov, 2 * CUBE_CORNER)

    def __call__(self, panorama: Panorama) -> Views:
        return look(panorama, _rig(directions.cube_faces(), self.fov, self.resolution), self.antialias)


@dataclass
class Fibonacci:
    """Any number of evenly spread views."""

    count: Annotated[int, Range(4, 500)] = 32
    resolution: Annotated[int, Range(8, 4096)] = 512
    fov: Annotated[float, Range(1, WIDEST)] = 90.0
    antialias: bool = True

    def __post_init__(self) -> None:
        # A view holds at least the disc around its axis that touches the middle of its sides.
        _refuse_gaps("project.fov", self.fov, 2 * directions.covering_angle(directions.fibonacci(self.count)))

    def __call__(self, panorama: Panorama) -> Views:
        return look(panorama, _rig(directions.fibonacci(self.count), self.fov, self.resolution), self.antialias)


def _rig(forward: Tensor, fov: float, resolution: int) -> Rig:
    tan = math.tan(math.radians(fov / 2))
    return Rig(pinhole.look_along(forward), torch.full((len(forward),), tan), resolution)


def _refuse_gaps(key: str, fov: float, least: float) -> None:
    if not least < fov <= WIDEST:
        raise ConfigError(
            f"{key}={fov:g}: expected more than {least:.2f} degrees, or views leave gaps, and at most {WIDEST:g}"
        )
