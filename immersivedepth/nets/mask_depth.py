"""Two networks that compare a picture with its empty background: a mask, and a mask with depth (R. V. K., 2020).

Both read background and picture [B, 3, h, w] and give logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MULTIPLE = 32  # of height and width, for the network with depth: five halvings


class MaskNet3(nn.Module):
    """The mask at full resolution, by three by three convolutions alone."""

    def __init__(self) -> None:
        super().__init__()
        self.background = nn.Sequential(*_unit(3, 32))
        self.picture = nn.Sequential(*_unit(3, 32))
        self.joint = nn.Sequential(*_unit(64, 64), *_unit(64, 64))
        self.last = nn.Conv2d(64, 1, 1)

    def forward(self, background: Tensor, picture: Tensor) -> Tensor:  # [B, 1, h, w]
        found: Tensor = self.last(self.joint(torch.cat([self.background(background), self.picture(picture)], 1)))
        return found


class DepthMaskNet8(nn.Module):
    """Mask and depth from one encoder; the depth decoder adds what the mask decoder found.

    fusion: `code` adds two maps of the mask decoder and one of the encoder again, as the program does; `diagram` all
    four of the mask decoder, as it is drawn.
    """

    def __init__(self, fusion: Literal["code", "diagram"] = "code") -> None:
        super().__init__()
        self.fusion = fusion
        self.background_stem = nn.Sequential(*_unit(3, 16), *_unit(16, 16))
        self.picture_stem = nn.Sequential(*_unit(3, 16), *_unit(16, 16))
        self.background_down = _Down(16, 16)
        self.picture_down = _Down(16, 16)
        self.down2, self.down3 = _Down(32, 64), _Down(64, 128)
        self.down4, self.down5 = _Down(128, 256), _Down(256, 512)
        self.mask_up = nn.ModuleList([_Up(256, 128), _Up(128, 64), _Up(64, 32), _Up(32, 16)])
        self.mask_last = nn.Conv2d(16, 1, 1)
        self.depth_up = nn.ModuleList([_Up(512, 256), _Up(256, 128), _Up(128, 64), _Up(64, 32), _Up(32, 16)])
        self.depth_last = nn.Conv2d(16, 1, 1)

    def forward(self, background: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:  # [B, 1, h, w] twice
        height, width = picture.shape[-2:]
        if height % MULTIPLE or width % MULTIPLE:
            raise ValueError(f"expected height and width to be multiples of {MULTIPLE}, got {height} and {width}")
        fine = self.picture_stem(picture)
        two = torch.cat([self.background_down(self.background_stem(background)), self.picture_down(fine)], 1)
        four = self.down2(two)
        eight = self.down3(four)
        sixteen = self.down4(eight)
        masks: list[Tensor] = []
        x = sixteen
        for up, skip in zip(self.mask_up, (eight, four, two, fine), strict=True):
            x = up(x, skip)
            masks.append(x)
        mask = self.mask_last(x)
        added = masks if self.fusion == "diagram" else [*masks[:2], two]
        x = self.down5(sixteen)
        for i, (up, skip) in enumerate(zip(self.depth_up, (sixteen, eight, four, two, fine), strict=True)):
            x = up(x, skip)
            if 1 <= i <= len(added):
                x = x + added[i - 1]
        return mask, self.depth_last(x)


# Layers of the original's program in ours; the first that fits counts.
_MASK_NET = (("layer3.6.", "last."), ("layer1.", "background."), ("layer2.", "picture."), ("layer3.", "joint."))
_DEPTH_NET = (
    ("layer1a.", "background_stem."), ("layer1b.", "picture_stem."),
    ("encodebg_fg.", "picture_down."), ("encodebg.", "background_down."),
    *((f"encode{i}.", f"down{i + 1}.") for i in range(1, 5)),
    *((f"decode{i + 1}_map.", f"mask_up.{i}.") for i in range(4)),
    *((f"decode{i + 1}_depth.", f"depth_up.{i}.") for i in range(5)),
    ("last_mask.", "mask_last."), ("last_depth.", "depth_last."),
)  # fmt: skip
# Of the blocks: theirs, ours, and by how much their numbers differ; an encoder begins with its pooling.
_DOWN = (("conv1", "body", 0), ("conv2", "body", 4), ("skip_conn", "short", 0))
_UP = (("conv1", "body", 0), ("conv2", "body", 3))


def original_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the original's program under our names; one that has ours stays as it is."""
    if "layer1.0.weight" in state:
        return {_outer(name, _MASK_NET): value for name, value in state.items()}
    if "layer1a.0.weight" in state:
        return {_inner(_outer(name, _DEPTH_NET)): value for name, value in state.items()}
    return dict(state)


def _outer(name: str, table: Iterable[tuple[str, str]]) -> str:
    for old, new in table:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _inner(name: str) -> str:
    for old, new, more in _UP if "_up." in name else _DOWN:
        before, found, after = name.partition(f".{old}.")
        if found:
            number, _, rest = after.partition(".")
            return f"{before}.{new}.{int(number) + more}.{rest}"
    return name.replace(".layer.", ".narrow.")


class _Down(nn.Module):
    """Half the size: two convolutions on the pooled map, and a strided one as the shortcut."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.MaxPool2d(2), *_unit(inside, outside), *_unit(outside, outside))
        self.short = nn.Sequential(nn.Conv2d(inside, outside, 1, stride=2, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.short(x))


class _Up(nn.Module):
    """Twice the size: fewer channels, enlarged, the skip added, and two convolutions."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(inside, outside, 1)
        self.body = nn.Sequential(*_unit(outside, outside), *_unit(outside, outside))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(self.narrow(x), scale_factor=2, mode="bilinear", align_corners=False)
        found: Tensor = self.body(x + skip)
        return found


def _unit(inside: int, outside: int) -> list[nn.Module]:
    return [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]
