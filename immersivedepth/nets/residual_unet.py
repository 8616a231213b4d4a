"""The residual U-Net of the Keras example on monocular depth (V. Basu, 2021), for indoor pictures of DIODE."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MULTIPLE = 16  # of height and width: four halvings
_FILTERS = (16, 32, 64, 128)
_BOTTLENECK = 256
_SLOPE = 0.2  # of the leaky ReLU
_BN_EPS, _BN_MOMENTUM = 1e-3, 0.01  # Keras says 0.99 for what torch calls 0.01


class ResidualUNet(nn.Module):
    """RGB in 0..1 [B, 3, h, w] to one map [B, 1, h, w]: within -1..1 with the original head `tanh`, else any number."""

    def __init__(self, head: Literal["tanh", "linear"] = "tanh") -> None:
        super().__init__()
        self.head = head
        inside = (3, *_FILTERS[:-1])
        self.down = nn.ModuleList(_Down(a, b) for a, b in zip(inside, _FILTERS, strict=True))
        self.bottleneck = nn.Sequential(
            _conv(_FILTERS[-1], _BOTTLENECK), _relu(), _conv(_BOTTLENECK, _BOTTLENECK), _relu()
        )
        above = (_BOTTLENECK, *_FILTERS[:0:-1])
        self.up = nn.ModuleList(_Up(a, b) for a, b in zip(above, _FILTERS[::-1], strict=True))
        self.last = nn.Conv2d(_FILTERS[0], 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % MULTIPLE or width % MULTIPLE:
            raise ValueError(f"expected height and width to be multiples of {MULTIPLE}, got {height} and {width}")
        skips = []
        for block in self.down:
            skip, x = block(x)
            skips.append(skip)
        x = self.bottleneck(x)
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = block(x, skip)
        x = self.last(x)
        return torch.tanh(x) if self.head == "tanh" else x


class _Down(nn.Module):
    """Two convolutions, the shortcut being the first one's output before its normalisation; then a pool."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(inside, outside), _norm(outside)
        self.conv2, self.norm2 = _conv(outside, outside), _norm(outside)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.conv1(x)
        x = F.leaky_relu(self.norm1(first), _SLOPE)
        x = F.leaky_relu(self.norm2(self.conv2(x)), _SLOPE) + first
        return x, F.max_pool2d(x, 2)


class _Up(nn.Module):
    """Twice the size by repetition, the skip beside it, and two convolutions."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(inside + outside, outside), _norm(outside)
        self.conv2, self.norm2 = _conv(outside, outside), _norm(outside)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skip], 1)
        x = F.leaky_relu(self.norm1(self.conv1(x)), _SLOPE)
        return F.leaky_relu(self.norm2(self.conv2(x)), _SLOPE)


def _conv(inside: int, outside: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 3, padding=1)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_BN_EPS, momentum=_BN_MOMENTUM)


def _relu() -> nn.LeakyReLU:
    return nn.LeakyReLU(_SLOPE)
