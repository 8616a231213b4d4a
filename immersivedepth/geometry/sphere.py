"""Equirectangular images (ERP): pixels to rays and back, sampling that wraps, solid angles.

World axes: +x forward (image centre), +y left, +z up. Pixel centres lie at (i + 0.5) / n.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def erp_rays(height: int, width: int, device: torch.device | str | None = None) -> Tensor:  # [H, W, 3]
    """Unit rays through the pixel centres."""
    row = torch.arange(height, device=device, dtype=torch.float64)
    column = torch.arange(width, device=device, dtype=torch.float64)
    latitude = math.pi * (0.5 - (row + 0.5) / height)
    longitude = 2 * math.pi * (0.5 - (column + 0.5) / width)
    lat, lon = torch.meshgrid(latitude, longitude, indexing="ij")
    return torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], dim=-1).float()


def rays_to_erp(rays: Tensor) -> Tensor:  # [..., 3] -> [..., 2]
    """Rays of any length to (u, v) in 0..1, u to the right and v down."""
    x, y, z = rays.unbind(-1)
    u = 0.5 - torch.atan2(y, x) / (2 * math.pi)
    v = 0.5 - torch.atan2(z, torch.hypot(x, y)) / math.pi
    return torch.stack([u, v], dim=-1)


def pad_erp(image: Tensor, pad: int) -> Tensor:  # [..., H, W] -> [..., H + 2 pad, W + 2 pad]
    """Continue an image beyond its border as the sphere does: around the seam and over the poles."""
    half = image.shape[-1] // 2
    above = image[..., :pad, :].flip(-2).roll(half, -1)
    below = image[..., image.shape[-2] - pad :, :].flip(-2).roll(half, -1)
    tall = torch.cat([above, image, below], dim=-2)
    return torch.cat([tall[..., tall.shape[-1] - pad :], tall, tall[..., :pad]], dim=-1)


def sample_erp(image: Tensor, uv: Tensor, mode: str = "bilinear") -> Tensor:  # [C, H, W], [..., 2] -> [..., C]
    """Look up an image around the seam and over the poles; mode is bilinear or nearest."""
    height, width = image.shape[-2:]
    padded = pad_erp(image, 1)
    size = torch.tensor([width, height], device=uv.device, dtype=uv.dtype)
    grid = ((uv * size + 1) / (size + 2) * 2 - 1).reshape(1, 1, -1, 2)
    out = F.grid_sample(padded[None], grid.to(padded.dtype), mode=mode, padding_mode="border", align_corners=False)
    return out[0, :, 0].T.reshape(*uv.shape[:-1], image.shape[0])


def solid_angles(height: int, width: int, device: torch.device | str | None = None) -> Tensor:  # [H, 1]
    """Exact solid angle of the pixels of each row, in steradian; all pixels together make 4 pi."""
    edge = math.pi * (0.5 - torch.arange(height + 1, device=device, dtype=torch.float64) / height)
    return ((edge[:-1].sin() - edge[1:].sin()) * 2 * math.pi / width)[:, None].float()
