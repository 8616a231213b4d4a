"""Furnished rooms, alone or several behind each other, with doors, windows and a bit of the world outside."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from . import furniture as things
from .builder import Builder, Colour, Draw, Material, blend, rgb, shade
from .furniture import BLACK, WHITE, Finish
from .outdoors import backdrop
from .styles import INDOOR, IndoorStyle
from .textures import Texture

WALL = 0.2  # metres, thickness between rooms


class Opening(NamedTuple):
    """A hole in a wall, in metres along it from its left end seen from inside, and above the floor."""

    start: float
    stop: float
    low: float
    high: float
    kind: str  # door, passage, window


@dataclass
class Room:
    """The free space between four walls; sides 0..3 are south, east, north, west."""

    x0: float
    y0: float
    x1: float
    y1: float
    height: float
    openings: dict[int, list[Opening]] = field(default_factory=lambda: {0: [], 1: [], 2: [], 3: []})
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)  # rectangles on the floor

    @property
    def size(self) -> tuple[float, float]:
        return self.x1 - self.x0, self.y1 - self.y0

    def length(self, side: int) -> float:
        return self.size[side % 2]

    def corner(self, side: int) -> tuple[float, float, float]:
        """Left end of a wall seen from outside... where its local frame starts: x along, y into the room."""
        x, y = ((self.x0, self.y0), (self.x1, self.y0), (self.x1, self.y1), (self.x0, self.y1))[side]
        return x, y, side * math.pi / 2

    def rectangle(
        self, side: int, start: float, stop: float, near: float, far: float
    ) -> tuple[float, float, float, float]:
        """Floor rectangle of a stretch of wall and of depths in front of it."""
        x, y, yaw = self.corner(side)
        c, s = round(math.cos(yaw)), round(math.sin(yaw))
        xs = [x + c * a - s * d for a in (start, stop) for d in (near, far)]
        ys = [y + s * a + c * d for a in (start, stop) for d in (near, far)]
        return min(xs), min(ys), max(xs), max(ys)

    def free(self, r: tuple[float, float, float, float], gap: float = 0.06) -> bool:
        inside = r[0] > self.x0 - 1e-6 and r[1] > self.y0 - 1e-6 and r[2] < self.x1 + 1e-6 and r[3] < self.y1 + 1e-6
        clash = any(
            r[0] < t[2] + gap and t[0] < r[2] + gap and r[1] < t[3] + gap and t[1] < r[3] + gap for t in self.taken
        )
        return inside and not clash


@dataclass(frozen=True)
class Plan:
    """What was built: rooms, and whether anything leads outdoors."""

    rooms: list[Room]
    closed: bool


def build_interior(build: Builder, style: str, count: int, lit: bool | None = None) -> Plan:
    """A house of `count` rooms; one of them has the origin in its middle."""
    draw = build.draw
    look = INDOOR[style]
    height = draw.uniform(*look.height)
    rooms, split = _floor_plan(draw, count, height)
    windows = draw.chance(0.8) if count == 1 else True
    _doors(draw, rooms)
    if windows:
        _windows(draw, rooms, split)
    evening = draw.chance(0.25) if lit is None else lit
    if not windows:
        evening = True
    sunny = not evening and draw.chance(0.65)
    wood = _wood(draw, look)
    for number, room in enumerate(rooms):
        finish = _finish(draw, look, wood)
        _shell(build, room, look, finish)
        _furnish(build, room, look, finish, number)
        _lamps(
            build,
            room,
            look,
            finish,
            evening,
            windows and any(o.kind == "window" for s in room.openings.values() for o in s),
        )
    put_daylight(build, rooms, evening, sunny, windows)
    if windows:
        upstairs = draw.pick((0.0, 0.0, 0.2, 3.0, 9.0))
        backdrop(build, _outline(rooms), upstairs)
    return Plan(rooms, closed=not windows)


def _outline(rooms: list[Room]) -> tuple[float, float, float, float]:
    return min(r.x0 for r in rooms), min(r.y0 for r in rooms), max(r.x1 for r in rooms), max(r.y1 for r in rooms)


def _floor_plan(draw: Draw, count: int, height: float) -> tuple[list[Room], tuple[float, float, float, float]]:
    """Cut a rectangle into rooms, always the largest along its longer side."""
    if count == 1:
        w, d = draw.uniform(3.0, 7.5), draw.uniform(3.0, 6.5)
    else:
        area = count * draw.uniform(13, 24)
        shape = draw.uniform(0.7, 1.5)
        w, d = math.sqrt(area * shape), math.sqrt(area / shape)
    whole = [(-w / 2, -d / 2, w / 2, d / 2)]
    while len(whole) < count:
        whole.sort(key=lambda r: -(r[2] - r[0]) * (r[3] - r[1]))
        x0, y0, x1, y1 = whole.pop(0)
        share = draw.uniform(0.38, 0.62)
        if x1 - x0 > y1 - y0:
            middle = x0 + share * (x1 - x0)
            whole += [(x0, y0, middle, y1), (middle, y0, x1, y1)]
        else:
            middle = y0 + share * (y1 - y0)
            whole += [(x0, y0, x1, middle), (x0, middle, x1, y1)]
    h = WALL / 2
    rooms = [Room(a + h, b + h, c - h, d_ - h, height) for a, b, c, d_ in whole]
    return rooms, (-w / 2, -d / 2, w / 2, d / 2)


def _doors(draw: Draw, rooms: list[Room]) -> None:
    """Openings between all neighbours that share enough wall."""
    for i, room in enumerate(rooms):
        for other in rooms[i + 1 :]:
            _join(draw, room, other)


def _join(draw: Draw, a: Room, b: Room) -> None:
    for side in range(4):
        # The wall of b that looks at this one of a.
        gap = (a.y0 - b.y1, b.x0 - a.x1, b.y0 - a.y1, a.x0 - b.x1)[side]
        if abs(gap - WALL) > 1e-6:
            continue
        low, high = (max(a.x0, b.x0), min(a.x1, b.x1)) if side % 2 == 0 else (max(a.y0, b.y0), min(a.y1, b.y1))
        if high - low < 1.3:
            continue
        wide = draw.chance(0.45) and high - low > 2.4
        width = draw.uniform(1.3, min(2.6, high - low - 0.6)) if wide else 0.9
        at = draw.uniform(low + 0.2, high - 0.2 - width)
        top = min(draw.uniform(2.05, 2.4), a.height - 0.25) if wide else 2.05
        kind = "passage" if wide else "door"
        for room, s in ((a, side), (b, (side + 2) % 4)):
            # Sides 0 and 1 run with their axis, 2 and 3 against it.
            start = (at - room.x0, at - room.y0, room.x1 - at - width, room.y1 - at - width)[s]
            room.openings[s].append(Opening(start, start + width, 0.0, top, kind))
            room.taken.append(room.rectangle(s, start - 0.05, start + width + 0.05, 0.0, 0.95))
        return


def _windows(draw: Draw, rooms: list[Room], outline: tuple[float, float, float, float]) -> None:
    """Windows in outer walls."""
    made = 0
    for room in rooms:
        outer = [
            abs(room.y0 - outline[1] - WALL / 2) < 1e-6, abs(room.x1 - outline[2] + WALL / 2) < 1e-6,
            abs(room.y1 - outline[3] + WALL / 2) < 1e-6, abs(room.x0 - outline[0] - WALL / 2) < 1e-6,
        ]  # fmt: skip
        sides = [s for s in range(4) if outer[s]]
        for side in sides:
            if not draw.chance(0.6) and (made or side != sides[-1]):
                continue
            made += 1
            length = room.length(side)
            number = 1 if length < 3.2 or draw.chance(0.4) else 2
            french = draw.chance(0.25)
            low = 0.0 if french else draw.uniform(0.55, 1.0)
            high = room.height - draw.uniform(0.2, 0.45)
            cell = length / number
            for i in range(number):
                width = min(draw.uniform(0.9, 2.2 if number == 1 else 1.6), cell - 0.7)
                start = (i + 0.5) * cell - width / 2
                room.openings[side].append(Opening(start, start + width, low, high, "window"))


def _wood(draw: Draw, look: IndoorStyle) -> Material:
    tone = rgb(draw.pick(look.woods))
    texture = draw.pick((Texture.WOOD, Texture.WOOD, Texture.PLAIN))
    return Material(tone, shade(tone, 0.7), texture=texture, scale=0.09, aspect=9.0, gloss=draw.uniform(0, 0.3))


def _finish(draw: Draw, look: IndoorStyle, wood: Material) -> Finish:
    second = _wood(draw, look) if draw.chance(0.5) else wood
    fabric, accent = rgb(draw.pick(look.fabrics)), rgb(draw.pick(look.accents))
    pattern = draw.pick((Texture.CLOTH, Texture.CLOTH, Texture.PLAIN, Texture.STRIPES, Texture.CHECKER))
    return Finish(
        wood=wood,
        second=second,
        cloth=Material(fabric, shade(fabric, 0.75), texture=Texture.CLOTH, scale=0.02, bump=0.15),
        accent=Material(
            accent, blend(accent, WHITE, 0.4), shade(accent, 0.5), pattern, 0.05 if pattern == Texture.CLOTH else 0.16
        ),
        metal=Material(rgb(look.metal), gloss=0.6),
        linen=Material(blend(WHITE, fabric, draw.uniform(0, 0.3)), WHITE, texture=Texture.CLOTH, scale=0.03),
        slim=look.slim,
    )


def _floor(draw: Draw, look: IndoorStyle) -> Material:
    name, first, other = draw.pick(look.floors).split(":")
    a, b = rgb(first), rgb(other)
    if name == "planks":
        return Material(
            a,
            b,
            shade(b, 0.25),
            Texture.PLANKS,
            draw.uniform(0.09, 0.18),
            draw.uniform(7, 12),
            gloss=draw.uniform(0.1, 0.5),
        )
    if name == "tiles":
        return Material(
            a, b, shade(blend(a, WHITE, 0.3), 0.8), Texture.TILES, draw.uniform(0.25, 0.6), gloss=draw.uniform(0.1, 0.5)
        )
    if name == "checker":
        return Material(a, b, texture=Texture.CHECKER, scale=draw.uniform(0.25, 0.5), gloss=0.3)
    if name == "cloth":
        return Material(a, b, texture=Texture.CLOTH, scale=0.03, bump=0.3)
    return Material(a, b, texture=Texture.NOISE, scale=draw.uniform(0.4, 1.2), gloss=0.15)


def _feature(draw: Draw, look: IndoorStyle, base: Colour) -> Material:
    """The paint of a wall that differs from the others."""
    texture = draw.pick(look.feature)
    accent = rgb(draw.pick(look.accents))
    if texture == Texture.BRICKS:
        brick = draw.pick(("9b5340", "b06a4c", "d8d2c8", "7d4436"))
        return Material(
            rgb(brick), rgb("b9b0a4"), texture=texture, scale=0.078, aspect=draw.uniform(2.6, 3.4), bump=0.2
        )
    if texture in (Texture.PLANKS, Texture.WOOD):
        tone = rgb(draw.pick(look.woods))
        return Material(tone, shade(tone, 0.75), shade(tone, 0.3), texture, draw.uniform(0.1, 0.16), 14.0)
    if texture == Texture.MARBLE:
        return Material(rgb("dedbd6"), rgb("8b8a8c"), texture=texture, scale=0.9, gloss=0.4)
    if texture == Texture.TILES:
        return Material(
            blend(base, accent, 0.3), accent, blend(base, WHITE, 0.5), texture, draw.uniform(0.1, 0.2), gloss=0.3
        )
    if texture in (Texture.STRIPES, Texture.CHECKER):
        return Material(
            base,
            blend(base, accent, draw.uniform(0.12, 0.4)),
            blend(base, accent, 0.5),
            texture,
            draw.uniform(0.12, 0.4),
        )
    if texture == Texture.DOTS:
        return Material(
            base,
            blend(base, accent, 0.6),
            blend(base, rgb(draw.pick(look.accents)), 0.6),
            texture,
            draw.uniform(0.1, 0.3),
            draw.uniform(0.7, 1.3),
        )
    if texture == Texture.NOISE:
        return Material(base, shade(base, 0.75), texture=texture, scale=draw.uniform(0.3, 1.0), bump=0.3)
    return Material(blend(base, accent, draw.uniform(0.3, 0.9)), texture=Texture.PLAIN)


def _shell(build: Builder, room: Room, look: IndoorStyle, finish: Finish) -> None:
    """Floor, ceiling and walls with their holes, skirting, frames."""
    draw = build.draw
    w, d = room.size
    x, y = (room.x0 + room.x1) / 2, (room.y0 + room.y1) / 2
    base = rgb(draw.pick(look.walls))
    paint = Material(base, shade(base, 0.9), texture=Texture.NOISE, scale=draw.uniform(0.6, 2.0))
    special = _feature(draw, look, base)
    chosen = draw.integer(0, 7)  # more than three: no special wall
    with build.thing():
        build.box((x, y, -0.1), (w + WALL, d + WALL, 0.2), _floor(draw, look), anchored=True)
    ceiling = Material(blend(base, (0.8, 0.8, 0.79), 0.75))
    with build.thing():
        build.box((x, y, room.height + 0.1), (w + 2 * WALL, d + 2 * WALL, 0.2), ceiling)
        if draw.chance(look.beams):
            count = max(round(w / draw.uniform(0.9, 1.4)), 2)
            for i in range(count):
                build.box((room.x0 + (i + 0.5) * w / count, y, room.height - 0.08), (0.14, d, 0.16), finish.wood)
    trim = Material(draw.pick((WHITE, WHITE, finish.wood.a, shade(base, 0.7))))
    skirting, cornice = draw.chance(0.8), draw.chance(0.4)
    panels = draw.chance(0.12)
    for side in range(4):
        with build.within(*room.corner(side)[:2], 0.0, room.corner(side)[2]):
            put_wall(build, room, side, special if side == chosen else paint, trim, skirting, cornice)
            if panels:
                _panelling(build, room, side, finish)


def put_wall(
    build: Builder, room: Room, side: int, paint: Material, trim: Material, skirting: bool, cornice: bool
) -> None:
    length, height = room.length(side), room.height
    holes = sorted(room.openings[side])
    edges: list[tuple[float, float, float, float]] = []  # start, stop, low, high
    at = -WALL
    for hole in holes:
        edges.append((at, hole.start, 0.0, height))
        edges.append((hole.start, hole.stop, hole.high, height))
        if hole.low > 0:
            edges.append((hole.start, hole.stop, 0.0, hole.low))
        at = hole.stop
    edges.append((at, length + WALL, 0.0, height))
    with build.thing():
        for start, stop, low, high in edges:
            if stop - start > 1e-6 and high - low > 1e-6:
                centre = ((start + stop) / 2, -WALL / 4, (low + high) / 2)
                build.box(centre, (stop - start, WALL / 2, high - low), paint, anchored=True)
    with build.thing():
        at = 0.0
        for hole in [h for h in holes if h.low < 0.1] + [Opening(length, length, 0, 0, "end")]:
            margin = 0.0 if hole.kind == "end" else 0.08
            if skirting and hole.start - margin - at > 0.02:
                build.box(((at + hole.start - margin) / 2, 0.007, 0.04), (hole.start - margin - at, 0.014, 0.08), trim)
            at = hole.stop + margin
        if cornice:
            build.box((length / 2, 0.03, height - 0.03), (length, 0.06, 0.06), trim)
    for hole in holes:
        with build.thing():
            _frame(build, hole, trim)


def _panelling(build: Builder, room: Room, side: int, finish: Finish) -> None:
    """Wood half way up the wall, between openings that reach down."""
    at, length = 0.0, room.length(side)
    for hole in [*sorted(room.openings[side]), Opening(length, length, 0, 0, "end")]:
        if hole.low > 0.85:
            continue
        stop = hole.start - (0.09 if hole.kind != "end" else 0.0)
        if stop - at > 0.1:
            build.box(((at + stop) / 2, 0.01, 0.45), (stop - at, 0.02, 0.8), finish.wood, anchored=True)
            build.box(((at + stop) / 2, 0.02, 0.86), (stop - at, 0.04, 0.03), finish.wood)
        at = hole.stop + 0.09


def _frame(build: Builder, hole: Opening, trim: Material) -> None:
    """Casing of a door or a window with its bars, sill and sometimes curtains or a leaf."""
    draw = build.draw
    middle, width, tall = (hole.start + hole.stop) / 2, hole.stop - hole.start, hole.high - hole.low
    wide = 0.07
    if hole.kind != "window":
        for x in (hole.start - wide / 2, hole.stop + wide / 2):
            build.box((x, 0.0, hole.high / 2), (wide, 0.04, hole.high), trim)
        build.box((middle, 0.0, hole.high + wide / 2), (width + 2 * wide, 0.04, wide), trim)
        return
    deep = -0.07
    bar = draw.uniform(0.04, 0.06)
    for x in (hole.start + bar / 2, hole.stop - bar / 2):
        build.box((x, deep, hole.low + tall / 2), (bar, 0.05, tall), trim)
    for z in (hole.low + bar / 2, hole.high - bar / 2):
        build.box((middle, deep, z), (width - 2 * bar, 0.05, bar), trim)
    columns = max(round(width / draw.uniform(0.5, 0.9)), 1)
    for i in range(1, columns):
        build.box((hole.start + i * width / columns, deep, hole.low + tall / 2), (0.035, 0.04, tall - 2 * bar), trim)
    if draw.chance(0.5):
        build.box((middle, deep, hole.low + tall * draw.uniform(0.55, 0.75)), (width - 2 * bar, 0.036, 0.035), trim)
    if hole.low > 0:
        build.box((middle, 0.03, hole.low - 0.015), (width + 0.16, 0.2, 0.03), trim)
        if draw.chance(0.35):
            with build.thing(middle + draw.uniform(-0.3, 0.3) * width, 0.05, hole.low):
                things.plant(build, draw.uniform(0.25, 0.4))


def put_curtains(build: Builder, room: Room, hole: Opening, material: Material) -> None:
    width = 0.2 + 0.16 * (hole.stop - hole.start)
    low = 0.03 if hole.low < 0.3 or build.draw.chance(0.6) else hole.low - 0.15
    top = min(hole.high + 0.14, room.height - 0.05)
    for x in (hole.start - 0.08, hole.stop + 0.08):
        with build.thing(x, 0.17, low):
            things.curtain(build, material, width, top - low)
    with build.thing():
        long = hole.stop - hole.start + 2 * width + 0.3
        build.box(((hole.start + hole.stop) / 2, 0.17, top + 0.012), (long, 0.025, 0.025), Material(BLACK))


def _against(
    build: Builder,
    room: Room,
    width: float,
    depth: float,
    height: float,
    front: float,
    make: Callable[[], None],
    gap: float = 0.02,
) -> bool:
    """Stand something against a wall where it fits, leaving `front` metres free before it."""
    draw = build.draw
    for side in draw.shuffled((0, 1, 2, 3)):
        length = room.length(side)
        if length < width + 0.1:
            continue
        for _ in range(5):
            start = draw.uniform(0.03, length - width - 0.03)
            stop = start + width
            blocked = any(
                start < o.stop + 0.05 and o.start - 0.05 < stop and (o.low < height) for o in room.openings[side]
            )
            mine = room.rectangle(side, start, stop, gap, gap + depth)
            if (
                blocked
                or not room.free(mine)
                or not room.free(room.rectangle(side, start, stop, gap, gap + depth + front))
            ):
                continue
            room.taken.append(mine)
            x, y, yaw = room.corner(side)
            with build.within(x, y, 0, yaw), build.thing(start + width / 2, gap):
                make()
            return True
    return False


def _amid(
    build: Builder, room: Room, width: float, depth: float, make: Callable[[], None], turned: bool = True
) -> bool:
    """Stand something in the room, its middle at the frame's origin."""
    draw = build.draw
    for _ in range(12):
        quarter = draw.chance(0.5) if turned else False
        w, d = (depth, width) if quarter else (width, depth)
        if room.size[0] < w + 0.3 or room.size[1] < d + 0.3:
            continue
        x = draw.uniform(room.x0 + 0.1 + w / 2, room.x1 - 0.1 - w / 2)
        y = draw.uniform(room.y0 + 0.1 + d / 2, room.y1 - 0.1 - d / 2)
        mine = (x - w / 2, y - d / 2, x + w / 2, y + d / 2)
        if not room.free(mine, 0.25):
            continue
        room.taken.append(mine)
        with build.within(x, y, 0, (math.pi / 2 if quarter else 0.0) + draw.pick((0.0, math.pi))):
            make()
        return True
    return False


def _furnish(build: Builder, room: Room, look: IndoorStyle, f: Finish, number: int) -> None:
    draw = build.draw
    w, d = room.size
    kinds: list[Callable[[Builder, Room, IndoorStyle, Finish], None]] = [
        _living,
        _living,
        _dining,
        _bedroom,
        _study,
        _kitchen,
    ]
    if look is INDOOR["office"]:
        kinds = [_study, _study, _study, _living]
    if min(w, d) < 2.6:
        kinds = [_bathroom, _bathroom, _study, _bedroom]
    if w * d > 40 and draw.chance(0.5):
        kinds = [_hall]
    draw.pick(kinds)(build, room, look, f)
    for _ in range(draw.integer(0, 2)):
        size = draw.uniform(0.9, 1.9)
        _against(build, room, 0.55, 0.5, size, 0.0, partial(_moved, build, 0.27, partial(things.plant, build, size)))
    for _ in range(round(draw.uniform(0, 2) * look.clutter)):
        size = draw.uniform(0.15, 0.4)
        _amid(build, room, size * 1.3, size * 1.3, partial(_thing, build, partial(things.crate, build, draw, size)))
    for side in range(4):
        with build.within(*room.corner(side)[:2], 0.0, room.corner(side)[2]):
            _hang(build, room, side, f)
    if draw.chance(0.55):
        cloth = draw.pick((f.cloth, f.linen, f.accent))._replace(bump=0.0)
        for side in range(4):
            for hole in room.openings[side]:
                if hole.kind == "window":
                    with build.within(*room.corner(side)[:2], 0.0, room.corner(side)[2]):
                        put_curtains(build, room, hole, cloth)


def _thing(build: Builder, make: Callable[[], None]) -> None:
    with build.thing():
        make()


def _moved(build: Builder, y: float, make: Callable[[], None]) -> None:
    with build.within(0, y):
        make()


def _hang(build: Builder, room: Room, side: int, f: Finish) -> None:
    """Pictures, sometimes a shelf board or a clock, on free stretches of wall above the furniture."""
    draw = build.draw
    length = room.length(side)
    at = draw.uniform(0.3, 1.0)
    while at < length - 0.6:
        width, height = draw.uniform(0.35, 1.1), draw.uniform(0.35, 0.8)
        z = draw.uniform(1.5, 1.75)
        clear = all(at > o.stop + 0.35 or o.start - 0.35 > at + width for o in room.openings[side])
        strip = room.rectangle(side, at, at + width, 0.0, 0.12)
        tall = [t for t in room.taken if strip[0] < t[2] and t[0] < strip[2] and strip[1] < t[3] and t[1] < strip[3]]
        if clear and not tall and at + width < length - 0.15 and draw.chance(0.65):
            with build.thing(at + width / 2, 0.0, z):
                if draw.chance(0.12):
                    build.box((0, 0.1, 0), (width, 0.2, 0.025), f.wood)
                    with build.within(0, 0.1, 0.0125):
                        things.on_table(build, f, width * 0.6)
                elif draw.chance(0.1):
                    build.frustum((0, 0, 0), 0.16, 0.04, Material(WHITE), roll=-math.pi / 2)
                    build.box((0, 0.045, 0.04), (0.012, 0.006, 0.1), Material(BLACK))
                    build.box((0.03, 0.045, 0), (0.07, 0.006, 0.012), Material(BLACK))
                else:
                    things.picture(build, f, width, height)
        at += width + draw.uniform(0.25, 1.6)


def _living(build: Builder, room: Room, look: IndoorStyle, f: Finish) -> None:
    draw = build.draw
    width = draw.uniform(1.7, 2.5)

    def group() -> None:
        with build.thing():
            things.sofa(build, f, width)
        with build.thing(0, 1.55):
            things.table(build, f, draw.uniform(0.8, 1.2), draw.uniform(0.5, 0.7), draw.uniform(0.36, 0.45))
        if draw.chance(0.75):
            with build.thing(0, 1.65):
                things.rug(build, f, draw.uniform(2.0, 2.8), draw.uniform(1.4, 2.0), draw.chance(0.2))

    if not _against(build, room, width + 0.1, 2.3, 0.9, 0.2, group):
        _against(build, room, width, 0.95, 0.9, 0.3, lambda: things.sofa(build, f, width))
    for _ in range(draw.integer(0, 2)):
        _amid(
            build,
            room,
            0.9,
            0.95,
            lambda: _moved(build, -0.45, lambda: _thing(build, lambda: things.sofa(build, f, 0.85, 0.85))),
        )
    wide = draw.uniform(0.9, 1.5)
    _against(build, room, wide + 0.4, 0.42, 1.4, 0.5, lambda: things.television(build, f, wide))
    for _ in range(draw.integer(1, 2)):
        _bookcase(build, room, f)
    if draw.chance(0.3):
        _against(
            build,
            room,
            1.5,
            0.5,
            room.height,
            0.6,
            lambda: things.fireplace(build, f, draw.uniform(1.2, 1.5), room.height),
        )
    if draw.chance(0.7):
        _against(
            build,
            room,
            0.45,
            0.45,
            1.6,
            0.0,
            lambda: _moved(build, 0.22, lambda: things.lamp(build, f, draw.uniform(1.3, 1.7), True)),
        )
    _cupboard(build, room, f, 0.5)


def _bookcase(build: Builder, room: Room, f: Finish) -> None:
    draw = build.draw
    wide, tall = draw.uniform(0.6, 1.6), draw.uniform(0.9, min(2.2, room.height - 0.2))
    _against(build, room, wide, 0.32, tall, 0.4, lambda: things.shelf(build, f, wide, tall))


def _cupboard(build: Builder, room: Room, f: Finish, probability: float) -> None:
    draw = build.draw
    if draw.chance(probability):
        wide, tall = draw.uniform(0.9, 1.7), draw.uniform(0.7, 0.95)

        def make() -> None:
            things.sideboard(build, f, wide, tall)
            with build.within(draw.uniform(-0.3, 0.3) * wide, 0.2, tall):
                things.on_table(build, f, 0.2)

        _against(build, room, wide, 0.45, tall, 0.5, make)


def _dining(build: Builder, room: Room, look: IndoorStyle, f: Finish) -> None:
    draw = build.draw
    if draw.chance(0.35):
        width = depth = draw.uniform(0.9, 1.3)
    else:
        width, depth = draw.uniform(1.3, 2.4), draw.uniform(0.8, 1.0)
    seats = 2 * max(round(width / 0.65), 1)
    _amid(build, room, width + 0.2, depth + 1.2, lambda: things.dining(build, f, width, depth, seats))
    _cupboard(build, room, f, 0.9)
    _bookcase(build, room, f)
    wide, tall = draw.uniform(0.8, 1.4), draw.uniform(1.6, 2.1)
    if draw.chance(0.6):
        _against(build, room, wide, 0.5, tall, 0.5, lambda: things.wardrobe(build, f, wide, tall, 0.45))


def _bedroom(build: Builder, room: Room, look: IndoorStyle, f: Finish) -> None:
    draw = build.draw
    width = draw.pick((0.9, 1.2, 1.4, 1.6, 1.8))

    def group() -> None:
        with build.thing():
            things.bed(build, f, width)
        for side in (-1, 1):
            if draw.chance(0.8):
                with build.thing(side * (width / 2 + 0.32), 0):
                    things.sideboard(build, f, 0.45, 0.5, 0.38)
                    if draw.chance(0.7):
                        with build.within(0, 0.2, 0.5):
                            things.lamp(build, f, 0.42, lit=side > 0)
        if draw.chance(0.5):
            with build.thing(0, 1.6):
                things.rug(build, f, width + 1.0, 1.5)

    if not _against(build, room, width + 1.15, 2.1, 1.1, 0.3, group):
        _against(build, room, width + 0.1, 2.1, 1.1, 0.2, lambda: things.bed(build, f, width))
    wide, tall = draw.uniform(1.0, 2.2), draw.uniform(1.9, 2.2)
    _against(build, room, wide, 0.6, tall, 0.6, lambda: things.wardrobe(build, f, wide, tall))
    _cupboard(build, room, f, 0.6)
    if draw.chance(0.4):
        _against(build, room, 1.7, 0.75, 1.2, 1.1, lambda: things.desk(build, f))


def _study(build: Builder, room: Room, look: IndoorStyle, f: Finish) -> None:
    draw = build.draw
    for _ in range(draw.integer(1, 3)):
        _against(build, room, 1.75, 1.55, 1.2, 0.1, lambda: things.desk(build, f))
    for _ in range(draw.integer(1, 3)):
        _bookcase(build, room, f)
    _cupboard(build, room, f, 0.5)
    if draw.chance(0.3):
        _amid(build, room, 2.2, 2.2, lambda: things.dining(build, f, 1.6, 0.9, 4))


def _kitchen(build: Builder, room: Room, look: IndoorStyle, f: Finish) -> None:
    draw = build.draw
    wide = min(draw.uniform(2.0, 4.0), max(room.size) - 0.8)
    windowless = _against(build, room, wide, 0.65, 2.2, 0.9, lambda: things.kitchen(build, f, wide, window=False))
    if not windowless:
        _against(
            build,
            room,
            wide * 0.7,
            0.65,
            0.9,
            0.7,
            lambda: things.kitchen(build, f, wide * 0.7, window=True),
        )
    _against(build, room, 0.62, 0.7, 1.85, 0.6, lambda: things.fridge(build))
    _dining(build, room, look, f)


def _bathroom(build: Builder, room: Room, look: IndoorStyle, f: Finish) -> None:
    _against(build, room, 1.72, 0.8, 0.9, 0.3, lambda: things.bath(build))
    _against(build, room, 0.88, 0.5, 1.95, 0.5, lambda: things.washstand(build, f))
    _against(build, room, 0.45, 0.66, 0.9, 0.3, lambda: things.toilet(build))
    if build.draw.chance(0.6):
        _amid(build, room, 0.9, 0.6, lambda: _thing(build, lambda: things.rug(build, f, 0.8, 0.5)))


def _hall(build: Builder, room: Room, look: IndoorStyle, f: Finish) -> None:
    """A large room: columns, benches, several tables, sometimes stairs."""
    draw = build.draw
    w, d = room.size
    stone = Material(
        rgb(draw.pick(look.walls)),
        shade(rgb(draw.pick(look.walls)), 0.7),
        texture=draw.pick((Texture.MARBLE, Texture.NOISE, Texture.PLAIN)),
        scale=0.5,
        gloss=0.2,
    )
    if draw.chance(0.6):
        for i in range(2):
            for j in range(max(round(w / 3), 2)):
                x = room.x0 + (j + 0.5) * w / max(round(w / 3), 2)
                y = room.y0 + (0.22 + 0.56 * i) * d
                mine = (x - 0.3, y - 0.3, x + 0.3, y + 0.3)
                if room.free(mine):
                    room.taken.append(mine)
                    with build.thing(x, y):
                        things.column(build, draw.uniform(0.14, 0.2), room.height, stone)
    if draw.chance(0.6):
        steps = draw.integer(7, 12)
        going, rise = 0.27, min(0.18, (room.height - 0.6) / 14)
        _against(
            build,
            room,
            steps * going,
            1.1,
            2.4,
            0.6,
            lambda: _moved_x(build, -steps * going / 2, lambda: things.stairs(build, f, 1.1, steps, rise, going)),
        )
    _living(build, room, look, f)
    for _ in range(draw.integer(1, 3)):
        _amid(build, room, 1.9, 2.2, lambda: things.dining(build, f, 1.4, 0.8, 4))


def _moved_x(build: Builder, x: float, make: Callable[[], None]) -> None:
    with build.within(x):
        make()


def _lamps(build: Builder, room: Room, look: IndoorStyle, f: Finish, evening: bool, windows: bool) -> None:
    """Ceiling lamps, burning in the evening, in rooms without windows and now and then by day."""
    draw = build.draw
    w, d = room.size
    lit = evening or not windows or draw.chance(0.25)
    area = w * d
    number = 1 if area < 22 else 2
    power = (1.1 + 0.16 * area / number) * (1.0 if evening or not windows else 0.5)
    for i in range(number):
        x = room.x0 + (i + 0.5) * w / number
        y = (room.y0 + room.y1) / 2
        with build.thing(x, y, room.height):
            things.pendant(build, f, min(draw.uniform(0.15, 0.8), room.height - 2.1), lit, power)


def put_daylight(build: Builder, rooms: list[Room], evening: bool, sunny: bool, windows: bool) -> None:
    """Daylight through the windows, the sun, the ambient light and the sky."""
    draw = build.draw
    sun = (0.0, 0.0, -1.0)
    day = 0.12 if evening else 1.0
    cool = (1.0, 1.02, 1.06) if not sunny else (1.0, 0.99, 0.97)
    faces: list[float] = []
    for room in rooms:
        for side, holes in room.openings.items():
            x, y, yaw = room.corner(side)
            for hole in holes:
                if hole.kind != "window":
                    continue
                faces.append(yaw - math.pi / 2)  # outwards
                area = (hole.stop - hole.start) * (hole.high - hole.low)
                power = 1.5 * area * day
                with build.within(x, y, 0, yaw):
                    build.light(
                        ((hole.start + hole.stop) / 2, 0.02, (hole.low + hole.high) / 2),
                        (power * cool[0], power * cool[1], power * cool[2]),
                        facing=(0, 1, -0.15),
                        across=((hole.stop - hole.start) * 0.45, 0, 0),
                        along=(0, 0, (hole.high - hole.low) * 0.45),
                        reach=9.0,
                    )
    if sunny and faces:
        azimuth = draw.pick(faces) + draw.uniform(-0.8, 0.8)
        warm = draw.uniform(0, 1)
        sun = build.sun(azimuth, draw.uniform(0.3, 0.9), (3.4, 3.2 - 0.5 * warm, 2.9 - 1.1 * warm))
    level = 0.16 if evening else 0.3
    tint = (1.0, 0.88, 0.72) if evening else (1.0, 0.98, 0.95)
    above = (level * tint[0], level * tint[1], level * tint[2])
    below = shade(above, 1.25)
    if evening:
        build.sky(
            zenith=(0.01, 0.015, 0.05),
            horizon=(0.09, 0.08, 0.14),
            above=above,
            below=below,
            exposure=draw.uniform(0.8, 1.05),
            haze=0.002,
        )
        return
    clouds = draw.uniform(0.15, 0.5) if sunny else draw.uniform(0.7, 1.0)
    glow = (3.0, 2.7, 2.2) if sunny else (0.0, 0.0, 0.0)
    build.sky(
        zenith=rgb("5d8fd0") if sunny else rgb("a9b8c8"),
        horizon=(0.98, 1.07, 1.15),
        above=above, below=below, sun=sun, glow=glow, clouds=clouds, cloud_scale=draw.uniform(0.4, 1.0),
        seed=draw.uniform(0, 30), exposure=draw.uniform(0.72, 0.95), haze=0.002,
    )  # fmt: skip
