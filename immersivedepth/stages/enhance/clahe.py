"""Contrast-limited adaptive histogram equalisation, with windows that are round on the sphere."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from ...checks import Range
from ...geometry import filters, sphere
from ...scene import Panorama
from .colour import change_lightness

_BINS = 128
_CELLS = 4  # cells of the grid of histograms across one window
_SLAB = 256  # rows looked up at once


@dataclass
class Clahe:
    """CLAHE of the lightness; `limit` bounds the local gain in contrast as in OpenCV."""

    limit: Annotated[float, Range(1, 100)] = 2.2
    window: Annotated[float, Range(1, 180)] = 22.5  # degrees

    def __call__(self, panorama: Panorama) -> Panorama:
        """Equalise the lightness."""
        window = math.radians(self.window)
        return change_lightness(panorama, lambda lightness: equalise(lightness, self.limit, window, panorama.mask))


def equalise(value: Tensor, limit: float, window: float, known: Tensor | None = None) -> Tensor:  # [1, H, W]
    """CLAHE of values in 0..1 whose windows are Gaussians about `window` radians wide.

    Fixed tiles would put a border where the panorama was cut open and shrink to nothing at the poles; here, histograms
    of the cells of a coarse grid are blurred on the sphere, and curves made of them are read between the cells.
    """
    height, width = value.shape[-2:]
    rows = min(max(4, round(_CELLS * math.pi / window)), height)
    histogram = _histograms(value, rows, known)
    histogram = filters.blur(histogram, window / 2).clamp_min(0) + 1e-12
    share = histogram / histogram.sum(0)
    most = limit / _BINS
    excess = (share - most).clamp_min(0).sum(0)
    curve = (share.clamp_max(most) + excess / _BINS).cumsum(0)
    curve = torch.cat([torch.zeros_like(curve[:1]), curve])  # at the borders of the bins, so that 0 and 1 stay
    volume = sphere.pad_erp(curve, 1)[None, None]  # [1, 1, bins + 1, rows + 2, columns + 2]
    x = ((torch.arange(width) + 0.5) / width * 2 * rows + 1) / (2 * rows + 2) * 2 - 1
    y = ((torch.arange(height) + 0.5) / height * rows + 1) / (rows + 2) * 2 - 1
    z = (value * _BINS + 0.5) / (_BINS + 1) * 2 - 1
    out = torch.empty_like(value)
    for top in range(0, height, _SLAB):
        part = slice(top, top + _SLAB)
        here, across = torch.meshgrid(y[part].to(value), x.to(value), indexing="ij")
        grid = torch.stack([across, here, z[0, part]], dim=-1)[None, None]
        out[:, part] = F.grid_sample(volume, grid, padding_mode="border", align_corners=False)[0, 0]
    return out


def _histograms(value: Tensor, rows: int, known: Tensor | None) -> Tensor:  # [1, H, W] -> [bins, rows, 2 rows]
    """Share of the area of each cell that each bin of values has."""
    height, width = value.shape[-2:]
    row = torch.arange(height, device=value.device) * rows // height
    column = torch.arange(width, device=value.device) * (2 * rows) // width
    code = (value[0] * _BINS).long().clamp(0, _BINS - 1)
    index = (code * rows + row[:, None]) * (2 * rows) + column
    weight = sphere.solid_angles(height, width, value.device).expand(height, width)
    if known is not None:
        weight = weight * known[0]
    flat = torch.zeros(_BINS * rows * 2 * rows, device=value.device, dtype=weight.dtype)
    cells = flat.index_add(0, index.reshape(-1), weight.reshape(-1)).reshape(_BINS, rows, 2 * rows)
    area = sphere.solid_angles(rows, 2 * rows, value.device)
    return cells / area
