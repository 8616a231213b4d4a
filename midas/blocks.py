"""Blocks that the families share: readout and reassembly of tokens, the fusing decoder and its head."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Readout(nn.Module):
    """Tells every token what the class token knows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(2 * width, width), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:  # [B, 1 + N, C] -> [B, N, C]
        tokens = x[:, 1:]
        out: Tensor = self.project(torch.cat((tokens, x[:, :1].expand_as(tokens)), dim=-1))
        return out


class Reassemble(nn.Sequential):
    """Tokens of one block as a map at `scale` times the resolution of the patch grid."""

    def __init__(self, width: int, channels: int, scale: float) -> None:
        layers = [Readout(width), nn.Identity(), nn.Identity(), nn.Conv2d(width, channels, 1)]
        if scale > 1:
            layers.append(nn.ConvTranspose2d(channels, channels, int(scale), int(scale)))
        elif scale < 1:
            layers.append(nn.Conv2d(channels, channels, 3, 2, 1))
        super().__init__(*layers)  # the released keys count the two reshapes as layers

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:  # type: ignore[override]  # [B, C, h, w]
        readout, _, _, *layers = self
        x = readout(x).transpose(1, 2).unflatten(2, grid)
        for layer in layers:
            x = layer(x)
        return x


class Upsample(nn.Module):
    """Bilinear interpolation to twice the size."""

    def __init__(self, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=self.align_corners)


class ResidualUnit(nn.Module):
    """Two convolutions and a skip."""

    def __init__(self, width: int, rectified_skip: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1)
        # The ReLU of the original v2.1 network works in place, so that its skip carries relu(x) instead of x.
        self.rectified_skip = rectified_skip

    def forward(self, x: Tensor) -> Tensor:
        rectified = F.relu(x)
        out = self.conv2(F.relu(self.conv1(rectified)))
        return out + (rectified if self.rectified_skip else x)


class Fusion(nn.Module):
    """Adds a finer map to a coarser one and doubles the resolution."""

    def __init__(self, width: int, out: int, *, rectified_skip: bool, project: bool, first_unit: bool) -> None:
        super().__init__()
        if project:
            self.out_conv = nn.Conv2d(width, out, 1)
        # Released files hold this unit for the deepest level too, where there is nothing to add.
        if first_unit:
            self.resConfUnit1 = ResidualUnit(width, rectified_skip)
        self.resConfUnit2 = ResidualUnit(width, rectified_skip)
        self.project = project

    def forward(self, x: Tensor, finer: Tensor | None, size: tuple[int, int]) -> Tensor:
        if finer is not None:
            x = x + self.resConfUnit1(finer)
        x = self.resConfUnit2(x)
        if self.project:
            # The original convolves after interpolating; 1x1 commutes with it, and here there are 4 times fewer pixels.
            x = self.out_conv(x)
        return F.interpolate(x, size, mode="bilinear", align_corners=True)


class Decoder(nn.Module):
    """From maps of the encoder to the output: equal widths, fusion from deep to shallow, head."""

    def __init__(
        self,
        channels: tuple[int, ...],
        widths: tuple[int, ...] = (256, 256, 256, 256),
        head: tuple[int, int, int] = (128, 32, 1),
        *,
        head_in: int | None = None,
        align_head: bool = True,
        rectified_skip: bool = False,
        project: bool = True,
        spare_unit: bool = True,
        smooth: bool = False,
    ) -> None:
        """`spare_unit`: hold the weights that nothing uses; `smooth`: an output that no training can let die."""
        super().__init__()
        self.levels = len(channels)
        for i, (c, width) in enumerate(zip(channels, widths, strict=True)):
            deepest = i == self.levels - 1
            self.add_module(f"layer{i + 1}_rn", nn.Conv2d(c, width, 3, 1, 1, bias=False))
            fusion = Fusion(
                width,
                widths[max(i - 1, 0)],
                rectified_skip=rectified_skip,
                project=project,
                first_unit=spare_unit or not deepest,
            )
            self.add_module(f"refinenet{i + 1}", fusion)
        wide, narrow, out = head
        self.output_conv = nn.Sequential(
            nn.Conv2d(head_in or widths[0], wide, 3, 1, 1),
            Upsample(align_head),
            nn.Conv2d(wide, narrow, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(narrow, out, 1),
            nn.Softplus() if smooth else nn.ReLU(),
        )

    def fuse(self, features: list[Tensor]) -> Tensor:
        """The fused map at twice the resolution of the finest feature."""
        maps = [self.get_submodule(f"layer{i + 1}_rn")(f) for i, f in enumerate(features)]
        path: Tensor | None = None
        for i in reversed(range(self.levels)):
            h, w = maps[i].shape[-2:]
            size = (2 * h, 2 * w) if i == 0 else (maps[i - 1].shape[-2], maps[i - 1].shape[-1])
            fusion = self.get_submodule(f"refinenet{i + 1}")
            path = fusion(maps[i], None, size) if path is None else fusion(path, maps[i], size)
        assert path is not None
        return path

    def forward(self, features: list[Tensor]) -> Tensor:  # [B, out, 2h, 2w] of the fused map
        return self.output_conv(self.fuse(features))


class Encoder(nn.Module):
    """A network of timm under the name that released keys give it."""

    model: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class TokenEncoder(Encoder):
    """A transformer and the modules that turn the tokens of its tapped blocks into maps."""

    def __init__(self, model: nn.Module, width: int, taps: dict[int, tuple[int, int, float]]) -> None:
        """`taps`: block -> (level counted from 1, channels, scale to the patch grid)."""
        super().__init__(model)
        self.taps = {block: f"act_postprocess{level}" for block, (level, _, _) in taps.items()}
        for level, channels, scale in taps.values():
            self.add_module(f"act_postprocess{level}", Reassemble(width, channels, scale))

    def reassemble(self, block: int, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """The tokens [B, 1 + N, C] of a tapped block as a map."""
        return self.get_submodule(self.taps[block])(tokens, grid)


def token_taps(blocks: tuple[int, ...], channels: tuple[int, ...]) -> dict[int, tuple[int, int, float]]:
    """Four levels at 4, 2, 1 and 1/2 times the patch grid, as plain transformers have them."""
    scales = (4, 2, 1, 0.5)
    return {b: (i + 1, c, scale) for i, (b, c, scale) in enumerate(zip(blocks, channels, scales, strict=True))}
