"""PSMNet (Chang and Chen, "Pyramid stereo matching network", CVPR 2018), weight-compatible with the released files.

Rows may be joined at their ends, for pictures whose rows are angles around a baseline: every convolution, pool and
enlargement then wraps in that direction, and only there. Names of modules are those of the released weights.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

QUARTER = 4  # the cost volume has a quarter of the picture's resolution, in disparity too
_MULTIPLE = 16  # of height, width and disparities: two more halvings inside an hourglass
_POOLS = (64, 32, 16, 8)  # windows of the spatial pyramid, in pixels of the quarter resolution
_FEATURES = 32


class PSMNet(nn.Module):
    """Disparity of the left picture in pixels: what is at column x there is at x - disparity in the right one.

    Pictures are normalised RGB [B, 3 + extra, h, w] of any size; rows that wrap join exactly where their number is a
    multiple of 16. In training `stackhourglass` gives three maps, coarse
    to fine; in evaluation, and for `basic` always, there is one. `align_corners` is how the framework of the weights
    enlarged maps: true for files of 2018, false for those of 2021.
    """

    def __init__(
        self,
        kind: Literal["stackhourglass", "basic"] = "stackhourglass",
        max_disparity: int = 192,
        align_corners: bool = False,
        wrap_rows: bool = False,
        channels: int = 3,
    ) -> None:
        super().__init__()
        step = _MULTIPLE if kind == "stackhourglass" else QUARTER
        if max_disparity < step or max_disparity % step:
            raise ValueError(f"max_disparity={max_disparity}: expected a multiple of {step}")
        if wrap_rows and align_corners:
            raise ValueError("align_corners pins the first and the last row, so that rows cannot wrap: choose one")
        self.kind, self.max_disparity = kind, max_disparity
        self.align_corners, self.wrap_rows = align_corners, wrap_rows
        self.feature_extraction = _Features(channels, wrap_rows, align_corners)
        w = wrap_rows
        self.dres0 = nn.Sequential(_block3(64, 32, w), nn.ReLU(), _block3(32, 32, w), nn.ReLU())
        self.dres1 = _residual3(w)
        self.dres2: nn.Module
        self.dres3: nn.Module
        self.dres4: nn.Module
        if kind == "basic":
            self.dres2, self.dres3, self.dres4 = _residual3(w), _residual3(w), _residual3(w)
            self.classify = _classifier(w)
        else:
            self.dres2, self.dres3, self.dres4 = _Hourglass(w), _Hourglass(w), _Hourglass(w)
            self.classif1, self.classif2, self.classif3 = _classifier(w), _classifier(w), _classifier(w)
        self._draw()

    def forward(self, left: Tensor, right: Tensor) -> list[Tensor]:  # [B, C, h, w] -> one or three of [B, 1, h, w]
        height, width = left.shape[-2:]
        both = self._padded(torch.cat([left, right]))
        # Two passes, as in the original: batch statistics of the features are those of one picture's side.
        left, right = both.chunk(2)
        size = (left.shape[-2], left.shape[-1])
        cost = self.cost_volume(self.feature_extraction(left), self.feature_extraction(right))
        cost = self.dres0(cost)
        cost = self.dres1(cost) + cost
        costs = self._basic(cost) if self.kind == "basic" else self._stacked(cost)
        if not self.training:
            costs = costs[-1:]
        return [self._regressed(c, size)[:, :, size[0] - height :, :width] for c in costs]

    def cost_volume(self, left: Tensor, right: Tensor) -> Tensor:  # [B, 32, h, w] -> [B, 64, D / 4, h, w]
        """Features of both sides, one shifted against the other; columns that would leave the picture stay 0."""
        batch, channels, height, width = left.shape
        planes = self.max_disparity // QUARTER
        volume = left.new_zeros(batch, 2 * channels, planes, height, width)
        for d in range(min(planes, width)):
            volume[:, :channels, d, :, d:] = left[..., d:]
            volume[:, channels:, d, :, d:] = right[..., : width - d]
        return volume

    def _basic(self, cost: Tensor) -> list[Tensor]:
        for block in (self.dres2, self.dres3, self.dres4):
            cost = block(cost) + cost
        return [self.classify(cost)]

    def _stacked(self, cost: Tensor) -> list[Tensor]:
        one, inner, outer = self.dres2(cost, None, None)
        one = one + cost
        two, _, outer2 = self.dres3(one, inner, outer)
        two = two + cost
        three, _, _ = self.dres4(two, inner, outer2)  # the first hourglass's inner skip, as in the original
        three = three + cost
        first = self.classif1(one)
        second = self.classif2(two) + first
        return [first, second, self.classif3(three) + second]

    def _regressed(self, cost: Tensor, size: tuple[int, int]) -> Tensor:
        """The expected disparity under the softmax of the costs, which are the higher the more alike."""
        fine = (self.max_disparity, *size)
        if self.wrap_rows:
            padded = _wrap(cost, 1, -2)
            fine = (fine[0], size[0] + 2 * QUARTER, size[1])
            cost = F.interpolate(padded, fine, mode="trilinear", align_corners=False)[..., QUARTER:-QUARTER, :]
        else:
            cost = F.interpolate(cost, fine, mode="trilinear", align_corners=self.align_corners)
        chance = cost[:, 0].float().softmax(1)
        steps = torch.arange(self.max_disparity, device=cost.device, dtype=chance.dtype)
        return (chance * steps[:, None, None]).sum(1, keepdim=True)

    def _padded(self, pictures: Tensor) -> Tensor:
        """Rows at the top and columns at the right, up to multiples of 16: empty, as in the original, or wrapping."""
        up, right = -pictures.shape[-2] % _MULTIPLE, -pictures.shape[-1] % _MULTIPLE
        if self.wrap_rows and up:
            rows = torch.arange(-up, pictures.shape[-2], device=pictures.device) % pictures.shape[-2]
            pictures, up = pictures.index_select(-2, rows), 0
        return F.pad(pictures, (0, right, up, 0)) if up or right else pictures

    def _draw(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose3d):
                fan = math.prod(module.kernel_size) * module.out_channels
                if not isinstance(module, nn.ConvTranspose3d):  # the original leaves these as the framework draws them
                    nn.init.normal_(module.weight, 0, math.sqrt(2 / fan))


def _wrap(x: Tensor, rows: int, dim: int) -> Tensor:
    """So many rows of the other end before the first and after the last."""
    size = x.shape[dim]
    if rows > size:  # wide kernels on few rows go around more than once
        return torch.index_select(x, dim, torch.arange(-rows, size + rows, device=x.device) % size)
    return torch.cat([x.narrow(dim, size - rows, rows), x, x.narrow(dim, 0, rows)], dim)


class _Conv2d(nn.Conv2d):
    """A convolution whose rows may wrap."""

    def __init__(
        self, inside: int, outside: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1,
        wrap: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(inside, outside, kernel, stride, padding, dilation, bias=False)
        self.wrap, self.reach = wrap, padding

    def forward(self, x: Tensor) -> Tensor:
        if not self.wrap or not self.reach:
            return super().forward(x)
        x = _wrap(x, self.reach, -2)
        return F.conv2d(x, self.weight, None, self.stride, (0, self.reach), self.dilation)


class _Conv3d(nn.Conv3d):
    """The same for volumes [B, C, disparity, rows, columns]."""

    def __init__(self, inside: int, outside: int, stride: int = 1, wrap: bool = False) -> None:
        super().__init__(inside, outside, 3, stride=stride, padding=1, bias=False)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Tensor:
        if not self.wrap:
            return super().forward(x)
        return F.conv3d(_wrap(x, 1, -2), self.weight, None, self.stride, (1, 0, 1))


class _Norm2d(nn.BatchNorm2d):
    """Batch statistics; where one value is all there is, as in the widest pool of one small pair, the running ones."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or x.numel() > x.shape[1]:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class _Deconv3d(nn.ConvTranspose3d):
    """Twice the size in every direction."""

    def __init__(self, inside: int, outside: int, wrap: bool) -> None:
        super().__init__(inside, outside, 3, stride=2, padding=1, output_padding=1, bias=False)
        self.wrap = wrap

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not self.wrap:
            return super().forward(x, output_size)
        return super().forward(_wrap(x, 1, -2), output_size)[..., 2:-2, :]


def _block2(
    inside: int, outside: int, kernel: int, wrap: bool, stride: int = 1, padding: int = 0, dilation: int = 1
) -> nn.Sequential:
    padding = dilation if dilation > 1 else padding
    conv = _Conv2d(inside, outside, kernel, stride=stride, padding=padding, dilation=dilation, wrap=wrap)
    return nn.Sequential(conv, _Norm2d(outside))


def _block3(inside: int, outside: int, wrap: bool, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_Conv3d(inside, outside, stride, wrap), nn.BatchNorm3d(outside))


def _residual3(wrap: bool) -> nn.Sequential:
    return nn.Sequential(_block3(32, 32, wrap), nn.ReLU(), _block3(32, 32, wrap))


def _classifier(wrap: bool) -> nn.Sequential:
    return nn.Sequential(_block3(32, 32, wrap), nn.ReLU(), _Conv3d(32, 1, wrap=wrap))


class _Residual(nn.Module):
    """Two convolutions around a shortcut, with no ReLU after the sum."""

    def __init__(self, inside: int, outside: int, wrap: bool, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(_block2(inside, outside, 3, wrap, stride, 1, dilation), nn.ReLU())
        self.conv2 = _block2(outside, outside, 3, wrap, 1, 1, dilation)
        self.downsample = _block2(inside, outside, 1, wrap, stride) if stride > 1 or inside != outside else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.conv1(x))
        return y + (x if self.downsample is None else self.downsample(x))


class _Features(nn.Module):
    """Features at a quarter of the resolution, with a pyramid of pooled context."""

    def __init__(self, channels: int, wrap: bool, align_corners: bool) -> None:
        super().__init__()
        self.wrap, self.align_corners = wrap, align_corners
        self.firstconv = nn.Sequential(
            _block2(channels, 32, 3, wrap, 2, 1),
            nn.ReLU(),
            _block2(32, 32, 3, wrap, 1, 1),
            nn.ReLU(),
            _block2(32, 32, 3, wrap, 1, 1),
            nn.ReLU(),
        )
        self.layer1 = _layer(32, 32, 3, wrap)
        self.layer2 = _layer(32, 64, 16, wrap, stride=2)
        self.layer3 = _layer(64, 128, 3, wrap)
        self.layer4 = _layer(128, 128, 3, wrap, dilation=2)
        for number, window in enumerate(_POOLS, start=1):
            branch = nn.Sequential(_Pool(window), _block2(128, 32, 1, wrap), nn.ReLU())
            self.add_module(f"branch{number}", branch)
        last = _Conv2d(128, _FEATURES, 1, wrap=wrap)
        self.lastconv = nn.Sequential(_block2(320, 128, 3, wrap, 1, 1), nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        raw = self.layer2(self.layer1(self.firstconv(x)))
        skip = self.layer4(self.layer3(raw))
        size = (skip.shape[-2], skip.shape[-1])
        pooled = [self._enlarged(self.get_submodule(f"branch{n}")(skip), size) for n in (4, 3, 2, 1)]
        found: Tensor = self.lastconv(torch.cat([raw, skip, *pooled], 1))
        return found

    def _enlarged(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        height = x.shape[-2]
        if not self.wrap or size[0] % height:  # pools that leave rows over do not line up after a roll anyway
            return F.interpolate(x, size, mode="bilinear", align_corners=self.align_corners)
        by = size[0] // height
        wide = F.interpolate(_wrap(x, 1, -2), (size[0] + 2 * by, size[1]), mode="bilinear", align_corners=False)
        return wide[..., by:-by, :]


class _Pool(nn.Module):
    """Mean over square windows, or over all there is where that is less."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        window = (min(self.window, x.shape[-2]), min(self.window, x.shape[-1]))
        return F.avg_pool2d(x, window, window)


def _layer(inside: int, outside: int, count: int, wrap: bool, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    first = _Residual(inside, outside, wrap, stride, dilation)
    return nn.Sequential(first, *(_Residual(outside, outside, wrap, 1, dilation) for _ in range(count - 1)))


class _Hourglass(nn.Module):
    """Down to a quarter of the volume's size and up again, with skips from an earlier hourglass."""

    def __init__(self, wrap: bool) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(_block3(32, 64, wrap, 2), nn.ReLU())
        self.conv2 = _block3(64, 64, wrap)
        self.conv3 = nn.Sequential(_block3(64, 64, wrap, 2), nn.ReLU())
        self.conv4 = nn.Sequential(_block3(64, 64, wrap), nn.ReLU())
        self.conv5 = nn.Sequential(_Deconv3d(64, 64, wrap), nn.BatchNorm3d(64))
        self.conv6 = nn.Sequential(_Deconv3d(64, 32, wrap), nn.BatchNorm3d(32))

    def forward(self, x: Tensor, inner: Tensor | None, outer: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        pre = self.conv2(self.conv1(x))
        pre = F.relu(pre if outer is None else pre + outer)
        deep = self.conv4(self.conv3(pre))
        post = F.relu(self.conv5(deep) + (pre if inner is None else inner))
        return self.conv6(post), pre, post
