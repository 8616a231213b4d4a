"""A panorama's geometry as two surfaces: what it shows, and what may lie behind the edges of near things.

The hidden surface continues the far side of each edge a little way behind the near side, harmonically: distances by
their inverse, which keeps walls straight, colours as they are or by Navier-Stokes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import sphere

Fill = Literal["harmonic", "navier_stokes", "mark"]
EDGE_ANGLE = 4.0  # degrees between a surface and the ray, below which neighbours are taken to be apart
WIDEST_RATIO = 1.25  # pixels of small pictures are wide; beyond this they are apart at any angle
REACH = 1 / 16  # of the width: how far hidden surfaces go on behind near things
RIM = 3  # pixels of the far side that hidden surfaces go on from
SWEEPS = 300  # relaxations; beginnings are good, so that the reach is spanned
BEHIND = 1.02  # hidden surfaces stay at least this much farther than what hides them
SKY = 20.0  # radius of the sky's dome, in farthest distances
NS_RADIUS = 3  # pixels of cv2.inpaint


@dataclass(frozen=True)
class Layers:
    """The surface that is shown and the one behind it, in the panorama's own pixels."""

    image: Tensor  # [3, H, W]
    distance: Tensor  # [1, H, W], 0 where unknown, sky on its dome
    hidden_image: Tensor  # [3, H, W]
    hidden_distance: Tensor  # [1, H, W], 0 where nothing is hidden
    dome: float  # distance of the sky's dome


def edge_ratio(height: int, angle: float = EDGE_ANGLE) -> float:
    """The ratio of neighbours' distances on a plane that stands at `angle` degrees to the ray."""
    return min(1 + math.pi / height / math.tan(math.radians(angle)), WIDEST_RATIO)


def layers(image: Tensor, distance: Tensor, fill: Fill = "harmonic") -> Layers:  # [3, H, W], [1, H, W]
    """Both surfaces of a panorama with distances (inf: sky, 0: unknown)."""
    finite = distance[distance.isfinite()]
    dome = SKY * float(finite.amax()) if len(finite) and finite.amax() > 0 else SKY
    front = torch.where(distance.isfinite(), distance, dome)
    if fill == "mark":
        return Layers(image, front, image, torch.zeros_like(front), dome)
    mask, far, rim = hidden(front, round(front.shape[-1] * REACH))
    begun = torch.where(mask, 1 / far.clamp_min(1e-9), 1 / front.clamp_min(1e-9))
    behind = 1 / relax(begun, mask, rim).clamp_min(1e-9)
    behind = torch.where(mask, torch.maximum(behind, front * BEHIND), 0.0)
    colour = relax(image, mask, rim)
    if fill == "navier_stokes":
        colour = torch.where(mask, _navier_stokes(image, mask), image)
    # The rim joins the hidden surface to the far side, so that no gap shows between both.
    behind = torch.where(rim & ~mask, front * (1 + 1e-4), behind)
    return Layers(image, front, colour, behind, dome)


def hidden(front: Tensor, reach: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where near things hide a farther surface within `reach` pixels of their edges; how far that is; its rim."""
    ratio = edge_ratio(front.shape[-2])
    around = _around(front)  # [8, H, W]
    known = front > 0
    apart = known & (around > 0) & (around > front * ratio)
    far = torch.where(apart, around, 0.0).amax(0, keepdim=True)
    mask = far > 0
    nearer = known & (around > 0) & (front > around * ratio)
    rim = nearer.any(0, keepdim=True)
    for _ in range(RIM):
        joined = (around > front / ratio) & (around < front * ratio)
        rim = rim | ((_around(rim.float()) > 0) & joined & known).any(0, keepdim=True)
    for _ in range(reach):
        # It spreads along connected surfaces only, and only as long as what is hidden lies behind them.
        joined = (around > front / ratio) & (around < front * ratio)
        offered = torch.where(joined, _around(far), 0.0).amax(0, keepdim=True)
        far = torch.where(known & (far == 0) & (offered > front * ratio), offered, far)
        mask = far > 0
    return mask, far, rim & ~mask


def relax(values: Tensor, mask: Tensor, fixed: Tensor) -> Tensor:  # [C, H, W], [1, H, W], [1, H, W]
    """Values inside the mask as the mean of their neighbours, tied to the fixed ones only; others stay."""
    part = (mask | fixed).float()
    count = _around(part).sum(0, keepdim=True)
    usable = mask & (count > 0)
    out = values
    kernel = values.new_ones(1, 1, 3, 3)
    kernel[..., 1, 1] = 0
    for _ in range(SWEEPS):
        total = F.conv2d(sphere.pad_erp(out * part, 1)[:, None], kernel)[:, 0]
        out = torch.where(usable, total / count.clamp_min(1), out)
    return out


def _around(image: Tensor) -> Tensor:  # [1, H, W] -> [8, H, W]
    """The eight neighbours of every pixel, around the seam and over the poles."""
    height, width = image.shape[-2:]
    padded = sphere.pad_erp(image, 1)[0]
    steps = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
    return torch.stack([padded[y : y + height, x : x + width] for y, x in steps])


def _navier_stokes(image: Tensor, mask: Tensor) -> Tensor:
    pad = min(NS_RADIUS * 4, image.shape[-2])
    wide = (sphere.pad_erp(image, pad).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    holes = sphere.pad_erp(mask.byte(), pad)[0].cpu().numpy()
    filled = cv2.inpaint(wide.copy(), holes, NS_RADIUS, cv2.INPAINT_NS)
    out = torch.from_numpy(filled).permute(2, 0, 1)[:, pad:-pad, pad:-pad]
    return out.to(image.device, image.dtype) / 255
