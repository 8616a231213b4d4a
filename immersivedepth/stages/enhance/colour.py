"""The picture as numbers to work on, and lightness taken apart from colour."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from ...geometry import filters
from ...scene import Panorama, unit_image

LIGHTEST = 100.0  # of CIE L*


def with_image(panorama: Panorama, image: Tensor) -> Panorama:
    """The same panorama with another picture, kept in 0..1."""
    return replace(panorama, image=image.clamp(0, 1))


def smoothed(panorama: Panorama, image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur in radians; what a partial panorama does not show takes no part."""
    if panorama.mask is None:
        return filters.blur(image, sigma)
    return filters.known_blur(image, panorama.mask, sigma)


def change_lightness(panorama: Panorama, change: Callable[[Tensor], Tensor]) -> Panorama:
    """Change CIE lightness, as [1, H, W] in 0..1, and leave the colours as they are."""
    image = unit_image(panorama.image)
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy(), np.float32)
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    lightness = torch.from_numpy(lab[..., 0].copy())[None] / LIGHTEST
    lab[..., 0] = (change(lightness.to(image.device)).clamp(0, 1) * LIGHTEST)[0].cpu().numpy()
    changed = torch.from_numpy(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)).permute(2, 0, 1)
    return with_image(panorama, changed.to(image))
