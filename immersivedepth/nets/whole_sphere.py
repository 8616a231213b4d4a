"""A small U-Net that looks at a whole panorama and at the distances that its views gave, and mends those.

Single views cannot see where a tree touches the ground or what stands behind the viewer; the sphere shows both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..geometry import sphere

ROWS = 256  # of the panoramas that it learns from and looks at
FARTHEST = 5.0  # logarithm of distance over scale at which everything farther, and the sky, is put
NEAREST = -4.0  # the same for what is nearer
WIDTHS = (32, 48, 64, 96, 128)  # channels, from half the rows of the panorama down to a thirty-second
DEPTHS = (1, 2, 2, 3, 4)  # blocks on the way down; one each on the way up
MULTIPLE = 2 ** len(WIDTHS)  # of the rows, which are at least twice as many
_INSIDE = 9  # red, green, blue, log distance, sky, unknown, spread, sine and cosine of the latitude
_OUTSIDE = 5  # what is added to the log distance, to the logit of the sky, and to a normal that looks at the camera
_REACH = 5  # pixels of a side of the depthwise filters
_LAST = 8  # channels of every pixel that the last filters see beside the input
_SURE = 2.0  # logit of what the views called sky, and of the contrary
_MOST_SPREAD = 1.0


class WholeSphere(nn.Module):
    """Before it has learnt anything it gives back what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(4 * _INSIDE, WIDTHS[0], 3)
        self.down = nn.ModuleList(
            nn.Sequential(*(_Block(width) for _ in range(depth))) for width, depth in zip(WIDTHS, DEPTHS, strict=True)
        )
        pairs = list(zip(WIDTHS, WIDTHS[1:], strict=False))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, 2) for a, b in pairs)
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        self.up = nn.ModuleList(_Block(width) for width in WIDTHS[:-1])
        self.norm = nn.GroupNorm(1, WIDTHS[0])
        self.finer = nn.Conv2d(WIDTHS[0], 4 * _LAST, 1)
        self.mix = _Conv(_LAST + _INSIDE, 2 * _LAST, 3)
        self.last = _Conv(2 * _LAST, _OUTSIDE, 3)
        with torch.no_grad():
            self.last.weight.zero_()
            self.last.bias.zero_()  # type: ignore[union-attr]

    def forward(self, given: Tensor) -> Tensor:
        """What `described` gives, to [B, 5, H, W].

        They are: logarithm of distance over scale, logit of the sky, and a normal of any length along
        `geometry.normals.local_axes`.
        """
        up, unknown = given[:, 4:5], given[:, 5:6]
        log, sky, normal = self._unet(given).split((1, 1, 3), 1)
        # The scale of the whole is not its business: without this it would drift, since no loss holds it.
        area = sphere.solid_angles(given.shape[-2], given.shape[-1], given.device).to(log)
        weight = area * (1 - up) * (1 - unknown)
        mean = (log * weight).sum((-3, -2, -1), keepdim=True)
        log = log - mean / weight.sum((-3, -2, -1), keepdim=True).clamp_min(1e-6)
        towards = normal.new_tensor((0.0, 0.0, -1.0)).view(3, 1, 1)
        return torch.cat([given[:, 3:4] + log, _SURE * (2 * up - 1) + sky, normal + towards], 1)

    def _unet(self, given: Tensor) -> Tensor:
        x, kept = self.stem(F.pixel_unshuffle(given, 2)), []
        for level, blocks in enumerate(self.down):
            x = blocks(x if level == 0 else self.shrink[level - 1](x))
            kept.append(x)
        for level in reversed(range(len(self.up))):
            x = self.up[level](F.interpolate(self.grow[level](x), scale_factor=2) + kept[level])
        x = F.pixel_shuffle(self.finer(self.norm(x)), 2)
        added: Tensor = self.last(F.gelu(self.mix(torch.cat([x, given.to(x)], 1))))
        return added.float()


def described(image: Tensor, distance: Tensor, spread: Tensor) -> Tensor:  # [B, 9, H, W]
    """What the network is given: of RGB in 0..1 [B, 3, H, W], and distance and spread [B, 1, H, W].

    Distance is inf for sky and 0 where nothing is known.
    """
    up, unknown = distance.isinf(), distance <= 0
    latitude = sphere.latitudes(image.shape[-2]).to(image)[:, None].expand_as(distance)
    spread = spread.nan_to_num(0.0, 0.0, 0.0).clamp(0, _MOST_SPREAD)
    parts = [log_distance(distance, scale_of(distance)), up.to(image), unknown.to(image), spread]
    return torch.cat([2 * image - 1, *parts, latitude.sin(), latitude.cos()], 1)


def log_distance(distance: Tensor, scale: Tensor) -> Tensor:
    """Logarithm of distance over scale, within what the network speaks of; 0 where nothing is known."""
    up, unknown = distance.isinf(), distance <= 0
    log = (torch.where(up | unknown, scale, distance).log() - scale.log()).clamp(NEAREST, FARTHEST)
    return torch.where(up, FARTHEST, torch.where(unknown, 0.0, log))


def scale_of(distance: Tensor) -> Tensor:  # [B, 1, H, W] -> [B, 1, 1, 1]
    """Geometric mean over the sphere of what is known and no sky; 1 where nothing is."""
    known = distance.isfinite() & (distance > 0)
    height, width = distance.shape[-2:]
    weight = sphere.solid_angles(height, width, distance.device).to(distance) * known
    total = (weight * torch.where(known, distance, 1.0).log()).sum((-3, -2, -1), keepdim=True)
    return (total / weight.sum((-3, -2, -1), keepdim=True).clamp_min(1e-9)).exp()


class _Conv(nn.Conv2d):
    """A convolution around the seam and over the poles."""

    def __init__(self, inside: int, outside: int, side: int, groups: int = 1) -> None:
        super().__init__(inside, outside, side, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(sphere.pad_erp(x, self.kernel_size[0] // 2))


class _Block(nn.Module):
    """What is around a pixel, channel by channel, then all channels of a pixel; added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.around = _Conv(width, width, _REACH, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.wide = nn.Conv2d(width, 2 * width, 1)
        self.narrow = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.narrow(F.gelu(self.wide(self.norm(self.around(x)))))
        return found
