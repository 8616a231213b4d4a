"""One composed living room with a dining room behind it: the sample that ships with the package."""

from __future__ import annotations

import math
from dataclasses import replace

from . import furniture as things
from .builder import Builder, Material, rgb, shade
from .furniture import WHITE, Finish
from .interiors import WALL, Opening, Room, put_curtains, put_wall
from .outdoors import Space, ground_material, house, tree
from .styles import OUTDOOR
from .textures import Texture

HEIGHT = 2.75


def build_showroom(build: Builder) -> list[Space]:
    """Sofa, books, plants, windows with sun, and a passage to a table; the places of small things follow the seed."""
    living = Room(-3.1, -2.4, 3.1, 2.4, HEIGHT)
    dining = Room(3.1 + WALL, -2.4, 7.0, 2.4, HEIGHT)
    living.openings[2] = [Opening(0.9, 2.7, 0.5, 2.4, "window"), Opening(3.5, 5.3, 0.5, 2.4, "window")]
    living.openings[1] = [Opening(1.3, 3.5, 0.0, 2.3, "passage")]
    dining.openings[3] = [Opening(1.3, 3.5, 0.0, 2.3, "passage")]
    dining.openings[1] = [Opening(1.2, 3.6, 0.0, 2.35, "window")]
    oak = Material(rgb("b98a58"), rgb("8f653c"), texture=Texture.WOOD, scale=0.1, aspect=9, gloss=0.15)
    finish = Finish(
        wood=oak,
        second=Material(rgb("4a3324"), rgb("35241a"), texture=Texture.WOOD, scale=0.09, aspect=9, gloss=0.2),
        cloth=Material(rgb("5f7480"), rgb("4a5d68"), texture=Texture.CLOTH, scale=0.02, bump=0.15),
        accent=Material(rgb("c98a2e"), rgb("e0b060"), rgb("8a5a1c"), Texture.CLOTH, 0.05),
        metal=Material(rgb("2c2c2e"), gloss=0.5),
        linen=Material(rgb("e9e3d6"), WHITE, texture=Texture.CLOTH, scale=0.03),
        slim=0.8,
    )
    cream, sage = (
        Material(rgb(c), shade(rgb(c), 0.93), texture=Texture.NOISE, scale=1.5) for c in ("ebe4d6", "8fa08a")
    )
    bricks = Material(rgb("b4775c"), rgb("cfc6b8"), texture=Texture.BRICKS, scale=0.075, aspect=3.0, bump=0.2)
    _walls(build, living, (cream, cream, cream, sage))
    _walls(build, dining, (cream, bricks, cream, cream))
    _living(build, living, finish)
    _dining(build, dining, finish)
    _light(build)
    _garden(build)
    return [(-0.1, 0.1, -0.1, 0.1, 1.45, 1.5)]


def _walls(build: Builder, room: Room, paint: tuple[Material, Material, Material, Material]) -> None:
    w, d = room.size
    x, y = (room.x0 + room.x1) / 2, (room.y0 + room.y1) / 2
    boards = Material(rgb("c89f6c"), rgb("a87c4c"), rgb("4a3420"), Texture.PLANKS, 0.14, 11.0, gloss=0.25)
    with build.thing():
        build.box((x, y, -0.1), (w + WALL, d + WALL, 0.2), boards, anchored=True)
    with build.thing():
        build.box((x, y, HEIGHT + 0.1), (w + 2 * WALL, d + 2 * WALL, 0.2), Material((0.78, 0.77, 0.74)))
    for side in range(4):
        x, y, yaw = room.corner(side)
        with build.within(x, y, 0, yaw):
            put_wall(build, room, side, paint[side], Material(WHITE), True, True)


def _living(build: Builder, room: Room, f: Finish) -> None:
    """Sofa on the left of the windows, books on the other side, a rug with a low table between them."""
    draw = build.draw
    with build.within(room.x0, 0.1, 0, -math.pi / 2):  # against the west wall, looking east
        with build.thing(0, 0.03):
            things.sofa(build, f, 2.3)
        with build.thing(0, 1.75):
            things.rug(build, f, 2.9, 2.0)
        with build.thing(0.05, 1.35, 0.012):
            things.table(build, f, 1.1, 0.6, 0.4)
            with build.within(0, 0.3, 0.4):
                things.on_table(build, f, 0.7)
        with build.thing(-0.75, 0.0, 1.62):
            things.picture(build, f, 0.7, 0.9)
        with build.thing(0.15, 0.0, 1.62):
            things.picture(build, f, 0.6, 0.9)
        with build.thing(1.62, 0.35):
            things.lamp(build, f, 1.6, lit=True)
    with build.within(0, room.y0):  # against the south wall, looking north
        with build.thing(-1.75, 0.02):
            things.shelf(build, f, 1.5, 2.1)
        with build.thing(0.55, 0.02):
            things.television(build, f, 1.2)
        with build.thing(2.4, 0.4):
            things.plant(build, 1.5)
        with build.thing(0.5, 0.0, 1.95):
            things.picture(build, f, 1.3, 0.55)
    with build.thing(1.55, 1.75, 0, math.pi + 0.55):
        things.sofa(build, replace(f, cloth=f.accent), 0.85, 0.85)
    with build.thing(-2.65, 1.95):
        things.plant(build, 1.1)
    with build.thing(2.65, 2.0):
        things.plant(build, 1.7)
    with build.thing(-0.3, -1.2, 0, 0.4):
        things.crate(build, draw, 0.24)
    x, y, yaw = room.corner(2)
    with build.within(x, y, 0, yaw):
        for hole in room.openings[2]:
            put_curtains(build, room, hole, f.linen)
    with build.thing(0, 0.3, HEIGHT):
        things.pendant(build, f, 0.35, False, 0.0)


def _dining(build: Builder, room: Room, f: Finish) -> None:
    with build.within(5.2, 0.05, 0, math.pi / 2):
        things.dining(build, f, 1.7, 0.9, 4)
    with build.thing(5.2, 0.0, HEIGHT):
        things.pendant(build, f, 0.8, True, 1.2)
    with build.within(5.2, room.y1, 0, math.pi), build.thing(0, 0.02):
        things.sideboard(build, f, 1.6, 0.8)
        with build.within(0.3, 0.2, 0.8):
            things.on_table(build, f, 0.3)
    with build.within(5.2, room.y1, 1.55, math.pi), build.thing(0, 0):
        things.picture(build, f, 1.0, 0.7)
    with build.thing(6.6, -2.0):
        things.plant(build, 1.4)


def _light(build: Builder) -> None:
    """A low sun through the north windows, light of the sky through all of them."""
    sun = build.sun(math.pi / 2 - 0.55, 0.62, (3.6, 3.2, 2.5), softness=0.012)
    for x, y, yaw in ((-1.3, 2.38, -math.pi / 2), (1.3, 2.38, -math.pi / 2), (6.98, 0.0, math.pi)):
        with build.within(x, y, 0, yaw):
            size = 1.15 if y == 0.0 else 0.85
            build.light(
                (0.02, 0, 1.4), (3.6, 3.75, 4.0), facing=(1, 0, -0.2), across=(0, size, 0), along=(0, 0, 0.9), reach=9.0
            )
    build.sky(
        zenith=rgb("4f86cc"), horizon=(0.95, 1.05, 1.12), above=(0.27, 0.265, 0.25), below=(0.3, 0.27, 0.23),
        sun=sun,
        glow=(2.6, 2.4, 2.0), clouds=0.45, cloud_scale=0.7, seed=4.0, exposure=1.12, haze=0.002,
    )  # fmt: skip


def _garden(build: Builder) -> None:
    draw = build.draw
    with build.within(0, 0, -0.3):
        with build.thing():
            build.disc((0, 0, 0), math.inf, ground_material(draw, "grass"))
        for x, y, tall, kind in (
            (-4.5, 9.0, 6.0, "round"), (1.0, 13.0, 7.0, "birch"), (4.5, 8.0, 5.0, "round"),
            (-1.2, 18.0, 9.0, "conifer"), (14.0, 2.5, 6.0, "round"), (18.0, -3.0, 8.0, "conifer"),
        ):  # fmt: skip
            with build.thing(x, y):
                tree(build, kind, tall)
        for x, y, turn in ((-8.0, 26.0, 0.2), (7.0, 30.0, -0.1), (30.0, 4.0, -math.pi / 2)):
            with build.thing(x, y, 0, turn):
                house(build, OUTDOOR["suburb"], 10.0, 8.0, 2)
