"""Miniature 3D60: rooms seen from three cameras, in the layout and under the names of the real one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...files import write_text
from ...geometry.sphere import erp_rays
from ..images import write_exr, write_png
from ..synthetic import World, make_world, standing_places
from ..three_d60 import BASELINE, REFERENCE
from . import MakeData

_OFFSET = {REFERENCE: (0.0, 0.0, 0.0), "Right": (0.0, -BASELINE, 0.0), "Up": (0.0, 0.0, BASELINE)}
_TYPES = ("color", "depth", "normal")
_SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
_AREAS = ("1", "2", "3", "4", "5a", "5b", "6")
_CLEAR = 0.15  # metres around each camera
_RAYS = 2  # squared rays of each pixel
_HOLE = 1e10
_FARTHEST = 20.0  # metres; what is seen through windows was no part of the scanned houses either


class ThreeD60:
    """Every viewpoint is of a world of its own; the three collections take turns."""

    def __init__(self, settings: MakeData) -> None:
        self.settings = settings

    def tasks(self) -> list[int]:
        """Viewpoints."""
        return list(range(self.settings.count))

    def done(self, task: int) -> bool:
        """Whether the last file of a viewpoint is there."""
        return self.path(task, "normal", "Up").is_file()

    def make(self, task: int) -> None:
        """Render one viewpoint."""
        world = self.world(task)
        height = self.settings.size
        for place, offset in _OFFSET.items():
            there = moved(world, offset)
            hits = there.trace(erp_rays(height, 2 * height))
            distance = torch.where(hits.distance < _FARTHEST, hits.distance, _HOLE)
            write_png(self.path(task, "color", place), self._picture(there))
            write_exr(self.path(task, "depth", place), distance[None].expand(3, -1, -1))
            assert hits.normal is not None
            write_exr(self.path(task, "normal", place), hits.normal.movedim(-1, 0))

    def finish(self) -> list[Path]:
        """The lists of the three parts, written as the published ones are: by Windows."""
        count = self.settings.count
        order = np.random.default_rng([self.settings.seed, 3060]).permutation(count)
        lists, start = [], 0
        for number, (split, share) in enumerate(_SHARES.items()):
            stop = count if number + 1 == len(_SHARES) else start + round(share * count)
            lines = [" ".join(self._listed(int(task))) for task in sorted(order[start:stop])]
            lists.append(write_text(self.settings.root / "splits" / f"{split}.txt", "".join(f"{x}\n" for x in lines)))
            start = stop
        return lists

    def path(self, task: int, kind: str, place: str) -> Path:
        """The file of a type and a place."""
        return self.settings.root / self._name(task, kind, place)

    def world(self, task: int) -> World:
        """A room, seen from a place where all three cameras have room."""
        number = self.settings.seed * 1_000_003 + task
        world = make_world("interior" if task % 5 == 4 else "room", number)
        places = standing_places(world, number, 16)
        offsets = torch.tensor(list(_OFFSET.values())) @ world.rotation.T
        clear = torch.stack([world.clearance(places + offset) for offset in offsets]).amin(0)
        good = (clear > _CLEAR).nonzero()
        return world.at(places[good[0, 0] if len(good) else clear.argmax()])

    def _picture(self, world: World) -> Tensor:
        from ..synthetic import render_erp

        return render_erp(world, self.settings.size, 2 * self.settings.size, supersample=_RAYS).image

    def _name(self, task: int, kind: str, place: str) -> Path:
        digest = hashlib.md5(f"{self.settings.seed} {task}".encode(), usedforsecurity=False).hexdigest()
        end = f"{kind}_0_{place}_0.0.{'png' if kind == 'color' else 'exr'}"
        area = _AREAS[task // 3 % len(_AREAS)]
        return (
            Path("Matterport3D", f"{task}_{digest}0_{end}"),
            Path("Stanford2D3D", f"area{area}", f"{task}_area_{area}1_{end}"),
            Path("SunCG", f"{digest}0_{end}"),
        )[task % 3]

    def _listed(self, task: int) -> list[str]:
        names = [self._name(task, kind, place) for kind in _TYPES for place in _OFFSET]
        return [".\\" + "\\".join(name.parts) for name in names]


def moved(world: World, offset: tuple[float, float, float]) -> World:
    """The world from a camera moved in its own axes (forward, left, up), in metres."""
    return world.at(world.position + world.rotation @ torch.tensor(offset).to(world.position))
