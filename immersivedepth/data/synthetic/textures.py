"""Procedural textures: every point of a surface has a colour, in linear light, that depends on nothing else.

A texture knows how wide a ray is where it lands (`width`) and fades what is finer, so that distant tiles turn into
their mean colour instead of moire. All randomness is hashed from whole numbers, the same on every device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_TABLE = 32  # cells of the noise table along each side; it repeats beyond


class Texture(IntEnum):
    """What a surface is painted with; a, b, c are the material's colours."""

    PLAIN = 0  # a
    NOISE = 1  # a to b, cloudy: plaster, grass, asphalt, foliage
    CHECKER = 2  # a and b
    BRICKS = 3  # a with tones, mortar b; aspect: length over height
    PLANKS = 4  # wooden floor a to b, gaps c; aspect: length over width
    WOOD = 5  # grain a to b; aspect: length over width of the grain
    STRIPES = 6  # a, b, thin lines c
    TILES = 7  # a with tones, some b, grout c
    CARPET = 8  # border b, ornaments c on a, in the frame of the solid
    PAINTING = 9  # a landscape or shapes from a, b, c, in the frame of the solid
    MARBLE = 10  # a with veins b
    FACADE = 11  # wall a, window panes b, frames c; scale: storey height, aspect: window spacing over it
    BOOKS = 12  # upright backs of books around the colours a, b, c
    DOTS = 13  # a with dots b and c
    ROAD = 14  # asphalt a with a dashed middle line b and edge lines, along the solid's x
    CLOTH = 15  # woven a and b
    LEAVES = 16  # clumps of a, b and dark gaps c
    GRASS = 17  # a, b in patches with blades, flowers c


@dataclass(frozen=True)
class Spots:
    """Points on surfaces that share one texture."""

    solid: Tensor  # [N, 3], metres, local frame of the solid or of the scene
    flat: Tensor  # [N, 2], metres, on the face
    unit: Tensor  # [N, 2], on the face, -1..1 from edge to edge
    extent: Tensor  # [N, 2], metres, half size of the face
    a: Tensor  # [N, 3]
    b: Tensor  # [N, 3]
    c: Tensor  # [N, 3]
    scale: Tensor  # [N]
    aspect: Tensor  # [N]
    seed: Tensor  # [N]
    width: Tensor  # [N], metres, of the ray where it lands


def hashed(*cells: Tensor) -> Tensor:
    """A number in 0..1 for every tuple of whole numbers."""
    value = torch.zeros_like(cells[0], dtype=torch.int64)
    for cell in cells:
        value = (value * 0x1E3779B1 + cell.to(torch.int64) + 0x7F4A7C15) & 0xFFFFFFFF
        value = ((value ^ (value >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
        value = ((value ^ (value >> 12)) * 0x297A2D39) & 0xFFFFFFFF
        value = value ^ (value >> 15)
    return value.float() / 0xFFFFFFFF


@lru_cache(maxsize=4)
def _noise_table(device: torch.device) -> Tensor:  # [1, 3, n, n, n]
    """Random lattice values for smooth noise in three channels, made by whole-number arithmetic alone."""
    count = np.arange(3 * _TABLE**3, dtype=np.uint64)
    value = (count * 0x9E3779B97F4A7C15) & np.uint64(0xFFFFFFFFFFFFFFFF)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    unit = ((value >> np.uint64(40)).astype(np.float32) / 2**24).reshape(1, 3, _TABLE, _TABLE, _TABLE)
    return F.pad(torch.from_numpy(unit).to(device), (0, 1, 0, 1, 0, 1), mode="circular")


def noise(p: Tensor) -> Tensor:  # [N, 3] -> [N, 3]
    """Smooth noise in 0..1 with features of size one, three independent channels."""
    cell = p.floor()
    f = p - cell
    f = f * f * (3 - 2 * f)
    grid = ((cell.remainder(_TABLE) + f) * (2 / _TABLE) - 1)[None, :, None, None]
    return F.grid_sample(_noise_table(p.device), grid, padding_mode="border", align_corners=True)[0, :, :, 0, 0].T


def fbm(p: Tensor, width: Tensor, octaves: int = 4) -> Tensor:  # [N, 3], [N] -> [N]
    """Noise of several sizes in about 0..1; what is finer than `width` fades to its mean."""
    total = torch.zeros_like(width)
    weight, size = 0.5, 1.0
    for octave in range(octaves):
        keep = (1.6 - 2 * width * size).clamp(0, 1)
        total = total + weight * keep * (noise(p * size + 7.31 * octave)[:, octave % 3] - 0.5)
        weight, size = weight * 0.55, size * 2.17
    return (total * 1.35 + 0.5).clamp(0, 1)


def mix(a: Tensor, b: Tensor, share: Tensor) -> Tensor:  # [N, 3], [N, 3], [N] -> [N, 3]
    return a + (b - a) * share[:, None]


def _edge(distance: Tensor, width: Tensor) -> Tensor:
    """Coverage of a half plane by a pixel: 0 well outside, 1 well inside."""
    return (distance / width.clamp_min(1e-4) + 0.5).clamp(0, 1)


def _fade(width: Tensor, low: float = 0.25, high: float = 0.9) -> Tensor:
    """1 while features of size one are resolved, 0 when they are not."""
    return 1 - ((width - low) / (high - low)).clamp(0, 1)


def _grid_gap(u: Tensor, v: Tensor, gu: Tensor | float, gv: Tensor | float, wu: Tensor, wv: Tensor) -> Tensor:
    """Coverage of the gaps of half widths gu, gv around whole numbers, with the right mean when not resolved."""
    lines = []
    for x, g, w in ((u, gu, wu), (v, gv, wv)):
        near = (x - x.round()).abs()
        keep = _fade(w)
        lines.append(_edge(g - near, w) * keep + 2 * g * (1 - keep))
    return 1 - (1 - lines[0]) * (1 - lines[1])


def _plain(s: Spots) -> Tensor:
    return s.a


def _noise(s: Spots) -> Tensor:
    return mix(s.a, s.b, fbm(s.solid / s.scale[:, None] + s.seed[:, None], s.width / s.scale, 6))


def _checker(s: Spots) -> Tensor:
    u, v = (s.flat / s.scale[:, None]).unbind(-1)
    w = s.width / s.scale
    signs = []
    for x in (u, v):
        triangle = (x.remainder(2) - 1).abs() - 0.5  # zero at the edges
        signs.append(2 * _edge(triangle, w) - 1)
    return mix(s.a, s.b, 0.5 + 0.5 * signs[0] * signs[1] * _fade(w))


def _bricks(s: Spots) -> Tensor:
    v = s.flat[:, 1] / s.scale
    row = v.floor()
    u = s.flat[:, 0] / (s.scale * s.aspect) + 0.5 * row.remainder(2)
    w = s.width / s.scale
    tone = hashed(u.floor(), row, s.seed) * _fade(w) + 0.5 * (1 - _fade(w))
    rough = fbm(s.solid / (0.4 * s.scale[:, None]), 2.5 * w, 2)
    brick = s.a * (0.7 + 0.4 * tone + 0.3 * (rough - 0.5))[:, None]
    return mix(brick, s.b, _grid_gap(u, v, 0.07 / s.aspect, 0.07, w / s.aspect, w))


def _planks(s: Spots) -> Tensor:
    v = s.flat[:, 1] / s.scale
    row = v.floor()
    u = s.flat[:, 0] / (s.scale * s.aspect) + hashed(row, s.seed)
    w = s.width / s.scale
    keep = _fade(w)
    board = hashed(u.floor(), row, s.seed)
    tone = board * keep + 0.5 * (1 - keep)
    grain = torch.stack([s.flat[:, 0] / s.scale * 0.35, s.flat[:, 1] / s.scale * 6, board * 50], -1)
    share = 0.55 * tone + 0.45 * fbm(grain, 5 * w, 3)
    wood = mix(s.a, s.b, share)
    return mix(wood, s.c, 0.8 * _grid_gap(u, v, 0.008 / s.aspect, 0.02, w / s.aspect, w))


def _wood(s: Spots) -> Tensor:
    stretch = torch.stack([1 / s.aspect, torch.ones_like(s.aspect), torch.ones_like(s.aspect)], -1)
    p = s.solid / s.scale[:, None] * stretch + s.seed[:, None]
    w = s.width / s.scale
    rings = fbm(p, w, 3) * 5
    wave = 0.5 + 0.5 * torch.sin(rings * 2 * math.pi) * _fade(5 * w)
    return mix(s.a, s.b, 0.25 + 0.5 * wave * 0.7 + 0.3 * (fbm(p * 3, 3 * w, 2) - 0.3))


def _stripes(s: Spots) -> Tensor:
    u = s.flat[:, 0] / s.scale
    w = s.width / s.scale
    keep = _fade(w)
    band = _edge((u.remainder(1) - 0.5).abs() - 0.25, w) * keep + 0.5 * (1 - keep)
    line = _edge(0.03 - ((u + 0.5).remainder(1) - 0.5).abs(), w) * keep + 0.06 * (1 - keep)
    return mix(mix(s.a, s.b, band), s.c, line)


def _tiles(s: Spots) -> Tensor:
    u, v = s.flat[:, 0] / (s.scale * s.aspect), s.flat[:, 1] / s.scale
    w = s.width / s.scale
    keep = _fade(w)
    pick = hashed(u.floor(), v.floor(), s.seed)
    tone = 1 + 0.16 * (pick - 0.5) * keep
    some = (hashed(u.floor(), v.floor(), s.seed + 1) > 0.85).float() * keep + 0.15 * (1 - keep)
    vein = fbm(s.solid / s.scale[:, None] * 2 + 9 * pick[:, None], 2 * w, 2) - 0.5
    return mix(mix(s.a, s.b, some) * (tone + 0.25 * vein)[:, None], s.c, _grid_gap(u, v, 0.012, 0.012, w, w))


def _carpet(s: Spots) -> Tensor:
    metres = (1 - s.unit.abs()) * s.extent  # to the edge
    rim = metres.amin(-1)
    w = s.width
    border = _edge(0.08 * s.scale + 0.12 - rim, w) * _edge(rim - 0.04, w)
    u, v = (s.flat / (0.35 * s.scale[:, None])).unbind(-1)
    wide = s.width / (0.35 * s.scale)
    diamond = (u - u.round()).abs() + (v - v.round()).abs()
    ring = _edge(0.34 - diamond, wide) * (1 - 0.8 * _edge(0.2 - diamond, wide))
    ring = ring * _fade(wide) + 0.2 * (1 - _fade(wide))
    inner = _edge(rim - 0.08 * s.scale - 0.16, w)
    middle = ((s.unit**2).sum(-1).sqrt() * 6 + s.seed.remainder(3)).sin() * 0.25 + 0.25
    ground = mix(mix(s.a, s.b, middle), s.c, ring * inner)
    pile = 0.85 + 0.3 * fbm(s.solid * 60, s.width * 60, 2)
    return mix(ground, s.b * 0.6, border) * pile[:, None]


def _painting(s: Spots) -> Tensor:
    """Half of the pictures are hills under a sky, the other half a few overlapping discs and bars."""
    u, v = s.unit.unbind(-1)
    w = s.width / s.extent.amin(-1).clamp_min(1e-3)
    zero = torch.zeros_like(u)
    land = mix(s.b, s.c, (0.5 + 0.5 * v).clamp(0, 1))
    for layer in range(3):
        line = fbm(torch.stack([u * (1.2 + layer), zero + layer * 3.7, s.seed * 1.7], -1), zero, 3)
        hill = _edge(line * 1.1 - 0.35 - 0.35 * layer - v, w)
        land = mix(land, s.a * (0.9 - 0.28 * layer), hill)
    shapes = s.c.clone()
    palette = (s.a, s.b, s.a * 0.3, s.c * 0.5 + 0.3, s.b * 0.5)
    for i, colour in enumerate(palette):
        x, y, size, kind = (hashed(s.seed * 131, zero + 10 * i + j) for j in range(4))
        dx, dy = u - (x - 0.5) * 1.6, v - (y - 0.5) * 1.6
        disc = 0.2 + 0.4 * size - torch.hypot(dx, dy)
        bar = torch.minimum(0.15 + 0.25 * size - dx.abs(), 0.3 + 0.6 * x - dy.abs())
        shapes = mix(shapes, colour, _edge(torch.where(kind > 0.5, disc, bar), w))
    picture = torch.where((hashed(s.seed * 17) > 0.5)[:, None], land, shapes)
    mount = _edge((1 - s.unit.abs()).amin(-1) - 0.1, w)
    return mix(torch.full_like(s.a, 0.8), picture, mount)


def _marble(s: Spots) -> Tensor:
    p = s.solid / s.scale[:, None] + s.seed[:, None]
    w = s.width / s.scale
    bend = fbm(p, w, 4)
    vein = (1 - (((p[:, 0] + p[:, 1] * 0.7 + p[:, 2] * 0.6) * 1.5 + 6 * bend).sin()).abs()) ** 4
    return mix(s.a * (0.85 + 0.3 * bend)[:, None], s.b, 0.75 * vein * _fade(2 * w))


def _facade(s: Spots) -> Tensor:
    u, v = s.flat[:, 0] / (s.scale * s.aspect), (s.flat[:, 1] + s.extent[:, 1]) / s.scale
    w = s.width / s.scale
    keep = _fade(w, 0.3, 1.2)
    du, dv = (u.remainder(1) - 0.5).abs() * s.aspect, (v.remainder(1) - 0.52).abs()
    reach = 0.28 * s.aspect
    inside = torch.minimum(reach - du, 0.3 - dv)
    # No windows cut by the edges of the wall.
    fits = (s.extent[:, 0] - s.flat[:, 0].abs() > 0.25 * s.scale) & (
        s.extent[:, 1] - s.flat[:, 1].abs() > 0.1 * s.scale
    )
    fits = fits.float()
    frame, pane = _edge(inside, w) * fits, _edge(inside - 0.045, w) * fits
    pane = pane * (1 - _edge(0.015 - du, w))  # a bar down the middle
    lit = hashed(u.floor(), v.floor(), s.seed)
    glass = s.b * (0.5 + lit)[:, None]
    glass = torch.where((lit > 0.86)[:, None], glass + 0.25 * (1 - glass), glass)
    ledge = _edge(0.03 - (dv - 0.34).abs(), w) * _edge(reach + 0.05 - du, w) * (v.remainder(1) < 0.5).float() * fits
    wall = s.a * (0.82 + 0.36 * fbm(s.solid * 1.1 + s.seed[:, None], s.width * 1.1, 4))[:, None]
    picture = mix(mix(wall, s.c, torch.maximum(frame, ledge)), glass, pane)
    share = 0.56 * 0.6
    return mix(mix(wall, s.b, fits * share), picture, keep)


def _books(s: Spots) -> Tensor:
    u = s.flat[:, 0] / s.scale
    w = s.width / s.scale
    keep = _fade(w)
    # Books of unequal thickness: whole numbers are pushed aside a little.
    shifted = u + 0.33 * torch.sin(u * 2.1 + s.seed) + 0.2 * torch.sin(u * 5.3 + 2 * s.seed)
    book = shifted.floor()
    hue = hashed(book, s.seed)
    colour = torch.where((hue < 0.4)[:, None], s.a, torch.where((hue < 0.75)[:, None], s.b, s.c))
    colour = colour * (0.55 + 0.9 * hashed(book, s.seed + 3))[:, None]
    height = 0.45 + 0.5 * hashed(book, s.seed + 5)  # of the face
    top = _edge((height - s.unit[:, 1]) * s.extent[:, 1], s.width)
    gap = _edge(0.06 - (shifted - shifted.round()).abs(), w)
    label = _edge(0.12 - (s.unit[:, 1] - 0.2 + 0.4 * hue).abs(), w) * (hashed(book, s.seed + 7) > 0.5).float()
    shown = mix(mix(colour, 0.5 + 0.4 * colour, 0.7 * label), colour * 0.15, gap)
    mean = (s.a + s.b + s.c) / 3.5
    dark = 0.06 * (s.a + s.b + s.c)
    return mix(mix(dark, mean, 0.8 * torch.ones_like(u)), mix(dark, shown, top), keep)


def _dots(s: Spots) -> Tensor:
    v = s.flat[:, 1] / s.scale
    row = v.floor()
    u = s.flat[:, 0] / s.scale + 0.5 * row.remainder(2)
    w = s.width / s.scale
    keep = _fade(w)
    du, dv = u.remainder(1) - 0.5, v.remainder(1) - 0.5
    size = 0.18 * s.aspect
    petals = 1 + 0.25 * torch.cos(5 * torch.atan2(dv, du))
    disc = _edge(size * petals - torch.hypot(du, dv), w) * keep + 3.24 * size**2 * (1 - keep)
    colour = torch.where((hashed(u.floor(), row, s.seed) > 0.5)[:, None], s.b, s.c)
    colour = mix((s.b + s.c) / 2, colour, keep)
    return mix(s.a, colour, disc)


def _road(s: Spots) -> Tensor:
    along, across = s.flat.unbind(-1)
    half = s.extent[:, 1]
    w = s.width
    grain = 0.35 * fbm(s.solid * 25, w * 25, 3) + 0.3 * fbm(s.solid * 0.7, w * 0.7, 3)
    grey = s.a * (0.68 + grain)[:, None]
    dash = _edge(1.2 - ((along.remainder(6)) - 3).abs(), w)
    middle = _edge(0.07 - across.abs(), w) * (dash * _fade(w / 6) + 0.4 * (1 - _fade(w / 6)))
    side = _edge(0.06 - (across.abs() - half + 0.35).abs(), w)
    paint = torch.maximum(middle, side) * (1 - 0.75 * ((w - 0.2) / 0.6).clamp(0, 1))
    return mix(grey, s.b, 0.85 * paint)


def _cloth(s: Spots) -> Tensor:
    u, v = (s.flat / s.scale[:, None]).unbind(-1)
    w = s.width / s.scale
    weave = 0.5 + 0.5 * torch.sin(2 * math.pi * u) * torch.sin(2 * math.pi * v) * _fade(w)
    broad = fbm(s.solid * 4 + s.seed[:, None], s.width * 4, 3)
    return mix(s.a, s.b, 0.5 * weave + 0.5 * broad) * (0.85 + 0.3 * broad)[:, None]


def _leaves(s: Spots) -> Tensor:
    p = s.solid / s.scale[:, None] + s.seed[:, None]
    w = s.width / s.scale
    clump = fbm(p * 0.6, 0.6 * w, 2)
    leaf = noise(p * 2.3)[:, 0]
    keep = _fade(2.3 * w)
    leaf = leaf * keep + 0.5 * (1 - keep)
    green = mix(s.a, s.b, (1.6 * (clump - 0.5) + 0.9 * (leaf - 0.5) + 0.5).clamp(0, 1))
    return mix(green, s.c, ((0.42 - leaf) * 5).clamp(0, 1) * (1 - clump))


def _grass(s: Spots) -> Tensor:
    w = s.width
    patch = fbm(s.solid / (6 * s.scale[:, None]) + s.seed[:, None], w / (6 * s.scale), 3)
    blade = fbm(s.solid * 9 / s.scale[:, None], 9 * w / s.scale, 2)
    green = mix(s.a, s.b, (1.5 * (patch - 0.5) + 0.5 + 0.8 * (blade - 0.5)).clamp(0, 1))
    u, v = (s.flat / (0.5 * s.scale[:, None])).unbind(-1)
    pick = hashed(u.floor(), v.floor(), s.seed)
    du = u.remainder(1) - 0.2 - 0.6 * pick
    dv = v.remainder(1) - 0.2 - 0.6 * hashed(v.floor(), u.floor(), s.seed + 1)
    flower = _edge(0.07 - torch.hypot(du, dv), 2 * w / s.scale) * (pick > 0.8).float() * _fade(8 * w / s.scale)
    return mix(green, s.c, flower)


_PAINT: dict[int, Callable[[Spots], Tensor]] = {
    Texture.PLAIN: _plain,
    Texture.NOISE: _noise,
    Texture.CHECKER: _checker,
    Texture.BRICKS: _bricks,
    Texture.PLANKS: _planks,
    Texture.WOOD: _wood,
    Texture.STRIPES: _stripes,
    Texture.TILES: _tiles,
    Texture.CARPET: _carpet,
    Texture.PAINTING: _painting,
    Texture.MARBLE: _marble,
    Texture.FACADE: _facade,
    Texture.BOOKS: _books,
    Texture.DOTS: _dots,
    Texture.ROAD: _road,
    Texture.CLOTH: _cloth,
    Texture.LEAVES: _leaves,
    Texture.GRASS: _grass,
}


def paint(texture: Texture, spots: Spots) -> Tensor:  # [N, 3]
    """Linear colour of every spot."""
    return _PAINT[texture](spots)
