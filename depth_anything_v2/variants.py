"""The members of the family, and how a file of weights tells which one it belongs to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Encoder:
    """The sizes of one encoder and of the head that was released with it."""

    width: int
    depth: int
    heads: int
    taps: tuple[int, int, int, int]  # blocks whose output the head reads
    features: int  # channels of the head
    out_channels: tuple[int, int, int, int]  # channels of the four maps that enter the head
    gated: bool = False  # SwiGLU instead of a plain MLP
    grid: int = 37  # patches along a side of the pictures (518 pixels) that the position table was learnt with


ENCODERS = {
    # Not released by the authors: small enough for its weights to come with a program.
    "vitt": Encoder(192, 12, 3, (2, 5, 8, 11), 32, (24, 48, 96, 104), grid=9),
    "vits": Encoder(384, 12, 6, (2, 5, 8, 11), 64, (48, 96, 192, 384)),
    "vitb": Encoder(768, 12, 12, (2, 5, 8, 11), 128, (96, 192, 384, 768)),
    "vitl": Encoder(1024, 24, 16, (4, 11, 17, 23), 256, (256, 512, 1024, 1024)),
    "vitg": Encoder(1536, 40, 24, (9, 19, 29, 39), 384, (1536, 1536, 1536, 1536), gated=True),
}

# Metres at the far end of the metric networks; a file of weights does not say which of the two it was trained with.
MAX_DEPTH = {"indoor": 20.0, "outdoor": 80.0}


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """The encoder that a state dict belongs to, None if it is not one of this family.

    Relative and metric networks have the same keys and shapes and cannot be told apart.
    """
    cls_token = state.get("pretrained.cls_token")
    if cls_token is None or cls_token.ndim != 3 or "depth_head.projects.0.weight" not in state:
        return None
    blocks = [int(m[1]) for m in (re.match(r"pretrained\.blocks\.(\d+)\.", key) for key in state) if m]
    found = (cls_token.shape[-1], max(blocks, default=-1) + 1)
    return next((name for name, encoder in ENCODERS.items() if (encoder.width, encoder.depth) == found), None)
