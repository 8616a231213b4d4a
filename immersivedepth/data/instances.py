"""Instances out of Omnidata's segment_instance pictures: boxes, classes and masks, drawn over the picture.

Red is the class, green * 256 + blue the instance; 255 in a channel means nothing there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ..checks import InputError
from ..visual.colours import Picture
from ..visual.lettering import overlay
from . import images
from .transforms import read_task

_NOTHING = 255


@dataclass(frozen=True)
class Instances:
    """N instances, ordered by class, then by number."""

    boxes: Tensor  # [N, 4], int64: x1, y1, x2, y2; the last two are no longer inside
    classes: Tensor  # [N], int64
    numbers: Tensor  # [N], int64: which one of its class
    masks: Tensor  # [N, H, W], bool

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def labels(self) -> Tensor:  # [H, W], int64
        """0 where there is no instance, else 1 + its place."""
        place = torch.arange(1, len(self) + 1).view(-1, 1, 1)
        return (self.masks * place).sum(0)


def decode(packed: Tensor) -> Instances:  # [1, H, W], int64: R * 65536 + G * 256 + B, as `read_task` gives it
    """Every instance that has a class and a number."""
    red, green, blue = (
        torch.where(c == _NOTHING, 0, c) for c in (packed[0] >> 16, packed[0] >> 8 & 255, packed[0] & 255)
    )
    number = green * 256 + blue
    key = torch.where((red > 0) & (number > 0), red * 65536 + number, 0)
    found = key.unique()
    found = found[found > 0]
    masks = key == found.view(-1, 1, 1)
    boxes = torch.tensor([_box(mask) for mask in masks], dtype=torch.int64).reshape(-1, 4)
    return Instances(boxes, found >> 16, found & 65535, masks)


def read_instances(path: str | Path) -> Instances:
    """The instances of one file."""
    return decode(read_task(Path(path), "segment_instance"))


def drawn(picture: Picture, instances: Instances, classes: Sequence[str] = (), scale: int = 2) -> Picture:
    """Every instance in a colour of its own, half through, with its box and <class>_<number>, so many times as large.

    `classes` are names by number; without one the number stands for it.
    """
    height, width = picture.shape[:2]
    if instances.masks.shape[-2:] != (height, width):
        raise InputError(
            f"expected instances of {height}x{width} pixels as the picture, got {tuple(instances.masks.shape[-2:])}"
        )
    named = [classes[c] if c < len(classes) else str(c) for c in instances.classes.tolist()]
    names = [f"{name}_{number}" for name, number in zip(named, instances.numbers.tolist(), strict=True)]
    large = cv2.resize(picture, (scale * width, scale * height), interpolation=cv2.INTER_LINEAR)
    labels = instances.labels.numpy().repeat(scale, 0).repeat(scale, 1)
    return overlay(np.ascontiguousarray(large), labels, (scale * instances.boxes).tolist(), names)


def draw_file(picture: str | Path, segments: str | Path, out: str | Path, classes: Sequence[str] = ()) -> Path:
    """The same from two files to a third."""
    rgb = images.read_image(picture).image.movedim(0, -1).contiguous().numpy()
    return images.write_png(out, drawn(rgb, read_instances(segments), classes))


def _box(mask: Tensor) -> tuple[int, int, int, int]:
    columns, rows = mask.any(0).nonzero(), mask.any(1).nonzero()
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
