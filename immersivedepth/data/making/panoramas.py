"""Miniature sets of measured panoramas: Matterport3D, Stanford2D3D, Replica360 and a plain list.

The recipe of its world lies beside every picture, so that predict=[oracle] can be measured on them too.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor

from ...files import write_text
from ...geometry.sphere import erp_rays
from ..images import write_dpt, write_exr, write_jpeg, write_map_png, write_png
from ..panoramas import WORLD
from ..synthetic import World, make_world, render_erp, standing_places
from . import MakeData

_RAYS = 2  # squared rays of each pixel
_CLEAR = 0.3  # metres around the camera
_INTERIOR = 4  # every so many viewpoints is in a place of several rooms
_OUTDOOR = 5  # and of a plain list, every so many outdoors
_AREAS = ("1", "2", "3", "4", "5a", "5b", "6")
_ROOMS = ("office", "hallway", "conferenceRoom", "lounge")


class Panoramas(ABC):
    """`count` panoramas, each of a world of its own; `size` is their height."""

    seed = 0  # sets of two layouts show different worlds
    outdoors = False

    def __init__(self, settings: MakeData) -> None:
        self.settings = settings

    def tasks(self) -> list[int]:
        """Viewpoints."""
        return list(range(self.settings.count))

    def done(self, task: int) -> bool:
        """Whether the recipe of a viewpoint, which is written last, is there."""
        return self._recipe(task).is_file()

    def make(self, task: int) -> None:
        """Render one viewpoint."""
        world, height = self.world(task), self.settings.size
        picture = render_erp(world, height, 2 * height, supersample=_RAYS).image
        self.write(task, picture, world.trace(erp_rays(height, 2 * height)).distance)
        write_text(self._recipe(task), json.dumps(world.recipe) + "\n")

    @abstractmethod
    def picture(self, task: int) -> Path:
        """The file of a picture, below the root."""

    @abstractmethod
    def depth(self, task: int) -> Path:
        """The file of its map, below the root."""

    @abstractmethod
    def write(self, task: int, picture: Tensor, distance: Tensor) -> None:
        """Write both as the layout stores them; distance [H, W] is infinite for sky."""

    def finish(self) -> list[Path]:
        """A list of all pairs."""
        lines = [f"{self.picture(t).as_posix()} {self.depth(t).as_posix()}\n" for t in self.tasks()]
        return [write_text(self.settings.root / self.list_name, "".join(lines))]

    list_name = "list.txt"

    def world(self, task: int) -> World:
        """A room, or now and then several, from a place with room around it."""
        number = (self.settings.seed * 7 + self.seed) * 1_000_003 + task
        if self.outdoors and task % _OUTDOOR == _OUTDOOR - 1:
            return make_world("outdoor", number)
        world = make_world("interior" if task % _INTERIOR == _INTERIOR - 1 else "room", number)
        places = standing_places(world, number, 16)
        clear = world.clearance(places)
        good = (clear > _CLEAR).nonzero()
        return world.at(places[good[0, 0] if len(good) else clear.argmax()])

    def mark(self, task: int) -> str:
        """32 digits that stand for a viewpoint."""
        text = f"{type(self).__name__} {self.settings.seed} {task}"
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    def _recipe(self, task: int) -> Path:
        path = self.settings.root / self.picture(task)
        return path.with_name(path.stem + WORLD)


class Matterport(Panoramas):
    """UniFuse's layout; three viewpoints make a scene."""

    seed, list_name = 1, "matterport3d_test.txt"

    def picture(self, task: int) -> Path:
        """<scene>/pano_skybox_color/<id>.jpg."""
        return Path(self._scene(task), "pano_skybox_color", f"{self.mark(task)}.jpg")

    def depth(self, task: int) -> Path:
        """<scene>/pano_depth/<id>.png."""
        return Path(self._scene(task), "pano_depth", f"{self.mark(task)}.png")

    def write(self, task: int, picture: Tensor, distance: Tensor) -> None:
        """16-bit steps of 1/4000 m; what does not fit becomes 0."""
        write_jpeg(self.settings.root / self.picture(task), picture)
        write_map_png(self.settings.root / self.depth(task), distance[None], 1 / 4000)

    def _scene(self, task: int) -> str:
        return self.mark(1_000_000 + task // 3)[:11]


class Stanford(Panoramas):
    """2D-3D-S; viewpoints take turns in the seven areas."""

    seed, list_name = 2, "stanford2d3d_all.txt"

    def picture(self, task: int) -> Path:
        """area_<k>/pano/rgb/camera_<id>_<room>_frame_equirectangular_domain_rgb.png."""
        return self._file(task, "rgb")

    def depth(self, task: int) -> Path:
        """The same below depth."""
        return self._file(task, "depth")

    def write(self, task: int, picture: Tensor, distance: Tensor) -> None:
        """16-bit steps of 1/512 m; 65535 where nothing is measured."""
        write_png(self.settings.root / self.picture(task), picture)
        missing = 65535 / 512
        kept = torch.where(distance < missing, distance, missing)
        write_map_png(self.settings.root / self.depth(task), kept[None], 1 / 512)

    def _file(self, task: int, kind: str) -> Path:
        room = f"{_ROOMS[task // len(_AREAS) % len(_ROOMS)]}_{1 + task // len(_AREAS)}"
        name = f"camera_{self.mark(task)}_{room}_frame_equirectangular_domain_{kind}.png"
        return Path(f"area_{_AREAS[task % len(_AREAS)]}", "pano", kind, name)


class Replica(Panoramas):
    """360MonoDepth's lists and .dpt maps."""

    seed, list_name = 3, "replica360.txt"

    def picture(self, task: int) -> Path:
        """<name>_rgb.png."""
        return Path("data", f"room_{task:04d}_rgb.png")

    def depth(self, task: int) -> Path:
        """<name>_depth.dpt."""
        return Path("data", f"room_{task:04d}_depth.dpt")

    def write(self, task: int, picture: Tensor, distance: Tensor) -> None:
        """Metres; 0 where there is nothing."""
        write_png(self.settings.root / self.picture(task), picture)
        write_dpt(self.settings.root / self.depth(task), torch.where(distance.isfinite(), distance, 0.0)[None])


class PlainList(Panoramas):
    """Pictures and EXR maps in one folder, with a list; some are outdoors, where sky is endless."""

    seed, outdoors = 4, True

    def picture(self, task: int) -> Path:
        """<number>.png."""
        return Path(f"{task:04d}.png")

    def depth(self, task: int) -> Path:
        """<number>_depth.exr."""
        return Path(f"{task:04d}_depth.exr")

    def write(self, task: int, picture: Tensor, distance: Tensor) -> None:
        """Metres, infinite for sky."""
        write_png(self.settings.root / self.picture(task), picture)
        write_exr(self.settings.root / self.depth(task), distance[None])
