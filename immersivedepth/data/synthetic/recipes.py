"""Worlds from recipes: a kind, a seed and a style make a scene; a pose makes a world."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...checks import ConfigError, InputError
from . import simple
from .builder import Builder, Draw
from .interiors import build_interior
from .outdoors import Space, build_outdoor
from .showroom import build_showroom
from .styles import INDOOR, OUTDOOR
from .world import World

KEEP_OFF = 0.3  # metres, least distance of a camera from anything
_TRIES = 96

KINDS = ("room", "interior", "outdoor", "showroom", "cube_room", "sphere", "still_box", "figure", *simple.MEASURED)
STYLES: dict[str, tuple[str, ...]] = {"room": tuple(INDOOR), "interior": tuple(INDOOR), "outdoor": tuple(OUTDOOR)}


def make_world(kind: str, seed: int = 0, style: str | None = None, **options: Any) -> World:
    """A world of one kind, with the camera at a place where nothing is nearer than 0.3 m, looking anywhere.

    room, interior (several rooms), outdoor: rich scenes; `style` is one of STYLES[kind], or drawn from the seed.
    showroom: one composed living room, in which the seed moves small things.
    cube_room (half=[x, y, z]) and sphere (radius=...): the camera in the middle, not turned. b1_*: test rooms.
    still_box: twenty things that float in a large box. figure: one made-up thing before an empty sky.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}. Choose one of them.")
    styles = STYLES.get(kind, ("",))
    if style is None:
        style = Draw(f"style {kind} {seed}").pick(styles)
    if style not in styles:
        raise ConfigError(f"style: expected one of {', '.join(styles)} for {kind}, got {style!r}. Choose one of them.")
    draw = Draw(f"{kind} {style} {seed}")
    build = Builder(draw)
    closed, free = _BUILD[kind](build, style, options)
    about: dict[str, Any] = {"kind": kind, "seed": seed, "style": style, **options}
    world = World(build.tables(), torch.zeros(3), torch.eye(3), about, closed, tuple(free))
    if not free:
        return world
    return world.at(
        _camera(world, Draw(f"camera {kind} {style} {seed}")), _heading(Draw(f"heading {kind} {style} {seed}"))
    )


def load_world(recipe: Mapping[str, Any]) -> World:
    """The world that `World.recipe` describes; position and rotation may be left out."""
    settings = dict(recipe)
    position, rotation = settings.pop("position", None), settings.pop("rotation", None)
    if "kind" not in settings:
        raise InputError(
            f"world recipe: expected a key 'kind', got {', '.join(settings) or 'nothing'}. "
            "Use what World.recipe returned."
        )
    world = make_world(**settings)
    turn = world.rotation if rotation is None else torch.tensor(rotation, dtype=torch.float32)
    return world.at(world.position if position is None else position, turn)


def standing_places(world: World, seed: int, count: int) -> Tensor:  # [count, 3]
    """Positions at the height of eyes, at least 0.3 m from everything, each drawn anew."""
    return torch.stack([_camera(world, Draw(f"place {seed} {i}")) for i in range(count)])


def _camera(world: World, draw: Draw) -> Tensor:
    """A position in the free space of the world; the roomiest of all tries if none is far enough from things."""
    areas = [(s[1] - s[0]) * (s[3] - s[2]) for s in world.free]
    places = []
    for _ in range(_TRIES):
        left = draw.uniform() * sum(areas)
        chosen = 0
        while chosen < len(areas) - 1 and left > areas[chosen]:
            left -= areas[chosen]
            chosen += 1
        x0, x1, y0, y1, z0, z1 = world.free[chosen]
        places.append([draw.uniform(x0, x1), draw.uniform(y0, y1), draw.uniform(z0, z1)])
    points = torch.tensor(places)
    clear = world.clearance(points.to(world.position.device)).cpu()
    wanted = (clear > 1.5 * KEEP_OFF).nonzero()
    return points[wanted[0, 0] if len(wanted) else clear.argmax()]


def _heading(draw: Draw) -> Tensor:
    """Level, any compass direction."""
    yaw = draw.uniform(0, 2 * math.pi)
    c, s = math.cos(yaw), math.sin(yaw)
    return torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _interior(build: Builder, style: str, options: dict[str, Any], count: int) -> tuple[bool, list[Space]]:
    plan = build_interior(build, style, count)
    inset = 0.35
    return plan.closed, [(r.x0 + inset, r.x1 - inset, r.y0 + inset, r.y1 - inset, 1.2, 1.75) for r in plan.rooms]


def _make_room(build: Builder, style: str, options: dict[str, Any]) -> tuple[bool, list[Space]]:
    _only(options)
    return _interior(build, style, options, 1)


def _make_interior(build: Builder, style: str, options: dict[str, Any]) -> tuple[bool, list[Space]]:
    _only(options, "rooms")
    return _interior(build, style, options, int(options.get("rooms", build.draw.integer(3, 7))))


def _make_outdoor(build: Builder, style: str, options: dict[str, Any]) -> tuple[bool, list[Space]]:
    _only(options)
    return False, build_outdoor(build, style)


def _make_showroom(build: Builder, style: str, options: dict[str, Any]) -> tuple[bool, list[Space]]:
    _only(options)
    return False, build_showroom(build)


def _make_cube(build: Builder, style: str, options: dict[str, Any]) -> tuple[bool, list[Space]]:
    _only(options, "half")
    half = options.get("half", (2.0, 2.0, 2.0))
    simple.cube_room(build, (float(half[0]), float(half[1]), float(half[2])))
    return True, []


def _make_sphere(build: Builder, style: str, options: dict[str, Any]) -> tuple[bool, list[Space]]:
    _only(options, "radius")
    simple.sphere(build, float(options.get("radius", 2.0)))
    return True, []


def _make_still_box(build: Builder, style: str, options: dict[str, Any]) -> tuple[bool, list[Space]]:
    _only(options)
    return True, [simple.still_box(build)]


def _make_figure(build: Builder, style: str, options: dict[str, Any]) -> tuple[bool, list[Space]]:
    _only(options)
    simple.figure(build)
    return False, [(0.0, 0.0, 0.0, 0.0, 1.0, 1.0)]


def _measured(kind: str) -> Callable[[Builder, str, dict[str, Any]], tuple[bool, list[Space]]]:
    def make(build: Builder, style: str, options: dict[str, Any]) -> tuple[bool, list[Space]]:
        _only(options)
        return True, [simple.measured(build, kind)]

    return make


def _only(options: dict[str, Any], *names: str) -> None:
    for key in options:
        if key not in names:
            raise ConfigError(f"{key}: expected {' or '.join(names) or 'no option'} for this kind of world. Remove it.")


_BUILD: dict[str, Callable[[Builder, str, dict[str, Any]], tuple[bool, list[Space]]]] = {
    "room": _make_room,
    "interior": _make_interior,
    "outdoor": _make_outdoor,
    "showroom": _make_showroom,
    "cube_room": _make_cube,
    "sphere": _make_sphere,
    "still_box": _make_still_box,
    "figure": _make_figure,
    **{kind: _measured(kind) for kind in simple.MEASURED},
}
