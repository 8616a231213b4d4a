"""DepthNet (Pinard et al., "End-to-end depth from motion with stabilized monocular videos", 2017), weight-compatible.

Two frames of a camera that moves without turning go in; the depth of the second comes out, in metres for the nominal
displacement between them. Names of modules are those of the released weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NOMINAL = 0.3  # metres between the two frames for which the output is metric
CLAMP = (10.0, 60.0)  # metres
_BN_EPS = 1e-3


class DepthNet(nn.Module):
    """Frames [B, 3, h, w] of any size, (x - 0.5) / 0.2 of RGB in 0..1, to depth [B, 1, ceil(h / 4), ceil(w / 4)].

    In training there are five scales, fine to coarse. `elu` makes the output positive, `clamp` bounds it.
    """

    def __init__(self, batch_norm: bool = False, elu: bool = False, clamp: bool = False) -> None:
        super().__init__()
        self.elu, self.clamp = elu, clamp
        b = batch_norm
        self.conv1 = _conv(6, 32, b, 2)
        self.conv2 = _conv(32, 64, b, 2)
        self.conv3 = _conv(64, 128, b, 2)
        self.conv3_1 = _conv(128, 128, b)
        self.conv4 = _conv(128, 256, b, 2)
        self.conv4_1 = _conv(256, 256, b)
        self.conv5 = _conv(256, 256, b, 2)
        self.conv5_1 = _conv(256, 256, b)
        self.conv6 = _conv(256, 512, b, 2)
        self.conv6_1 = _conv(512, 512, b)
        self.deconv5 = _deconv(512, 256, b)
        self.deconv4 = _deconv(513, 128, b)
        self.deconv3 = _deconv(385, 64, b)
        self.deconv2 = _deconv(193, 32, b)
        self.predict_depth6 = nn.Conv2d(512, 1, 3, padding=1)
        self.predict_depth5 = nn.Conv2d(513, 1, 3, padding=1)
        self.predict_depth4 = nn.Conv2d(385, 1, 3, padding=1)
        self.predict_depth3 = nn.Conv2d(193, 1, 3, padding=1)
        self.predict_depth2 = nn.Conv2d(97, 1, 3, padding=1)
        self.upsampled_depth6_to_5 = nn.ConvTranspose2d(1, 1, 4, 2, 1, bias=False)
        self.upsampled_depth5_to_4 = nn.ConvTranspose2d(1, 1, 4, 2, 1, bias=False)
        self.upsampled_depth4_to_3 = nn.ConvTranspose2d(1, 1, 4, 2, 1, bias=False)
        self.upsampled_depth3_to_2 = nn.ConvTranspose2d(1, 1, 4, 2, 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        two = self.conv2(self.conv1(torch.cat([first, second], 1)))
        three = self.conv3_1(self.conv3(two))
        four = self.conv4_1(self.conv4(three))
        five = self.conv5_1(self.conv5(four))
        six = self.conv6_1(self.conv6(five))
        raw = [self.predict_depth6(six)]
        x = six
        steps = (
            (five, self.deconv5, self.upsampled_depth6_to_5, self.predict_depth5),
            (four, self.deconv4, self.upsampled_depth5_to_4, self.predict_depth4),
            (three, self.deconv3, self.upsampled_depth4_to_3, self.predict_depth3),
            (two, self.deconv2, self.upsampled_depth3_to_2, self.predict_depth2),
        )
        for skip, deconv, enlarge, predict in steps:
            size = skip.shape[-2:]
            # Raw depth, before the activation, goes up as one more channel.
            x = torch.cat([skip, _cropped(deconv(x), size), _cropped(enlarge(raw[0]), size)], 1)
            raw.insert(0, predict(x))
        return [self._activated(depth) for depth in (raw if self.training else raw[:1])]

    def _activated(self, depth: Tensor) -> Tensor:
        if self.elu:
            depth = F.elu(depth) + 1
        return depth.clamp(*CLAMP) if self.clamp else depth


def _conv(inside: int, outside: int, batch_norm: bool, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inside, outside, 3, stride, 1, bias=not batch_norm)
    return nn.Sequential(conv, *([nn.BatchNorm2d(outside, eps=_BN_EPS)] if batch_norm else []), nn.ReLU())


def _deconv(inside: int, outside: int, batch_norm: bool) -> nn.Sequential:
    up = nn.ConvTranspose2d(inside, outside, 4, 2, 1)
    conv = nn.Conv2d(outside, outside, 3, 1, 1, bias=not batch_norm)
    return nn.Sequential(up, conv, *([nn.BatchNorm2d(outside, eps=_BN_EPS)] if batch_norm else []), nn.ReLU())


def _cropped(x: Tensor, size: torch.Size) -> Tensor:
    return x[..., : size[0], : size[1]]
