"""Panorama to views, as fast as the device allows, closed at the seam and over both poles.

On the CPU, uint8 goes through OpenCV's fixed-point maps and float32 through its float maps; both stay in a bounded
cache. Everything else (other devices, other types, gradients, huge panoramas) is sampled by torch where it lies.
"""

import math
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..scene import Rig
from . import pinhole, sphere
from .cached import cached, rig_key, rig_of
from .footprint import remap_is_exact

REMAP_SIDE = 32000  # OpenCV's maps and sizes are 16-bit integers
MAP_BYTES = 256 << 20  # most that cached maps may hold
SAMPLES_APART = 1.6  # panorama pixels between samples, up to which bilinear reading does not alias to speak of
HALVE_ABOVE = 4.0  # panorama pixels per view pixel from which on a halved panorama loses no detail the views hold


def erp_to_views(image: Tensor, rig: Rig, antialias: bool = True) -> Tensor:  # [C, H, W] -> [V, C, h, w]
    """What the cameras see of a panorama, in its own type.

    With antialias, a view pixel that covers several panorama pixels averages several samples.
    """
    height, width = image.shape[-2:]
    halvings, grids = _sampling(width, rig, antialias)
    if halvings:
        image = sphere.resize_erp(image, height >> halvings, 2 * (height >> halvings))
    fast = image.dtype == torch.uint8 or (image.dtype == torch.float32 and remap_is_exact())
    if not fast or image.device.type != "cpu" or image.requires_grad or max(image.shape) > REMAP_SIDE:
        return _by_sampling(image, rig, grids)
    return _by_remap(image, rig, grids)


def mask_to_views(mask: Tensor, rig: Rig) -> Tensor:  # [1, H, W] -> [V, 1, h, w], bool
    """True where everything that makes up the pixel of a view is True."""
    return erp_to_views(mask.to(torch.uint8) * 255, rig) == 255


def _sampling(width: int, rig: Rig, antialias: bool) -> tuple[int, tuple[int, ...]]:
    """How often to halve the panorama, and the side of the grid of samples that each view pixel averages."""
    if not antialias:
        return 0, (1,) * len(rig)
    pixels = [2 * tan / rig.resolution * width / (2 * math.pi) for tan in rig.tan_half_fov.tolist()]
    halvings = max(0, math.ceil(math.log2(min(pixels) / HALVE_ABOVE)))
    return halvings, tuple(max(1, math.ceil(p / 2**halvings / SAMPLES_APART)) for p in pixels)


# ---- by OpenCV on the CPU -------------------------------------------------------------------------------------------

Map = tuple[NDArray[np.generic], NDArray[np.generic]]


def _by_remap(image: Tensor, rig: Rig, grids: tuple[int, ...]) -> Tensor:
    if len(image) not in (1, 3, 4):  # OpenCV reads no more at once, and two less exactly
        parts = image.split(1 if len(image) % 3 == 2 else 3)
        return torch.cat([_by_remap(part, rig, grids) for part in parts], dim=1)
    height, width = image.shape[-2:]
    padded = _interleaved(image)
    views = np.empty((len(rig), rig.resolution, rig.resolution, len(image)), padded.dtype)
    fixed = image.dtype == torch.uint8
    size = sum((n * rig.resolution) ** 2 for n in grids) * (6 if fixed else 8)
    maps = (_all_maps if size <= MAP_BYTES else _each_map)(*rig_key(rig), grids, height, width, fixed)
    for view, n, (x, y) in zip(views, grids, maps, strict=True):
        if n == 1:
            cv2.remap(padded, x, y, cv2.INTER_LINEAR, dst=view)
        else:
            fine = cv2.remap(padded, x, y, cv2.INTER_LINEAR)
            cv2.resize(fine, view.shape[:2], dst=view, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(views).permute(0, 3, 1, 2)


def _interleaved(image: Tensor) -> NDArray[np.generic]:  # [C, H, W] -> [H + 2, W + 1, C]
    """Channels last, with a row beyond either pole and the first column again at the end, so that no sample leaves."""
    planes = image.detach().numpy()
    channels, height, width = planes.shape
    padded = np.empty((height + 2, width + 1, channels), planes.dtype)
    inner = padded[1:-1, :-1]
    if channels > 1 and all(plane.flags.c_contiguous for plane in planes):
        cv2.merge(list(planes), dst=inner)
    else:
        inner[...] = planes.transpose(1, 2, 0)
    padded[0, :-1] = np.roll(inner[0], width // 2, axis=0)
    padded[-1, :-1] = np.roll(inner[-1], width // 2, axis=0)
    padded[:, -1] = padded[:, 0]
    return padded


@cached(MAP_BYTES)
def _all_maps(
    rotations: bytes, tans: bytes, resolution: int, grids: tuple[int, ...], height: int, width: int, fixed: bool
) -> list[Map]:
    """The maps of all views, in one piece of memory, which large pages serve far sooner than many small pieces."""
    sides = [n * resolution for n in grids]
    ends = np.cumsum([side * side for side in sides])
    first = np.empty((ends[-1], 2), np.int16) if fixed else np.empty(ends[-1], np.float32)
    second = np.empty(ends[-1], np.uint16 if fixed else np.float32)
    maps: list[Map] = []
    positions = _each_position(rotations, tans, resolution, grids, height, width)
    for side, end, (x, y) in zip(sides, ends, positions, strict=True):
        part = slice(end - side * side, end)
        a, b = first[part].reshape(side, side, *first.shape[1:]), second[part].reshape(side, side)
        if fixed:
            cv2.convertMaps(x, y, cv2.CV_16SC2, a, b)
        else:
            a[...], b[...] = x, y
        maps.append((a, b))
    return maps


def _each_map(*key: Any) -> Iterator[Map]:
    """The same one after the other, for maps too large to keep."""
    *camera, fixed = key
    for x, y in _each_position(*camera):
        yield cv2.convertMaps(x, y, cv2.CV_16SC2) if fixed else (x, y)


def _each_position(
    rotations: bytes, tans: bytes, resolution: int, grids: tuple[int, ...], height: int, width: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Column and row in the padded panorama of the pixels of each view; the arrays are used again for the next view.

    Views with a level horizon that look equally far up or down are one map, shifted around and mirrored: of the
    icosahedron's twenty views only two need trigonometry, and of these only the left half.
    """
    bases: dict[tuple[float, float, int], tuple[NDArray[np.float32], NDArray[np.float32], float]] = {}
    buffers: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    per_radian = np.float32(width / (2 * math.pi)), np.float32(height / math.pi)
    rig = rig_of(rotations, tans, resolution)
    for v, (turn, tan, n) in enumerate(zip(rig.rotation.tolist(), rig.tan_half_fov.tolist(), grids, strict=True)):
        (right_x, _, _), (right_y, _, _), (right_z, down_z, ahead_z) = turn
        side = n * resolution
        if abs(right_z) < 1e-6 and down_z < 1e-6:
            pitch, yaw = math.atan2(ahead_z, -down_z), math.atan2(right_x, -right_y)
            base = (round(abs(pitch), 6), tan, side)
            if base not in bases:
                # In pixels to the right of the axis, with the farthest of them, and above the horizon.
                right, up = _level_view(abs(pitch), tan, side)
                right *= per_radian[0]
                up *= per_radian[1]
                bases[base] = right, up, float(np.abs(right).max())
            right, up, reach = bases[base]
            right, up = (right, up) if pitch >= 0 else (right[::-1], -up[::-1])
        else:
            rays = pinhole.view_rays(rig.rotation[v : v + 1], rig.tan_half_fov[v : v + 1], side)[0].numpy()
            angles = _angles(rays[..., 0], -rays[..., 1], rays[..., 2])
            right, up = (angle * scale for angle, scale in zip(angles, per_radian, strict=True))
            reach, yaw = width / 2, 0.0
        # The columns run from 0 to W, so that the repeated column serves the seam; a whole turn keeps them positive.
        axis = width * ((0.5 - yaw / (2 * math.pi)) % 1) - 0.5
        axis += width * (axis < reach)
        x, y = buffers.setdefault(side, (np.empty((side, side), np.float32), np.empty((side, side), np.float32)))
        np.add(right, np.float32(axis), out=x)
        if axis + reach >= width:
            x -= (x >= width) * np.float32(width)
            np.maximum(x, 0, out=x)
        np.subtract(np.float32(0.5 * height + 0.5), up, out=y)
        yield x, y


def _level_view(pitch: float, tan: float, side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Longitude to the right of the axis, and latitude, of the pixels [h, w] of a view without roll."""
    t = ((np.arange(side) + 0.5) / side * 2 - 1) * tan
    right = np.abs(t[: (side + 1) // 2][::-1]).astype(np.float32)  # the right half, the middle column included
    ahead = (math.cos(pitch) + t * math.sin(pitch)).astype(np.float32)[:, None]
    up = (math.sin(pitch) - t * math.cos(pitch)).astype(np.float32)[:, None]
    longitude, latitude = _angles(ahead, right, up)
    odd = side % 2
    return (
        np.concatenate([-longitude[:, odd:][:, ::-1], longitude], axis=1),
        np.concatenate([latitude[:, odd:][:, ::-1], latitude], axis=1),
    )


def _angles(
    ahead: NDArray[np.float32], right: NDArray[np.float32], up: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    # NumPy stays on one thread: this is too little work for torch to divide without waiting for its threads.
    return np.arctan2(right, ahead), np.arctan2(up, np.sqrt(ahead * ahead + right * right))


# ---- by torch where the image lies ----------------------------------------------------------------------------------


def _by_sampling(image: Tensor, rig: Rig, grids: tuple[int, ...]) -> Tensor:
    source = image if image.is_floating_point() else image.float()
    views = []
    for v, n in enumerate(grids):
        rotation, tan = rig.rotation[v : v + 1].to(source), rig.tan_half_fov[v : v + 1].to(source)
        rays = pinhole.view_rays(rotation, tan, n * rig.resolution)[0]
        view = sphere.sample_erp(source, sphere.rays_to_erp(rays)).permute(2, 0, 1)
        view = F.avg_pool2d(view, n) if n > 1 else view
        views.append(view if image.is_floating_point() else view.round().clamp(0, 255).to(image.dtype))
    return torch.stack(views)
