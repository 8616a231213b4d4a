"""DPT on LeViT: three levels, and two transposed convolutions that bring back what its stem loses."""

from __future__ import annotations

import re

import timm
from torch import Tensor, nn

from .blocks import Decoder, Encoder
from .network import Network
from .specs import Spec

_TAPS = (1, 0, 0)  # the block of every stage whose output is taken
_FIRST = (0, 10, 20)  # number of the first block of every stage where attention and MLP are counted through


class TransposedUnit(nn.Module):
    """Transposed convolution to twice the size, and its norm."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        # The original means its last 1 as dilation, which a transposed convolution takes as output padding.
        self.c = nn.ConvTranspose2d(channels, out, 3, 2, 1, output_padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.c(x))


class LevitDecoder(Decoder):
    """The decoder with two more doublings before its head."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__(channels, (256, 256, 256), (32, 8, 1), head_in=64)
        self.stem_transpose = nn.Sequential(
            TransposedUnit(256, 128), nn.Hardswish(), TransposedUnit(128, 64), nn.Hardswish()
        )

    def fuse(self, features: list[Tensor]) -> Tensor:
        """The fused map at eight times the resolution of the finest feature."""
        return self.stem_transpose(super().fuse(features))


class Levit(Network):
    """LeViT-384. Blocks behind the last tap and both classifiers are kept from the file, and never run."""

    structural = re.compile(r"\.attention_bias_idxs$")

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.pretrained = Encoder(timm.create_model(spec.backbone))
        self.scratch = LevitDecoder(self.pretrained.model.embed_dim)

    def released_key(self, key: str) -> str:
        """Name in the released file, which counts attentions and MLPs of all stages through."""
        prefix = "pretrained.model."
        if not key.startswith(prefix):
            return key
        key = re.sub(r"^stem\.conv(\d)\.", lambda at: f"patch_embed.{2 * int(at[1]) - 2}.", key[len(prefix) :])
        key = re.sub(
            r"^stages\.(\d)\.blocks\.(\d+)\.(attn|mlp)\.",
            lambda at: f"blocks.{_FIRST[int(at[1])] + 2 * int(at[2]) + (at[3] == 'mlp')}.m.",
            key,
        )
        key = re.sub(
            r"^stages\.(\d)\.downsample\.(attn_downsample|mlp)\.",
            lambda at: f"blocks.{_FIRST[int(at[1])] - 1}.m." if at[2] == "mlp" else f"blocks.{_FIRST[int(at[1])] - 2}.",
            key,
        )
        key = re.sub(r"\.ln1\.", ".0.", key)
        key = re.sub(r"\.ln2\.", ".2.", key)
        key = re.sub(r"\.(proj|q)\.ln\.", r".\1.1.", key)
        return prefix + re.sub(r"\.linear\.", ".l." if key.startswith("head") else ".c.", key)

    def features(self, x: Tensor) -> list[Tensor]:
        """Maps of 14x14, 7x7 and 4x4."""
        levit = self.pretrained.model
        x = levit.stem(x)
        h, w = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2)
        maps: list[Tensor] = []
        for stage, tap in zip(levit.stages, _TAPS, strict=True):
            if maps:
                x, h, w = stage.downsample(x), (h + 1) // 2, (w + 1) // 2
            for i, block in enumerate(stage.blocks):
                x = block(x)
                if i == tap:
                    maps.append(x.transpose(1, 2).unflatten(2, (h, w)))
                    if len(maps) == len(_TAPS):
                        break
        return maps
