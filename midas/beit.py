"""DPT on BEiT, whose positions are one relative table per block."""

from __future__ import annotations

import re
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Decoder, TokenEncoder, token_taps
from .network import Network
from .specs import Spec

_BASE, _LARGE = ((2, 5, 8, 11), (96, 192, 384, 768)), ((5, 11, 17, 23), (256, 512, 1024, 1024))
_TO_CLASS, _FROM_CLASS, _CLASS = 3, 2, 1  # the last rows of a table, counted from its end


def relative_index(grid: tuple[int, int], device: torch.device | None = None) -> Tensor:  # [1 + N, 1 + N]
    """Row of the table for every pair of tokens (from, to), the class token first."""
    h, w = grid
    y, x = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    y, x = y.flatten(), x.flatten()
    rows = (2 * h - 1) * (2 * w - 1) + 3
    index = torch.full((h * w + 1, h * w + 1), rows - _CLASS, device=device)
    index[1:, 1:] = (y[:, None] - y + h - 1) * (2 * w - 1) + (x[:, None] - x + w - 1)
    index[0, 1:] = rows - _TO_CLASS
    index[1:, 0] = rows - _FROM_CLASS
    return index


def resized_table(table: Tensor, trained: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Table [(2h - 1)(2w - 1) + 3, heads] for another grid: plain bilinear, the rows of the class token copied."""
    if grid == trained:
        return table
    field = table[:-3].unflatten(0, (2 * trained[0] - 1, 2 * trained[1] - 1)).permute(2, 0, 1)[None]
    size = (2 * grid[0] - 1, 2 * grid[1] - 1)
    field = F.interpolate(field.float(), size, mode="bilinear", align_corners=False).to(table.dtype)
    return torch.cat((field[0].flatten(1).T, table[-3:]))


class BeitEncoder(TokenEncoder):
    """BEiT whose tables live here, so that they can be resized to the image at hand."""

    def __init__(self, model: Any, width: int, taps: dict[int, tuple[int, int, float]], heads: int) -> None:
        super().__init__(model, width, taps)
        self.trained: tuple[int, int] = model.patch_embed.grid_size
        rows = (2 * self.trained[0] - 1) * (2 * self.trained[1] - 1) + 3
        self.tables = nn.ParameterList(torch.zeros(rows, heads) for _ in model.blocks)


class Beit(Network):
    """BEiT-L or BEiT-B; features are taken before any final norm."""

    structural = re.compile(r"\.attn\.relative_position_index$")

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        # Blocks without tables of their own take a bias from outside, which timm would resize in another way.
        model = timm.create_model(spec.backbone, use_rel_pos_bias=False)
        taps, self.channels = _LARGE if len(model.blocks) == 24 else _BASE
        heads = model.blocks[0].attn.num_heads
        self.pretrained = BeitEncoder(model, model.embed_dim, token_taps(taps, self.channels), heads)
        self.scratch = Decoder(self.channels)

    def released_key(self, key: str) -> str:
        """Name in the released file, where the tables belong to the attention of the blocks."""
        return re.sub(r"^pretrained\.tables\.(\d+)$", _TABLE, key)

    def features(self, x: Tensor) -> list[Tensor]:
        """Maps at 1/4, 1/8, 1/16 and 1/32 of the image."""
        encoder = self.pretrained
        patches = encoder.model.patch_embed.proj(x)
        grid = (patches.shape[-2], patches.shape[-1])
        x = patches.flatten(2).transpose(1, 2)
        x = torch.cat((encoder.model.cls_token.expand(len(x), -1, -1).to(x.dtype), x), dim=1)
        index = relative_index(grid, x.device)
        maps = []
        for i, (block, table) in enumerate(zip(encoder.model.blocks, encoder.tables, strict=True)):
            rows = resized_table(table, encoder.trained, grid).T
            bias = rows[:, index.flatten()].view(1, -1, *index.shape)
            x = block(x, shared_rel_pos_bias=bias.to(x.dtype))
            if i in encoder.taps:
                maps.append(encoder.reassemble(i, x, grid))
        return maps


_TABLE = r"pretrained.model.blocks.\1.attn.relative_position_bias_table"
