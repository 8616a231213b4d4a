"""Which model a file holds, told by its keys and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

_TABLE = "pretrained.model.blocks.{}.attn.relative_position_bias_table"
_SCALE = "pretrained.model.layers.2.blocks.{}.attn.logit_scale"
_STEM = "pretrained.model.patch_embed.backbone.stem.conv.weight"
_LAST = "scratch.output_conv.4.weight"
_DEEPEST = "scratch.layer4_rn.weight"

# Keys with shapes that, taken together, one architecture has and no other.
_MARKS: dict[str, dict[str, tuple[int, ...]]] = {
    "dpt_beit_large_512": {_TABLE.format(23): (63 * 63 + 3, 16)},
    "dpt_beit_large_384": {_TABLE.format(23): (47 * 47 + 3, 16)},
    "dpt_beit_base_384": {_TABLE.format(11): (47 * 47 + 3, 12)},
    "dpt_swin2_large_384": {_SCALE.format(17): (24, 1, 1)},
    "dpt_swin2_base_384": {_SCALE.format(17): (16, 1, 1)},
    "dpt_swin2_tiny_256": {_SCALE.format(5): (12, 1, 1)},
    "dpt_swin_large_384": {_SCALE.format(17).replace("logit_scale", "relative_position_bias_table"): (23 * 23, 24)},
    "dpt_next_vit_large_384": {"pretrained.model.features.39.norm1.weight": (768,)},
    "dpt_levit_224": {"pretrained.model.blocks.8.kv.c.weight": (1920, 384)},
    "dpt_large_384": {"pretrained.model.blocks.23.attn.qkv.bias": (3072,)},
    "dpt_hybrid_384": {_STEM: (64, 3, 7, 7), _LAST: (1, 32, 1, 1)},
    "midas_v21_384": {"pretrained.layer1.4.0.conv2.weight": (256, 8, 3, 3), _DEEPEST: (256, 2048, 3, 3)},
    "midas_v21_small_256": {_DEEPEST: (512, 384, 3, 3)},
    "midas_tiny": {_DEEPEST: (64, 320, 3, 3), _LAST: (1, 16, 1, 1)},
    "midas_tiny_normal": {_DEEPEST: (64, 320, 3, 3), _LAST: (3, 16, 1, 1)},
    "omnidata_dpt_normal": {_STEM: (64, 3, 7, 7), _LAST: (3, 32, 1, 1)},
    "omnidata_unet_normal": {"down1.conv1.weight": (16, 3, 3, 3), "up_blocks.5.conv1.weight": (512, 1536, 3, 3)},
}


def bare_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in a released file, without what training scripts wrap around them."""
    state = checkpoint
    for wrapper in ("state_dict", "model"):
        if isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    for prefix in ("module.", "model."):  # of data-parallel training and of Lightning
        if state and all(key.startswith(prefix) for key in state):
            state = {key[len(prefix) :]: value for key, value in state.items()}
    return dict(state)


def recognise(checkpoint: Mapping[str, Any]) -> str | None:
    """Name of the model that a released file holds, None if it is none of these.

    The depth network of Omnidata has exactly the keys of dpt_hybrid_384; only the prefix that Lightning puts before
    every key of the released file tells them apart, so without it dpt_hybrid_384 is the answer.
    """
    state = bare_state(checkpoint)
    for name, marks in _MARKS.items():
        if all(key in state and tuple(state[key].shape) == shape for key, shape in marks.items()):
            lightning = any(key.startswith("model.") for key in checkpoint.get("state_dict", checkpoint))
            return "omnidata_dpt_depth" if name == "dpt_hybrid_384" and lightning else name
    return None
