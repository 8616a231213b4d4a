"""Miniature MODEST: made figures pasted on rendered backgrounds, with masks, boxes and depth, in the real layout."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ...files import write_text
from ...geometry.pinhole import look_along
from ..images import write_jpeg, write_png
from ..synthetic import World, make_world, render_pinhole, standing_places
from . import MakeData

_PLACES = 4  # of each foreground on each background; each also mirrored
_FIGURE = 0.48  # height of a figure over that of the picture, as in the real data
_FARTHEST = 10.0  # metres that a depth of one means
_FLOOR = 0.01
_RAYS = 2  # squared rays of each pixel
_QUALITY = 95
_FIGURES_AT = 800_000_000  # seeds of figures
Cut = tuple[Tensor, Tensor, Tensor]  # colour [3, h, w], cover and relief [1, h, w]


class Modest:
    """`count` pictures: about as many backgrounds as foregrounds, each pair in eight places."""

    def __init__(self, settings: MakeData) -> None:
        self.settings = settings
        self.kinds = max(2, math.ceil(math.sqrt(settings.count / (2 * _PLACES))))

    def tasks(self) -> list[int]:
        """Backgrounds, each with all its pictures."""
        return list(range(1, self.kinds + 1))

    def done(self, task: int) -> bool:
        """Whether the list of a background, which is written last, is there."""
        return self._list(task).is_file()

    def make(self, task: int) -> None:
        """Render a background and paste every figure on it."""
        size = self.settings.size
        colour, depth = self._background(task)
        write_jpeg(self._path("bg", f"bg{task:03d}.jpeg"), colour, _QUALITY)
        lines, boxes = [], []
        for figure in range(1, self.kinds + 1):
            cut = figure_of(self._seed(figure) + _FIGURES_AT, round(_FIGURE * size))
            if task == 1:
                write_png(self._path("fg", f"fg{figure:03d}.png"), cut[0], alpha=cut[1])
                write_png(self._path("fg_mask", f"fg{figure:03d}_mask.png"), cut[1])
            generator = torch.Generator().manual_seed(self._seed(task) * 1009 + figure)
            for place in range(2 * _PLACES):
                picture, mask, far, box = pasted(colour, depth, cut, generator, mirrored=place >= _PLACES)
                stem = f"bg{task:03d}_fg{figure:03d}_{place + 1:02d}"
                write_jpeg(self._path("bg_fg", f"{stem}.jpeg"), picture, _QUALITY)
                write_jpeg(self._path("bg_fg_mask", f"{stem}_mask.jpeg"), mask, _QUALITY)
                write_jpeg(self._path("bg_fg_depth_map", f"{stem}_depth_map.jpeg"), far, _QUALITY)
                lines.append("\t".join((f"bg{task:03d}", stem, f"{stem}_mask", f"{stem}_depth_map")))
                boxes.append("\t".join((f"{stem}.jpeg", *(str(v) for v in box))))
        write_text(self._list(task), "\n".join(lines) + "\n\n" + "\n".join(boxes) + "\n")

    def finish(self) -> list[Path]:
        """file_map.txt and bbox.txt."""
        parts = [self._list(task).read_text("utf-8").split("\n\n") for task in self.tasks()]
        names = ("file_map.txt", "bbox.txt")
        texts = ("".join(p[i].rstrip("\n") + "\n" for p in parts) for i in range(2))
        return [write_text(self.settings.root / name, text) for name, text in zip(names, texts, strict=True)]

    def _background(self, task: int) -> tuple[Tensor, Tensor]:
        """Colour [3, s, s] and depth [1, s, s] in metres."""
        seed, size = self._seed(task), self.settings.size
        world = make_world("outdoor" if task % 3 == 0 else "room", seed)
        place = standing_places(world, seed, 1)[0]
        yaw = torch.rand(1, generator=torch.Generator().manual_seed(seed)) * 2 * math.pi
        forward = torch.stack([yaw.cos(), yaw.sin(), torch.full_like(yaw, -0.1)], dim=-1)
        matrix = torch.tensor([[0.9 * size, 0, size / 2], [0, 0.9 * size, size / 2], [0, 0, 1.0]])
        maps = render_pinhole(world.at(place), matrix, size, size, look_along(forward)[0].float(), _RAYS)
        assert maps.image is not None
        assert maps.depth is not None
        return maps.image.clamp(0, 1), maps.depth

    def _seed(self, number: int) -> int:
        return self.settings.seed * 1_000_003 + number

    def _path(self, folder: str, name: str) -> Path:
        return self.settings.root / folder / name

    def _list(self, task: int) -> Path:
        return self.settings.root / f".bg{task:03d}.txt"


def pasted(
    colour: Tensor, depth: Tensor, cut: Cut, generator: torch.Generator, mirrored: bool
) -> tuple[Tensor, Tensor, Tensor, tuple[int, int, int, int]]:
    """Picture, mask and depth map in 0..1, and the box: left, top, width, height."""
    figure, cover, relief = (part.flip(-1) for part in cut) if mirrored else cut
    size, (height, width) = colour.shape[-1], cover.shape[-2:]
    draw = torch.rand(3, generator=generator)
    left, top = round(float(draw[0]) * (size - width)), round(float(draw[1]) * (size - height))
    window = (..., slice(top, top + height), slice(left, left + width))
    # In front of everything it hides.
    behind = depth[window][cover > 0.5]
    nearest = float(behind.min()) if len(behind) else _FARTHEST
    away = min(nearest, _FARTHEST) * (0.5 + 0.4 * float(draw[2]))
    picture, mask, far = colour.clone(), torch.zeros_like(depth), (depth / _FARTHEST).clamp(_FLOOR, 1)
    picture[window] = cover * figure + (1 - cover) * picture[window]
    mask[window] = cover
    far[window] = torch.where(cover > 0.5, (away * relief / _FARTHEST).clamp(_FLOOR, 1), far[window])
    rows, columns = (cover[0] > 0.5).any(1).nonzero(), (cover[0] > 0.5).any(0).nonzero()
    box = (left + int(columns[0]), top + int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1)
    return picture, mask, far, box


@functools.lru_cache(maxsize=64)
def figure_of(seed: int, height: int) -> Cut:
    """A made-up figure, cut out and as high as asked for; relief is its depth over that of its nearest point."""
    world: World = make_world("figure", seed).at((0.0, 0.0, 1.0), torch.eye(3))
    side = 2 * height
    matrix = torch.tensor([[1.2 * side, 0, side / 2], [0, 1.2 * side, side / 2], [0, 0, 1.0]])
    rotation = look_along(torch.tensor([[1.0, 0.0, -0.08]]))[0].float()
    maps = render_pinhole(world, matrix, side, side, rotation, supersample=3)
    assert maps.image is not None
    assert maps.depth is not None
    cover = (~maps.sky).float()
    rows, columns = (cover[0].any(d).nonzero() for d in (1, 0))
    window = (..., slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    tall, wide = cover[window].shape[-2:]
    size = (height, max(4, round(wide * height / tall)))
    depth = torch.where(maps.sky, 0.0, maps.depth)[window]
    parts = [F.interpolate(x[window][None], size, mode="area")[0] for x in (maps.image * cover, cover)]
    nearest = depth[depth > 0].min()
    relief = F.interpolate(torch.where(depth > 0, depth / nearest, 1.0)[None], size, mode="nearest")[0]
    shown = parts[1].clamp_min(1e-3)
    return (parts[0] / shown).clamp(0, 1), parts[1], relief
