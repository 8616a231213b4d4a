"""The network: a DINOv2 vision transformer and a DPT head, under the names of the released state dicts."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .pictures import PATCH, prepare, restore
from .variants import ENCODERS, Encoder


class GatedMLP(nn.Module):
    """SwiGLU with gate and value in one matrix, as in the giant encoder."""

    def __init__(self, in_features: int, hidden_features: int, **_: Any) -> None:
        super().__init__()
        # Two thirds of the width keep the parameter count of a plain MLP; rounded up to a multiple of eight.
        hidden = (hidden_features * 2 // 3 + 7) // 8 * 8
        self.w12 = nn.Linear(in_features, 2 * hidden)
        self.w3 = nn.Linear(hidden, in_features)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        out: Tensor = self.w3(F.silu(gate) * value)
        return out


class DinoV2(VisionTransformer):
    """timm's vision transformer with DINOv2's names and its way to place the position table on other sizes."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(
            img_size=encoder.grid * PATCH,
            patch_size=PATCH,
            embed_dim=encoder.width,
            depth=encoder.depth,
            num_heads=encoder.heads,
            init_values=1.0,
            num_classes=0,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            **({"mlp_layer": GatedMLP} if encoder.gated else {}),
        )
        self.grid = encoder.grid
        # Only training by masking needs it, but it is in every released file.
        self.mask_token = nn.Parameter(torch.zeros(1, encoder.width), requires_grad=False)

    def positions(self, height: int, width: int) -> Tensor:  # [1, 1 + patches, C]
        """The position table for a picture of that many pixels."""
        rows, columns = height // PATCH, width // PATCH
        grid = self.grid
        if rows * columns == grid * grid and height == width:
            return self.pos_embed
        table = self.pos_embed[:, 1:].float().reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
        # The weights were trained with this tenth of a patch in the scale, and with the scale itself (not the ratio
        # of the sizes) as the step between samples: both are visible in the result.
        scale = ((rows + 0.1) / grid, (columns + 0.1) / grid)
        table = F.interpolate(table, scale_factor=scale, mode="bicubic", align_corners=False, antialias=False)
        return torch.cat([self.pos_embed[:, :1], table.flatten(2).mT.to(self.pos_embed.dtype)], 1)

    def tapped(self, x: Tensor, taps: Sequence[int]) -> list[Tensor]:  # each [B, 1 + patches, C]
        """Outputs of some blocks after the final norm, class token first."""
        height, width = x.shape[-2:]
        tokens = self.patch_embed.proj(x).flatten(2).mT
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1) + self.positions(height, width)
        found = []
        for i, block in enumerate(self.blocks[: max(taps) + 1]):
            tokens = block(tokens)
            if i in taps:
                found.append(self.norm(tokens))
        return found


class ResidualUnit(nn.Module):
    """Two activated convolutions and the way past them."""

    def __init__(self, features: int, use_bn: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.bn1, self.bn2 = (nn.BatchNorm2d(features) if use_bn else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(F.relu(x)))
        y = self.bn2(self.conv2(F.relu(y)))
        return y + x


class Fusion(nn.Module):
    """Join a coarse map with a finer one and bring the sum to the next size."""

    def __init__(self, features: int, use_bn: bool) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(features, features, 1)
        self.resConfUnit1 = ResidualUnit(features, use_bn)
        self.resConfUnit2 = ResidualUnit(features, use_bn)

    def forward(self, size: tuple[int, int], skip: Tensor, coarse: Tensor | None = None) -> Tensor:
        x = skip if coarse is None else coarse + self.resConfUnit1(skip)
        # A 1x1 convolution commutes with bilinear sampling, whose weights sum to one; before it there are four times
        # fewer pixels.
        x = self.out_conv(self.resConfUnit2(x))
        return F.interpolate(x, size, mode="bilinear", align_corners=True)


class Head(nn.Module):
    """DPT: four maps of tokens, reassembled as a pyramid and fused from coarse to fine."""

    def __init__(
        self, width: int, features: int, out_channels: Sequence[int], use_bn: bool, use_clstoken: bool, metric: bool
    ) -> None:
        super().__init__()
        one, two, three, four = out_channels
        self.projects = nn.ModuleList(nn.Conv2d(width, c, 1) for c in out_channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(one, one, 4, stride=4),
                nn.ConvTranspose2d(two, two, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(four, four, 3, stride=2, padding=1),
            ]
        )
        self.readout_projects = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * width, width), nn.GELU()) for _ in range(4 if use_clstoken else 0)
        )
        self.scratch = nn.ModuleDict()
        for level, channels in enumerate((one, two, three, four), start=1):
            self.scratch[f"layer{level}_rn"] = nn.Conv2d(channels, features, 3, padding=1, bias=False)
            # The coarsest one has a first unit too, which nothing reaches: it is in every released file.
            self.scratch[f"refinenet{level}"] = Fusion(features, use_bn)
        self.scratch["output_conv1"] = nn.Conv2d(features, features // 2, 3, padding=1)
        self.scratch["output_conv2"] = nn.Sequential(
            nn.Conv2d(features // 2, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 1, 1),
            nn.Sigmoid() if metric else nn.ReLU(),
        )

    def forward(self, taps: list[Tensor], rows: int, columns: int) -> Tensor:  # [B, 1, 14 rows, 14 columns]
        """Join the tapped tokens [B, 1 + rows * columns, C]."""
        maps = []
        for level, tokens in enumerate(taps):
            x = tokens[:, 1:]
            if self.readout_projects:
                x = self.readout_projects[level](torch.cat([x, tokens[:, :1].expand_as(x)], -1))
            x = self.projects[level](x.mT.unflatten(-1, (rows, columns)))
            maps.append(self.scratch[f"layer{level + 1}_rn"](self.resize_layers[level](x)))
        h, w = maps[0].shape[-2:]
        sizes = [(2 * h, 2 * w), *((m.shape[-2], m.shape[-1]) for m in maps[:-1])]
        x = self.scratch["refinenet4"](sizes[3], maps[3])
        for level in (3, 2, 1):
            x = self.scratch[f"refinenet{level}"](sizes[level - 1], maps[level - 1], x)
        x = self.scratch["output_conv1"](x)
        x = F.interpolate(x, (rows * PATCH, columns * PATCH), mode="bilinear", align_corners=True)
        widen, rectify, flatten, activate = self.scratch["output_conv2"].children()
        x = rectify(widen(x))
        # Always in float32: eight bits of mantissa would cut the map into steps of 0.4 per cent.
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = activate(flatten(x.to(next(flatten.parameters()).dtype)))
        return out


class DepthAnythingV2(nn.Module):
    """Depth Anything V2, relative (`max_depth=None`) or metric; loads the released state dicts with strict=True.

    `forward` is the pure network, `infer` does sizes and units. Relative networks give disparity up to an affine map,
    at least 0; metric ones give depth along the view axis in metres, at most `max_depth` (20 indoor, 80 outdoor).
    """

    def __init__(
        self,
        encoder: str = "vitl",
        features: int | None = None,
        out_channels: Sequence[int] | None = None,
        use_bn: bool = False,
        use_clstoken: bool = False,
        max_depth: float | None = None,
    ) -> None:
        super().__init__()
        if encoder not in ENCODERS:
            raise ValueError(f"encoder={encoder!r}: expected one of {', '.join(ENCODERS)}")
        sizes = ENCODERS[encoder]
        self.encoder = encoder
        self.max_depth = max_depth
        self.taps = sizes.taps
        self.pretrained = DinoV2(sizes)
        self.depth_head = Head(
            sizes.width,
            sizes.features if features is None else features,
            sizes.out_channels if out_channels is None else out_channels,
            use_bn,
            use_clstoken,
            metric=max_depth is not None,
        )

    def forward(self, x: Tensor) -> Tensor:  # [B, h, w]
        """Normalised RGB [B, 3, h, w] to maps; h and w are multiples of 14."""
        h, w = x.shape[-2:]
        if x.ndim != 4 or x.shape[1] != 3 or h % PATCH or w % PATCH or not h * w:
            raise ValueError(f"expected [B, 3, h, w] with h and w multiples of {PATCH}, got {list(x.shape)}")
        out: Tensor = self.depth_head(self.pretrained.tapped(x, self.taps), h // PATCH, w // PATCH)[:, 0]
        return out if self.max_depth is None else out * self.max_depth

    @torch.no_grad()
    def infer(self, images: Tensor | NDArray[Any], input_size: int = 518) -> Tensor:  # [H, W] or [B, H, W]
        """RGB pictures, uint8 or floating in 0..1, to maps of their size, on the device of the network.

        Tensors are [3, H, W] or [B, 3, H, W], arrays [H, W, 3] or [B, H, W, 3].
        """
        if not isinstance(images, Tensor):
            images = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, -3)))
        if images.ndim not in (3, 4) or images.shape[-3] != 3:
            raise ValueError(f"expected pictures of three colours, got channels first {list(images.shape)}")
        batch = images if images.ndim == 4 else images[None]
        maps = self(prepare(batch.to(self.pretrained.cls_token.device), input_size))
        maps = restore(maps, (batch.shape[-2], batch.shape[-1]))
        return maps if images.ndim == 4 else maps[0]

    def infer_image(self, raw_image: NDArray[np.uint8], input_size: int = 518) -> NDArray[np.float32]:  # [H, W]
        """One picture as OpenCV reads it (uint8, blue first) to its map."""
        found: NDArray[np.float32] = self.infer(raw_image[..., ::-1], input_size).float().cpu().numpy()
        return found
