"""Streets, squares, gardens and parks, and what is seen of them through a window."""

from __future__ import annotations

import math

from .builder import Builder, Colour, Draw, Material, blend, hsv, rgb, shade, varied
from .styles import OUTDOOR, OutdoorStyle
from .textures import Texture

Space = tuple[float, float, float, float, float, float]  # x0, x1, y0, y1, z0, z1
GLASS = rgb("22303c")


def ground_material(draw: Draw, name: str) -> Material:
    """What one walks on."""
    if name == "grass":
        green = blend(rgb("4f7a32"), rgb("7a8f42"), draw.uniform())
        return Material(
            green, shade(green, 0.6), draw.pick((rgb("e8e0d0"), rgb("e8c83c"), green)), Texture.GRASS, 1.0, bump=0.6
        )
    if name == "sand":
        return Material(rgb("d8b888"), rgb("b9905e"), texture=Texture.NOISE, scale=1.5, bump=0.5)
    if name == "snow":
        return Material(rgb("eef2f6"), rgb("c9d4e0"), texture=Texture.NOISE, scale=2.5, bump=0.25)
    if name == "asphalt":
        return Material(rgb("6a6a6c"), rgb("525254"), texture=Texture.NOISE, scale=1.2, bump=0.2)
    stone = blend(rgb("a8a094"), rgb("8f8a88"), draw.uniform())
    return Material(
        stone,
        shade(stone, 0.8),
        shade(stone, 0.55),
        Texture.TILES,
        draw.uniform(0.3, 0.8),
        draw.uniform(1, 2),
        bump=0.1,
    )


def tree(build: Builder, kind: str, height: float) -> None:
    """A tree with its foot at the frame's origin."""
    draw = build.draw
    bark = Material(rgb("5d4631"), rgb("3a2b1e"), texture=Texture.NOISE, scale=0.15, bump=0.6)
    hue = draw.uniform(0.2, 0.36)
    if draw.chance(0.12):
        hue = draw.uniform(0.03, 0.12)  # autumn
    leaf = Material(
        hsv(hue, 0.65, 0.36),
        hsv(hue - 0.04, 0.6, 0.62),
        hsv(hue + 0.03, 0.6, 0.14),
        Texture.LEAVES,
        draw.uniform(0.2, 0.4),
        bump=1.0,
    )
    if kind == "conifer":
        dark = Material(rgb("2f5a35"), rgb("4a7a45"), rgb("14301a"), Texture.LEAVES, 0.25, bump=0.9)
        build.frustum((0, 0, 0), 0.03 * height, 0.3 * height, bark)
        layers = draw.integer(3, 5)
        for i in range(layers):
            z = (0.15 + 0.8 * i / layers) * height
            wide = 0.22 * height * (1 - 0.75 * i / layers)
            build.frustum((0, 0, z), wide, min(0.42 * height, height - z), dark, top=0.0)
    elif kind == "palm":
        build.frustum((0, 0, 0), 0.16, height, bark, top=0.11, pitch=draw.uniform(-0.1, 0.1))
        for i in range(9):
            yaw = i * 2 * math.pi / 9 + draw.uniform(-0.15, 0.15)
            long, lean = 0.35 * height, draw.uniform(1.1, 1.9)
            c, s = math.cos(yaw) * math.sin(lean), math.sin(yaw) * math.sin(lean)
            build.ball((c * long / 2, s * long / 2, height + math.cos(lean) * long / 2), (0.04, 0.03, 0.03), leaf)
            build.box(
                (c * long / 2, s * long / 2, height + math.cos(lean) * long / 2),
                (0.02, 0.3, long),
                varied(draw, leaf),
                yaw=yaw,
                pitch=lean,
            )
    elif kind == "cactus":
        green = Material(rgb("5a8a4a"), rgb("3f6a38"), rgb("4a7a3f"), Texture.STRIPES, 0.09, bump=0.2)
        tall = min(height * 0.5, 3.2)
        build.frustum((0, 0, 0), 0.17, tall, green)
        build.ball((0, 0, tall), 0.17, green)
        for side in (-1, 1):
            z = tall * draw.uniform(0.35, 0.6)
            build.frustum((0, 0, z), 0.1, 0.45, green, pitch=side * math.pi / 2)
            build.ball((side * 0.45, 0, z), 0.1, green)
            build.frustum((side * 0.45, 0, z), 0.1, tall * 0.3, green)
            build.ball((side * 0.45, 0, z + tall * 0.3), 0.1, green)
    elif kind == "bare":
        build.frustum((0, 0, 0), 0.035 * height, height * 0.55, bark, top=0.02 * height)
        for i in range(draw.integer(6, 9)):
            build.frustum(
                (0, 0, height * draw.uniform(0.3, 0.54)), 0.016 * height, height * draw.uniform(0.25, 0.45), bark,
                top=0.004 * height, yaw=i * 2.4, pitch=draw.uniform(0.3, 0.95),
            )  # fmt: skip
    else:
        trunk = 0.35 if kind == "round" else 0.5
        skin = Material(rgb("d8d4c8"), rgb("3a3a38"), texture=Texture.NOISE, scale=0.12) if kind == "birch" else bark
        build.frustum((0, 0, 0), 0.028 * height, (trunk + 0.3) * height, skin, top=0.014 * height)
        crown = (0.3 if kind == "round" else 0.2) * height
        build.ball((0, 0, (trunk + 0.3) * height), (crown, crown, 0.32 * height), leaf)
        for i in range(draw.integer(4, 7)):
            turn = i * 2.4 + draw.uniform(-0.3, 0.3)
            r = crown * draw.uniform(0.45, 0.7)
            reach = crown * draw.uniform(0.5, 0.85)
            z = (trunk + draw.uniform(0.08, 0.5)) * height
            build.ball(
                (reach * math.cos(turn), reach * math.sin(turn), z),
                (r, r, r * draw.uniform(0.75, 1.0)),
                varied(draw, leaf),
            )


def bush(build: Builder, size: float) -> None:
    """A few balls of leaves on the ground."""
    draw = build.draw
    leaf = Material(
        hsv(draw.uniform(0.22, 0.36), 0.6, 0.35), hsv(0.25, 0.55, 0.55), rgb("14281a"), Texture.LEAVES, 0.15, bump=1.0
    )
    for _ in range(draw.integer(2, 4)):
        r = size * draw.uniform(0.35, 0.6)
        build.ball((draw.uniform(-0.5, 0.5) * size, draw.uniform(-0.5, 0.5) * size, r * 0.7), (r, r, r), leaf)


def house(build: Builder, style: OutdoorStyle, width: float, depth: float, floors: int) -> None:
    """A building with its front on y = 0 looking towards -y, middle at x = 0."""
    draw = build.draw
    storey = draw.uniform(2.8, 3.4)
    tall = floors * storey + draw.uniform(0.1, 0.5)
    paint = rgb(draw.pick(style.walls))
    trim = draw.pick((rgb("efece4"), shade(paint, 0.55), shade(paint, 1.3)))
    glass = blend(GLASS, rgb(style.sky[0]), draw.uniform(0, 0.35))
    wall = Material(paint, glass, trim, Texture.FACADE, storey, draw.uniform(0.65, 1.1), gloss=0.05)
    build.box((0, depth / 2 + 0.0, tall / 2), (width, depth, tall), wall)
    base = draw.uniform(0.3, 0.6)
    build.box(
        (0, depth / 2, base / 2),
        (width + 0.12, depth + 0.12, base),
        Material(shade(paint, 0.6), shade(paint, 0.4), texture=Texture.NOISE, scale=0.5),
    )
    roof = rgb(draw.pick(style.roofs))
    slate = Material(roof, shade(roof, 0.8), shade(roof, 0.5), Texture.TILES, 0.35, 0.8)
    if draw.chance(style.gable):
        high = draw.uniform(0.35, 0.6) * min(width, depth)
        along = width >= depth or draw.chance(0.5)
        long, wide = (width, depth) if along else (depth, width)
        plain = Material(paint, shade(paint, 0.8), texture=Texture.NOISE, scale=1.0)
        build.box(
            (0, depth / 2, tall), (long - 0.04, wide, 2 * high), plain, yaw=0.0 if along else math.pi / 2, diamond=True
        )
        # Two slabs lie on the gable and stick out over the walls.
        slope = math.atan2(high, wide / 2)
        slant = math.hypot(high, wide / 2) + 0.5
        for side in (-1, 1):
            mid = slant / 2 - 0.5  # of the slab from the eaves, measured up the slope
            off, up = side * (wide / 2 - mid * math.cos(slope)), mid * math.sin(slope)
            x, y = (0.0, depth / 2 + off) if along else (-off, depth / 2)
            build.box(
                (x, y, tall + up + 0.1), (long + 0.7, slant, 0.14), slate,
                yaw=0.0 if along else math.pi / 2, roll=-side * slope,
            )  # fmt: skip
        if draw.chance(0.7):
            build.box(
                (draw.uniform(-0.3, 0.3) * width, depth * 0.4, tall + high * 0.9),
                (0.6, 0.6, 1.6),
                Material(rgb("8a4a38"), rgb("b0a898"), texture=Texture.BRICKS, scale=0.08, aspect=2.6),
            )
    else:
        build.box((0, depth / 2, tall + 0.1), (width + 0.3, depth + 0.3, 0.35), Material(shade(paint, 0.75)))
        if draw.chance(0.5):
            build.box(
                (draw.uniform(-0.2, 0.2) * width, depth / 2, tall + 0.9),
                (width * 0.3, depth * 0.35, 1.6),
                Material(shade(paint, 0.8)),
            )
    door = draw.uniform(-0.35, 0.35) * width
    leaf = Material(hsv(draw.uniform(), 0.5, 0.35), gloss=0.2)
    build.box((door, -0.02, 1.05), (1.3, 0.12, 2.25), Material(trim))
    build.box((door, -0.04, 1.05), (1.0, 0.12, 2.05), leaf)
    build.box((door, -0.5, 0.07), (1.6, 1.0, 0.14), Material(rgb("9a958c")))
    if draw.chance(0.5):
        build.box((door, -0.5, 2.35), (1.8, 1.1, 0.1), slate)
    if floors > 1 and draw.chance(0.45):
        for _ in range(draw.integer(1, 3)):
            x, floor = draw.uniform(-0.35, 0.35) * width, draw.integer(1, floors - 1)
            z = floor * storey
            build.box((x, -0.55, z), (2.2, 1.1, 0.14), Material(shade(paint, 0.8)))
            build.box((x, -1.07, z + 0.95), (2.2, 0.05, 0.06), Material(rgb("2f3133")))
            for i in range(9):
                build.box((x - 1.05 + i * 0.2625, -1.07, z + 0.5), (0.025, 0.025, 0.86), Material(rgb("2f3133")))
    if draw.chance(0.35) and floors > 1:
        awning = Material(hsv(draw.uniform(), 0.6, 0.7), rgb("f2efe6"), rgb("f2efe6"), Texture.STRIPES, 0.5)
        build.box((door + (2.6 if door < 0 else -2.6), -0.75, 2.75), (3.2, 1.6, 0.06), awning, roll=0.25)


def car(build: Builder) -> None:
    """A car along x, its middle at the origin."""
    draw = build.draw
    paint = Material(hsv(draw.uniform(), draw.pick((0.0, 0.1, 0.7, 0.85)), draw.uniform(0.2, 0.9)), gloss=0.6)
    glass = Material(rgb("1c2329"), gloss=0.8)
    long, wide = draw.uniform(3.8, 4.7), draw.uniform(1.7, 1.85)
    van = draw.chance(0.2)
    build.box((0, 0, 0.58), (long, wide, 0.55), paint)
    build.box((0, 0, 0.42), (long - 0.1, wide + 0.03, 0.2), Material(shade(paint.a, 0.6)))
    top = 1.9 if van else 1.42
    start, stop = (-0.46, 0.3) if van else (-0.34, 0.2)
    build.box(((start + stop) / 2 * long, 0, (0.85 + top) / 2), ((stop - start) * long, wide - 0.22, top - 0.85), glass)
    for x, lean in ((stop, -0.6), (start, 0.5 if not van else 0.1)):
        build.box((x * long, 0, (0.8 + top) / 2 - 0.03), (0.09, wide - 0.24, top - 0.75), glass, pitch=lean)
    build.box(((start + stop) / 2 * long, 0, top + 0.02), ((stop - start) * long * 0.96, wide - 0.2, 0.06), paint)
    for x in (start + 0.02, (start + stop) / 2, stop - 0.02):
        build.box((x * long, 0, (0.85 + top) / 2), (0.07, wide - 0.2, top - 0.85), paint)
    for x in (-0.31, 0.31):
        for y in (-1, 1):
            build.frustum(
                (x * long, y * (wide / 2 - 0.18), 0.32),
                0.32,
                0.2 * y + 0.4 * (y < 0),
                Material(rgb("17181a")),
                roll=-y * math.pi / 2,
            )
            build.frustum(
                (x * long, y * (wide / 2 + 0.015), 0.32),
                0.19,
                0.012,
                Material(rgb("a9adb0"), gloss=0.5),
                roll=-y * math.pi / 2,
            )
    for y in (-1, 1):
        build.box((long / 2, y * (wide / 2 - 0.25), 0.66), (0.04, 0.32, 0.14), Material(rgb("f0efe8"), gloss=0.6))
        build.box((-long / 2, y * (wide / 2 - 0.22), 0.68), (0.04, 0.26, 0.14), Material(rgb("a81a1a"), gloss=0.5))


def street_lamp(build: Builder) -> None:
    """A lamp post with an arm towards -y."""
    grey = Material(rgb("4a4f52"), gloss=0.3)
    tall = build.draw.uniform(4.5, 7)
    build.frustum((0, 0, 0), 0.09, tall, grey, top=0.05)
    build.frustum((0, 0, 0), 0.14, 0.6, grey)
    build.frustum((0, 0, tall - 0.05), 0.035, 1.3, grey, roll=math.pi / 2 - 0.1)
    build.box((0, -1.3, tall + 0.02), (0.22, 0.6, 0.12), grey)


def bench(build: Builder) -> None:
    """A bench with its back at y = 0."""
    wood, iron = (
        Material(rgb("8a6038"), rgb("6a4728"), texture=Texture.WOOD, scale=0.08, aspect=9),
        Material(rgb("2b2d2f")),
    )
    for i in range(4):
        build.box((0, 0.1 + 0.12 * i, 0.45), (1.7, 0.1, 0.035), wood)
    for i in range(3):
        build.box((0, 0.02 - 0.03 * i, 0.58 + 0.14 * i), (1.7, 0.03, 0.11), wood, roll=0.2)
    for x in (-0.7, 0.7):
        build.box((x, 0.28, 0.22), (0.05, 0.45, 0.43), iron)
        build.box((x, -0.03, 0.65), (0.05, 0.05, 0.5), iron, roll=0.2)


def person(build: Builder) -> None:
    """A simple standing figure."""
    draw = build.draw
    cloth, trousers = Material(hsv(draw.uniform(), 0.5, 0.6)), Material(hsv(draw.uniform(), 0.3, 0.3))
    skin = Material(blend(rgb("e0b090"), rgb("6a4430"), draw.uniform()))
    stride = draw.uniform(0.05, 0.25)
    for side in (-1, 1):
        build.frustum((side * stride, side * 0.09, 0), 0.06, 0.86, trousers, top=0.09, pitch=-side * stride)
        build.frustum(
            (0, side * 0.22, 1.4), 0.05, 0.62, cloth, top=0.04, pitch=math.pi - side * stride * 0.8, roll=side * 0.08
        )
    build.frustum((0, 0, 0.8), 0.15, 0.62, cloth, top=0.2)
    build.ball((0, 0, 1.42), (0.15, 0.21, 0.08), cloth)
    build.frustum((0, 0, 1.45), 0.055, 0.12, skin)
    build.ball((0, 0, 1.64), (0.1, 0.085, 0.125), skin)
    build.ball(
        (-0.015, 0, 1.675),
        (0.105, 0.09, 0.105),
        Material(draw.pick((rgb("2a1d14"), rgb("7a5a30"), rgb("1a1a1a"), rgb("9a9a9a")))),
    )


def fence(build: Builder, length: float, height: float) -> None:
    """Posts and rails along x from 0 to length."""
    draw = build.draw
    wood = Material(draw.pick((rgb("e8e6e0"), rgb("8a6a48"), rgb("5a5f62"))))
    count = max(round(length / 1.8), 1)
    for i in range(count + 1):
        build.box((i * length / count, 0, height / 2 + 0.04), (0.08, 0.08, height + 0.08), wood)
    for z in (0.3, 0.6, 0.9):
        build.box((length / 2, 0, z * height), (length, 0.03, 0.1), wood)


def furniture(build: Builder, draw: Draw) -> None:
    """Something small that stands on a pavement."""
    kind = draw.integer(0, 5)
    if kind == 0:
        build.frustum((0, 0, 0), 0.22, 0.8, Material(hsv(draw.uniform(), 0.4, 0.35)), top=0.26)
        build.frustum((0, 0, 0.8), 0.27, 0.06, Material(rgb("2a2b2c")))
    elif kind == 1:
        for i in range(3):
            build.frustum((i * 1.2, 0, 0), 0.07, 0.85, Material(rgb("3a3d40")))
            build.ball((i * 1.2, 0, 0.87), 0.085, Material(rgb("3a3d40")))
    elif kind == 2:
        build.box(
            (0, 0, 0.3), (1.0, 1.0, 0.6), Material(rgb("a89a88"), rgb("8a7d6c"), texture=Texture.NOISE, scale=0.3)
        )
        with build.within(0, 0, 0.5):
            bush(build, 0.8)
    elif kind == 3:
        red = Material(rgb(draw.pick(("b02a22", "2a5fa0", "e0b820"))), gloss=0.3)
        build.box((0, 0, 0.6), (0.45, 0.4, 1.2), red)
        build.frustum((-0.225, 0, 1.2), 0.2, 0.45, red, pitch=math.pi / 2)
    elif kind == 4:
        build.frustum((0, 0, 0), 0.035, 2.4, Material(rgb("8a8f92")))
        sign = Material(rgb(draw.pick(("c02a22", "2a5fb0", "e8c020"))))
        build.frustum((0, -0.05, 2.25), 0.32, 0.03, sign, roll=math.pi / 2)
    else:
        build.frustum((0, 0, 0), 0.04, 0.55, Material(rgb("55585a")))
        build.frustum((0, 0, 0.68), 0.35, 0.03, Material(rgb("c8c4bc")))
        build.frustum((0, 0, 0), 0.02, 2.3, Material(rgb("d8d8d4")))
        build.frustum(
            (0, 0, 2.0),
            1.3,
            0.5,
            Material(hsv(draw.uniform(), 0.6, 0.8), rgb("f4f0e6"), rgb("f4f0e6"), Texture.STRIPES, 0.8),
            top=0.02,
        )


def hills(build: Builder, style: OutdoorStyle, count: int, near: float = 150.0) -> None:
    """Flat ellipsoids on the horizon."""
    draw = build.draw
    for i in range(count):
        turn = (i + draw.uniform(-0.4, 0.4)) * 2 * math.pi / max(count, 1)
        away = draw.uniform(near, 2.2 * near)
        wide, tall = draw.uniform(0.3, 0.6) * away, draw.uniform(0.06, 0.16) * away
        colour = {"sand": rgb("b9905e"), "snow": rgb("dfe6ee")}.get(
            style.ground, blend(rgb("4a6a3a"), rgb("6a7a55"), draw.uniform())
        )
        look = Material(colour, shade(colour, 0.7), texture=Texture.NOISE, scale=12.0)
        with build.thing(away * math.cos(turn), away * math.sin(turn), 0, turn):
            build.ball((0, 0, -0.15 * tall), (wide * 0.5, wide, tall), look)


def backdrop(build: Builder, outline: tuple[float, float, float, float], below: float) -> None:
    """What is seen from the windows of a house with this outline whose floor is `below` metres above the ground."""
    draw = build.draw
    style = OUTDOOR[draw.pick(tuple(OUTDOOR))]
    low = -0.25 - below
    with build.within(0, 0, low):
        with build.thing():
            build.disc((0, 0, 0), math.inf, ground_material(draw, style.ground))
        reach = math.hypot(outline[2] - outline[0], outline[3] - outline[1]) / 2
        for i in range(draw.integer(3, 6)):
            turn = (i + draw.uniform(-0.3, 0.3)) * 2 * math.pi / 5
            away = reach + draw.uniform(10, 22)
            with build.thing(away * math.cos(turn), away * math.sin(turn), 0, turn - math.pi / 2):
                house(build, style, draw.uniform(7, 14), draw.uniform(7, 10), max(draw.integer(*style.floors), 1))
        for _ in range(draw.integer(4, 9)):
            turn, away = draw.uniform(0, 2 * math.pi), reach + draw.uniform(3, 9)
            with build.thing(away * math.cos(turn), away * math.sin(turn)):
                if draw.chance(0.3):
                    bush(build, draw.uniform(0.8, 1.6))
                else:
                    tree(build, draw.pick(style.trees), draw.uniform(3.5, 8))
        if draw.chance(style.hills):
            hills(build, style, draw.integer(4, 8))


def build_outdoor(build: Builder, style_name: str) -> list[Space]:
    """A street, a crossing or a park around the origin; returns the space for cameras."""
    draw = build.draw
    style = OUTDOOR[style_name]
    with build.thing():
        build.disc((0, 0, 0), math.inf, ground_material(draw, style.ground))
    _weather(build, style)
    if draw.chance(style.hills):
        hills(build, style, draw.integer(5, 10))
    turn = draw.uniform(0, 2 * math.pi)
    layouts = [_street, _street, _square, _garden] if style_name != "park" else [_park, _park, _park, _garden]
    with build.within(0, 0, 0, turn):
        free = draw.pick(layouts)(build, style)
    return [_turned(box, turn) for box in free]


def _turned(box: Space, turn: float) -> Space:
    """A square inside the turned rectangle, around its middle."""
    x0, x1, y0, y1, z0, z1 = box
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    half = min(x1 - x0, y1 - y0) / 2 / math.sqrt(2)
    c, s = math.cos(turn), math.sin(turn)
    x, y = c * x - s * y, s * x + c * y
    return x - half, x + half, y - half, y + half, z0, z1


def _street(build: Builder, style: OutdoorStyle) -> list[Space]:
    """A road along x with pavements, buildings, trees, lamps, cars and people."""
    draw = build.draw
    half = draw.uniform(2.8, 4.5)
    walk = draw.uniform(1.8, 3.5)
    asphalt = blend(rgb("5c5c5e"), rgb("757270"), draw.uniform())
    if style.ground == "sand":
        asphalt = rgb("a8875e")
    elif style.ground == "snow":
        asphalt = rgb("8f959c")
    with build.thing():
        build.box(
            (0, 0, 0.005), (400, 2 * half, 0.03), Material(asphalt, rgb("e8e6e0"), texture=Texture.ROAD, bump=0.1)
        )
    stone = ground_material(draw, "paving")
    for side in (-1, 1):
        with build.thing():
            build.box((0, side * (half + walk / 2), 0.03), (400, walk, 0.2), stone)
            build.box((0, side * (half + 0.075), 0.035), (400, 0.15, 0.22), Material(rgb("b5b1a9")))
        front = half + walk + draw.uniform(*style.setback)
        with build.within(0, 0, 0, math.pi if side < 0 else 0.0):
            _row(build, style, front)
            _pavement(build, style, half, walk, front)
    for _ in range(draw.integer(0, style.cars)):
        side = draw.pick((-1, 1))
        x = draw.uniform(4, 40) * draw.pick((-1, 1))
        parked = draw.chance(0.7)
        y = side * (half - 1.05 if parked else half / 2)
        with build.thing(x, y, 0.02, 0.0 if side < 0 else math.pi):
            car(build)
    return [
        (-4, 4, -half, half, 1.4, 2.2),
        (-4, 4, half + 0.6, half + walk, 1.5, 2.0),
        (-4, 4, -half - walk, -half - 0.6, 1.5, 2.0),
    ]


def _row(build: Builder, style: OutdoorStyle, front: float) -> None:
    """Buildings along one side, their fronts at y = front."""
    draw = build.draw
    x = -draw.uniform(45, 60)
    while x < 55:
        width = draw.uniform(7, 15)
        depth = draw.uniform(8, 13)
        floors = draw.integer(*style.floors)
        with build.thing(x + width / 2, front + draw.uniform(0, 0.6)):
            house(build, style, width, depth, floors)
        gap = draw.uniform(*style.gap)
        if gap > 3 and draw.chance(0.8):
            with build.thing(x + width + gap / 2, front + draw.uniform(1, 6)):
                tree(build, draw.pick(style.trees), draw.uniform(4, 9))
        if style.ground == "grass" and draw.chance(0.5):
            with build.thing(x, front - 1.6):
                fence(build, width, draw.uniform(0.8, 1.2))
        x += width + gap


def _pavement(build: Builder, style: OutdoorStyle, half: float, walk: float, front: float) -> None:
    """Trees, lamps and small things between kerb and houses on the side of +y."""
    draw = build.draw
    spacing = draw.uniform(7, 14)
    planted = draw.chance(0.65)
    start = draw.uniform(0, spacing)
    for i in range(-5, 5):
        x = start + i * spacing
        if planted and draw.chance(0.85):
            with build.thing(x, half + 0.65, 0.1):
                tree(build, draw.pick(style.trees), draw.uniform(4, 7.5))
        if i % 2 == 0:
            with build.thing(x + spacing / 2, half + 0.4, 0.1):
                street_lamp(build)
    for _ in range(draw.integer(1, 5)):
        with build.thing(draw.uniform(-20, 20), half + draw.uniform(0.6, 0.9), 0.1):
            furniture(build, draw)
    for _ in range(draw.integer(0, 4)):
        with build.thing(
            draw.uniform(-18, 18), half + draw.uniform(0.5, max(walk - 0.3, 0.6)), 0.13, draw.uniform(0, 6.3)
        ):
            person(build)
    if front - half - walk > 2.5:
        for _ in range(draw.integer(2, 6)):
            with build.thing(draw.uniform(-25, 25), draw.uniform(half + walk + 0.8, front - 0.8)):
                bush(build, draw.uniform(0.6, 1.2))


def _square(build: Builder, style: OutdoorStyle) -> list[Space]:
    """An open place with buildings on all four sides and something in the middle."""
    draw = build.draw
    half = draw.uniform(11, 20)
    with build.thing():
        build.box(
            (0, 0, 0), (2 * half, 2 * half, 0.06), ground_material(draw, draw.pick(("paving", "paving", style.ground)))
        )
    for side in range(4):
        with build.within(0, 0, 0, side * math.pi / 2):
            x = -half + draw.uniform(0, 2)
            while x < half - 5:
                width = draw.uniform(7, 13)
                with build.thing(x + width / 2, half + draw.uniform(0, 0.8)):
                    house(build, style, width, draw.uniform(8, 11), draw.integer(*style.floors))
                x += width + draw.uniform(*style.gap)
            for i in range(draw.integer(0, 4)):
                with build.thing(draw.uniform(-0.7, 0.7) * half, draw.uniform(0.55, 0.8) * half, 0.03):
                    tree(build, draw.pick(style.trees), draw.uniform(4, 7)) if i % 2 else furniture(build, draw)
    with build.thing(0, 0, 0.03):
        _fountain(build) if draw.chance(0.5) else _pavilion(build, style)
    for _ in range(draw.integer(0, 5)):
        turn, away = draw.uniform(0, 2 * math.pi), draw.uniform(6, 9)
        with build.thing(away * math.cos(turn), away * math.sin(turn), 0.03, turn + math.pi / 2):
            _stall(build) if draw.chance(0.5) else bench(build)
    for _ in range(draw.integer(1, 7)):
        with build.thing(draw.uniform(-0.7, 0.7) * half, draw.uniform(-0.7, 0.7) * half, 0.03, draw.uniform(0, 6.3)):
            person(build)
    return [(-0.6 * half, 0.6 * half, -0.6 * half, 0.6 * half, 1.45, 2.1)]


def _stall(build: Builder) -> None:
    """A market stall with goods in crates."""
    draw = build.draw
    wood = Material(rgb("8a6540"), rgb("6f4f30"), texture=Texture.WOOD, scale=0.1, aspect=8)
    roof = Material(hsv(draw.uniform(), 0.6, 0.75), rgb("f2efe6"), rgb("f2efe6"), Texture.STRIPES, 0.4)
    for x in (-1.1, 1.1):
        for y in (-0.6, 0.6):
            build.box((x, y, 1.1), (0.06, 0.06, 2.2), wood)
    for side in (-1, 1):
        build.box((0, side * 0.38, 2.33), (2.6, 0.95, 0.04), roof, roll=-side * 0.45)
    build.box((0, 0, 0.8), (2.2, 1.0, 0.06), wood)
    build.box((0, -0.48, 0.4), (2.2, 0.04, 0.76), wood)
    for i in range(4):
        x, colour = -0.8 + 0.53 * i, hsv(draw.uniform(0, 0.35), 0.75, 0.8)
        build.box((x, -0.1, 0.92), (0.46, 0.6, 0.18), wood)
        for k in range(6):
            build.ball((x - 0.14 + 0.14 * (k % 3), -0.22 + 0.2 * (k // 3), 1.03), 0.07, Material(colour, gloss=0.2))


def _garden(build: Builder, style: OutdoorStyle) -> list[Space]:
    """The lawn behind a house: near things, fences, a shed, a table, trees and the neighbours."""
    draw = build.draw
    half = draw.uniform(4.5, 8)
    with build.thing(0, half):
        house(build, style, draw.uniform(8, 12), draw.uniform(8, 10), max(style.floors[0], 1))
    with build.thing():
        build.box((0, half - 1.4, 0.01), (draw.uniform(4, 9), 2.8, 0.05), ground_material(draw, "paving"))
    for side in range(1, 4):
        with build.thing(0, 0, 0, side * math.pi / 2), build.within(-half - 1, half):
            fence(build, 2 * half + 2, draw.uniform(0.9, 1.6))
    with build.thing(-half + 1.6, -half + 1.6, 0, draw.pick((0.0, math.pi / 2))):
        _shed(build)
    with build.thing(draw.uniform(-2, 2), half - 1.6, 0.035):
        furniture(build, draw)
    for i in range(draw.integer(8, 16)):
        turn, away = draw.uniform(-math.pi, 0.0), half * draw.uniform(0.55, 0.95)
        with build.thing(away * math.cos(turn), away * math.sin(turn), 0, turn):
            tree(build, draw.pick(style.trees), draw.uniform(2.5, 6)) if i % 3 == 0 else bush(
                build, draw.uniform(0.4, 1.1)
            )
    if draw.chance(0.5):
        with build.thing(draw.uniform(-2, 2), draw.uniform(-0.5, 0.3) * half, 0, draw.uniform(0, 6.3)):
            bench(build)
    for i in range(draw.integer(2, 5)):
        turn = -math.pi * (i + 0.5) / 5
        away = 2.2 * half + draw.uniform(2, 8)
        with build.thing(away * math.cos(turn), away * math.sin(turn), 0, turn - math.pi / 2):
            house(build, style, draw.uniform(8, 13), draw.uniform(8, 10), draw.integer(*style.floors))
    return [(-0.5 * half, 0.5 * half, -0.5 * half, 0.6 * half, 1.3, 1.9)]


def _shed(build: Builder) -> None:
    """A small hut of boards with a pitched roof."""
    draw = build.draw
    tone = rgb(draw.pick(("8a6a48", "a83f32", "6f8a5a", "d8d2c4", "4f6a80")))
    boards = Material(tone, shade(tone, 0.8), shade(tone, 0.4), Texture.PLANKS, 0.14, 20)
    build.box((0, 0, 1.0), (2.4, 1.8, 2.0), boards)
    build.box((0, 0, 2.0), (2.36, 1.8, 1.2), boards, diamond=True)
    for side in (-1, 1):
        build.box((0, side * 0.5, 2.37), (2.7, 1.25, 0.06), Material(rgb("4a4644")), roll=-side * math.atan2(0.6, 0.9))
    build.box((0.4, 0.92, 0.95), (0.8, 0.04, 1.8), Material(shade(tone, 0.6)))
    build.box((-0.6, 0.91, 1.3), (0.6, 0.03, 0.5), Material(GLASS, gloss=0.7))


def _park(build: Builder, style: OutdoorStyle) -> list[Space]:
    """Paths, trees, benches, people, a pond or a pavilion."""
    draw = build.draw
    gravel = Material(rgb("c9b896"), rgb("a8946f"), texture=Texture.NOISE, scale=0.5, bump=0.3)
    wide = draw.uniform(1.6, 3.0)
    with build.thing():
        build.box((0, 0, 0.0), (300, wide, 0.03), gravel, anchored=True)
        if draw.chance(0.6):
            build.box((0, 0, -0.002), (wide, 300, 0.03), gravel, anchored=True)
    spots: list[tuple[float, float, float]] = []

    def place(radius: float, low: float, high: float) -> tuple[float, float] | None:
        for _ in range(10):
            turn, away = draw.uniform(0, 2 * math.pi), low + (high - low) * draw.uniform() ** 0.7
            x, y = away * math.cos(turn), away * math.sin(turn)
            if abs(y) < wide / 2 + radius or abs(x) < wide / 2 + radius:
                continue
            if all(math.hypot(x - a, y - b) > radius + r for a, b, r in spots):
                spots.append((x, y, radius))
                return x, y
        return None

    for spot in filter(None, [place(1.2, 5, 50) for _ in range(draw.integer(14, 30))]):
        with build.thing(*spot, 0, draw.uniform(0, 6.3)):
            tree(build, draw.pick(style.trees), draw.uniform(4, 12))
    for spot in filter(None, [place(0.8, 4, 30) for _ in range(draw.integer(2, 8))]):
        with build.thing(*spot):
            bush(build, draw.uniform(0.7, 1.6))
    _beside_path(build, wide)
    middle = place(4.5, 9, 20)
    if middle:
        with build.thing(*middle):
            _fountain(build) if draw.chance(0.5) else _pavilion(build, style)
    for _ in range(draw.integer(1, 3)):
        turn, away = draw.uniform(0, 2 * math.pi), draw.uniform(40, 60)
        with build.thing(away * math.cos(turn), away * math.sin(turn), 0, turn - math.pi / 2):
            house(build, style, draw.uniform(9, 16), draw.uniform(8, 11), draw.integer(*style.floors))
    return [(-2.5, 2.5, -wide, wide, 1.5, 2.0), (-4, 4, -4, 4, 1.5, 2.0)]


def _beside_path(build: Builder, wide: float) -> None:
    """Benches, people and lamps along a path in x."""
    draw = build.draw
    for _ in range(draw.integer(1, 4)):
        side = draw.pick((-1, 1))
        with build.thing(
            draw.uniform(3, 18) * draw.pick((-1, 1)), side * (wide / 2 + 0.7), 0, 0.0 if side < 0 else math.pi
        ):
            bench(build)
    for _ in range(draw.integer(0, 5)):
        with build.thing(
            draw.uniform(3, 20) * draw.pick((-1, 1)), draw.uniform(-0.4, 0.4) * wide, 0.015, draw.uniform(0, 6.3)
        ):
            person(build)
    for _ in range(draw.integer(0, 3)):
        with build.thing(draw.uniform(5, 20) * draw.pick((-1, 1)), wide / 2 + 0.4):
            street_lamp(build)


def _fountain(build: Builder) -> None:
    """A round pond with a fountain."""
    stone = Material(rgb("b5aea2"), rgb("8f887c"), texture=Texture.NOISE, scale=0.4)
    build.frustum((0, 0, 0), 3.9, 0.3, stone)
    build.frustum((0, 0, 0.3), 3.6, 0.012, Material(rgb("3f6f86"), gloss=0.9))
    build.frustum((0, 0, 0.3), 1.0, 0.4, stone, top=0.8)
    build.frustum((0, 0, 0.7), 0.15, 1.0, stone)
    build.frustum((0, 0, 1.7), 0.25, 0.25, stone, top=0.7)


def _pavilion(build: Builder, style: OutdoorStyle) -> None:
    """Columns in a circle under a round roof."""
    stone = Material(rgb("e2ddd2"), rgb("b5aea2"), texture=Texture.MARBLE, scale=0.8)
    build.frustum((0, 0, 0), 3.2, 0.3, stone)
    for i in range(8):
        a = i * math.pi / 4
        build.frustum((2.6 * math.cos(a), 2.6 * math.sin(a), 0.3), 0.16, 2.7, stone, top=0.13)
    build.frustum((0, 0, 3.0), 3.1, 0.25, stone)
    build.frustum((0, 0, 3.25), 3.2, 1.4, Material(rgb(build.draw.pick(style.roofs))), top=0.1)


def _weather(build: Builder, style: OutdoorStyle) -> None:
    draw = build.draw
    mood = draw.uniform()
    azimuth = draw.uniform(0, 2 * math.pi)
    zenith, horizon = (rgb(code) for code in style.sky)
    if mood < 0.6:  # sunny
        sun = build.sun(azimuth, draw.uniform(0.5, 1.1), (2.3, 2.15, 1.9), softness=0.008)
        _dome(
            build,
            zenith,
            horizon,
            (0.42, 0.5, 0.62),
            (0.26, 0.24, 0.2),
            sun,
            (2.6, 2.4, 2.0),
            draw.uniform(0.1, 0.5),
            0.0025,
        )
    elif mood < 0.8:  # low and warm
        sun = build.sun(azimuth, draw.uniform(0.16, 0.4), (2.4, 1.75, 1.1), softness=0.012)
        _dome(
            build,
            blend(zenith, rgb("7a6fa0"), 0.3),
            blend(horizon, rgb("f2b878"), 0.6),
            (0.4, 0.4, 0.48),
            (0.25, 0.2, 0.17),
            sun,
            (2.6, 1.6, 0.8),
            draw.uniform(0.2, 0.6),
            0.004,
        )
    else:  # overcast
        grey: Colour = blend(horizon, (0.62, 0.64, 0.67), 0.7)
        _dome(
            build,
            shade(grey, 0.8),
            grey,
            (0.95, 0.98, 1.02),
            (0.4, 0.4, 0.4),
            (0, 0, -1),
            (0, 0, 0),
            draw.uniform(0.75, 1.0),
            draw.uniform(0.004, 0.009),
        )


def _dome(
    build: Builder, zenith: Colour, horizon: Colour, above: Colour, below: Colour, sun: tuple[float, float, float],
    glow: Colour, clouds: float, haze: float,
) -> None:  # fmt: skip
    draw = build.draw
    build.sky(
        zenith=zenith, horizon=horizon, above=above, below=below, sun=sun, glow=glow, clouds=clouds,
        cloud_scale=draw.uniform(0.4, 1.2), seed=draw.uniform(0, 30), exposure=draw.uniform(0.75, 0.95), haze=haze,
    )  # fmt: skip
