"""Things that stand in rooms, made of a few solids each.

Every function builds in the present frame: back at y = 0, front towards +y, middle at x = 0, floor at z = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .builder import Builder, Colour, Draw, Material, blend, hsv, rgb, shade, varied
from .textures import Texture

WHITE: Colour = (0.78, 0.77, 0.74)
BLACK: Colour = (0.02, 0.02, 0.022)


@dataclass(frozen=True)
class Finish:
    """The materials that the things of one room share."""

    wood: Material
    second: Material  # wood or lacquer of smaller things
    cloth: Material
    accent: Material
    metal: Material
    linen: Material
    slim: float  # 0: massive furniture, 1: thin legs and boards


def legs(
    build: Builder, width: float, depth: float, height: float, material: Material, thick: float, y: float = 0.0
) -> None:
    """Four legs under a rectangle whose back edge is at y."""
    dx, near, far = width / 2 - thick, y + thick, y + depth - thick
    for x in (-dx, dx):
        for at in (near, far):
            build.box((x, at, height / 2), (thick, thick, height), material)


def table(build: Builder, f: Finish, width: float, depth: float, height: float = 0.74) -> None:
    """A table; round ones stand on one foot."""
    draw = build.draw
    board = 0.025 + 0.03 * (1 - f.slim)
    if abs(width - depth) < 0.05 and draw.chance(0.6):
        y = depth / 2
        build.frustum((0, y, height - board), width / 2, board, f.wood)
        build.frustum((0, y, 0.03), 0.045, height - board - 0.03, f.metal)
        build.frustum((0, y, 0), width * 0.28, 0.03, f.metal)
        return
    build.box((0, depth / 2, height - board / 2), (width, depth, board), f.wood)
    thick = 0.04 + 0.04 * (1 - f.slim)
    legs(build, width - 0.06, depth - 0.06, height - board, draw.pick((f.wood, f.second)), thick, 0.03)


def chair(build: Builder, f: Finish) -> None:
    """A chair whose back is at y = 0, looking towards +y."""
    draw = build.draw
    seat = draw.pick((f.wood, f.cloth, f.accent))
    build.box((0, 0.22, 0.45), (0.43, 0.42, 0.045), seat)
    legs(build, 0.42, 0.42, 0.43, f.second, 0.032, 0.01)
    if draw.chance(0.5):
        build.box((0, 0.02, 0.72), (0.41, 0.03, 0.32), seat, roll=0.1)
        for x in (-0.17, 0.17):
            build.box((x, 0.025, 0.56), (0.028, 0.024, 0.26), f.second, roll=0.1)
    else:
        for z in (0.62, 0.75, 0.88):
            build.box((0, 0.012, z), (0.38, 0.018, 0.06), f.second)
        for x in (-0.19, 0.19):
            build.box((x, 0.015, 0.68), (0.03, 0.03, 0.46), f.second)


def dining(build: Builder, f: Finish, width: float, depth: float, seats: int) -> None:
    """A table with chairs around it, the whole centred on the frame."""
    draw = build.draw
    with build.thing(0, -depth / 2):
        table(build, f, width, depth)
    each = max(seats // 2, 1)
    for side in (1, -1):
        for i in range(each):
            x = (i + 0.5 - each / 2) * (width / each) * 0.9
            tuck = draw.uniform(0.0, 0.3)
            yaw = (math.pi if side > 0 else 0.0) + draw.uniform(-0.12, 0.12)
            with build.thing(x, side * (depth / 2 + 0.22 + tuck), 0, yaw):
                chair(build, f)
    with build.thing(0, 0, 0.74):
        on_table(build, f, width * 0.5)


def on_table(build: Builder, f: Finish, width: float) -> None:
    """Something small in the middle of a table top at z = 0: vase, bowl with fruit, books or a laptop."""
    draw = build.draw
    kind = draw.integer(0, 3)
    x = draw.uniform(-0.4, 0.4) * width
    if kind == 0:
        glaze = Material(hsv(draw.uniform(), 0.5, 0.7), gloss=0.5)
        build.frustum((x, 0, 0), 0.05, 0.12, glaze, top=0.085)
        build.frustum((x, 0, 0.12), 0.085, 0.1, glaze, top=0.035)
        for _ in range(draw.integer(2, 4)):
            lean, yaw = draw.uniform(0.05, 0.3), draw.uniform(0, 2 * math.pi)
            build.frustum((x, 0, 0.2), 0.006, 0.26, Material(rgb("4d7a35")), yaw=yaw, pitch=lean)
            tip = (
                x + math.cos(yaw) * math.sin(lean) * 0.27,
                math.sin(yaw) * math.sin(lean) * 0.27,
                0.2 + 0.27 * math.cos(lean),
            )
            build.ball(tip, 0.04, Material(hsv(draw.uniform(), 0.65, 0.9)))
    elif kind == 1:
        build.frustum((x, 0, 0), 0.07, 0.07, Material(WHITE, gloss=0.5), top=0.16)
        for i in range(5):
            turn = i * 2 * math.pi / 5
            fruit = Material(hsv(draw.uniform(0.0, 0.25), 0.85, 0.85), gloss=0.2)
            build.ball((x + 0.075 * math.cos(turn), 0.075 * math.sin(turn), 0.085), 0.042, fruit)
    elif kind == 2:
        z = 0.0
        for _ in range(draw.integer(2, 4)):
            high = draw.uniform(0.015, 0.04)
            cover = Material(hsv(draw.uniform(), draw.uniform(0.2, 0.7), draw.uniform(0.3, 0.8)))
            build.box((x, 0, z + high / 2), (0.2, 0.14, high), cover, yaw=draw.uniform(-0.5, 0.5))
            z += high
    else:
        build.box((x, 0, 0.009), (0.32, 0.22, 0.018), Material(rgb("9a9da1"), gloss=0.3))
        build.box((x, -0.14, 0.12), (0.32, 0.012, 0.22), Material(BLACK, gloss=0.5), roll=0.25)


def sofa(build: Builder, f: Finish, width: float, depth: float = 0.9) -> None:
    """A sofa, or an armchair when narrow."""
    draw = build.draw
    arm = draw.uniform(0.12, 0.22)
    seat, back, foot = draw.uniform(0.4, 0.46), draw.uniform(0.72, 0.9), draw.uniform(0.05, 0.14)
    cloth = f.cloth if draw.chance(0.75) else f.accent
    build.box((0, depth / 2, (foot + seat - 0.12) / 2 + foot / 2), (width, depth - 0.04, seat - 0.12 - foot), cloth)
    legs(build, width - 0.06, depth - 0.08, foot, f.second, 0.05, 0.04)
    build.box((0, 0.11, (foot + back) / 2), (width - 0.02, 0.2, back - foot), cloth)
    for x in (-1, 1):
        build.box(
            (x * (width - arm) / 2, depth / 2 + 0.01, (foot + seat + 0.17) / 2),
            (arm, depth - 0.01, seat + 0.17 - foot),
            cloth,
        )
    inner = width - 2 * arm
    cushions = max(round(inner / 0.75), 1)
    side = inner / cushions
    for i in range(cushions):
        middle = (i + 0.5) * side - inner / 2
        build.box((middle, depth / 2 + 0.1, seat - 0.055), (side - 0.015, depth - 0.25, 0.13), cloth)
        build.box((middle, 0.27, seat + 0.17), (side - 0.02, 0.14, 0.36), cloth, roll=0.16)
    for _ in range(draw.integer(0, cushions)):
        at = draw.uniform(-inner / 2 + 0.2, inner / 2 - 0.2)
        pillow = Material(
            hsv(draw.uniform(), 0.45, 0.75),
            WHITE,
            rgb("404040"),
            draw.pick((Texture.STRIPES, Texture.CLOTH, Texture.DOTS)),
            0.08,
        )
        build.ball((at, 0.42, seat + 0.19), (0.22, 0.09, 0.2), draw.pick((pillow, f.accent)))


def bed(build: Builder, f: Finish, width: float, length: float = 2.05) -> None:
    """A bed with its head at the back."""
    draw = build.draw
    head = draw.uniform(0.85, 1.2)
    build.box((0, 0.04, head / 2), (width + 0.06, 0.07, head), draw.pick((f.wood, f.cloth)))
    build.box((0, length / 2 + 0.03, 0.2), (width, length - 0.06, 0.22), f.wood)
    legs(build, width - 0.04, length - 0.1, 0.1, f.wood, 0.07, 0.08)
    build.box((0, length / 2 + 0.05, 0.42), (width - 0.05, length - 0.12, 0.22), f.linen)
    cover = draw.uniform(0.5, 0.72) * length
    build.box((0, length - cover / 2 + 0.01, 0.5), (width + 0.05, cover, 0.12), draw.pick((f.accent, f.cloth)))
    pillows = 1 if width < 1.2 else 2
    for i in range(pillows):
        x = (i + 0.5 - pillows / 2) * width / 2 * 0.98
        build.ball((x, 0.34, 0.59), (0.3, 0.19, 0.085), f.linen)


def wardrobe(build: Builder, f: Finish, width: float, height: float, depth: float = 0.58) -> None:
    """A cupboard with doors and knobs."""
    draw = build.draw
    body = draw.pick((f.wood, f.second))
    build.box((0, depth / 2, height / 2), (width, depth, height), body)
    doors = max(round(width / 0.5), 1)
    front = varied(draw, body, 0.1)
    for i in range(doors):
        x = (i + 0.5 - doors / 2) * width / doors
        build.box((x, depth + 0.009, height / 2 + 0.02), (width / doors - 0.012, 0.018, height - 0.09), front)
        knob = x + (0.5 if i % 2 == 0 else -0.5) * (width / doors - 0.1)
        build.box((knob, depth + 0.03, height * 0.5), (0.015, 0.03, 0.14), f.metal)


def shelf(build: Builder, f: Finish, width: float, height: float, depth: float = 0.3) -> None:
    """An open bookcase with rows of books and a few ornaments."""
    draw = build.draw
    thick = 0.02 + 0.015 * (1 - f.slim)
    for x in (-1, 1):
        build.box((x * (width - thick) / 2, depth / 2, height / 2), (thick, depth, height), f.wood)
    build.box((0, 0.006, height / 2), (width - 2 * thick, 0.012, height), varied(draw, f.wood))
    count = max(round(height / 0.36), 2)
    inner = width - 2 * thick
    for i in range(count + 1):
        z = thick / 2 + i * (height - thick) / count
        build.box((0, depth / 2 + 0.005, z), (inner, depth - 0.01, thick), f.wood)
        if i == count:
            break
        room = (height - thick) / count - thick
        start = -inner / 2 + 0.01
        while start < inner / 2 - 0.12:
            wide = min(draw.uniform(0.2, 0.6), inner / 2 - 0.01 - start)
            what = draw.uniform()
            middle, base = start + wide / 2, z + thick / 2
            if what < 0.68:
                palette = [hsv(draw.uniform(), draw.uniform(0.25, 0.75), draw.uniform(0.3, 0.8)) for _ in range(3)]
                tall = room * draw.uniform(0.68, 0.9)
                books = Material(palette[0], palette[1], palette[2], Texture.BOOKS, draw.uniform(0.022, 0.04))
                deep = depth * draw.uniform(0.6, 0.8)
                build.box((middle, deep / 2 + 0.012, base + tall / 2), (wide, deep, tall), books)
            elif what < 0.8:
                radius = min(0.09, wide / 2.2, room / 2.2)
                build.ball(
                    (middle, depth * 0.55, base + radius), radius, Material(hsv(draw.uniform(), 0.5, 0.7), gloss=0.4)
                )
            elif what < 0.88:
                build.frustum(
                    (middle, depth * 0.55, base),
                    0.045,
                    room * 0.6,
                    Material(hsv(draw.uniform(), 0.4, 0.7), gloss=0.3),
                    top=0.07,
                )
            start += wide + draw.uniform(0.0, 0.08)


def sideboard(build: Builder, f: Finish, width: float, height: float = 0.75, depth: float = 0.42) -> None:
    """A low cupboard on legs, with drawers."""
    draw = build.draw
    foot = 0.06 + 0.12 * f.slim
    build.box((0, depth / 2, (foot + height) / 2), (width, depth, height - foot), f.wood)
    legs(build, width - 0.08, depth - 0.08, foot, f.second, 0.04, 0.04)
    columns, rows = max(round(width / 0.5), 1), draw.integer(1, 3)
    front = draw.pick((varied(draw, f.wood), f.second))
    for i in range(columns):
        for j in range(rows):
            x = (i + 0.5 - columns / 2) * width / columns
            high = (height - foot) / rows
            z = foot + (j + 0.5) * high
            build.box((x, depth + 0.008, z), (width / columns - 0.014, 0.016, high - 0.014), front)
            build.ball((x, depth + 0.026, z + high * 0.25), 0.014, f.metal)


def television(build: Builder, f: Finish, width: float) -> None:
    """A low board with a screen on it."""
    sideboard(build, f, width + 0.4, 0.5, 0.4)
    with build.within(0, 0.18, 0.5):
        build.box((0, 0, 0.02), (width * 0.35, 0.2, 0.03), Material(BLACK, gloss=0.4))
        build.box((0, -0.01, 0.07), (0.08, 0.03, 0.1), Material(BLACK))
        build.box((0, 0, 0.1 + width * 0.29), (width, 0.04, width * 0.57), Material(BLACK, gloss=0.7))


def desk(build: Builder, f: Finish) -> None:
    """A desk with a screen, a lamp and a chair pulled back."""
    draw = build.draw
    width, depth = draw.uniform(1.2, 1.7), draw.uniform(0.6, 0.75)
    build.box((0, depth / 2, 0.73), (width, depth, 0.03), f.wood)
    if draw.chance(0.5):
        legs(build, width - 0.05, depth - 0.05, 0.715, f.metal, 0.04, 0.025)
    else:
        for x in (-1, 1):
            build.box((x * (width / 2 - 0.2), depth / 2, 0.36), (0.36, depth - 0.06, 0.71), f.second)
    build.box((0, 0.2, 0.755), (0.24, 0.16, 0.02), Material(BLACK))
    build.box((0, 0.19, 0.83), (0.04, 0.03, 0.14), Material(BLACK))
    build.box((0, 0.21, 1.06), (0.58, 0.03, 0.35), Material(rgb("1b2a3c"), gloss=0.6))
    build.box((0, 0.45, 0.752), (0.42, 0.14, 0.014), Material(rgb("303030")))
    with build.within(width / 2 - 0.2, 0.2, 0.745):
        lamp(build, f, 0.42, lit=False)
    with build.thing(draw.uniform(-0.2, 0.2), depth + 0.75, 0, math.pi + draw.uniform(-0.5, 0.5)):
        office_chair(build, f)


def office_chair(build: Builder, f: Finish) -> None:
    """A swivel chair with its back at y = 0."""
    for i in range(5):
        turn = i * 2 * math.pi / 5
        build.box(
            (0.14 * math.cos(turn), 0.25 + 0.14 * math.sin(turn), 0.06), (0.28, 0.045, 0.03), Material(BLACK), yaw=turn
        )
        build.ball((0.27 * math.cos(turn), 0.25 + 0.27 * math.sin(turn), 0.03), 0.03, Material(BLACK))
    build.frustum((0, 0.25, 0.06), 0.03, 0.36, f.metal)
    build.box((0, 0.25, 0.46), (0.48, 0.46, 0.08), f.accent)
    build.box((0, 0.02, 0.82), (0.44, 0.06, 0.5), f.accent, roll=0.08)


def lamp(build: Builder, f: Finish, height: float, lit: bool) -> None:
    """A lamp with a shade, for the floor or a table; `lit` makes it shine."""
    draw = build.draw
    wide = 0.1 + 0.08 * height
    shade_height = 0.16 + 0.06 * height
    build.frustum((0, 0, 0), wide * 0.8, 0.02, f.metal)
    build.frustum((0, 0, 0.02), 0.012 + 0.004 * height, height - shade_height, f.metal)
    glow = 1.6 if lit else 0.0
    cloth = Material(blend(rgb("f2dfb8"), rgb("ffffff"), draw.uniform(0, 0.8)), emission=glow)
    build.frustum((0, 0, height - shade_height), wide * 1.3, shade_height, cloth, top=wide * draw.uniform(0.7, 1.2))
    if lit:
        build.light(
            (0, 0, height - shade_height / 2), (1.5, 1.1, 0.7), across=(wide, 0, 0), along=(0, wide, 0), reach=7
        )


def pendant(build: Builder, f: Finish, drop: float, lit: bool, power: float) -> None:
    """A lamp that hangs from z = 0 by `drop` metres."""
    draw = build.draw
    build.frustum((0, 0, -drop), 0.006, drop, Material(BLACK))
    build.frustum((0, 0, -0.03), 0.06, 0.03, f.metal)
    kind = draw.integer(0, 3)
    glow = 2.2 if lit else 0.0
    glass = Material(blend(rgb("ffe9c8"), (1, 1, 1), draw.uniform()), emission=glow)
    low = -drop
    if kind == 0:
        build.ball((0, 0, -drop - 0.15), 0.16, glass)
        low -= 0.34
    elif kind == 1:
        build.frustum((0, 0, -drop - 0.2), 0.24, 0.2, f.accent._replace(texture=Texture.PLAIN), top=0.07)
        build.ball((0, 0, -drop - 0.18), 0.07, glass)
        low -= 0.3
    elif kind == 2:
        build.frustum((0, 0, -drop - 0.06), 0.26, 0.1, glass)
        low -= 0.1
    else:
        for i in range(5):
            turn = i * 2 * math.pi / 5
            x, y = 0.24 * math.cos(turn), 0.24 * math.sin(turn)
            build.box((x / 2, y / 2, -drop), (0.24, 0.02, 0.02), f.metal, yaw=turn)
            build.ball((x, y, -drop - 0.07), 0.065, glass)
        low -= 0.16
    if lit:
        build.light(
            (0, 0, low), (power, power * 0.86, power * 0.68), across=(0.12, 0, 0), along=(0, 0.12, 0), reach=10.0
        )


def plant(build: Builder, height: float) -> None:
    """A pot with a plant."""
    draw = build.draw
    wide = 0.1 + 0.08 * height
    clay = Material(draw.pick((rgb("b8694a"), WHITE, rgb("3c4043"), rgb("cfae74"), rgb("5d7f8c"))), gloss=0.15)
    build.frustum((0, 0, 0), wide * 0.75, 0.3 * height**0.5, clay, top=wide)
    top = 0.3 * height**0.5
    green = Material(rgb("2f6b2c"), rgb("7fae4b"), rgb("12301a"), Texture.LEAVES, 0.09, bump=0.8)
    if draw.chance(0.5):
        build.frustum((0, 0, top), 0.018, height * 0.45, Material(rgb("6b5138")))
        for _ in range(draw.integer(3, 5)):
            r = draw.uniform(0.13, 0.24) * height
            x, y = (draw.uniform(-0.13, 0.13) * height for _ in range(2))
            build.ball(
                (x, y, height * draw.uniform(0.62, 0.88)),
                (r, r * draw.uniform(0.7, 1), r * draw.uniform(0.6, 0.9)),
                green,
            )
    else:
        for i in range(draw.integer(7, 11)):
            yaw = i * 2.4
            lean = draw.uniform(0.1, 0.75)
            long = height * draw.uniform(0.45, 0.8)
            c, s = math.cos(yaw) * math.sin(lean), math.sin(yaw) * math.sin(lean)
            middle = (c * long / 2, s * long / 2, top + long / 2 * math.cos(lean))
            # A flat pointed leaf, leaning outwards.
            build.box(middle, (0.018, 0.07 * height, long), varied(draw, green), yaw=yaw, pitch=lean)


def picture(build: Builder, f: Finish, width: float, height: float) -> None:
    """A framed picture on a wall at y = 0, its middle at the frame's origin."""
    draw = build.draw
    hue = draw.uniform()
    paint = Material(
        hsv(hue, draw.uniform(0.3, 0.8), draw.uniform(0.35, 0.8)),
        hsv(hue + draw.uniform(0.2, 0.6), draw.uniform(0.3, 0.8), draw.uniform(0.5, 0.95)),
        hsv(hue + draw.uniform(0.4, 0.8), draw.uniform(0.1, 0.6), draw.uniform(0.6, 1.0)),
        Texture.PAINTING,
    )
    build.box((0, 0.012, 0), (width, 0.024, height), draw.pick((f.wood, f.metal, Material(BLACK), Material(WHITE))))
    build.box((0, 0.016, 0), (width - 0.06, 0.024, height - 0.06), paint)


def rug(build: Builder, f: Finish, width: float, depth: float, round_: bool = False) -> None:
    """A carpet centred on the frame."""
    draw = build.draw
    hue = draw.uniform()
    a = blend(f.accent.a, hsv(hue, 0.4, 0.6), draw.uniform(0.2, 0.9))
    material = Material(
        a,
        blend(shade(a, 0.5), hsv(hue + 0.1, 0.5, 0.35), 0.5),
        hsv(hue + 0.5, 0.3, 0.8),
        Texture.CARPET,
        draw.uniform(0.6, 1.6),
        bump=0.3,
    )
    if round_:
        build.frustum((0, 0, 0), width / 2, 0.012, material)
    else:
        build.box((0, 0, 0.006), (width, depth, 0.012), material)


def curtain(build: Builder, material: Material, width: float, height: float) -> None:
    """Folds of cloth hanging from z = height down to the frame, around x = 0."""
    folds = max(round(width / 0.09), 2)
    for i in range(folds):
        x = (i + 0.5 - folds / 2) * width / folds
        build.frustum(
            (x, 0, 0), width / folds * 0.62, height, material if i % 2 else material._replace(a=shade(material.a, 0.9))
        )


def radiator(build: Builder, width: float) -> None:
    """A ribbed radiator."""
    ribs = max(round(width / 0.1), 4)
    paint = Material(WHITE, gloss=0.2)
    build.box((0, 0.06, 0.4), (width, 0.03, 0.48), paint)
    for i in range(ribs):
        build.box(((i + 0.5 - ribs / 2) * width / ribs, 0.065, 0.4), (width / ribs * 0.6, 0.07, 0.54), paint)


def fireplace(build: Builder, f: Finish, wide: float, height: float) -> None:
    """A chimney breast with an opening, a mantel and logs."""
    stone = build.draw.pick(
        (
            Material(rgb("9b4f3c"), rgb("c9c2b6"), texture=Texture.BRICKS, scale=0.075, aspect=2.9, bump=0.2),
            Material(rgb("e5e0d8"), rgb("8f8a86"), texture=Texture.MARBLE, scale=0.5, gloss=0.2),
            Material(rgb("8d8880"), rgb("5c5852"), texture=Texture.NOISE, scale=0.3, bump=0.4),
        )
    )
    side = (wide - 0.8) / 2
    for x in (-1, 1):
        build.box((x * (0.4 + side / 2), 0.22, 0.4), (side, 0.44, 0.8), stone)
    build.box((0, 0.03, 0.4), (0.8, 0.06, 0.8), Material(rgb("1a1715")))
    build.box((0, 0.22, 0.92), (wide, 0.44, 0.24), stone)
    build.box((0, 0.24, 1.07), (wide + 0.16, 0.52, 0.06), f.wood)
    build.box((0, 0.2, (height + 1.1) / 2), (wide * 0.8, 0.4, height - 1.1), stone)
    for i in range(3):
        build.frustum(
            (-0.25, 0.18 + 0.1 * i, 0.06 + 0.05 * (i == 1)), 0.05, 0.5, Material(rgb("5a3d28")), pitch=math.pi / 2
        )


def kitchen(build: Builder, f: Finish, width: float, window: bool) -> None:
    """A run of cupboards with a worktop, sink, stove and, unless a window is there, cupboards above."""
    draw = build.draw
    front = draw.pick((f.second, Material(WHITE, gloss=0.15), f.wood))
    top = draw.pick(
        (
            f.wood,
            Material(rgb("3a3b3d"), rgb("55565a"), texture=Texture.NOISE, scale=0.03, gloss=0.3),
            Material(rgb("e6e3df"), rgb("9d9890"), texture=Texture.MARBLE, scale=0.5, gloss=0.3),
        )
    )
    units = max(round(width / 0.6), 2)
    side = width / units
    build.box((0, 0.3, 0.48), (width, 0.56, 0.76), front)
    build.box((0, 0.27, 0.05), (width, 0.5, 0.1), Material(BLACK))
    build.box((0, 0.31, 0.88), (width, 0.62, 0.04), top)
    oven = draw.integer(0, units - 1)
    for i in range(units):
        x = (i + 0.5 - units / 2) * side
        dark = i == oven
        build.box(
            (x, 0.59, 0.48),
            (side - 0.01, 0.02, 0.74),
            Material(rgb("18191b"), gloss=0.6) if dark else varied(draw, front, 0.05),
        )
        build.box((x, 0.615, 0.78), (side * 0.6, 0.02, 0.015), f.metal)
        if dark:
            build.box((x, 0.3, 0.904), (0.56, 0.5, 0.008), Material(BLACK, gloss=0.7))
            if draw.chance(0.6):
                build.frustum((x - 0.12, 0.35, 0.908), 0.1, 0.12, f.metal)
        elif draw.chance(0.4):
            with build.within(x, 0.3, 0.9):
                on_table(build, f, 0.2)
        if not window:
            build.box((x, 0.17, 1.75), (side - 0.008, 0.34, 0.65), varied(draw, front, 0.05))
            build.box((x + side * 0.3, 0.35, 1.5), (0.015, 0.02, 0.1), f.metal)
    if not window:
        tile = Material(WHITE, hsv(draw.uniform(), 0.3, 0.7), rgb("a0a09a"), Texture.TILES, 0.12, gloss=0.25)
        build.box((0, 0.006, 1.16), (width, 0.012, 0.52), tile)


def fridge(build: Builder) -> None:
    """A refrigerator."""
    body = Material(build.draw.pick((WHITE, rgb("a9adb0"), rgb("b23a3a"), rgb("8fc0b0"))), gloss=0.35)
    build.box((0, 0.32, 0.92), (0.6, 0.62, 1.82), body)
    build.box((0, 0.64, 1.3), (0.595, 0.03, 1.04), body)
    build.box((0, 0.64, 0.42), (0.595, 0.03, 0.68), body)
    build.box((-0.24, 0.67, 1.1), (0.02, 0.04, 0.4), Material(rgb("c0c3c6"), gloss=0.5))


def bath(build: Builder) -> None:
    """A bath tub."""
    white = Material((0.8, 0.8, 0.8), gloss=0.5)
    for x in (-1, 1):
        build.box((x * 0.82, 0.38, 0.29), (0.06, 0.76, 0.58), white)
    for y in (0.03, 0.73):
        build.box((0, y, 0.29), (1.58, 0.06, 0.58), white)
    build.box((0, 0.38, 0.09), (1.58, 0.64, 0.18), white)
    build.box((0, 0.38, 0.4), (1.58, 0.64, 0.01), Material(rgb("9fc4cf"), gloss=0.8))
    build.frustum((0.7, 0.02, 0.58), 0.015, 0.25, Material(rgb("c0c3c6"), gloss=0.8))


def washstand(build: Builder, f: Finish) -> None:
    """A basin on a cupboard under a bright mirror-like panel."""
    build.box((0, 0.23, 0.4), (0.8, 0.46, 0.7), f.wood)
    build.box((0, 0.24, 0.78), (0.84, 0.5, 0.06), Material((0.8, 0.8, 0.8), gloss=0.5))
    build.ball((0, 0.25, 0.8), (0.24, 0.18, 0.08), Material((0.85, 0.85, 0.85), gloss=0.6))
    build.frustum((0, 0.05, 0.8), 0.015, 0.22, Material(rgb("c0c3c6"), gloss=0.8))
    build.box((0, 0.012, 1.5), (0.7, 0.024, 0.8), Material(rgb("aebfc4"), gloss=0.8))


def toilet(build: Builder) -> None:
    """A toilet."""
    white = Material((0.8, 0.8, 0.8), gloss=0.5)
    build.box((0, 0.09, 0.6), (0.38, 0.18, 0.36), white)
    build.frustum((0, 0.36, 0), 0.13, 0.34, white, top=0.2)
    build.ball((0, 0.38, 0.36), (0.2, 0.26, 0.07), white)


def column(build: Builder, radius: float, height: float, material: Material) -> None:
    """A round column with base and capital."""
    build.box((0, 0, 0.06), (radius * 2.6, radius * 2.6, 0.12), material)
    build.frustum((0, 0, 0.12), radius, height - 0.24, material, top=radius * 0.88)
    build.box((0, 0, height - 0.06), (radius * 2.6, radius * 2.6, 0.12), material)


def stairs(build: Builder, f: Finish, width: float, steps: int, rise: float, going: float) -> None:
    """A flight along +x that starts at x = 0, its side at y = 0."""
    for i in range(steps):
        build.box(
            ((i + 0.5) * going, width / 2, (i + 1) * rise / 2),
            (going, width, (i + 1) * rise),
            f.wood if i % 2 else varied(build.draw, f.wood, 0.04),
        )
    for i in range(0, steps + 1, 2):
        build.box((min(i + 0.5, steps - 0.5) * going, width - 0.04, i * rise + 0.5), (0.03, 0.03, 0.9), f.metal)
    slope = math.atan2(rise, going)
    long = steps * math.hypot(rise, going)
    build.box((steps * going / 2, width - 0.04, steps * rise / 2 + 0.95), (long, 0.05, 0.05), f.wood, pitch=-slope)


def crate(build: Builder, draw: Draw, size: float) -> None:
    """A box of wood or cardboard, or a toy."""
    kind = draw.integer(0, 2)
    if kind == 0:
        build.box(
            (0, 0, size / 2),
            (size, size * 0.8, size),
            Material(rgb("b58a5a"), rgb("9a7247"), texture=Texture.NOISE, scale=0.1),
        )
    elif kind == 1:
        build.box((0, 0, size * 0.4), (size, size, size * 0.8), Material(hsv(draw.uniform(), 0.6, 0.8)))
    else:
        stripes = Material(
            hsv(draw.uniform(), 0.7, 0.9), WHITE, hsv(draw.uniform(), 0.7, 0.6), Texture.STRIPES, size * 0.8
        )
        build.ball((0, 0, size / 2), size / 2, stripes)
