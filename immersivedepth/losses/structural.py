"""Structural similarity (Wang et al., 2004), and its version over several scales (2003)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Shares of the five scales in the original paper.
MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_LEAST = 1e-6  # not 0, where a power below one has an infinite slope


def weights_for(side: int, window: int = 11) -> tuple[float, ...]:
    """The weights of the scales at which a picture of that side still holds a window, with the sum of all five."""
    levels = sum(side >= window * 2**level for level in range(len(MS_WEIGHTS)))
    if not levels:
        raise ValueError(f"ms_ssim: a window of {window} pixels does not fit a side of {side}")
    share = sum(MS_WEIGHTS) / sum(MS_WEIGHTS[:levels])
    return tuple(weight * share for weight in MS_WEIGHTS[:levels])


def ssim(
    a: Tensor,
    b: Tensor,
    data_range: float = 1.0,
    window: int = 11,
    sigma: float = 1.5,
    k: tuple[float, float] = (0.01, 0.03),
    valid: Tensor | None = None,
) -> Tensor:  # [B, C, h, w] -> [B]
    """Mean similarity of each image, over the places where the whole window lies inside; -1 to 1.

    With `valid` [B, 1, h, w] only windows around valid pixels count, and what is not valid agrees.
    """
    if valid is not None:
        a, b = torch.where(valid, a, 0.0), torch.where(valid, b, 0.0)
    luminance, contrast = _parts(a, b, data_range, window, sigma, k)
    if valid is None:
        return (luminance * contrast).mean((1, 2, 3))
    height, width = luminance.shape[-2:]
    first = window // 2
    share = valid[..., first : first + height, first : first + width].to(a.dtype).expand_as(luminance)
    count = share.sum((1, 2, 3))
    mean = (luminance * contrast * share).sum((1, 2, 3)) / count.clamp_min(1)
    return torch.where(count > 0, mean, 1.0)


def ms_ssim(
    a: Tensor,
    b: Tensor,
    data_range: float = 1.0,
    window: int = 11,
    sigma: float = 1.5,
    k: tuple[float, float] = (0.01, 0.03),
    weights: Sequence[float] = MS_WEIGHTS,
) -> Tensor:  # [B, C, h, w] -> [B]
    """Contrast at every scale and luminance at the coarsest, each to the power of its weight.

    Negative contrast has no such power and counts as next to nothing. Images must hold a window at the coarsest scale.
    """
    smallest = window * 2 ** (len(weights) - 1)
    if min(a.shape[-2:]) < smallest:
        raise ValueError(f"ms_ssim: expected at least {smallest} pixels a side, got {a.shape[-1]}x{a.shape[-2]}")
    out = torch.ones(len(a), dtype=a.dtype, device=a.device)
    for scale, weight in enumerate(weights):
        luminance, contrast = _parts(a, b, data_range, window, sigma, k)
        last = scale + 1 == len(weights)
        value = (luminance * contrast if last else contrast).mean((1, 2, 3))
        out = out * value.clamp_min(_LEAST) ** weight
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return out


def _parts(
    a: Tensor, b: Tensor, data_range: float, window: int, sigma: float, k: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    if window > min(a.shape[-2:]):
        raise ValueError(f"ssim: a window of {window} pixels does not fit {a.shape[-1]}x{a.shape[-2]}")
    c1, c2 = ((value * data_range) ** 2 for value in k)
    t = torch.arange(window, device=a.device, dtype=a.dtype) - (window - 1) / 2
    kernel = torch.exp(-0.5 * (t / sigma) ** 2)
    kernel = kernel / kernel.sum()
    channels = a.shape[1]

    def blurred(x: Tensor) -> Tensor:
        x = F.conv2d(x, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return F.conv2d(x, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)

    mean_a, mean_b = blurred(a), blurred(b)
    product, squares = mean_a * mean_b, mean_a.square() + mean_b.square()
    luminance = (2 * product + c1) / (squares + c1)
    contrast = (2 * (blurred(a * b) - product) + c2) / (blurred(a.square() + b.square()) - squares + c2)
    return luminance, contrast
