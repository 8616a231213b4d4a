"""DPT on Next-ViT, convolutions and attention in one encoder; takes any size."""

from __future__ import annotations

import re

import timm
from torch import Tensor

from .blocks import Decoder, Encoder
from .network import Network
from .specs import Spec

_FIRST = (0, 3, 7, 37)  # number of the first block of every stage where blocks are counted through


class NextViT(Network):
    """Next-ViT-L; the output is as large as the image rounded up to multiples of 4."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.pretrained = Encoder(timm.create_model(spec.backbone))
        self.scratch = Decoder(tuple(stage["num_chs"] for stage in self.pretrained.model.feature_info))

    def released_key(self, key: str) -> str:
        """Name in the released file, which counts the blocks of all stages through."""
        key = re.sub(
            r"^pretrained\.model\.stages\.(\d)\.blocks\.(\d+)\.",
            lambda at: f"pretrained.model.features.{_FIRST[int(at[1])] + int(at[2])}.",
            key,
        )
        key = re.sub(r"\.mlp\.fc([12])\.", r".mlp.conv\1.", key)
        return re.sub(r"^pretrained\.model\.head\.fc\.", "pretrained.model.proj_head.0.", key)

    def features(self, x: Tensor) -> list[Tensor]:
        """Maps at 1/4, 1/8, 1/16 and 1/32 of the image."""
        return self.pretrained.model.forward_intermediates(x, intermediates_only=True)
