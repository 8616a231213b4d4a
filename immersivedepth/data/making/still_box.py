"""Miniature Still Box: films through boxes full of floating things, in the layout of the real one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...checks import ResourceError
from ...files import write_text
from ...geometry.pinhole import look_along
from ..images import write_jpeg, write_npy
from ..synthetic import World, make_world, render_pinhole
from . import MakeData

FRAMES, TIME_STEP, SPEED = 10, 0.1, 1.0  # frames of a film, seconds between them, metres a second
CLIP = (0.1, 200.0)  # metres
_FOLDERS = 16
_FOV = math.pi / 2
_RAYS = 2  # squared rays of each pixel
_CLEAR = 0.4  # metres around the way of the camera
_TRIES = 64
_QUALITY = 95


class StillBox:
    """Films of constant velocity in any direction; the camera does not turn."""

    def __init__(self, settings: MakeData) -> None:
        self.settings = settings
        self.folders = min(_FOLDERS, max(1, settings.count // 8))

    def tasks(self) -> list[int]:
        """Films."""
        return list(range(self.settings.count))

    def done(self, task: int) -> bool:
        """Whether the facts of a film, which are written last, are there."""
        return self._facts(task).is_file()

    def make(self, task: int) -> None:
        """Render one film."""
        world, rotation, velocity = self.way(task)
        size = self.settings.size
        focal = size / 2 / math.tan(_FOV / 2)
        intrinsics = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
        start = world.position
        for frame in range(FRAMES):
            there = world.at(start + rotation @ _to_view(velocity) * (TIME_STEP * frame), torch.eye(3))
            maps = render_pinhole(there, intrinsics, size, size, rotation, supersample=_RAYS)
            assert maps.image is not None
            assert maps.depth is not None
            picture, depth = self._files(task, frame)
            write_jpeg(picture, maps.image.clamp(0, 1), _QUALITY)
            write_npy(depth, maps.depth[0].clamp(*CLIP))
        facts = {
            "imgs": [self._files(task, i)[0].name for i in range(FRAMES)],
            "depth": [self._files(task, i)[1].name for i in range(FRAMES)],
            "length": FRAMES,
            "speed": velocity.tolist(),
            "time_step": TIME_STEP,
            "orientation": [],
        }
        write_text(self._facts(task), json.dumps(facts))

    def finish(self) -> list[Path]:
        """The metadata of every folder."""
        out = []
        for number in range(self.folders):
            tasks = [task for task in self.tasks() if task % self.folders == number]
            scenes: list[dict[str, Any]] = [json.loads(self._facts(task).read_text()) for task in tasks]
            about = {
                "args": {"clip": list(CLIP), "seed": self.settings.seed, "length": FRAMES, "meshes_nb": 20},
                "fov": math.degrees(_FOV),
                "scenes_nb": len(scenes),
                "resolution": [self.settings.size, self.settings.size],
                "scenes": scenes,
            }
            out.append(write_text(self._folder(number) / "metadata.json", json.dumps(about, indent=1) + "\n"))
        return out

    def way(self, task: int) -> tuple[World, Tensor, Tensor]:
        """The world with the camera at the start, its view-to-scene rotation, and its velocity right, up, forward."""
        number = self.settings.seed * 1_000_003 + task
        world = make_world("still_box", number)
        generator = torch.Generator().manual_seed(number)
        steps = torch.linspace(0, 1, FRAMES)[:, None] * (SPEED * TIME_STEP * (FRAMES - 1))
        for _ in range(_TRIES):
            forward = torch.randn(3, generator=generator) * torch.tensor([1.0, 1.0, 0.3])
            rotation = look_along(forward[None])[0].float()
            velocity = torch.randn(3, generator=generator)
            velocity = velocity / velocity.norm() * SPEED
            place = (torch.rand(3, generator=generator) * 2 - 1) * torch.tensor([0.6, 0.6, 0.3])
            path = place + steps * (rotation @ _to_view(velocity))
            if world.clearance(path).amin() > _CLEAR:
                return world.at(place, torch.eye(3)), rotation, velocity
        raise ResourceError(f"still_box {number}: no way without a thing on it was found; choose another data.seed")

    def _folder(self, number: int) -> Path:
        return self.settings.root / f"{number:02d}"

    def _files(self, task: int, frame: int) -> tuple[Path, Path]:
        folder = self._folder(task % self.folders)
        return folder / f"RGB_{task:04d}_{frame:04d}.jpg", folder / f"DEPTH_{task:04d}_{frame:04d}.npy"

    def _facts(self, task: int) -> Path:
        return self._folder(task % self.folders) / f".scene_{task:04d}.json"


def _to_view(velocity: Tensor) -> Tensor:  # right, up, forward -> right, down, forward
    return velocity * torch.tensor([1.0, -1.0, 1.0])
