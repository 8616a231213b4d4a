"""Worlds with answers in closed form, and the three test scenes on which alignment was measured."""

from __future__ import annotations

import math

from .builder import Builder, Draw, Material, hsv
from .textures import Texture

# Length along x, height, width along y in metres; boxes; balls.
MEASURED = {
    "b1_room": ((4.8, 2.8, 5.5), 7, 4),
    "b1_hall": ((15.0, 6.1, 19.0), 12, 8),
    "b1_corridor": ((2.3, 2.7, 21.0), 6, 3),
}


def cube_room(build: Builder, half: tuple[float, float, float]) -> None:
    """An empty room around the origin: one hollow box."""
    material = Material(hsv(0.1, 0.3, 0.8), hsv(0.6, 0.4, 0.5), texture=Texture.CHECKER, scale=0.5)
    build.box((0, 0, 0), (2 * half[0], 2 * half[1], 2 * half[2]), material, hollow=True)
    build.light((0, 0, 0.8 * half[2]), (3.0, 3.0, 3.0))
    build.sky(zenith=(0, 0, 0), horizon=(0, 0, 0), above=(0.4, 0.4, 0.4), below=(0.3, 0.3, 0.3))


def sphere(build: Builder, radius: float) -> None:
    """The inside of a ball around the origin."""
    material = Material(hsv(0.55, 0.3, 0.8), hsv(0.05, 0.5, 0.6), texture=Texture.NOISE, scale=0.3 * radius)
    build.ball((0, 0, 0), radius, material, hollow=True)
    build.sky(zenith=(0, 0, 0), horizon=(0, 0, 0), above=(0.9, 0.9, 0.9), below=(0.5, 0.5, 0.5))


def measured(build: Builder, kind: str) -> tuple[float, float, float, float, float, float]:
    """A closed room with boxes that stand and balls that lie or hang; returns the space for cameras."""
    draw = build.draw
    (length, height, width), boxes, balls = MEASURED[kind]
    paint = Material(
        hsv(draw.uniform(), 0.15, 0.85), hsv(draw.uniform(), 0.25, 0.7), texture=Texture.NOISE, scale=0.4, bump=0.1
    )
    build.box((0, 0, height / 2), (length, width, height), paint, hollow=True, anchored=True)
    textures = (Texture.WOOD, Texture.CHECKER, Texture.STRIPES, Texture.CLOTH, Texture.NOISE, Texture.MARBLE)
    for number in range(boxes + balls):
        hue = draw.uniform()
        material = Material(
            hsv(hue, 0.5, 0.7), hsv(hue + draw.uniform(0.05, 0.3), 0.4, 0.45), texture=draw.pick(textures), scale=0.25
        )
        # The middle is left free for cameras: things keep away from it along the longer side.
        side = draw.pick((-1, 1))
        along = draw.uniform(0.15, 0.46) * max(length, width) * side
        across = draw.uniform(-0.4, 0.4) * min(length, width)
        x, y = (along, across) if length > width else (across, along)
        size = draw.uniform(0.12, 0.3) * min(height, length, width)
        if number < boxes:
            tall = draw.uniform(0.3, 0.75) * height
            build.box(
                (x, y, tall / 2), (size, size * draw.uniform(0.6, 1.6), tall), material, yaw=draw.uniform(0, math.pi)
            )
        else:
            radius = size / 2
            build.ball((x, y, draw.pick((radius, draw.uniform(radius, height - radius)))), radius, material)
    build.light((0, 0, 0.93 * height), (0.12 * height * max(length, width),) * 3, across=(0.2, 0, 0), along=(0, 0.2, 0))
    build.sky(zenith=(0, 0, 0), horizon=(0, 0, 0), above=(0.3, 0.3, 0.3), below=(0.25, 0.25, 0.25))
    return -0.1 * length, 0.1 * length, -0.1 * width, 0.1 * width, 1.2, min(1.8, 0.65 * height)


def new_builder(kind: str, seed: int, style: str) -> Builder:
    """A builder whose choices depend on all three."""
    return Builder(Draw(f"{kind} {style} {seed}"))


def still_box(build: Builder) -> tuple[float, float, float, float, float, float]:
    """A closed box with twenty rigid things floating in it at all distances; returns the space for cameras."""
    draw = build.draw
    half = draw.uniform(4.0, 12.0)
    textures = tuple(Texture)[1:]

    def material(scale: float) -> Material:
        hue = draw.uniform()
        colours = [hsv(hue + draw.uniform(0, 0.5), draw.uniform(0.1, 0.9), draw.uniform(0.2, 0.95)) for _ in range(3)]
        return Material(colours[0], colours[1], colours[2], texture=draw.pick(textures), scale=scale)

    build.box((0, 0, 0), (2 * half, 2 * half * draw.uniform(0.6, 1), 1.2 * half), material(0.15 * half), hollow=True)
    for _ in range(20):
        # Even in the logarithm of distance: near things are what the network learns parallax from.
        reach = 1.6 * (half / 1.6) ** draw.uniform()
        azimuth, up = draw.uniform(0, 2 * math.pi), draw.uniform(-0.6, 0.6)
        place = (reach * math.cos(azimuth), reach * math.sin(azimuth), reach * up)
        size = reach * draw.uniform(0.12, 0.4)
        turned = draw.uniform(0, math.pi)
        if draw.chance(0.5):
            sides = (size, size * draw.uniform(0.3, 1.5), size * draw.uniform(0.3, 1.5))
            build.box(place, sides, material(0.25 * size), yaw=turned)
        elif draw.chance(0.5):
            build.ball(
                place, (size / 2, size * draw.uniform(0.2, 0.7), size * draw.uniform(0.2, 0.7)), material(0.2 * size)
            )
        else:
            build.frustum(place, size / 2, size * draw.uniform(0.5, 2), material(0.2 * size))
    for _ in range(3):
        corner = (draw.uniform(-0.7, 0.7) * half, draw.uniform(-0.4, 0.4) * half, 0.5 * half)
        build.light(corner, (0.35 * half**2,) * 3)
    build.sky(zenith=(0, 0, 0), horizon=(0, 0, 0), above=(0.45, 0.45, 0.45), below=(0.3, 0.3, 0.3))
    return -0.6, 0.6, -0.6, 0.6, -0.3, 0.3


def figure(build: Builder) -> None:
    """One made-up standing thing three metres ahead, of a few rounded and square parts, before an empty sky."""
    draw = build.draw
    textures = (Texture.PLAIN, Texture.STRIPES, Texture.DOTS, Texture.CHECKER, Texture.CLOTH, Texture.NOISE)

    def material() -> Material:
        hue = draw.uniform()
        colours = [hsv(hue + draw.uniform(0, 0.4), draw.uniform(0.2, 0.9), draw.uniform(0.25, 0.95)) for _ in range(3)]
        return Material(colours[0], colours[1], colours[2], texture=draw.pick(textures), scale=draw.uniform(0.05, 0.2))

    with build.thing(3.0, 0.0, 0.0, yaw=draw.uniform(0, 2 * math.pi)):
        z, width = 0.0, draw.uniform(0.25, 0.6)
        for _ in range(draw.integer(2, 4)):
            tall = draw.uniform(0.25, 0.7)
            if draw.chance(0.35):
                build.box((0, 0, z + tall / 2), (width, width * draw.uniform(0.5, 1), tall), material())
            elif draw.chance(0.5):
                build.frustum((0, 0, z), width / 2, tall, material())
            else:
                build.ball((0, 0, z + tall / 2), (width / 2, width * draw.uniform(0.3, 0.5), tall / 2), material())
            if draw.chance(0.5):  # something that sticks out
                out = draw.pick((-1, 1)) * width * draw.uniform(0.4, 0.7)
                build.box((0, out, z + tall * 0.6), (0.1, width * 0.7, 0.1), material(), yaw=draw.uniform(-0.4, 0.4))
            z += tall * draw.uniform(0.85, 1)
            width *= draw.uniform(0.6, 1)
        build.ball((0, 0, z + width * 0.35), width * draw.uniform(0.3, 0.45), material())
    build.light((1.0, draw.uniform(-3, 3), draw.uniform(2, 5)), (9.0, 9.0, 9.0))
    build.sky(zenith=(0, 0, 0), horizon=(0, 0, 0), above=(0.5, 0.5, 0.5), below=(0.35, 0.35, 0.35))
