"""DPT on a plain vision transformer, and on the hybrid whose patches come from a ResNet; Omnidata uses the hybrid."""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import Decoder, TokenEncoder, token_taps
from .network import Network
from .specs import Spec


def resized_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:  # [1, 1 + h * w, C]
    """Position table [1, 1 + n * n, C] for another patch grid: plain bilinear, the class token keeps its own."""
    side = round((table.shape[1] - 1) ** 0.5)
    if grid == (side, side):
        return table
    field = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    field = F.interpolate(field.float(), grid, mode="bilinear", align_corners=False).to(table.dtype)
    return torch.cat((table[:, :1], field.flatten(2).transpose(1, 2)), dim=1)


class ViT(Network):
    """ViT-L; features are taken before the final norm, which is never used."""

    width = 1024
    channels = (256, 512, 1024, 1024)
    taps = token_taps((5, 11, 17, 23), channels)

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.pretrained = TokenEncoder(timm.create_model(spec.backbone), self.width, self.taps)
        self.scratch = Decoder(self.channels, head=(128, 32, 3 if spec.output == "normal" else 1))

    def features(self, x: Tensor) -> list[Tensor]:
        """Maps at 1/4, 1/8, 1/16 and 1/32 of the image."""
        return self.tokens(self.pretrained.model.patch_embed.proj(x))

    def tokens(self, patches: Tensor) -> list[Tensor]:
        """The maps of the tapped blocks; patches are [B, C, h, w]."""
        vit = self.pretrained.model
        grid = (patches.shape[-2], patches.shape[-1])
        x = patches.flatten(2).transpose(1, 2)
        x = torch.cat((vit.cls_token.expand(len(x), -1, -1).to(x.dtype), x), dim=1)
        x = x + resized_positions(vit.pos_embed, grid)
        maps = []
        for i, block in enumerate(vit.blocks):
            x = block(x)
            if i in self.taps:
                maps.append(self.pretrained.reassemble(i, x, grid))
        return maps


class Hybrid(ViT):
    """ViT-B on three stages of a ResNet-50; the two finest maps are those of its first two stages."""

    width = 768
    channels = (256, 512, 768, 768)
    taps = {8: (3, 768, 1.0), 11: (4, 768, 0.5)}

    def features(self, x: Tensor) -> list[Tensor]:
        """Maps at 1/4, 1/8, 1/16 and 1/32 of the image."""
        embed = self.pretrained.model.patch_embed
        x = embed.backbone.stem(x)
        maps = []
        for stage in embed.backbone.stages:
            x = stage(x)
            maps.append(x)
        return [*maps[:2], *self.tokens(embed.proj(x))]
