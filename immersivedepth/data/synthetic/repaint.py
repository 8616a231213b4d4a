"""The same world in other materials and another light: what networks must not take for a cue of distance."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import torch

from . import scene_tables, shapes
from .builder import to_linear
from .textures import Texture
from .world import World

# Textures that fit on any solid.
_ANYWHERE = (
    Texture.PLAIN, Texture.NOISE, Texture.CHECKER, Texture.BRICKS, Texture.PLANKS, Texture.WOOD, Texture.STRIPES,
    Texture.TILES, Texture.MARBLE, Texture.DOTS, Texture.CLOTH, Texture.LEAVES, Texture.GRASS,
)  # fmt: skip
_LOOK = slice(shapes.TEXTURE, shapes.COLOURS.stop)  # solids alike in these are of one material


def repainted(world: World, random: np.random.Generator, share: float = 1.0) -> World:
    """Each material, with that probability, in other colours, and some in another texture or polished; the sky and
    what falls from it in another colour. Shapes, lamps and the camera stay.
    """
    rows = world.tables.rows.clone()
    flat = rows[0]
    kinds, groups = np.unique(flat[:, _LOOK].cpu().numpy(), axis=0, return_inverse=True)
    of = torch.as_tensor(groups.reshape(-1), device=flat.device)
    dull = flat[:, shapes.EMISSION] == 0
    for number in range(len(kinds)):
        if random.random() >= share:
            continue
        where = ((of == number) & dull).nonzero()[:, 0]
        flat[where, shapes.COLOURS] = flat.new_tensor(_colours(random, kinds))
        if random.random() < 0.4:
            flat[where, shapes.TEXTURE] = float(random.choice(_ANYWHERE))
            flat[where, shapes.SCALE] = float(np.exp(random.uniform(np.log(0.05), np.log(0.8))))
            flat[where, shapes.ASPECT] = float(random.uniform(1, 5))
        if random.random() < 0.2:
            flat[where, shapes.GLOSS] = float(random.uniform(0, 1.2))
    sky = world.tables.sky.clone()
    if random.random() < share:
        for columns in (scene_tables.ZENITH, scene_tables.HORIZON):
            sky[:, columns] *= sky.new_tensor(np.exp(random.normal(0, 0.3, 3)) * np.exp(random.normal(0, 0.3)))
        tint = sky.new_tensor(np.exp(random.normal(0, 0.15, 3)))
        sky[:, scene_tables.ABOVE] *= tint
        sky[:, scene_tables.BELOW] *= tint
    return replace(world, tables=replace(world.tables, rows=rows, sky=sky))


def _colours(random: np.random.Generator, kinds: np.ndarray) -> list[float]:
    """Nine numbers of linear light: those of another material of the world, or made up and not too far apart."""
    if random.random() < 0.4:
        return [float(v) for v in kinds[random.integers(len(kinds)), 1:]]
    hue, grey, value = random.random(), random.random(), random.uniform(0.03, 1)
    found: list[float] = []
    for _ in range(3):
        # Most materials are nearly grey; squares keep strong colours rare.
        made = colorsys.hsv_to_rgb(
            (hue + random.normal(0, 0.08)) % 1, grey**2 * random.random(), min(1, value * random.uniform(0.5, 1.3))
        )
        found += [0.95 * to_linear(channel) for channel in made]
    return found
