"""Panoramas with a measured distance: a plain list of pairs, and what all layouts of evaluation data have in common."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from ..checks import ConfigError, InputError, Range
from ..geometry import sphere
from ..scene import Panorama, Rig, Views
from . import images
from .panoramas import MIN_HEIGHT, ErpTruth, Size, Wild, safe_name, truth_beside


@dataclass(frozen=True)
class Measured:
    """A panorama and how far everything in it truly is."""

    panorama: Panorama
    distance: Tensor  # [1, H, W], metres, of the panorama's size
    valid: Tensor  # [1, H, W], bool, where it is measured


@dataclass(frozen=True)
class MeasuredView:
    """A perspective picture as the one view of a rig, and its depth along the view axis."""

    views: Views
    depth: Tensor  # [1, s, s], metres
    valid: Tensor  # [1, s, s], bool

    @classmethod
    def middle(cls, image: Tensor, depth: Tensor, valid: Tensor, tan_half_fov: float) -> MeasuredView:
        """The square in the middle; tan_half_fov is half its side at depth one."""
        height, width = depth.shape[-2:]
        side = min(height, width)
        inside = np.s_[..., (height - side) // 2 :, (width - side) // 2 :]
        image, depth, valid = (v[inside][..., :side, :side] for v in (image, depth, valid))
        rig = Rig(torch.eye(3)[None], torch.tensor([tan_half_fov]), side)
        return cls(Views(image[None], rig), torch.where(valid, depth, 0.0), valid)


@dataclass(frozen=True)
class Pair:
    """A picture and the map of its distance."""

    picture: Path
    depth: Path


Pairs = list[Pair]


@dataclass(frozen=True)
class Stored:
    """What the numbers in a map's file mean."""

    unit: float = 1.0  # metres that one step of a PNG stands for; other formats hold metres
    holes: tuple[float, ...] = (0.0,)  # numbers that say nothing is measured
    farthest: float = math.inf  # metres; what is farther was not measured either


@dataclass
class Paired:
    """What layouts share: files by pairs, a unit, values that say nothing, and a size."""

    root: str | None = None
    image_resize: tuple[Size, Size] | None = None  # [width, height]; None: the picture's size
    max_size: tuple[Size, Size] = images.MAX_SIZE

    def stored(self) -> Stored:
        """What the numbers of the maps mean; a layout's own, so that units cannot be mixed."""
        return Stored()

    def pairs(self) -> Pairs:
        """The files, in the order of the layout's list."""
        raise NotImplementedError

    def sources(self) -> list[Path]:
        """The pictures."""
        return list(self._named)

    def name(self, path: Path) -> str:
        """What the panorama of a picture is called."""
        return self._named[path][0]

    def load(self, path: Path) -> Panorama:
        """The panorama, with its measured distance as its truth where no recipe of a world lies beside it."""
        return self.measured(path).panorama

    def measured(self, path: Path) -> Measured:
        """The panorama and its distance, in the size asked for; distances take the nearest pixel."""
        name, pair = self._named[path]
        panorama = Wild(image_resize=self.image_resize, max_size=self.max_size, check_layout=False).load(path)
        raw = images.read_map(pair.depth, unit=1.0, max_size=self.max_size)
        if raw.shape[2] != 2 * raw.shape[1]:
            size = f"{raw.shape[2]}x{raw.shape[1]}"
            raise InputError(f"{images.show(pair.depth)} is {size}, expected a map twice as wide as high")
        hole = torch.zeros_like(raw, dtype=torch.bool)
        stored = self.stored()
        for value in stored.holes:
            hole |= raw == value
        distance = raw * stored.unit if pair.depth.suffix.lower() == ".png" else raw
        valid = ~hole & distance.isfinite() & (distance > 0) & (distance <= stored.farthest)
        distance = torch.where(valid, distance, 0.0)
        distance, valid = (sphere.resize_erp(v, *panorama.size, mode="nearest") for v in (distance, valid))
        truth = truth_beside(path) or ErpTruth(distance)
        return Measured(replace(panorama, name=name, truth=truth), distance, valid)

    def __len__(self) -> int:
        return len(self._named)

    @property
    def home(self) -> Path:
        """The folder of the data set."""
        if self.root is None:
            raise ConfigError("dataset.root has no value: set it to the folder that holds the data set")
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise InputError(f"{images.show(root)} is not a folder; set dataset.root to that of the data set")
        return root

    @cached_property
    def _named(self) -> dict[Path, tuple[str, Pair]]:
        """Every picture with its pair and a name that is unlike all others."""
        if self.image_resize is not None:
            width, height = self.image_resize
            if width != 2 * height or height < MIN_HEIGHT:
                raise ConfigError(f"dataset.image_resize=[{width},{height}]: expected width = 2 * height, at least 32")
        pairs = list({pair.picture: pair for pair in self.pairs()}.values())
        if not pairs:
            raise InputError(f"{self.root}: the data set has no picture with a measured distance")
        common = Path(os.path.commonpath([pair.picture.parent for pair in pairs]))
        plain = [safe_name("-".join(pair.picture.relative_to(common).with_suffix("").parts)) for pair in pairs]
        often = Counter(name.casefold() for name in plain)
        named = {}
        for name, pair in zip(plain, pairs, strict=True):
            mark = hashlib.sha256(bytes(pair.picture.relative_to(common))).hexdigest()[:8]
            named[pair.picture] = (f"{name}-{mark}" if often[name.casefold()] > 1 else name, pair)
        return named


@dataclass
class PairList(Paired):
    """A text file with a picture and a map on each line, relative to `root` or to the list itself."""

    list: str | None = None
    png_unit: Annotated[float, Range(1e-9)] | None = None  # metres that one step of a PNG stands for; needed for PNG
    hole_values: tuple[float, ...] = (0.0,)  # stored numbers that say nothing is measured
    hole_beyond: Annotated[float, Range(0)] = math.inf  # metres; what is stored as farther is not measured

    def stored(self) -> Stored:
        """As the keys say."""
        return Stored(self.png_unit or 1.0, self.hole_values, self.hole_beyond)

    def pairs(self) -> Pairs:
        """The pairs of the list."""
        if self.list is None:
            raise ConfigError("dataset.list has no value: set it to a text file with a picture and a map on each line")
        path = Path(self.list).expanduser()
        found = read_pairs(path, path.parent if self.root is None else self.home)
        if self.png_unit is None and any(pair.depth.suffix.lower() == ".png" for pair in found):
            raise ConfigError("dataset.png_unit has no value: say how many metres one step of the PNG maps stands for")
        return found


def read_pairs(path: Path, root: Path) -> Pairs:
    """A picture and a map on each line, by a tab or spaces, with separators of any system.

    Lines that begin with # and those whose map is None are left out.
    """
    images.check_file(path)
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{images.show(path)} is no list in UTF-8: {error}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        names = [n.strip() for n in text.split("\t")] if "\t" in text else text.split()
        if len(names) < 2:
            raise InputError(f"{images.show(path)}:{number}: expected a picture and a map, got {text[:80]!r}")
        if names[1] != "None":
            found.append(Pair(*(root / name.replace("\\", "/").lstrip("/") for name in names[:2])))
    if not found:
        raise InputError(f"{images.show(path)} names no pair; write a picture and a map on each line")
    return found


def measured_of(dataset: Any, source: Path) -> Measured:
    """What a data set knows of a picture: its own map, or the truth beside it sampled at every pixel."""
    if isinstance(dataset, Paired):
        return dataset.measured(source)
    panorama: Panorama = dataset.load(source)
    if panorama.truth is None:
        raise InputError(
            f"{images.show(source)} has no truth beside it (.world.json, _distance.exr or .npy); use dataset=list"
        )
    distance = panorama.truth.trace(sphere.erp_rays(*panorama.size)).distance[None].float()
    valid = distance.isfinite() & (distance > 0)
    return Measured(panorama, torch.where(valid, distance, 0.0), valid)
