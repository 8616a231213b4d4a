"""Which panorama pixels each view sees, in pieces that stay small, and where in the view they lie.

The panorama is walked in bands of rows; within a band each view is met in the columns that it sees and no others.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..scene import Rig
from . import sphere

BAND_PIXELS = 1 << 16  # of a band on the CPU: what is worked on stays in the cache of a core
BAND_BYTES = 1 << 30  # of a full band on other devices, where few large steps are the quick way
CACHE_PATIENCE = 16  # bytes per panorama pixel and view that a step on those devices is reckoned to hold


class Piece(NamedTuple):
    """A rectangle of panorama pixels of which one view sees at least some."""

    view: int
    rows: slice
    columns: slice


class Sight(NamedTuple):
    """Where the pixels of a piece lie in their view."""

    x: Tensor  # [r, c], -1 at the left border of the view, 1 at the right
    y: Tensor  # [r, c], -1 at the top, 1 at the bottom
    cosine: Tensor  # [r, c], of the angle to the axis: depth / distance
    inside: Tensor  # [r, c], bool


def bands(rig: Rig, height: int, width: int) -> Iterator[tuple[slice, list[Piece]]]:
    """Bands of rows from north to south, each with the pieces of the views that see it, in the order of views."""
    if rig.rotation.device.type == "cpu":
        tall = max(1, BAND_PIXELS // width)
    else:
        tall = max(1, BAND_BYTES // (CACHE_PATIENCE * width * len(rig)))
    spans = row_spans(rig, height, width)
    for start in range(0, height, tall):
        rows = slice(start, min(start + tall, height))
        found = []
        for view, span in enumerate(spans[:, rows]):
            sees = span[:, 1] > span[:, 0]
            if not sees.any():
                continue
            first, last = int(span[sees, 0].min()), int(span[sees, 1].max())
            if last - first >= width:
                found.append(Piece(view, rows, slice(0, width)))
                continue
            for left in (-width, 0, width):  # spans may reach around the seam on either side
                begin, end = max(first, left), min(last, left + width)
                if begin < end:
                    found.append(Piece(view, rows, slice(begin - left, end - left)))
        yield rows, found


def row_spans(rig: Rig, height: int, width: int) -> NDArray[np.int64]:  # [V, H, 2]
    """First column and one past the last that each view sees in each row, -W to 2 W; equal where it sees nothing.

    A view is where four half-spaces through its borders meet. Each cuts a row's circle at two longitudes at most,
    and the row's span ends at those of the eight that the other three half-spaces contain.
    """
    rotation = rig.rotation.detach().cpu().double().numpy()
    tan = rig.tan_half_fov.detach().cpu().double().numpy()[:, None]
    right, down, forward = rotation[..., 0], rotation[..., 1], rotation[..., 2]
    sides = np.stack([right, -right, down, -down], axis=1) + forward[:, None] * tan[:, None]  # [V, 4, 3] inwards
    sides /= np.linalg.norm(sides, axis=-1, keepdims=True)
    latitude = sphere.latitudes(height).numpy()
    out, up = np.cos(latitude)[:, None], np.sin(latitude)[:, None]
    spans = np.zeros((len(rig), height, 2), np.int64)
    for v, planes in enumerate(sides):
        centre = math.atan2(forward[v, 1], forward[v, 0])

        def holds(longitude: NDArray[np.float64], planes: NDArray[np.float64] = planes) -> NDArray[np.bool_]:
            rays = np.stack([out * np.cos(longitude), out * np.sin(longitude), up + 0 * longitude], axis=-1)
            return (rays @ planes.T > -1e-9).all(-1)

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


class Axes(NamedTuple):
    """Cosines and sines of the rows' latitudes and the columns' longitudes."""

    out: Tensor  # [H, 1]
    up: Tensor  # [H, 1]
    ahead: Tensor  # [W]
    left: Tensor  # [W]


def axes(rig: Rig, height: int, width: int) -> Axes:
    """What `sight` needs for a panorama of that size, on the rig's device and in its type."""
    latitude, longitude = sphere.latitudes(height)[:, None], sphere.longitudes(width)
    return Axes(*(t.to(rig.rotation) for t in (latitude.cos(), latitude.sin(), longitude.cos(), longitude.sin())))


def sight(piece: Piece, rig: Rig, grid: Axes) -> Sight:
    """Where the pixels of a piece lie in their view."""
    out, up = grid.out[piece.rows], grid.up[piece.rows]
    ahead, left = grid.ahead[piece.columns], grid.left[piece.columns]
    # [3, r, c]: along right, down and forward; each a product of a row and a column, plus a row
    turn = rig.rotation[piece.view]
    across = turn[0, :, None] * ahead + turn[1, :, None] * left  # [3, c]
    x, y, cosine = torch.addcmul((turn[2, :, None] * up[:, 0])[:, :, None], out, across[:, None])
    scale = 1 / (cosine * rig.tan_half_fov[piece.view]).clamp_min_(1e-9)
    x, y = x * scale, y * scale
    return Sight(x, y, cosine, (torch.maximum(x.abs(), y.abs()) <= 1) & (cosine > 0))


def reader(maps: Tensor) -> Callable[[int, Sight, bool], Tensor]:  # of [V, C, h, w]
    """A function that reads the maps of a view, [C, r, c], where a sight says: between pixels or at the nearest.

    Beyond the centres of the border pixels the border goes on.
    """
    if maps.device.type != "cpu" or maps.dtype != torch.float32 or maps.requires_grad or not remap_is_exact():

        def sample(view: int, at: Sight, nearest: bool = False) -> Tensor:
            grid = torch.stack([at.x, at.y], dim=-1).clamp(-2, 2)[None]
            mode = "nearest" if nearest else "bilinear"
            return F.grid_sample(maps[view, None], grid, mode=mode, padding_mode="border", align_corners=False)[0]

        return sample
    resolution = maps.shape[-1]
    grouped = [group.permute(0, 2, 3, 1).contiguous().numpy() for group in maps.split(4, dim=1)]

    def remap(view: int, at: Sight, nearest: bool = False) -> Tensor:
        x, y = (((t + 1) * (resolution / 2)).sub_(0.5).clamp_(-1, resolution).numpy() for t in (at.x, at.y))
        how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
        read = [cv2.remap(group[view], x, y, how, borderMode=cv2.BORDER_REPLICATE) for group in grouped]
        return torch.cat([torch.from_numpy(part.reshape(*x.shape, -1)).permute(2, 0, 1) for part in read])

    return remap


@functools.cache
def remap_is_exact() -> bool:
    """Whether this OpenCV reads between pixels exactly; before 4.12 it rounded positions to 1/32 pixel."""
    ramp = np.arange(16, dtype=np.float32).repeat(4).reshape(16, 4).T.copy()
    at = np.full((4, 16), 7 + 1 / 128, np.float32)
    return bool(abs(cv2.remap(ramp, at, np.ones_like(at), cv2.INTER_LINEAR)[0, 0] - at[0, 0]) < 1e-6)
