"""The first Omnidata network for normals: a U-Net with seven levels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import Network
from .specs import Spec

_FINEST, _DOUBLINGS = 16, 6


class Convolutions(nn.Module):
    """Three times convolution, norm over groups and ReLU."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, 1, 1), nn.GroupNorm(8, out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1), nn.GroupNorm(8, out)
        self.conv3, self.bn3 = nn.Conv2d(out, out, 3, 1, 1), nn.GroupNorm(8, out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)))


class UNet(Network):
    """Sizes are multiples of 64; the output is not bounded."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        widths = [_FINEST << i for i in range(_DOUBLINGS + 1)]
        deepest = widths[-1]
        self.down1 = Convolutions(3, widths[0])
        self.down_blocks = nn.ModuleList(Convolutions(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.mid_conv1, self.bn1 = nn.Conv2d(deepest, deepest, 3, 1, 1), nn.GroupNorm(8, deepest)
        self.mid_conv2, self.bn2 = nn.Conv2d(deepest, deepest, 3, 1, 1), nn.GroupNorm(8, deepest)
        self.mid_conv3, self.bn3 = nn.Conv2d(deepest, deepest, 3, 1, 1), nn.GroupNorm(8, deepest)
        self.up_blocks = nn.ModuleList(Convolutions(a + b, a) for a, b in zip(widths, widths[1:], strict=False))
        self.last_conv1, self.last_bn = nn.Conv2d(_FINEST, _FINEST, 3, 1, 1), nn.GroupNorm(8, _FINEST)
        self.last_conv2 = nn.Conv2d(_FINEST, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """A prepared image [B, 3, h, w] as normals [B, 3, h, w], not yet clamped."""
        self.spec.check_size(x.shape[-2], x.shape[-1])
        skips = [self.down1(x)]
        for block in self.down_blocks:
            skips.append(F.max_pool2d(block(skips[-1]), 2))
        x = F.relu(self.bn1(self.mid_conv1(skips.pop())))
        x = F.relu(self.bn2(self.mid_conv2(x)))
        x = F.relu(self.bn3(self.mid_conv3(x)))
        for block, skip in zip(reversed(self.up_blocks), reversed(skips), strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat((x, skip), dim=1))
        return self.last_conv2(F.relu(self.last_bn(self.last_conv1(x))))
