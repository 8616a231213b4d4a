"""Which panorama pixels each view sees, in pieces that stay small, and where in the view they lie.

The panorama is walked in bands of rows; within a band each view is met in the columns that it sees and no others.
"""

import functools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..scene import Rig
from . import sphere
from .cached import key_of

BAND_PIXELS = 1 << 15  # of a band on the CPU: small enough for a core's cache, and torch does not divide it further
BAND_BYTES = 1 << 30  # of a band on other devices, where few large steps are the quick way
STEP_BYTES = 64  # that a step on those devices is reckoned to hold for each pixel of a view's piece
FLAT = 1e-3  # least cosine: no view is so wide that it sees rays this close to a right angle from its axis


class Piece(NamedTuple):
    """A rectangle of panorama pixels of which one view sees at least some."""

    view: int
    rows: slice
    columns: slice


class Sight(NamedTuple):
    """Where the pixels of a piece lie in their view."""

    x: Tensor  # [r, c], pixels to the right of the middle of the view
    y: Tensor  # [r, c], pixels below the middle
    cosine: Tensor  # [r, c], of the angle to the axis: depth / distance; not below FLAT
    border: Tensor  # [r, c], 1 in the middle of the view, 0 on its border, below 0 where the view does not see


Band = tuple[slice, tuple[Piece, ...]]


def bands(rig: Rig, height: int, width: int) -> tuple[Band, ...]:
    """Bands of rows from north to south, each with the pieces of the views that see it, in the order of views."""
    if rig.rotation.device.type == "cpu":
        tall = max(1, BAND_PIXELS // width)
    else:
        tall = max(1, BAND_BYTES // (STEP_BYTES * width * len(rig)))
    return _bands(key_of(rig.rotation.double()), key_of(rig.tan_half_fov.double()), height, width, tall)


@functools.lru_cache(maxsize=16)
def _bands(rotations: bytes, tans: bytes, height: int, width: int, tall: int) -> tuple[Band, ...]:
    spans = row_spans(np.frombuffer(rotations).reshape(-1, 3, 3), np.frombuffer(tans), height, width)
    starts = np.arange(0, height, tall)
    sees = spans[..., 1] > spans[..., 0]
    first = np.minimum.reduceat(np.where(sees, spans[..., 0], 2 * width), starts, axis=1).tolist()  # [V, bands]
    last = np.maximum.reduceat(np.where(sees, spans[..., 1], -width), starts, axis=1).tolist()
    found: list[Band] = []
    for i, start in enumerate(starts.tolist()):
        rows = slice(start, min(start + tall, height))
        pieces = []
        for view in range(len(spans)):
            begin, end = first[view][i], last[view][i]
            if end - begin >= width:
                begin, end = 0, width
            for left in (-width, 0, width):  # spans may reach around the seam on either side
                part = slice(max(begin - left, 0), min(end - left, width))
                if part.start < part.stop:
                    pieces.append(Piece(view, rows, part))
        found.append((rows, tuple(pieces)))
    return tuple(found)


def over_bands(work: Callable[[slice, tuple[Piece, ...]], None], rig: Rig, height: int, width: int) -> None:
    """Do the work for every band: on the CPU as many at once as torch has threads, since each stays on one."""
    threads = torch.get_num_threads() if rig.rotation.device.type == "cpu" else 1
    if threads == 1:
        for band in bands(rig, height, width):
            work(*band)
        return
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()  # both are each thread's own

    def in_thread(band: Band) -> None:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            work(*band)

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(in_thread, bands(rig, height, width)):  # raises what a worker raised
            pass


def row_spans(
    rotation: NDArray[np.float64], tan_half_fov: NDArray[np.float64], height: int, width: int
) -> NDArray[np.int64]:  # [V, H, 2]
    """First column and one past the last that each view sees in each row, -W to 2 W; equal where it sees nothing.

    A view is where four half-spaces through its borders meet. Each cuts a row's circle at two longitudes at most,
    and the row's span ends at those of the eight that the other three half-spaces contain.
    """
    right, down, forward = rotation[..., 0], rotation[..., 1], rotation[..., 2]
    sides = (
        np.stack([right, -right, down, -down], axis=1) + forward[:, None] * tan_half_fov[:, None, None]
    )  # [V, 4, 3] inwards
    sides /= np.linalg.norm(sides, axis=-1, keepdims=True)
    latitude = sphere.latitudes(height).numpy()
    out, up = np.cos(latitude)[:, None], np.sin(latitude)[:, None]
    spans = np.zeros((len(rotation), height, 2), np.int64)
    for v, planes in enumerate(sides):
        centre = math.atan2(forward[v, 1], forward[v, 0])

        def holds(longitude: NDArray[np.float64], planes: NDArray[np.float64] = planes) -> NDArray[np.bool_]:
            rays = np.stack([out * np.cos(longitude), out * np.sin(longitude), up + 0 * longitude], axis=-1)
            return np.asarray((rays @ planes.T > -1e-9).all(-1))

        reach = np.hypot(planes[:, 0], planes[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            half = np.arccos(-planes[:, 2] * up / (reach * out))  # nan where the whole circle is on one side
        middle = np.arctan2(planes[:, 1], planes[:, 0])
        ends = np.concatenate([middle + half, middle - half], axis=1)  # [H, 8]
        relative = (ends - centre + math.pi) % (2 * math.pi) - math.pi
        met = holds(ends)
        low, high = np.where(met, relative, np.inf).min(1), np.where(met, relative, -np.inf).max(1)
        axis = np.array([centre, centre + math.pi])
        ahead, behind = holds(np.broadcast_to(axis, (height, 2))).T
        whole = behind | (ahead & ~met.any(1))
        # Columns run against longitude. One more on either side forgives rounding.
        first = np.floor((0.5 - (centre + high) / (2 * math.pi)) * width - 0.5) - 1
        last = np.ceil((0.5 - (centre + low) / (2 * math.pi)) * width - 0.5) + 2
        some = met.any(1) & ~whole
        spans[v, some, 0], spans[v, some, 1] = first[some], last[some]
        spans[v, whole] = 0, width
    return spans


class Grid(NamedTuple):
    """What `sight` needs of a rig and a panorama, computed once."""

    turn: Tensor  # [V, 3, 3], columns right, down (both in pixels at depth one) and forward
    out: Tensor  # [H], cosine of the latitudes
    up: Tensor  # [H], sine of the latitudes
    ahead: Tensor  # [W], cosine of the longitudes
    left: Tensor  # [W], sine of the longitudes
    half: float  # half the side of a view in pixels


def grid_of(rig: Rig, height: int, width: int) -> Grid:
    """The grid of a panorama of that size, on the rig's device and in its type."""
    latitude, longitude = sphere.latitudes(height), sphere.longitudes(width)
    out, up = latitude.cos().to(rig.rotation), latitude.sin().to(rig.rotation)
    ahead, left = longitude.cos().to(rig.rotation), longitude.sin().to(rig.rotation)
    half = rig.resolution / 2
    scale = (half / rig.tan_half_fov)[:, None, None]
    turn = torch.cat([rig.rotation[:, :, :2] * scale, rig.rotation[:, :, 2:]], dim=2)
    return Grid(turn, out, up, ahead, left, half)


def sight(piece: Piece, grid: Grid) -> Sight:
    """Where the pixels of a piece lie in their view."""
    turn, out, up = grid.turn[piece.view], grid.out[piece.rows], grid.up[piece.rows]
    ahead, left = grid.ahead[piece.columns], grid.left[piece.columns]
    if turn.device.type == "cpu":
        there = _sight(turn.numpy(), out.numpy(), up.numpy(), ahead.numpy(), left.numpy(), grid.half)
        return Sight(*map(torch.from_numpy, there))
    across = turn[0, :, None] * ahead + turn[1, :, None] * left  # [3, c]
    along = turn[2, :, None] * up  # [3, r]
    x, y, cosine = torch.addcmul(along[:, :, None], out[:, None], across[:, None])
    scale = cosine.clamp_min_(FLAT).reciprocal()
    x, y = x * scale, y * scale
    return Sight(x, y, cosine, 1 - torch.maximum(x.abs(), y.abs()) / grid.half)


def _sight(
    turn: NDArray[Any], out: NDArray[Any], up: NDArray[Any], ahead: NDArray[Any], left: NDArray[Any], half: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The same in place: for pieces this small, starting a step of torch takes longer than doing it."""
    across = turn[0, :, None] * ahead + turn[1, :, None] * left
    along = turn[2, :, None] * up
    axes = np.multiply(out[:, None], across[:, None])
    axes += along[:, :, None]
    x, y, cosine = axes
    np.maximum(cosine, FLAT, out=cosine)
    scale = np.reciprocal(cosine)
    x *= scale
    y *= scale
    border = np.maximum(np.abs(x), np.abs(y, out=scale), out=scale)
    border *= -1 / half
    border += 1
    return x, y, cosine, border


Read = Callable[[int, Sight, bool], Tensor]


def reader(maps: Tensor) -> Read:  # of [V, C, h, w]
    """A function that reads the maps of a view, [C, r, c], where a sight says: between pixels or at the nearest.

    Beyond the centres of the border pixels the border goes on.
    """
    half = maps.shape[-1] / 2
    if maps.device.type != "cpu" or maps.dtype != torch.float32 or maps.requires_grad or not remap_is_exact():

        def sample(view: int, at: Sight, nearest: bool = False) -> Tensor:
            grid = torch.stack([at.x, at.y], dim=-1).div_(half).clamp_(-2, 2)[None]
            mode = "nearest" if nearest else "bilinear"
            return F.grid_sample(maps[view, None], grid, mode=mode, padding_mode="border", align_corners=False)[0]

        return sample
    arrays = maps.contiguous().numpy()

    def remap(view: int, at: Sight, nearest: bool = False) -> Tensor:
        x, y = (at.x + (half - 0.5)).numpy(), (at.y + (half - 0.5)).numpy()
        how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
        out = np.empty((len(arrays[view]), *x.shape), np.float32)
        for source, target in zip(arrays[view], out, strict=True):
            cv2.remap(source, x, y, how, dst=target, borderMode=cv2.BORDER_REPLICATE)
        return torch.from_numpy(out)

    return remap


@functools.cache
def remap_is_exact() -> bool:
    """Whether this OpenCV reads between pixels exactly; before 4.12 it rounded positions to 1/32 pixel."""
    ramp = np.arange(16, dtype=np.float32).repeat(4).reshape(16, 4).T.copy()
    at = np.full((4, 16), 7 + 1 / 128, np.float32)
    return bool(abs(cv2.remap(ramp, at, np.ones_like(at), cv2.INTER_LINEAR)[0, 0] - at[0, 0]) < 1e-6)
