"""What every model expects and returns: sizes, normalisation, resampling and the meaning of the output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Triple = tuple[float, float, float]

_SMALLEST = 28  # pixels; in smaller images nothing is left to pool for the one network that takes any size

HALF: tuple[Triple, Triple] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
UNIT: tuple[Triple, Triple] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Spec:
    """The contract of one model."""

    name: str
    family: Literal["vit", "hybrid", "beit", "swin", "levit", "next_vit", "convolutional", "unet"]
    backbone: str  # name of the encoder in timm; empty for the U-Net, which has none
    side: int  # pixels, what the resize rule aims at
    legal: int  # heights and widths the network takes are multiples of this; 0: only side x side
    norm: tuple[Triple, Triple] = HALF  # mean and standard deviation of the input, per channel, of RGB in 0..1
    keep_aspect: bool = True
    method: Literal["minimal", "upper_bound", "short_side"] = "minimal"
    multiple: int = 32  # the resize rule rounds to multiples of this
    # disparity: a / depth + b, at least 0. depth: a * depth + b in 0..1. normal: (x + 1) / 2 of a vector, +x right,
    # +y down, +z towards the camera, in 0..1.
    output: Literal["disparity", "depth", "normal"] = "disparity"

    def network_size(self, height: int, width: int, side: int | None = None) -> tuple[int, int]:
        """Height and width at which the network looks at an image of this size."""
        if side is not None and side != self.side and not self.legal:
            raise ValueError(f"{self.name} looks at {self.side}x{self.side} pixels only, side={side} was asked for")
        side = side or self.side
        if side % self.multiple:
            raise ValueError(f"{self.name}: side must be a multiple of {self.multiple}, got {side}")
        if not self.keep_aspect:
            return side, side
        by_height, by_width = side / height, side / width
        if self.method == "minimal":
            scale = by_width if abs(1 - by_width) < abs(1 - by_height) else by_height
        else:
            scale = min(by_height, by_width) if self.method == "upper_bound" else max(by_height, by_width)
        return self._rounded(scale * height, side), self._rounded(scale * width, side)

    def _rounded(self, length: float, side: int) -> int:
        units = round(length / self.multiple)  # half to even, as the original rounds
        if self.method == "upper_bound" and units * self.multiple > side:
            units = math.floor(length / self.multiple)
        # The original has no lower bound and fails on very long images.
        return max(units, 1) * self.multiple

    def check_size(self, height: int, width: int) -> None:
        """Refuse input sizes for which the network is not defined, naming those for which it is."""
        low = self.legal if self.legal > 1 else _SMALLEST
        if not self.legal:
            if (height, width) != (self.side, self.side):
                raise ValueError(f"{self.name} takes {self.side}x{self.side} pixels only, got {height}x{width}")
        elif min(height, width) < low or height % self.legal or width % self.legal:
            sizes = f"multiples of {self.legal}" if self.legal > 1 else f"at least {low}"
            raise ValueError(f"{self.name} takes heights and widths that are {sizes}, got {height}x{width}")


_HYBRID = "vit_base_r50_s16_384"

_ALL = (
    Spec("dpt_beit_large_512", "beit", "beit_large_patch16_512", 512, 16),
    Spec("dpt_beit_large_384", "beit", "beit_large_patch16_384", 384, 16),
    Spec("dpt_beit_base_384", "beit", "beit_base_patch16_384", 384, 16),
    Spec("dpt_swin2_large_384", "swin", "swinv2_large_window12to24_192to384", 384, 0, keep_aspect=False),
    Spec("dpt_swin2_base_384", "swin", "swinv2_base_window12to24_192to384", 384, 0, keep_aspect=False),
    Spec("dpt_swin2_tiny_256", "swin", "swinv2_tiny_window16_256", 256, 0, keep_aspect=False),
    Spec("dpt_swin_large_384", "swin", "swin_large_patch4_window12_384", 384, 0, keep_aspect=False),
    Spec("dpt_next_vit_large_384", "next_vit", "nextvit_large", 384, 1),
    Spec("dpt_levit_224", "levit", "levit_384", 224, 0, keep_aspect=False),
    Spec("dpt_large_384", "vit", "vit_large_patch16_384", 384, 16),
    Spec("dpt_hybrid_384", "hybrid", _HYBRID, 384, 16),
    Spec("midas_v21_384", "convolutional", "resnext101_32x8d", 384, 32, IMAGENET, method="upper_bound"),
    Spec("midas_v21_small_256", "convolutional", "tf_efficientnet_lite3", 256, 32, IMAGENET, method="upper_bound"),
    Spec("midas_tiny", "convolutional", "efficientnet_lite0", 256, 32, IMAGENET, method="upper_bound"),
    Spec(
        "midas_tiny_normal",
        "convolutional",
        "efficientnet_lite0",
        256,
        32,
        IMAGENET,
        method="short_side",
        output="normal",
    ),
    Spec("omnidata_dpt_depth", "hybrid", _HYBRID, 384, 32, method="short_side", output="depth"),
    Spec("omnidata_dpt_normal", "hybrid", _HYBRID, 384, 32, UNIT, method="short_side", output="normal"),
    Spec("omnidata_unet_normal", "unet", "", 384, 64, UNIT, method="short_side", multiple=64, output="normal"),
)

SPECS: dict[str, Spec] = {spec.name: spec for spec in _ALL}
