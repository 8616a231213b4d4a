"""What cameras do to pictures, at random and for a whole batch at once: light, lens, noise, JPEG."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)
_BLOCK = 8  # pixels of a side of JPEG's blocks
# Annex K of the JPEG standard, for brightness; colour differences are quantised by the coarser half of the same table.
_QUANTA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def photographed(images: Tensor, random: np.random.Generator, strength: float = 1.0) -> Tensor:  # [B, 3, h, w]
    """Pictures in 0..1 as other cameras would have taken them; strength 0 leaves them as they are."""
    if not strength:
        return images
    x = _light(images, random, strength)
    x = _lens(x, random, strength)
    x = _sensor(x, random, strength)
    return _compressed(x.clamp(0, 1), random, strength).clamp(0, 1)


def _draw(images: Tensor, values: np.ndarray) -> Tensor:  # [B] or [B, 3] -> [B, 1 or 3, 1, 1]
    table = torch.as_tensor(values, dtype=images.dtype, device=images.device)
    return table.reshape(len(images), -1, 1, 1)


def _light(x: Tensor, random: np.random.Generator, strength: float) -> Tensor:
    """Exposure, colour of the light, gamma, saturation; some pictures are grey."""
    n = len(x)
    exposure = 2 ** (strength * random.uniform(-1.2, 0.5, n))
    cast = np.exp(strength * random.normal(0, 0.1, (n, 3)))
    gamma = np.exp(strength * random.normal(0, 0.2, n))
    x = (x * _draw(x, exposure) * _draw(x, cast)).clamp(0, 1)
    x = x.clamp_min(1e-4) ** _draw(x, gamma)
    grey = (x * x.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    colour = 1 + strength * random.uniform(-0.6, 0.4, n)
    colour[random.random(n) < 0.05 * strength] = 0
    return grey + (x - grey) * _draw(x, colour)


def _lens(x: Tensor, random: np.random.Generator, strength: float) -> Tensor:
    """Darker corners, and for some pictures blur."""
    n, h, w = len(x), x.shape[-2], x.shape[-1]
    t, s = (torch.linspace(-1, 1, k, device=x.device, dtype=x.dtype) for k in (h, w))
    radius = t[:, None].square() + s[None].square()
    x = x * (1 - _draw(x, strength * random.uniform(0, 0.2, n)) * radius)
    sigma = np.where(random.random(n) < 0.4 * strength, random.uniform(0.3, 1.3, n), 0.0)
    for i in np.flatnonzero(sigma):  # each its own, and few
        reach = math.ceil(2.5 * sigma[i])
        kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype) / sigma[i]) ** 2)
        kernel = kernel / kernel.sum()
        padded = F.pad(x[i][:, None], (reach,) * 4, mode="replicate")
        x[i] = F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))[:, 0]
    return x


def _sensor(x: Tensor, random: np.random.Generator, strength: float) -> Tensor:
    """Noise that grows with the light, in one colour channel each."""
    n = len(x)
    level = np.where(random.random(n) < 0.7, random.uniform(0, 0.04, n), 0.0) * strength
    seed = int(random.integers(2**31))
    noise = torch.randn(x.shape, generator=torch.Generator(x.device).manual_seed(seed), device=x.device)
    return x + noise.to(x) * _draw(x, level) * (0.5 + x.clamp_min(0).sqrt())


def _compressed(x: Tensor, random: np.random.Generator, strength: float) -> Tensor:
    """For some pictures the losses of JPEG: blocks of cosines, rounded."""
    n = len(x)
    chosen = np.flatnonzero(random.random(n) < 0.4 * strength)
    quality = random.uniform(35, 95, n)
    if len(chosen):
        x = x.clone()
        x[chosen] = jpeg_losses(x[chosen], torch.as_tensor(quality[chosen], dtype=x.dtype, device=x.device))
    return x


def jpeg_losses(x: Tensor, quality: Tensor) -> Tensor:  # [B, 3, h, w], [B]
    """What is left of pictures after JPEG of a quality in 1..100, without thinning out the colours."""
    h, w = x.shape[-2:]
    y = (x * x.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    planes = torch.cat([y, (x[:, 2:] - y) / 1.772 + 0.5, (x[:, :1] - y) / 1.402 + 0.5], 1) * 255 - 128
    planes = F.pad(planes, (0, -w % _BLOCK, 0, -h % _BLOCK), mode="replicate")
    tall, wide = planes.shape[-2] // _BLOCK, planes.shape[-1] // _BLOCK
    blocks = planes.reshape(len(x), 3, tall, _BLOCK, wide, _BLOCK).transpose(3, 4)
    cosines = _cosines(x)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)  # of the reference encoder
    quanta = (x.new_tensor(_QUANTA) * scale[:, None, None]).clamp_min(1).round()[:, None, None, None]
    kept = ((cosines @ blocks @ cosines.T) / quanta).round() * quanta
    back = (cosines.T @ kept @ cosines).transpose(3, 4).reshape(planes.shape)[..., :h, :w]
    y, blue, red = ((back + 128) / 255).unbind(1)
    r, b = y + 1.402 * (red - 0.5), y + 1.772 * (blue - 0.5)
    g = (y - _LUMA[0] * r - _LUMA[2] * b) / _LUMA[1]
    return torch.stack([r, g, b], 1)


def _cosines(like: Tensor) -> Tensor:  # [8, 8], orthonormal
    k = torch.arange(_BLOCK, dtype=torch.float64)
    table = torch.cos(math.pi * (k[None] + 0.5) * k[:, None] / _BLOCK) * math.sqrt(2 / _BLOCK)
    table[0] /= math.sqrt(2)
    return table.to(like)
