"""Miniature Omnidata: views of synthetic worlds in the task folders of its starter data set."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import torch
from torch import Tensor

from ...files import write_text
from ...geometry.pinhole import look_along
from ..images import write_map_png, write_png
from ..synthetic import World, make_world, render_pinhole, standing_places
from ..transforms import DEPTH_MISSING, DEPTH_UNIT, EMPTY_NORMAL
from . import MakeData

NAME = "synthetic"  # of the data set among Omnidata's
_VIEWS = 4  # of each point
_POINTS = 2  # of each building
_RAYS = 2  # squared rays of each pixel
_FARTHEST = DEPTH_UNIT * (DEPTH_MISSING - 1)


class Omnidata:
    """`count` views: <task>/synthetic/<building>/point_<i>_view_<j>_domain_<task>.png, and splits.csv."""

    def __init__(self, settings: MakeData) -> None:
        self.settings = settings

    def tasks(self) -> list[int]:
        """Views."""
        return list(range(self.settings.count))

    def done(self, task: int) -> bool:
        """Whether the last file of a view is there."""
        return self._file(task, "point_info", ".json").is_file()

    def make(self, task: int) -> None:
        """Render one view."""
        size = self.settings.size
        world, rotation, half = self.view(task)
        focal = size / (2 * half)
        matrix = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
        maps = render_pinhole(world, matrix, size, size, rotation, _RAYS)
        assert maps.image is not None
        assert maps.depth is not None
        known = ~maps.sky & (maps.distance < _FARTHEST)
        write_png(self._file(task, "rgb"), maps.image.clamp(0, 1))
        write_png(self._file(task, "mask_valid"), known)
        for name, depth in (("depth_zbuffer", maps.depth), ("depth_euclidean", maps.distance)):
            write_map_png(self._file(task, name), torch.where(known, depth, DEPTH_MISSING * DEPTH_UNIT), DEPTH_UNIT)
        # Omnidata's axes: x right, y down, z towards the camera.
        view = torch.einsum("ij,jhw->ihw", rotation.T, maps.normal) * torch.tensor([1.0, 1.0, -1.0]).view(3, 1, 1)
        write_png(self._file(task, "normal"), torch.where(known, (view + 1) / 2, EMPTY_NORMAL))
        write_png(self._file(task, "segment_instance"), _packed(maps.instance))
        about = {
            "building": self._building(task),
            "point": self._point(task),
            "view": task % _VIEWS,
            "field_of_view_rads": 2 * math.atan(half),
            "camera_location": world.position.tolist(),
            "camera_rotation": rotation.tolist(),
        }
        write_text(self._file(task, "point_info", ".json"), json.dumps(about) + "\n")

    def finish(self) -> list[Path]:
        """The division by building, with the line ends of the published lists."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r")
        writer.writerow(["id", "train", "val", "test"])
        for number, building in enumerate(sorted({self._building(task) for task in self.tasks()})):
            part = {3: "val", 4: "test"}.get(number % 5, "train")
            writer.writerow([building, *(int(part == name) for name in ("train", "val", "test"))])
        return [write_text(self.settings.root / "splits.csv", text.getvalue())]

    def view(self, task: int) -> tuple[World, Tensor, float]:
        """The world with the camera in place, its view-to-scene rotation, and half the side at depth one."""
        number = self.settings.seed * 1_000_003 + task // (_VIEWS * _POINTS)
        world = make_world("interior" if number % 4 == 3 else "room", number)
        place = standing_places(world, number, _POINTS)[self._point(task)]
        draw = torch.rand(3, generator=torch.Generator().manual_seed(number * 1009 + task))
        yaw = 2 * math.pi * (task % _VIEWS + float(draw[0])) / _VIEWS
        pitch = 0.6 * (float(draw[1]) - 0.5)
        forward = torch.tensor([[math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)]])
        half = math.tan(math.radians(45 + 30 * float(draw[2])) / 2)
        return world.at(place, torch.eye(3)), look_along(forward)[0].float(), half

    def _building(self, task: int) -> str:
        return f"world{task // (_VIEWS * _POINTS):04d}"

    def _point(self, task: int) -> int:
        return task // _VIEWS % _POINTS

    def _file(self, task: int, name: str, suffix: str = ".png") -> Path:
        stem = f"point_{self._point(task)}_view_{task % _VIEWS}_domain_{name}{suffix}"
        return self.settings.root / name / NAME / self._building(task) / stem


def _packed(instance: Tensor) -> Tensor:  # [1, h, w] -> uint8 [3, h, w]: R is the class, G * 256 + B the instance
    low, high = instance % 256, instance // 256 % 256
    return torch.cat([(instance > 0).to(low), high, low]).to(torch.uint8)
