"""Views back to a panorama: weighted means along its rays, bilinear between the pixels of the views.

The mean is linear in the views. The first maps read through a rig walk the pieces of its footprint; when more follow
on the CPU, a sparse matrix is built and kept, which is several times faster and needs about 32 bytes for every view
of every pixel.
"""

import functools
import itertools
import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..scene import Rig
from . import footprint
from .cached import cached, rig_key, rig_of

MATRIX_BYTES = 1 << 30  # most that cached matrices from views to panoramas may hold, and
MATRIX_SHARE = 8  # no more than this fraction of the machine's memory
MATRIX_PAYS = 4  # maps read through one and the same rig until building its matrix has paid


def views_to_erp(
    values: Tensor, rig: Rig, height: int, width: int, margin: float = 0.35, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:  # [V, C, h, w], [V, 1, h, w] -> [C, H, W], [1, H, W]
    """Weighted mean of the views along each ray of a panorama, bilinear between their pixels, and the total weight.

    A view's weight falls to zero over `margin` of its half width towards its border, times `weight` where given.
    """
    if margin <= 0:
        raise ValueError(f"views_to_erp: expected a margin above 0, got {margin:g}")
    plain = values.device.type == "cpu" and values.dtype == torch.float32 and not values.requires_grad
    if plain and _matrix_bytes(rig, height, width) <= min(MATRIX_BYTES, _memory() // MATRIX_SHARE):
        uses = _uses(*rig_key(rig), height, width, margin)
        uses[0] += values.shape[1]
        if uses[0] > MATRIX_PAYS:
            return _by_matrix(values, rig, height, width, margin, weight)
    return _by_bands(values, rig, height, width, margin, weight)


def _fade(at: footprint.Sight, margin: float) -> Tensor:
    """1 in the middle of a view, falling to 0 on its border."""
    return (at.border / margin).clamp_(0, 1)


def _by_bands(
    values: Tensor, rig: Rig, height: int, width: int, margin: float, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    mean, total = values.new_zeros(values.shape[1], height, width), values.new_zeros(1, height, width)
    read = footprint.reader(values if weight is None else torch.cat([values * weight, weight], dim=1))
    rig = Rig(rig.rotation.to(values), rig.tan_half_fov.to(values), rig.resolution)
    grid = footprint.grid_of(rig, height, width)

    def add(rows: slice, pieces: tuple[footprint.Piece, ...]) -> None:
        for piece in pieces:
            at = footprint.sight(piece, grid)
            fade, maps = _fade(at, margin), read(piece.view, at, False)
            where = (slice(None), rows, piece.columns)
            mean[where] += maps[: values.shape[1]] * fade
            total[where] += fade if weight is None else maps[-1] * fade
        mean[:, rows] /= total[:, rows].clamp_min(1e-12)

    footprint.over_bands(add, rig, height, width)
    return mean, total


class Rows(NamedTuple):
    """Part of a sparse matrix by rows: panorama pixels from pixels of all views, each row's weights making 1."""

    start: NDArray[np.int32]
    pixel: NDArray[np.int32]
    share: NDArray[np.float32]


@functools.lru_cache(maxsize=64)
def _uses(*key: object) -> list[int]:
    """How many maps have been read through a rig onto a panorama, to be counted up in place."""
    return [0]


@functools.cache
def _memory() -> int:
    """Bytes of the machine's memory, where the system tells; else reckoned large."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 1 << 40


def _matrix_bytes(rig: Rig, height: int, width: int) -> int:
    """About what the matrix will hold: four neighbours for every view of a pixel, eight bytes each."""
    square = rig.tan_half_fov.double().square()
    seen = float((4 * torch.asin(square / (1 + square))).sum()) / (4 * math.pi)  # views that see a direction, mean
    wanted = len(rig) * rig.resolution**2
    return int(32 * seen * height * width) if wanted < 2**31 else MATRIX_BYTES + 1


def _by_matrix(
    values: Tensor, rig: Rig, height: int, width: int, margin: float, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    rows, fades = _matrix(*rig_key(rig), height, width, margin)
    count = values.shape[0] * values.shape[-1] ** 2
    matrices = [scipy.sparse.csr_matrix((r.share, r.pixel, r.start), shape=(len(r.start) - 1, count)) for r in rows]
    maps = values if weight is None else torch.cat([values * weight, weight], dim=1)
    flat = maps.detach().transpose(0, 1).contiguous().numpy().reshape(maps.shape[1], -1)
    out = np.empty((maps.shape[1], height * width), np.float32)
    edges = np.cumsum([0] + [len(r.start) - 1 for r in rows])

    def multiply(i: int) -> None:
        for source, target in zip(flat, out, strict=True):
            target[edges[i] : edges[i + 1]] = matrices[i] @ source

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # SciPy lets go of the interpreter lock meanwhile
        for _ in pool.map(multiply, range(len(rows))):
            pass
    mean, total = torch.from_numpy(out).unflatten(1, (height, width)), torch.from_numpy(fades.copy())
    if weight is not None:
        mean, share = mean[:-1], mean[-1:]
        mean, total = mean / share.clamp_min(1e-12), total * share
    return mean, total


@cached(MATRIX_BYTES)
def _matrix(
    rotations: bytes, tans: bytes, resolution: int, height: int, width: int, margin: float
) -> tuple[list[Rows], NDArray[np.float32]]:
    """The matrix in bands of rows, and the total of the fades at each pixel [1, H, W]."""
    rig = rig_of(rotations, tans, resolution)
    grid = footprint.grid_of(rig, height, width)
    fades = np.zeros((1, height, width), np.float32)
    parts: dict[int, Rows] = {}

    def fill(rows: slice, pieces: tuple[footprint.Piece, ...]) -> None:
        tall = rows.stop - rows.start
        met = []
        count = np.zeros(tall * width, np.int32)
        for piece in pieces:
            at = footprint.sight(piece, grid)
            fade = _fade(at, margin).numpy()
            here = fade > 0
            row, column = np.nonzero(here)
            pixel = row * width + column + piece.columns.start
            count[pixel] += 1
            met.append((piece.view, pixel, fade[here], at.x.numpy()[here], at.y.numpy()[here]))
        start = np.concatenate([[0], np.cumsum(4 * count)]).astype(np.int32)
        pixels, share = np.empty(start[-1], np.int32), np.empty(start[-1], np.float32)
        total = np.zeros(tall * width, np.float32)
        fill = start[:-1].copy()
        for view, pixel, fade, x, y in met:
            at = fill[pixel]
            fill[pixel] += 4
            total[pixel] += fade
            (left, right), (top, low) = _neighbours(x, resolution), _neighbours(y, resolution)
            for k, ((i, a), (j, b)) in enumerate(itertools.product((top, low), (left, right))):
                pixels[at + k] = (view * resolution + i) * resolution + j
                share[at + k] = a * b * fade
        share /= np.repeat(np.maximum(total, 1e-12), 4 * count)
        parts[rows.start] = Rows(start, pixels, share)
        fades[0, rows] = total.reshape(tall, width)

    footprint.over_bands(fill, rig, height, width)
    return [parts[key] for key in sorted(parts)], fades


def _neighbours(at: NDArray[np.float32], resolution: int) -> tuple[tuple[NDArray[Any], NDArray[Any]], ...]:
    """The two pixels around positions counted from the middle, with their shares; the border goes on outwards."""
    position = (at + (resolution / 2 - 0.5)).clip(0, resolution - 1)
    low = np.minimum(position.astype(np.int32), resolution - 2)
    part = position - low
    return (low, 1 - part), (low + 1, part)
