"""Miniature DIODE: perspective pictures of synthetic rooms and streets with depth, mask and normals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...geometry.pinhole import look_along
from ..images import write_npy, write_png
from ..synthetic import World, make_world, render_pinhole, standing_places
from . import MakeData

# The camera of the real data at 1024 x 768.
FOCAL, WIDTH, HEIGHT = (886.81, 927.06), 1024, 768
_RAYS = 2  # squared rays of each pixel
_VIEWS = 4  # pictures of a scan
_SCANS = 4  # of a scene
_OUTDOOR = 10  # every so many scans is outdoors
_HELD_OUT = 5  # every so many scans, each a world of its own, validates
_INTERIOR = 4  # every so many scans indoors is of several rooms
_REACH = {"indoors": (0.6, 20.0), "outdoor": (0.6, 100.0)}  # metres; indoors, what windows show was not scanned
_TURN, _PITCHES = 10, (-20, -10, 0, 10)  # degrees: yaws are multiples; pitches are positive up
_CLEAR = 0.5  # metres around the camera


@dataclass(frozen=True)
class Shot:
    """One picture of a scan: its file, and where the camera looks, in degrees."""

    path: Path
    yaw: int
    pitch: int


class Diode:
    """`count` pictures, four from each place, each place in a world of its own; `size` is their height."""

    def __init__(self, settings: MakeData) -> None:
        self.settings = settings

    def tasks(self) -> list[int]:
        """Scans."""
        return list(range(math.ceil(self.settings.count / _VIEWS)))

    def done(self, task: int) -> bool:
        """Whether the last file of a scan is there."""
        return _beside(self.shots(task)[-1].path, "_normal.npy").is_file()

    def make(self, task: int) -> None:
        """Render one scan."""
        world, height = self.world(task), self.settings.size
        width = round(height * WIDTH / HEIGHT)
        x, y = width / WIDTH, height / HEIGHT
        intrinsics = torch.tensor([[FOCAL[0] * x, 0, width / 2], [0, FOCAL[1] * y, height / 2], [0, 0, 1]])
        near, far = _REACH[self.kind(task)]
        for shot in self.shots(task):
            rotation = turned(shot.yaw, shot.pitch)
            maps = render_pinhole(world, intrinsics, height, width, rotation, _RAYS)
            assert maps.image is not None
            assert maps.depth is not None
            depth = maps.depth[0]
            known = (depth > near) & (maps.distance[0] < far)
            normal = torch.einsum("ji,jhw->hwi", rotation, maps.normal)  # axes of the view
            write_png(shot.path, maps.image.clamp(0, 1))
            write_npy(_beside(shot.path, "_depth.npy"), torch.where(known, depth, 0.0)[..., None])
            write_npy(_beside(shot.path, "_depth_mask.npy"), known.float())
            write_npy(_beside(shot.path, "_normal.npy"), torch.where(known[..., None], normal, 0.0))

    def finish(self) -> list[Path]:
        """The folders are the lists."""
        return [self.settings.root / part for part in ("train", "val")]

    def kind(self, task: int) -> str:
        """Whether a scan is indoors or outdoor."""
        return "outdoor" if task % _OUTDOOR == _OUTDOOR - 3 else "indoors"

    def world(self, task: int) -> World:
        """A world, seen from a free place."""
        number = self.settings.seed * 1_000_003 + task
        inside = "interior" if task % _INTERIOR == _INTERIOR - 1 else "room"
        world = make_world("outdoor" if self.kind(task) == "outdoor" else inside, number)
        places = standing_places(world, number, 8)
        clear = world.clearance(places)
        good = (clear > _CLEAR).nonzero()
        return world.at(places[good[0, 0] if len(good) else clear.argmax()])

    def shots(self, task: int) -> list[Shot]:
        """The pictures of a scan: evenly around from a yaw that is drawn, with pitches that are drawn."""
        random = np.random.default_rng([self.settings.seed, task, WIDTH])
        part = "val" if task % _HELD_OUT == _HELD_OUT - 1 else "train"
        kind, scene = self.kind(task), f"{task // _SCANS:05d}"
        first = int(random.integers(360 // _VIEWS // _TURN)) * _TURN
        folder = self.settings.root / part / kind / f"scene_{scene}" / f"scan_{task:05d}"
        found = []
        for number in range(min(_VIEWS, self.settings.count - task * _VIEWS)):
            yaw, pitch = first + 360 // _VIEWS * number, int(random.choice(_PITCHES))
            name = f"{scene}_{task:05d}_{kind}_{yaw:03d}_{pitch % 360:03d}.png"
            found.append(Shot(folder / name, yaw, pitch))
        return found


def turned(yaw: int, pitch: int) -> Tensor:  # [3, 3], view axes to world axes
    """A view so many degrees to the right and up."""
    across, up = math.radians(-yaw), math.radians(pitch)
    level = math.cos(up)
    forward = torch.tensor([[level * math.cos(across), level * math.sin(across), math.sin(up)]])
    return look_along(forward)[0].float()


def _beside(picture: Path, end: str) -> Path:
    return picture.with_name(picture.stem + end)
