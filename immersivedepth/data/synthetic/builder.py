"""Collects solids, lights and sky of one scene in plain numbers, then turns them into tables."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch

from . import shapes
from .scene_tables import LIGHT_COLUMNS, SKY_COLUMNS, Tables
from .textures import Texture

T = TypeVar("T")
_ENDLESS = 1e6  # metres; planes are discs of this radius, far beyond every horizon
Colour = tuple[float, float, float]  # linear RGB
Point = tuple[float, float, float]


class Draw:
    """Random choices that stay the same for ever: only `random()` of Python's generator is guaranteed to."""

    def __init__(self, seed: str) -> None:
        self._source = random.Random(seed)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * self._source.random()

    def integer(self, low: int, high: int) -> int:
        """Both ends included."""
        return low + int(self._source.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self._source.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._source.random() * len(options))]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        rest = list(options)
        return [rest.pop(int(self._source.random() * len(rest))) for _ in range(len(rest))]


def rgb(code: str) -> Colour:
    """Linear colour of an sRGB code such as "c8b090"."""
    r, g, b = (int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return to_linear(r), to_linear(g), to_linear(b)


def to_linear(value: float) -> float:
    """One sRGB value in 0..1 to linear light."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Linear colour of an sRGB hue, saturation and value, all 0..1."""
    parts = [(hue * 6 + k) % 6 for k in (5, 3, 1)]
    r, g, b = (value - value * saturation * max(0.0, min(p, 4 - p, 1.0)) for p in parts)
    return to_linear(r), to_linear(g), to_linear(b)


def shade(colour: Colour, factor: float) -> Colour:
    """The same colour, brighter or darker."""
    r, g, b = (min(max(c * factor, 0.0), 0.95) for c in colour)
    return r, g, b


def blend(a: Colour, b: Colour, share: float) -> Colour:
    """A mixture: share 0 is a, 1 is b."""
    r, g, blue = (x + (y - x) * share for x, y in zip(a, b, strict=True))
    return r, g, blue


class Material(NamedTuple):
    """How a surface looks; colours are linear."""

    a: Colour = (0.6, 0.6, 0.6)
    b: Colour = (0.3, 0.3, 0.3)
    c: Colour = (0.1, 0.1, 0.1)
    texture: Texture = Texture.PLAIN
    scale: float = 1.0
    aspect: float = 1.0
    gloss: float = 0.0
    emission: float = 0.0
    bump: float = 0.0


@dataclass(frozen=True)
class Place:
    """Where an object stands: its floor point and how far it is turned about the vertical."""

    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    yaw: float = 0.0

    def at(self, x: float, y: float, z: float = 0.0, yaw: float = 0.0) -> Place:
        """A place given relative to this one."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return Place(self.x + c * x - s * y, self.y + s * x + c * y, self.z + z, self.yaw + yaw)


class Builder:
    """Everything of one scene, in the order it was put there."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.place = Place()
        self._rows: list[list[float]] = []
        self._lights: list[list[float]] = []
        self._sky: list[float] = []
        self._objects = 0
        self._inside_object = False

    @contextmanager
    def thing(self, x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw: float = 0.0) -> Iterator[Builder]:
        """One object (one instance) at a place relative to the present one; things within things are parts of it."""
        before, outer = self.place, self._inside_object
        self.place = before.at(x, y, z, yaw)
        if not outer:
            self._objects += 1
        self._inside_object = True
        try:
            yield self
        finally:
            self.place, self._inside_object = before, outer

    @contextmanager
    def within(self, x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw: float = 0.0) -> Iterator[Builder]:
        """A moved frame, without making one object of what stands in it."""
        before = self.place
        self.place = before.at(x, y, z, yaw)
        try:
            yield self
        finally:
            self.place = before

    def box(
        self,
        centre: Point,
        size: Point,
        material: Material,
        *,
        yaw: float = 0.0,
        pitch: float = 0.0,
        roll: float = 0.0,
        diamond: bool = False,
        hollow: bool = False,
        anchored: bool = False,
    ) -> None:
        """A box of full `size`, rolled about its x, pitched about its y, then turned about z.

        A diamond is the box turned by 45 degrees about its own x before it is stretched to `size`: a gable roof.
        Anchored textures start at the frame's origin, so that neighbouring pieces of a wall match.
        """
        half = (size[0] / 2, size[1] / 2, size[2] / 2)
        self._add(shapes.BOX, centre, half, material, (yaw, pitch, roll), 1.0, diamond, hollow, anchored)

    def ball(
        self, centre: Point, radii: float | Point, material: Material, *, yaw: float = 0.0, hollow: bool = False
    ) -> None:
        """A ball, or an ellipsoid with three radii."""
        half = radii if isinstance(radii, tuple) else (radii, radii, radii)
        self._add(shapes.BALL, centre, half, material, (yaw, 0.0, 0.0), 1.0, False, hollow, False)

    def frustum(
        self,
        base: Point,
        radius: float,
        height: float,
        material: Material,
        *,
        top: float | None = None,
        yaw: float = 0.0,
        pitch: float = 0.0,
        roll: float = 0.0,
    ) -> None:
        """A round solid on its base centre: cylinder (top None), truncated cone or cone (top 0). Leaning ones are
        turned about their base; a wider top is the same solid upside down.
        """
        turned = _turn(yaw, pitch, roll)
        axis = (turned[0][2], turned[1][2], turned[2][2])
        middle = (base[0] + axis[0] * height / 2, base[1] + axis[1] * height / 2, base[2] + axis[2] * height / 2)
        top = radius if top is None else top
        wide = max(radius, top)
        taper = min(radius, top) / wide
        flip = math.pi if top > radius else 0.0
        self._add(
            shapes.FRUSTUM,
            middle,
            (wide, wide, height / 2),
            material,
            (yaw, pitch, roll + flip),
            taper,
            False,
            False,
            False,
        )

    def disc(self, centre: Point, radius: float, material: Material) -> None:
        """A level disc; an infinite radius makes it a plane."""
        radius = min(radius, _ENDLESS)
        self._add(shapes.DISC, centre, (radius, radius, 1.0), material, (0.0, 0.0, 0.0), 1.0, False, False, True)

    def light(
        self,
        position: Point,
        colour: Colour,
        *,
        facing: Point = (0.0, 0.0, 0.0),
        across: Point = (0.0, 0.0, 0.0),
        along: Point = (0.0, 0.0, 0.0),
        reach: float = 1e6,
    ) -> None:
        """A lamp or a bright opening: radiant intensity `colour`, half sides `across` and `along` for soft shadows,
        a zero `facing` shines everywhere, and nothing is lit beyond `reach` metres. In the present frame.
        """
        p = self.point(position)
        vectors = [self.direction(v) for v in (facing, across, along)]
        self._lights.append([*p, 1.0, *colour, *vectors[0], *vectors[1], *vectors[2], reach])

    def sun(self, azimuth: float, elevation: float, colour: Colour, softness: float = 0.01) -> Point:
        """Parallel light; softness is the half angle of the sun. Returns the direction towards it."""
        c = math.cos(elevation)
        to = (c * math.cos(azimuth), c * math.sin(azimuth), math.sin(elevation))
        across = (-math.sin(azimuth) * softness, math.cos(azimuth) * softness, 0.0)
        s = math.sin(elevation) * softness
        along = (-s * math.cos(azimuth), -s * math.sin(azimuth), c * softness)
        self._lights.append([*to, 0.0, *colour, 0.0, 0.0, 0.0, *across, *along, 1e6])
        return to

    def sky(
        self,
        *,
        zenith: Colour,
        horizon: Colour,
        above: Colour,
        below: Colour,
        sun: Point = (0.0, 0.0, -1.0),
        glow: Colour = (0.0, 0.0, 0.0),
        clouds: float = 0.0,
        cloud_scale: float = 1.0,
        seed: float = 0.0,
        exposure: float = 1.0,
        haze: float = 0.0,
    ) -> None:
        """What is seen beyond everything, the ambient light from above and below, exposure, and haze per metre."""
        self._sky = [*zenith, *horizon, *above, *below, *sun, *glow, clouds, cloud_scale, seed, exposure, haze]

    def point(self, p: Point) -> Point:
        """From the present frame to the scene."""
        placed = self.place.at(*p)
        return placed.x, placed.y, placed.z

    def direction(self, v: Point) -> Point:
        """A vector turned from the present frame to the scene."""
        c, s = math.cos(self.place.yaw), math.sin(self.place.yaw)
        return c * v[0] - s * v[1], s * v[0] + c * v[1], v[2]

    def _add(
        self,
        kind: int,
        centre: Point,
        half: Point,
        material: Material,
        angles: tuple[float, float, float],
        taper: float,
        diamond: bool,
        hollow: bool,
        anchored: bool,
    ) -> None:
        if not self._inside_object:
            self._objects += 1
        yaw, pitch, roll = angles
        turned = _turn(yaw + self.place.yaw, pitch, roll)  # columns are the local axes
        axes = [[turned[0][i], turned[1][i], turned[2][i]] for i in range(3)]
        matrix = [[v / h for v in axis] for axis, h in zip(axes, half, strict=True)]
        radius = math.sqrt(sum(h * h for h in half))
        if kind == shapes.BALL:
            radius = max(half)
        if diamond:
            # |y| + |z| <= 1 in the stretched frame is |y + z| <= 1 and |y - z| <= 1.
            first, second = matrix[1], matrix[2]
            matrix[1] = [p + q for p, q in zip(first, second, strict=True)]
            matrix[2] = [q - p for p, q in zip(first, second, strict=True)]
        p = self.point(centre)
        seed = self.draw.uniform(0, 1000)
        offset = [0.0, 0.0, 0.0]
        if anchored:
            offset = [sum(a * b for a, b in zip(axis, p, strict=True)) for axis in axes]
            seed = float(self._objects)
        look = [float(material.texture), *material.a, *material.b, *material.c, material.scale, material.aspect]
        look += [material.gloss, material.emission, material.bump, seed, *offset]
        look += [v * h for axis, h in zip(axes, half, strict=True) for v in axis]
        row = [v for line in matrix for v in line] + [*p, taper, float(hollow), radius, *half]
        self._rows.append([*row, float(kind), float(self._objects), *look])

    def tables(self) -> Tables:
        """The finished scene, as a batch of one."""
        rows = sorted(self._rows, key=lambda row: row[shapes.KIND])  # stable: order within a kind is kept
        counts = [sum(row[shapes.KIND] == kind for row in rows) for kind in range(len(shapes.KINDS))]
        return Tables(
            rows=torch.tensor(rows, dtype=torch.float32).reshape(1, -1, shapes.COLUMNS),
            counts=(counts[0], counts[1], counts[2], counts[3]),
            lights=torch.tensor(self._lights, dtype=torch.float32).reshape(1, -1, LIGHT_COLUMNS),
            sky=torch.tensor(self._sky, dtype=torch.float32).reshape(1, SKY_COLUMNS),
        )


def varied(draw: Draw, material: Material, amount: float = 0.15) -> Material:
    """The same material a little brighter or darker."""
    factor = draw.uniform(1 - amount, 1 + amount)
    return material._replace(a=shade(material.a, factor), b=shade(material.b, factor), c=shade(material.c, factor))


def _turn(yaw: float, pitch: float, roll: float) -> list[list[float]]:
    """Rotation matrix yaw (z) * pitch (y) * roll (x)."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    return [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
