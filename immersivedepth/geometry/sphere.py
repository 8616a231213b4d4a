"""Equirectangular images (ERP): pixels to rays and back, sampling and filtering that wrap, solid angles.

World axes: +x forward (image centre), +y left, +z up. Pixel centres lie at (i + 0.5) / n.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import ShapeError


def latitudes(height: int) -> Tensor:  # [H], float64
    """Latitude of the pixel rows in radians, north first."""
    return math.pi * (0.5 - (torch.arange(height, dtype=torch.float64) + 0.5) / height)


def longitudes(width: int) -> Tensor:  # [W], float64
    """Longitude of the pixel columns in radians, from +pi down to -pi, since +y is left."""
    return 2 * math.pi * (0.5 - (torch.arange(width, dtype=torch.float64) + 0.5) / width)


def grid_rays(
    latitude: Tensor,
    longitude: Tensor,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:  # [H], [W] -> [H, W, 3]
    """Unit rays of a grid of latitudes and longitudes; beyond a pole they come down the other side."""
    # Trigonometry on the axes only, in double precision on the CPU: exact, quick, and right on devices without doubles.
    up, out = latitude.sin().to(device, dtype), latitude.cos().to(device, dtype)
    ahead, left = longitude.cos().to(device, dtype), longitude.sin().to(device, dtype)
    rays = torch.empty(len(up), len(left), 3, device=device, dtype=dtype)
    torch.outer(out, ahead, out=rays[..., 0])
    torch.outer(out, left, out=rays[..., 1])
    rays[..., 2] = up[:, None]
    return rays


def erp_rays(height: int, width: int, device: torch.device | str | None = None) -> Tensor:  # [H, W, 3]
    """Unit rays through the pixel centres."""
    return grid_rays(latitudes(height), longitudes(width), device)


def rays_to_erp(rays: Tensor) -> Tensor:  # [..., 3] -> [..., 2]
    """Rays of any length to (u, v) in 0..1, u to the right and v down."""
    x, y, z = rays.unbind(-1)
    u = 0.5 - torch.atan2(y, x) / (2 * math.pi)
    v = 0.5 - torch.atan2(z, torch.hypot(x, y)) / math.pi
    return torch.stack([u, v], dim=-1)


def pad_erp(image: Tensor, pad: int) -> Tensor:  # [..., H, W] -> [..., H + 2 pad, W + 2 pad]
    """Continue an image beyond its border as the sphere does: around the seam and over the poles."""
    height, width = image.shape[-2:]
    if not 0 <= pad <= min(height, width):
        raise ShapeError(f"pad_erp: expected a pad from 0 to {min(height, width)} for {width}x{height}, got {pad}")
    half = width // 2
    above = image[..., :pad, :].flip(-2).roll(half, -1)
    below = image[..., height - pad :, :].flip(-2).roll(half, -1)
    tall = torch.cat([above, image, below], dim=-2)
    return torch.cat([tall[..., width - pad :], tall, tall[..., :pad]], dim=-1)


def sample_erp(image: Tensor, uv: Tensor, mode: str = "bilinear") -> Tensor:  # [C, H, W], [..., 2] -> [..., C]
    """Look up an image around the seam and over the poles; mode is bilinear or nearest."""
    height, width = image.shape[-2:]
    padded = pad_erp(image, 1)
    size = torch.tensor([width, height], device=uv.device, dtype=uv.dtype)
    grid = ((uv * size + 1) / (size + 2) * 2 - 1).reshape(1, 1, -1, 2)
    out = F.grid_sample(padded[None], grid.to(padded.dtype), mode=mode, padding_mode="border", align_corners=False)
    return out[0, :, 0].T.reshape(*uv.shape[:-1], image.shape[0])


def resize_erp(
    image: Tensor, height: int, width: int, mode: Literal["bilinear", "nearest"] = "bilinear"
) -> Tensor:  # [C, H, W] -> [C, height, width]
    """Resize around the seam and over the poles: bilinear means the exact area average along an axis that shrinks.

    Nearest keeps any type; bilinear keeps floating types and rounds uint8.
    """
    if mode == "nearest":
        return _nearest(_nearest(image, height, -2), width, -1)
    if mode != "bilinear":
        raise ValueError(f"resize_erp: expected mode bilinear or nearest, got {mode!r}")
    out = image if image.is_floating_point() else image.float()
    if height < image.shape[-2]:
        out = _area(out, height, -2)
    if width < image.shape[-1]:
        out = _area(out, width, -1)
    if (height, width) != out.shape[-2:]:
        out = _grow(out, height, width)
    return out if image.is_floating_point() else out.round().clamp(0, 255).to(image.dtype)


def _nearest(image: Tensor, size: int, dim: int) -> Tensor:
    old = image.shape[dim]
    index = ((torch.arange(size, device=image.device) * 2 + 1) * old) // (2 * size)  # centres, in whole numbers
    return image if size == old else image.index_select(dim, index)


def _area(image: Tensor, size: int, dim: int) -> Tensor:
    """Mean over the exact interval that each new pixel covers, by a short sum over the old pixels it touches."""
    old = image.shape[dim]
    if old % size == 0:
        return image.unflatten(dim, (size, old // size)).mean(dim)  # a negative dim names the inner of the two
    edge = torch.arange(size + 1, dtype=torch.float64) * old / size
    start, end = edge[:-1], edge[1:]
    shape = [1] * image.ndim
    shape[dim] = size
    total = image.new_zeros([*image.shape[:dim], size, *image.shape[dim:][1:]])
    for step in range(math.ceil(old / size) + 1):
        pixel = start.floor() + step
        overlap = (torch.minimum(end, pixel + 1) - torch.maximum(start, pixel)).clamp_min(0) * size / old
        index = pixel.clamp_max(old - 1).long().to(image.device)
        total = total + image.index_select(dim, index) * overlap.to(image.device, image.dtype).reshape(shape)
    return total


def _grow(image: Tensor, height: int, width: int) -> Tensor:
    """Bilinear between pixel centres, along one axis and then the other."""
    tall = pad_erp(image, 1)
    return _between(_between(tall, height, -2), width, -1)


def _between(padded: Tensor, size: int, dim: int) -> Tensor:
    at = (torch.arange(size, dtype=torch.float64) + 0.5) / size * (padded.shape[dim] - 2) + 0.5
    low = at.floor()
    shape = [1] * padded.ndim
    shape[dim] = size
    share = (at - low).to(padded.device, padded.dtype).reshape(shape)
    index = low.long().to(padded.device)
    first = padded.index_select(dim, index)
    return first + (padded.index_select(dim, index + 1) - first) * share


def filter_erp(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:  # [C, H, W], [n], [m] -> [C, H, W]
    """Correlate with a separable kernel, odd sizes, around the seam and over the poles."""
    if len(rows) % 2 == 0 or len(columns) % 2 == 0:
        raise ShapeError(f"filter_erp: expected kernels of odd length, got {len(rows)} and {len(columns)}")
    pad = max(len(rows), len(columns)) // 2
    padded = pad_erp(image, pad)[:, None]
    padded = padded[..., pad - len(rows) // 2 : padded.shape[-2] - pad + len(rows) // 2, :]
    padded = padded[..., pad - len(columns) // 2 : padded.shape[-1] - pad + len(columns) // 2]
    down = F.conv2d(padded, rows.to(image)[None, None, :, None])
    return F.conv2d(down, columns.to(image)[None, None, None, :])[:, 0]


def gaussian(sigma: float) -> Tensor:  # [n]
    """Normalized Gaussian kernel for filter_erp, sigma in pixels, cut at three sigma."""
    reach = max(1, math.ceil(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2)
    return (kernel / kernel.sum()).float()


def solid_angles(height: int, width: int, device: torch.device | str | None = None) -> Tensor:  # [H, 1]
    """Exact solid angle of the pixels of each row, in steradian; all pixels together make 4 pi."""
    edge = math.pi * (0.5 - torch.arange(height + 1, dtype=torch.float64) / height)
    return ((edge[:-1].sin() - edge[1:].sin()) * 2 * math.pi / width)[:, None].float().to(device)
