"""MODEST Museum: foregrounds pasted on backgrounds, with mask and depth, in its layout.

bg/bg001.jpeg, fg/fg001.png (RGBA), fg_mask/fg001_mask.png, bg_fg/bg001_fg001_01.jpeg, bg_fg_mask/..._mask.jpeg,
bg_fg_depth_map/..._depth_map.jpeg; file_map.txt lists background, picture, mask and depth without suffixes, bbox.txt
the box of each foreground; both are separated by tabs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import ConfigError, InputError, Range
from . import images
from .samples import Batch

Split = Literal["train", "val", "test"]
# Of the real data, RGB in 0..1.
BACKGROUND_NORM = ((0.53281, 0.46599, 0.40086), (0.23615, 0.24249, 0.25451))
PICTURE_NORM = ((0.53431, 0.47368, 0.41221), (0.24217, 0.24577, 0.25699))
_FOLDERS = ("bg", "bg_fg", "bg_fg_mask", "bg_fg_depth_map")
_HUE, _SATURATION, _VALUE = 20, 30, 20  # largest shifts, in OpenCV's units of 8 bits (hue: 2 degrees)
_BRIGHTNESS = _CONTRAST = 0.2
_CHANCE = 0.5  # of each of the two augmentations
_NUMBERS = re.compile(r"bg(\d+)_fg(\d+)_\d+")


@dataclass(frozen=True)
class Scene:
    """One pasted picture and what belongs to it."""

    background: Path
    picture: Path
    mask: Path
    depth: Path

    @property
    def numbers(self) -> tuple[int, int]:
        """Of background and foreground."""
        match = _NUMBERS.fullmatch(self.picture.stem)
        if match is None:
            raise InputError(f"{self.picture}: expected a name such as bg001_fg001_01.jpeg")
        return int(match[1]), int(match[2])


@dataclass
class Modest:
    """Where the data are and how they are divided; the fields are the keys of its YAML."""

    root: str | None = None
    size: Annotated[int, Range(32)] = 64  # pixels of a side
    train_share: Annotated[float, Range(0.01, 0.99)] = 0.7
    seed: Annotated[int, Range(0)] = 1  # of the division
    split: Literal["shuffled", "apart"] = "shuffled"
    augment: bool = False  # hue, saturation, value, brightness and contrast of training pictures
    augment_alike: bool = (
        True  # the same for background and picture; false is the original, whose pictures then disagree
    )
    # Chances of further changes of a training sample: mirrored, upside down and turned with all its maps; a part of the
    # inputs cut out, grain and blur on the inputs.
    flip: Annotated[float, Range(0, 1)] = 0.0
    flip_vertical: Annotated[float, Range(0, 1)] = 0.0
    rotation: Annotated[float, Range(0, 1)] = 0.0
    rotation_degrees: Annotated[float, Range(0, 180)] = 15.0  # at most
    cutout: Annotated[float, Range(0, 1)] = 0.0
    cutout_share: Annotated[float, Range(0.01, 1)] = 0.3  # of a side, at most
    noise: Annotated[float, Range(0, 1)] = 0.0
    blur: Annotated[float, Range(0, 1)] = 0.0
    background: str | None = None  # of one's own, for mode=predict: the empty background
    picture: str | None = None  # and the same view with something in front

    def samples(self, split: Split) -> Scenes | None:
        """The scenes of a part.

        shuffled: drawn from all, as in the original, so that validation knows every background and foreground.
        apart: the last backgrounds and foregrounds are kept for validation; pictures that mix old and new are left out.
        """
        scenes = self.scenes
        if self.split == "shuffled":
            order = np.random.default_rng([self.seed, len(scenes)]).permutation(len(scenes))
            cut = round(self.train_share * len(scenes))
            chosen = [scenes[i] for i in (order[:cut] if split == "train" else order[cut:])]
        else:
            numbers = np.array([scene.numbers for scene in scenes])
            old = numbers <= np.quantile(numbers, self.train_share, axis=0, method="lower")
            keep = old.all(1) if split == "train" else (~old).all(1)
            chosen = [scene for scene, yes in zip(scenes, keep, strict=True) if yes]
        return Scenes(self, chosen, split == "train") if chosen else None

    @cached_property
    def scenes(self) -> list[Scene]:
        """Every line of file_map.txt."""
        if self.root is None:
            raise ConfigError("dataset.root has no value: set it to the folder that holds MODEST's file_map.txt")
        root = Path(self.root).expanduser()
        path = root / "file_map.txt"
        if not path.is_file():
            raise InputError(f"{path} does not exist; set dataset.root to the folder that holds it")
        found = []
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            names = line.split("\t")
            if line.strip() and len(names) != len(_FOLDERS):
                raise InputError(f"{path}:{number}: expected four names between tabs, got {line[:80]!r}")
            if line.strip():
                found.append(Scene(*(root / f / f"{n.strip()}.jpeg" for f, n in zip(_FOLDERS, names, strict=True))))
        return found


def read_boxes(path: Path) -> dict[str, tuple[int, int, int, int]]:
    """The box of the foreground in each picture: left, top, width, height, in pixels of 224."""
    boxes = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if line.strip():
            name, *values = line.split("\t")
            if len(values) != 4:
                raise InputError(f"{path}:{number}: expected a name and four numbers between tabs, got {line[:80]!r}")
            left, top, width, height = (int(v) for v in values)
            boxes[name] = (left, top, width, height)
    return boxes


@dataclass
class Scenes:
    """background, picture [3, s, s] normalised; mask, depth [1, s, s] in 0..1."""

    data: Modest
    scenes: list[Scene]
    training: bool

    def __len__(self) -> int:
        return len(self.scenes)

    def sample(self, index: int, random: np.random.Generator) -> Batch:
        """One picture."""
        scene, data = self.scenes[index], self.data
        maps = [images.read_image(getattr(scene, name)).image for name in ("background", "picture", "mask", "depth")]
        if self.training:
            maps = turned(maps, random, data)
        pair = maps[:2]
        if self.training:
            pair = spoilt(pair, random, data)
        if self.training and data.augment:
            pair = coloured(pair, random, data.augment_alike)
        batch = arranged(pair[0], pair[1], data.size)
        for name, value in zip(("mask", "depth"), maps[2:], strict=True):
            grey = value[:1].float() / 255
            batch[name] = F.interpolate(grey[None], (data.size, data.size), mode="bilinear", antialias=True)[0]
        return batch


def arranged(background: Tensor, picture: Tensor, size: int) -> Batch:  # uint8 [3, h, w] each
    """Two pictures as the networks read them: normalised, then resized."""
    out = {}
    pairs = (("background", background, BACKGROUND_NORM), ("picture", picture, PICTURE_NORM))
    for name, image, (mean, std) in pairs:
        x = (image.float() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        out[name] = F.interpolate(x[None], (size, size), mode="bilinear", antialias=True)[0]
    return out


def turned(maps: list[Tensor], random: np.random.Generator, data: Modest) -> list[Tensor]:  # uint8 [C, h, w] each
    """Mirrored, upside down and turned as the chances have it, all maps alike; corners are filled by reflection."""
    for chance, axis in ((data.flip, -1), (data.flip_vertical, -2)):
        if chance and random.random() < chance:
            maps = [m.flip(axis) for m in maps]
    if data.rotation and random.random() < data.rotation:
        angle = random.uniform(-data.rotation_degrees, data.rotation_degrees)
        maps = [_rotated(m, angle) for m in maps]
    return maps


def _rotated(picture: Tensor, degrees: float) -> Tensor:
    height, width = picture.shape[-2:]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    array = np.ascontiguousarray(picture.movedim(0, -1).numpy())
    out = cv2.warpAffine(array, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    return torch.from_numpy(out.reshape(height, width, -1)).movedim(-1, 0)


def spoilt(pictures: list[Tensor], random: np.random.Generator, data: Modest) -> list[Tensor]:
    """Blurred, cut out and grainy as the chances have it; with augment_alike the same in both but for the grain."""
    if not (data.blur or data.cutout or data.noise):
        return pictures
    seeds = random.integers(2**32, size=len(pictures))
    out = []
    for number, (picture, norm) in enumerate(zip(pictures, (BACKGROUND_NORM, PICTURE_NORM), strict=True)):
        draw = np.random.default_rng(seeds[0 if data.augment_alike else number])
        out.append(_spoilt(picture, draw, np.random.default_rng(seeds[number]), data, norm[0]))
    return out


def _spoilt(
    picture: Tensor, draw: np.random.Generator, grain: np.random.Generator, data: Modest, fill: tuple[float, ...]
) -> Tensor:
    array = np.ascontiguousarray(picture.movedim(0, -1).numpy())
    chances, size = draw.random(3), int(draw.choice((3, 5, 7)))
    place, strength = draw.random(4), draw.random(2)
    if chances[0] < data.blur:
        array = cv2.GaussianBlur(array, (size, size), 0)
    if chances[1] < data.cutout:
        side = np.array(array.shape[:2])
        hole = np.maximum(1, np.rint(place[:2] * data.cutout_share * side)).astype(int)
        top, left = (place[2:] * (side - hole + 1)).astype(int)
        array = array.copy()
        array[top : top + hole[0], left : left + hole[1]] = np.rint(255 * np.array(fill)).astype(np.uint8)
    if chances[2] < data.noise:
        array = _grainy(array, grain, 0.01 + 0.04 * strength[0], 0.1 + 0.4 * strength[1])
    return torch.from_numpy(array).movedim(-1, 0)


def _grainy(array: np.ndarray, grain: np.random.Generator, colour: float, light: float) -> np.ndarray:
    """As of a camera at high sensitivity: grains of light by their number, and hues that stray."""
    hls = cv2.cvtColor(array.astype(np.float32) / 255, cv2.COLOR_RGB2HLS)
    shape = hls.shape[:2]
    grains = grain.poisson(float(hls[..., 1].std()) * light * 255, shape) / 255
    hls[..., 0] = (hls[..., 0] + grain.normal(0, 360 * colour * light, shape)) % 360
    hls[..., 1] += grains * (1 - hls[..., 1])
    return np.rint(cv2.cvtColor(hls, cv2.COLOR_HLS2RGB).clip(0, 1) * 255).astype(np.uint8)


def coloured(pictures: list[Tensor], random: np.random.Generator, alike: bool) -> list[Tensor]:
    """Hue, saturation and value shifted, brightness and contrast changed; the geometry stays."""
    draws = random.random((1 if alike else len(pictures), 7))
    return [_coloured(p, draws[i % len(draws)]) for i, p in enumerate(pictures)]


def _coloured(picture: Tensor, draw: np.ndarray) -> Tensor:
    array = np.ascontiguousarray(picture.movedim(0, -1).numpy())
    if draw[0] < _CHANCE:
        hsv = cv2.cvtColor(array, cv2.COLOR_RGB2HSV).astype(np.int16)
        hue, saturation, value = np.rint((2 * draw[1:4] - 1) * (_HUE, _SATURATION, _VALUE)).astype(int)
        hsv[..., 0] = (hsv[..., 0] + hue) % 180
        hsv[..., 1:] = (hsv[..., 1:] + (saturation, value)).clip(0, 255)
        array = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
    if draw[4] < _CHANCE:
        gain = 1 + (2 * draw[5] - 1) * _CONTRAST
        offset = 255 * (2 * draw[6] - 1) * _BRIGHTNESS
        array = np.rint((array * gain + offset).clip(0, 255)).astype(np.uint8)
    return torch.from_numpy(array).movedim(-1, 0)
