"""Maps of many tasks out of the files of Omnidata, and changes of size that keep all tasks of a view together.

Values: rgb 0..1; normal 0..1, (vector + 1) / 2, about 0.502 where there is none; depth in metres, 0 where missing;
mask_valid and every other map of labels as they are; edge_texture 0..0.25.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import InputError
from . import images

DEPTH_UNIT = 1 / 512  # metres of one step
DEPTH_MISSING = 65535
LEGACY_FULL = 8000  # steps that the older loaders call 1.0; what is farther counts as that far
EMPTY_NORMAL = 128 / 255  # of a channel where nothing is known
MOST_EDGE = 0.25
_NEAR_VALUE = 1e-3  # a value within it of the mask's counts as missing
_GROW = 5  # pixels by which missing places grow
_CROP, _RESIZE = 0.4, 0.7  # of a random number in 0..1: from here a random crop, from here a resize
_RATIO, _RATIO_RESIZED = 2.0, 1.5  # longest side over the shorter one of random sizes; where the proportions change
_SHARPEN = 0.3
_POOL = 4  # pixels of the blocks in which one missing place spoils all

SMOOTH = ("rgb",)  # tasks whose values may be averaged


def read_task(path: Path, task: str) -> Tensor:  # [C, H, W]
    """The map of one file in the values above."""
    if task == "rgb":
        return images.read_image(path).image.float() / 255
    if task.startswith("depth"):
        steps = images.read_map(path, unit=1.0)
        return torch.where(steps < DEPTH_MISSING, steps * DEPTH_UNIT, 0.0)
    if task in ("normal", "principal_curvature"):
        colours = images.read_image(path).image.float() / 255
        return colours if task == "normal" else colours[:2]
    if task == "mask_valid":
        return (images.read_image(path).image[:1] > 127).float()
    if task.startswith("segment"):
        packed = images.read_image(path).image.to(torch.int64)
        return packed[:1] * 65536 + packed[1:2] * 256 + packed[2:3]
    if task.startswith("edge"):
        return (images.read_map(path, unit=1 / 65535)).clamp(max=MOST_EDGE)
    raise InputError(f"{path}: {task} is not a task that is known; see docs/systems.md")


def legacy_depth(depth: Tensor) -> Tensor:
    """Metres as the older loaders give them: 1.0 is 8000 steps, 15.6 m, and nothing is farther."""
    return (depth / DEPTH_UNIT / LEGACY_FULL).clamp(max=1.0)


def valid_of(views: Mapping[str, Tensor]) -> Tensor:  # [1, H, W], bool
    """Where a view is known: where its own mask, depth and normals, as far as it has them, all are."""
    first = next(iter(views.values()))
    valid = torch.ones(1, *first.shape[-2:], dtype=torch.bool)
    for task, value in views.items():
        if task == "mask_valid":
            valid &= value > 0.5
        elif task.startswith("depth"):
            valid &= build_mask(value, 0.0)
        elif task == "normal":
            valid &= build_mask(value, EMPTY_NORMAL)
    return valid


def build_mask(values: Tensor, missing: float) -> Tensor:  # [C, H, W] -> [1, H, W], bool
    """False where all channels hold the missing value, and up to two pixels around."""
    gone = ((values - missing).abs() <= _NEAR_VALUE).all(0, keepdim=True)
    return F.max_pool2d(gone[None].float(), _GROW, 1, _GROW // 2)[0] < 0.5


def make_valid_mask(valid: Tensor) -> Tensor:  # [1, H, W], bool
    """Blocks of four by four in which anything is missing are missing: what a network that pools may look at."""
    height, width = valid.shape[-2:]
    gone = F.max_pool2d((~valid)[None].float(), _POOL, ceil_mode=True)
    return F.interpolate(gone, scale_factor=_POOL, mode="nearest")[0, :, :height, :width] < 0.5


def resized(views: Mapping[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
    """Every task [..., C, H, W] at one size.

    Pictures by their mean, everything else by the nearest, so that no value is made up.
    """
    out = {}
    for task, value in views.items():
        flat = value.reshape(-1, *value.shape[-3:])
        if task in SMOOTH:
            small = F.interpolate(flat, size, mode="bilinear", antialias=True)
        else:
            small = F.interpolate(flat.double(), size, mode="nearest-exact").to(value.dtype)
        out[task] = small.reshape(*value.shape[:-2], *size)
    return out


def cropped(views: Mapping[str, Tensor], top: int, left: int, size: tuple[int, int]) -> dict[str, Tensor]:
    """The same window of every task."""
    return {task: value[..., top : top + size[0], left : left + size[1]] for task, value in views.items()}


def mirrored(views: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Left to right; normals then point the other way in x."""
    out = {task: value.flip(-1) for task, value in views.items()}
    if "normal" in out:
        normal = out["normal"]
        # Not the grown mask: a normal beside a hole turns as every other does.
        known = ((normal - EMPTY_NORMAL).abs() > _NEAR_VALUE).any(0, keepdim=True)
        out["normal"] = torch.cat([torch.where(known, 1 - normal[:1], normal[:1]), normal[1:]])
    return out


def drawn_size(sizes: Sequence[int], random: np.random.Generator, ratio: float) -> tuple[int, int]:
    """Height and width out of the sizes, the longer one at most `ratio` times the shorter."""
    height = int(random.choice(sizes))
    return height, int(random.choice([s for s in sizes if max(s, height) <= ratio * min(s, height)]))


def at_random_size(batch: Mapping[str, Tensor], sizes: Sequence[int], random: np.random.Generator) -> dict[str, Tensor]:
    """A batch [B, C, H, W] at one drawn size, by a crop in the middle, a random crop or a resize (40, 30, 30 %)."""
    how = random.random()
    return _brought(batch, drawn_size(sizes, random, _RATIO_RESIZED if how >= _RESIZE else _RATIO), random, how)


def fitted(
    views: Mapping[str, Tensor], size: tuple[int, int], random: np.random.Generator, training: bool
) -> dict[str, Tensor]:
    """A view at the size of the network: in training by a middle crop, a random crop or a resize (40, 30, 30 %)."""
    return _brought(views, size, random, random.random() if training else 0.0)


def _brought(
    views: Mapping[str, Tensor], size: tuple[int, int], random: np.random.Generator, how: float
) -> dict[str, Tensor]:
    height, width = next(iter(views.values())).shape[-2:]
    if how >= _RESIZE:
        return resized(views, size)
    # The largest window with the proportions that are wanted, somewhere in the view or in its middle.
    scale = min(height / size[0], width / size[1])
    window = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    room = (height - window[0], width - window[1])
    if how >= _CROP:
        window = tuple(max(1, round(w * random.uniform(0.6, 1.0))) for w in window)  # type: ignore[assignment]
        place = (int(random.integers(height - window[0] + 1)), int(random.integers(width - window[1] + 1)))
    else:
        place = (room[0] // 2, room[1] // 2)
    return resized(cropped(views, *place, window), size)


def taken(rgb: Tensor, random: np.random.Generator, chance: float = 0.7) -> Tensor:  # [3, H, W] in 0..1
    """A picture as another camera would have taken it: sharper, moved, or out of focus; often just as it is."""
    if random.random() >= chance:
        return rgb
    array = np.ascontiguousarray(rgb.movedim(0, -1).numpy())
    if random.random() < 0.5:
        soft = cv2.GaussianBlur(array, (3, 3), 0)
        array = array + _SHARPEN * (array - soft)
    if random.random() < 0.5:
        array = cv2.filter2D(array, -1, _motion(int(random.integers(3, 8)), random.uniform(0, np.pi)))
    for size, share in ((7, 0.1), (5, 0.3), (3, 0.2)):
        if random.random() < share:  # each by itself: none, one or several
            array = cv2.GaussianBlur(array, (size, size), 0)
    return torch.from_numpy(array).movedim(-1, 0).clamp(0, 1)


def _motion(length: int, angle: float) -> np.ndarray:
    """A line of that many pixels, which adds up to one."""
    side = length | 1
    kernel, middle = np.zeros((side, side), np.float32), side // 2
    for t in np.linspace(-middle, middle, 4 * side):
        kernel[round(middle + t * np.sin(angle)), round(middle + t * np.cos(angle))] = 1
    return kernel / kernel.sum()
