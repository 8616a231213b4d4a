"""From pictures of any size to what the networks read, and back."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH = 14
# Colour statistics of ImageNet, with which the encoders were trained.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def network_size(height: int, width: int, input_size: int = 518) -> tuple[int, int]:
    """The size at which a picture enters the network: aspect kept, no side shorter than input_size, multiples of 14."""
    scale = max(input_size / height, input_size / width)

    def fit(side: int) -> int:
        # round() is half-to-even, as in the rule that the networks were published with
        size = round(scale * side / PATCH) * PATCH
        return size if size >= input_size else math.ceil(scale * side / PATCH) * PATCH

    return fit(height), fit(width)


def prepare(images: Tensor, input_size: int = 518) -> Tensor:  # [B, 3, h, w]
    """RGB pictures [B, 3, H, W], uint8 or floating in 0..1, resized and normalised for the network.

    Bicubic without antialiasing and without clipping, as OpenCV does it.
    """
    x = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    size = network_size(images.shape[-2], images.shape[-1], input_size)
    if size != tuple(images.shape[-2:]):
        x = F.interpolate(x, size, mode="bicubic", align_corners=False, antialias=False)
    mean, std = (torch.tensor(v, device=x.device).view(3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std


def restore(maps: Tensor, size: tuple[int, int]) -> Tensor:  # [B, H, W]
    """Maps [B, h, w] of the network at the size of the picture."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=True)[:, 0]
