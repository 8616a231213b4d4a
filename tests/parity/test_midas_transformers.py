"""The same weights in the DPT of the transformers library give the same maps: a second opinion where nothing was
recorded, and on sizes that were not.
"""

import re

import pytest
import torch

import midas

from . import recipe

transformers = pytest.importorskip("transformers", minversion="5")

_PATTERNS = [
    (r"^neck\.reassemble_stage\.readout_projects\.(\d)\.0\.", r"pretrained.act_postprocess{+\1}.0.project.0."),
    (r"^neck\.reassemble_stage\.layers\.(\d)\.projection\.", r"pretrained.act_postprocess{+\1}.3."),
    (r"^neck\.reassemble_stage\.layers\.(\d)\.resize\.", r"pretrained.act_postprocess{+\1}.4."),
    (r"^neck\.convs\.(\d)\.", r"scratch.layer{+\1}_rn."),
    (r"^neck\.fusion_stage\.layers\.(\d)\.", r"scratch.refinenet{-\1}."),
    (r"\.projection\.(?=weight|bias)", ".out_conv."),
    (r"residual_layer(\d)\.convolution", r"resConfUnit\1.conv"),
    (r"^head\.head\.", "scratch.output_conv."),
    (r"\{\+(\d)\}", lambda m: str(int(m[1]) + 1)),
    (r"\{-(\d)\}", lambda m: str(4 - int(m[1]))),
]
_BLOCK = [
    (r"^backbone\.swin\.", "backbone."),
    (r"\.(layer|layers)\.(\d+)\.(?=attention|layernorm|intermediate|output|lambda|mlp|relative)", r".blocks.\2."),
    (r"\.lambda_", ".gamma_"),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"(?<!attention)\.output\.dense\.", ".mlp.fc2."),
    (r"(\.attention)?\.relative_position_bias\.relative_position_bias_table", ".attn.relative_position_bias_table"),
    (r"\.attention\.(?:attention|self)\.", ".attention."),
    (r"\.attention\.(query|key|value)\.", r".attention.\1_proj."),
    (r"\.attention\.(q|k|v)\w*_proj\.(weight|bias)", r".attn.\1.\2"),
    (r"\.attention\.logit_scale", ".attn.logit_scale"),
    (r"\.attention\.continuous_position_bias_mlp\.", ".attn.cpb_mlp."),
    (r"^(dpt|backbone|backbone\.beit)\.encoder\.", "pretrained.model."),
    (r"^backbone\.beit\.layers\.|^backbone\.beit\.blocks\.", "pretrained.model.blocks."),
    (r"^(dpt|backbone\.beit|backbone)\.embeddings\.", "pretrained.model."),
    (r"model\.backbone\.bit\.embedder\.convolution\.", "model.patch_embed.backbone.stem.conv."),
    (r"model\.backbone\.bit\.embedder\.norm\.", "model.patch_embed.backbone.stem.norm."),
    (r"model\.backbone\.bit\.encoder\.stages\.(\d)\.layers\.", r"model.patch_embed.backbone.stages.\1.blocks."),
    (r"model\.position_embeddings", "model.pos_embed"),
    (r"model\.patch_embeddings\.projection\.", "model.patch_embed.proj."),
    (r"model\.projection\.", "model.patch_embed.proj."),
    (r"model\.norm\.", "model.patch_embed.norm."),
    (r"^(dpt|backbone)\.layernorm\.", "pretrained.model.norm."),
]


def value(key, state):
    """The weight that transformers calls `key`, out of a released state dict."""
    for pattern, replacement in _PATTERNS if key.startswith(("neck.", "head.")) else _BLOCK:
        key = re.sub(pattern, replacement, key)
    part = re.search(r"\.attn\.(q|k|v)\.(weight|bias)$", key)
    if not part:
        return state[key]
    block = key[: part.start()] + ".attn."
    if f"{block}{part[1]}_bias" in state and part[2] == "bias":
        return state[f"{block}{part[1]}_bias"]
    return state[f"{block}qkv.{part[2]}"].chunk(3)["qkv".index(part[1])]


def vit(**more):
    sizes = {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "backbone_out_indices": [5, 11, 17, 23],
        "neck_hidden_sizes": [256, 512, 1024, 1024],
    }
    return transformers.DPTConfig(image_size=384, layer_norm_eps=1e-6, **{**sizes, **more})


def hybrid():
    return vit(
        is_hybrid=True,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        backbone_out_indices=[2, 5, 8, 11],
        neck_hidden_sizes=[256, 512, 768, 768],
        neck_ignore_stages=[0, 1],
    )


def beit(side, width, depth, channels):
    backbone = transformers.BeitConfig(
        image_size=side,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        use_relative_position_bias=True,
        use_absolute_position_embeddings=False,
        use_mask_token=False,
        reshape_hidden_states=False,
        layer_norm_eps=1e-6,
        layer_scale_init_value=0.1,
        out_features=[f"stage{depth * (i + 1) // 4}" for i in range(4)],
    )
    return transformers.DPTConfig(backbone_config=backbone, neck_hidden_sizes=channels, hidden_size=width)


def swin2(side, width, depths, window, trained):
    backbone = transformers.Swinv2Config(
        image_size=side,
        embed_dim=width,
        depths=depths,
        num_heads=[width // 32 << i for i in range(4)],
        window_size=window,
        pretrained_window_sizes=trained,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return transformers.DPTConfig(
        backbone_config=backbone, neck_hidden_sizes=[width << i for i in range(4)], hidden_size=width << 3
    )


# Sizes: non-native wherever the library takes them, non-square where it does.
CASES = {
    "dpt_swin2_tiny_256": (lambda: swin2(256, 96, [2, 2, 6, 2], 16, [0, 0, 0, 0]), (256, 256)),
    "dpt_hybrid_384": (hybrid, (128, 128)),
    "dpt_beit_base_384": (lambda: beit(384, 768, 12, [96, 192, 384, 768]), (96, 160)),
    "dpt_large_384": (vit, (160, 160)),
    "dpt_beit_large_384": (lambda: beit(384, 1024, 24, [256, 512, 1024, 1024]), (160, 96)),
    "dpt_beit_large_512": (lambda: beit(512, 1024, 24, [256, 512, 1024, 1024]), (96, 160)),
    "dpt_swin2_base_384": (lambda: swin2(384, 128, [2, 2, 18, 2], 24, [12, 12, 12, 6]), (384, 384)),
    "dpt_swin2_large_384": (lambda: swin2(384, 192, [2, 2, 18, 2], 24, [12, 12, 12, 6]), (384, 384)),
}
HEAVY = {name for name in CASES if "large" in name or name == "dpt_swin2_base_384"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in HEAVY else []) for n in CASES], ids=str
)
@torch.no_grad()
def test_transformers_agrees(name):
    config, size = CASES[name]
    state = recipe.weights(name)
    x = recipe.net_input(*size, recipe.HALF)
    net = midas.load(name, state | structural(name))
    ours = net(x)
    del net
    theirs = transformers.DPTForDepthEstimation._from_config(config(), attn_implementation="eager").eval()
    for key, parameter in theirs.named_parameters():
        parameter.copy_(value(key, state))
    if "hybrid" in name:
        theirs.dpt.embeddings.image_size = size  # it resizes its position table only if this does not forbid it
    found = theirs(x).predicted_depth
    # Two implementations round differently; recorded outputs of the originals move by as much between two machines.
    assert off(ours, found) < (2e-4 if "hybrid" in name else 3e-5)


@pytest.mark.slow
@torch.no_grad()
def test_transformers_agrees_on_features_of_swin():
    """The library has no DPT on Swin v1, whose decoder is that of Swin v2."""
    state = recipe.weights("dpt_swin_large_384")
    x = recipe.net_input(384, 384, recipe.HALF)
    ours = midas.load("dpt_swin_large_384", state | structural("dpt_swin_large_384")).features(x)
    config = transformers.SwinConfig(
        image_size=384, embed_dim=192, depths=[2, 2, 18, 2], num_heads=[6, 12, 24, 48], window_size=12
    )
    theirs = transformers.SwinModel._from_config(config, attn_implementation="eager").eval()
    for key, parameter in theirs.named_parameters():
        parameter.copy_(value(f"backbone.{key}", state))
    found: list[torch.Tensor] = []
    for stage in theirs.encoder.layers:
        stage.blocks[-1].register_forward_hook(lambda _, __, output: found.append(output[0]))
    theirs(x)
    for mine, other in zip(ours, found, strict=True):
        assert off(mine, other.mT.reshape(mine.shape)) < 3e-5


def off(ours, found):
    """The largest difference in standard deviations."""
    return float(((ours - found) / found.std()).abs().max())


def structural(name):
    """The tables that released files hold beside the weights."""
    return {
        key: torch.zeros((), dtype=getattr(torch, entry["dtype"])).expand(entry["shape"])
        for key, entry in recipe.specification(name)["keys"].items()
        if "scale" not in entry
    }
