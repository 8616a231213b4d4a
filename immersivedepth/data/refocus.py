"""Another focus for a picture whose depth is known: thin-lens blur in layers of depth."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LAYERS = 10  # quantiles of depth
APERTURE = (0.005, 6.0)  # range of the aperture, even in its logarithm
_SHARP = 0.1  # pixels of blur below which a layer is left as it is
_MARGIN = 1e-4  # by which the outermost quantiles lie outside the depths


def refocus(image: Tensor, depth: Tensor, random: np.random.Generator) -> Tensor:  # [3, H, W], [1, H, W]
    """The picture in focus at a random depth, with a random aperture."""
    known = depth[depth > 0]
    if len(known) < LAYERS:
        return image
    quantiles = quantiles_of(known)
    focus = float(quantiles[int(random.integers(1, LAYERS))])
    aperture = math.exp(random.uniform(math.log(APERTURE[0]), math.log(APERTURE[1])))
    return focused(image, depth, quantiles, focus, aperture)


def quantiles_of(known: Tensor) -> Tensor:  # [LAYERS + 1]
    """Depths that cut a view into layers of equal size."""
    shares = torch.linspace(0, 1, LAYERS + 1, dtype=known.dtype, device=known.device)
    out = torch.quantile(known.flatten()[:: max(1, known.numel() // 100_000)], shares)
    out[0] = torch.minimum(out[0], known.min()) - _MARGIN
    out[-1] = torch.maximum(out[-1], known.max()) + _MARGIN
    return out


def focused(image: Tensor, depth: Tensor, quantiles: Tensor, focus: float, aperture: float) -> Tensor:
    """Layers blurred by aperture |q - f| / q pixels; between quantiles both are mixed by 1 - t^2, t the way to each."""
    sigmas = aperture * (quantiles - focus).abs() / quantiles.clamp_min(1e-6)
    stack = torch.stack([blurred(image, float(s)) for s in sigmas])  # [LAYERS + 1, 3, H, W]
    inside = depth[0].clamp(float(quantiles[0]), float(quantiles[-1]))
    right = torch.searchsorted(quantiles.contiguous(), inside.contiguous()).clamp(1, len(quantiles) - 1)
    low, high = quantiles[right - 1], quantiles[right]
    t = (inside - low) / (high - low).clamp_min(1e-9)
    a, b = 1 - t**2, 1 - (1 - t) ** 2
    index = right[None, None].expand(1, 3, -1, -1)
    left_image, right_image = (stack.gather(0, index + k)[0] for k in (-1, 0))
    return (a * left_image + b * right_image) / (a + b)


def blurred(image: Tensor, sigma: float) -> Tensor:  # [3, H, W]
    """Gaussian of about three sigma to either side, edges repeated; less than a tenth of a pixel is nothing."""
    if sigma < _SHARP:
        return image
    reach = min(max(1, math.ceil(1.5 * sigma)), min(image.shape[-2:]) - 1)
    t = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (t / sigma) ** 2)
    kernel = kernel / kernel.sum()
    x = F.pad(image[:, None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(x, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))[:, 0]
