"""DPT on Swin and Swin v2, whose windows fix the input size."""

from __future__ import annotations

import re

import timm
from torch import Tensor

from .blocks import Decoder, Encoder
from .network import Network
from .specs import Spec


class Swin(Network):
    """Swin or Swin v2; features are those of the last block of every stage, before downsampling, without norm."""

    structural = re.compile(r"\.(attn_mask|attn\.relative_position_index)$")

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.pretrained = Encoder(timm.create_model(spec.backbone))
        self.scratch = Decoder(tuple(stage["num_chs"] for stage in self.pretrained.model.feature_info))

    def released_key(self, key: str) -> str:
        """Name in the released file, where a stage ends with the downsampling that now begins the next one."""
        key = re.sub(
            r"(?<=^pretrained\.model\.layers\.)(\d+)(?=\.downsample\.)", lambda stage: str(int(stage[1]) - 1), key
        )
        return re.sub(r"^pretrained\.model\.head\.fc\.", "pretrained.model.head.", key)

    def features(self, x: Tensor) -> list[Tensor]:
        """Maps at 1/4, 1/8, 1/16 and 1/32 of the image."""
        return self.pretrained.model.forward_intermediates(x, intermediates_only=True)
