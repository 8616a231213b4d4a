"""Miniature DIODE: perspective pictures of synthetic rooms and streets with depth, mask and normals."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from ...geometry.pinhole import look_along
from ..images import write_npy, write_png
from ..synthetic import make_world, render_pinhole, standing_places
from . import MakeData

# The camera of the real data at 1024 x 768.
_FOCAL, _WIDTH, _HEIGHT = (886.81, 927.06), 1024, 768
_RAYS = 2  # squared rays of each pixel
_TRAIN = 4  # of five scenes; the fifth validates
_OUTDOOR = 4  # every so many scenes is outdoors
_VIEWS = 4  # pictures of a scene
_REACH = 50.0  # metres that the scanner sees
_FIRST_VAL = 700_000_000  # seeds of validation worlds


class Shot(NamedTuple):
    """One picture of one scene."""

    scene: int
    view: int


class Diode:
    """Every scene is a world of its own, seen in four directions."""

    def __init__(self, settings: MakeData) -> None:
        self.settings = settings

    def tasks(self) -> list[Shot]:
        """Pictures."""
        return [Shot(i // _VIEWS, i % _VIEWS) for i in range(self.settings.count)]

    def done(self, task: Shot) -> bool:
        """Whether the last file of a picture is there."""
        return self._file(task, "_depth.npy").is_file()

    def make(self, task: Shot) -> None:
        """Render one picture."""
        height = self.settings.size
        width = round(height * _WIDTH / _HEIGHT)
        world = make_world("outdoor" if self._outdoor(task) else "room", self._seed(task))
        generator = torch.Generator().manual_seed(self._seed(task) * _VIEWS + task.view)
        yaw = (task.view + torch.rand(1, generator=generator)) * 2 * torch.pi / _VIEWS
        pitch = 0.15 * torch.randn(1, generator=generator)
        forward = torch.stack([yaw.cos() * pitch.cos(), yaw.sin() * pitch.cos(), pitch.sin()], dim=-1)
        scale = height / _HEIGHT
        matrix = torch.tensor([[_FOCAL[0] * scale, 0, width / 2], [0, _FOCAL[1] * scale, height / 2], [0, 0, 1]])
        place = standing_places(world, self._seed(task), _VIEWS)[task.view]
        maps = render_pinhole(world.at(place), matrix, height, width, look_along(forward)[0].float(), _RAYS)
        assert maps.image is not None
        assert maps.depth is not None
        known = maps.depth < _REACH
        write_png(self._file(task, ".png"), maps.image.clamp(0, 1))
        write_npy(self._file(task, "_depth_mask.npy"), known[0].float())
        write_npy(self._file(task, "_normal.npy"), torch.where(known, maps.normal, 0.0).movedim(0, -1).contiguous())
        write_npy(self._file(task, "_depth.npy"), torch.where(known, maps.depth, 0.0).movedim(0, -1).contiguous())

    def finish(self) -> list[Path]:
        """The folders are the lists."""
        return [self.settings.root / part for part in ("train", "val")]

    def _outdoor(self, task: Shot) -> bool:
        return task.scene % _OUTDOOR == _OUTDOOR - 1

    def _validates(self, task: Shot) -> bool:
        return task.scene // _OUTDOOR % (_TRAIN + 1) == _TRAIN

    def _seed(self, task: Shot) -> int:
        return self.settings.seed * 1_000_003 + task.scene + (_FIRST_VAL if self._validates(task) else 0)

    def _file(self, task: Shot, end: str) -> Path:
        part = "val" if self._validates(task) else "train"
        kind = "outdoor" if self._outdoor(task) else "indoors"
        scene, scan = f"scene_{task.scene:05d}", f"scan_{task.scene:05d}"
        stem = f"{task.scene:05d}_{task.scene:05d}_{kind}_{task.view * 90:03d}_000"
        return self.settings.root / part / kind / scene / scan / f"{stem}{end}"
