"""The peer: Depth Anything V2 of the transformers library, holding the weights of one of our networks."""

import re

import torch
from torch import Tensor, nn

from depth_anything_v2 import ENCODERS, DepthAnythingV2

_RULES = [
    (r"^pretrained\.patch_embed\.proj\.", "backbone.embeddings.patch_embeddings.projection."),
    (r"^pretrained\.pos_embed$", "backbone.embeddings.position_embeddings"),
    (r"^pretrained\.(cls_token|mask_token)$", r"backbone.embeddings.\1"),
    (r"^pretrained\.norm\.", "backbone.layernorm."),
    (r"^pretrained\.blocks\.", "backbone.encoder.layer."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
    (r"\.mlp\.w3\.", ".mlp.down_proj."),
    (r"^depth_head\.projects\.(\d)\.", r"neck.reassemble_stage.layers.\1.projection."),
    (r"^depth_head\.resize_layers\.(\d)\.", r"neck.reassemble_stage.layers.\1.resize."),
    (r"^depth_head\.scratch\.layer(\d)_rn\.", lambda m: f"neck.convs.{int(m[1]) - 1}."),
    (r"^depth_head\.scratch\.refinenet(\d)\.", lambda m: f"neck.fusion_stage.layers.{4 - int(m[1])}."),
    (r"\.out_conv\.", ".projection."),
    (r"\.resConfUnit(\d)\.conv(\d)\.", r".residual_layer\1.convolution\2."),
    (r"^depth_head\.scratch\.output_conv1\.", "head.conv1."),
    (r"^depth_head\.scratch\.output_conv2\.0\.", "head.conv2."),
    (r"^depth_head\.scratch\.output_conv2\.2\.", "head.conv3."),
]
# What transformers keeps apart and the released files keep in one matrix.
_SPLIT = {
    ".attn.qkv.": [".attention.q_proj.", ".attention.k_proj.", ".attention.v_proj."],
    ".mlp.w12.": [".mlp.gate_proj.", ".mlp.up_proj."],
}


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict under the names of transformers."""
    found = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in _RULES:
            name = re.sub(pattern, replacement, name)
        parts = next((v for k, v in _SPLIT.items() if k in name), None)
        if parts is None:
            found[name] = value
            continue
        whole = next(k for k in _SPLIT if k in name)
        for part, piece in zip(parts, value.chunk(len(parts)), strict=True):
            found[name.replace(whole, part)] = piece
    return found


def peer(net: DepthAnythingV2) -> nn.Module:
    """The same network of transformers with the same weights."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    sizes = ENCODERS[net.encoder]
    backbone = Dinov2Config(
        hidden_size=sizes.width,
        num_hidden_layers=sizes.depth,
        num_attention_heads=sizes.heads,
        image_size=518,
        patch_size=14,
        use_swiglu_ffn=sizes.gated,
        out_features=[f"stage{tap + 1}" for tap in sizes.taps],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=sizes.width,
        neck_hidden_sizes=list(sizes.out_channels),
        fusion_hidden_size=sizes.features,
        head_hidden_size=32,
        patch_size=14,
        depth_estimation_type="relative" if net.max_depth is None else "metric",
        max_depth=int(net.max_depth or 1),
    )
    with torch.device("meta"):
        theirs = DepthAnythingForDepthEstimation(config)
    theirs.load_state_dict(renamed(net.state_dict()), strict=True, assign=True)
    return theirs.eval()
