"""The networks of `midas` against what the originals gave, and every fact of theirs that the keys do not show."""

import copy
import gc
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import midas
from midas.beit import relative_index, resized_table
from midas.blocks import Decoder, ResidualUnit
from midas.levit import TransposedUnit
from midas.vit import resized_positions
from tests.parity import recipe
from tests.parity.golden import GOLDENS, MAX_ERROR, RMS_ERROR, Golden

RELEASED = [name for name in midas.MODELS if not name.startswith("midas_tiny")]
RECORDED = [name for name in RELEASED if (GOLDENS / f"{name}.npz").exists()]
# Group norm over standardised weights amplifies rounding: the originals themselves move by 6e-5 between machines.
LOOSE = {
    "dpt_hybrid_384": (2e-4, 6e-5),
    "omnidata_dpt_normal": (2e-4, 6e-5),
    "dpt_swin2_tiny_256": (MAX_ERROR, 1e-5),  # 7.9e-6 on a processor without AVX-512
}


def on_meta(name):
    """The network without memory: enough for keys, shapes and the order of modules."""
    with torch.device("meta"):
        return midas.create(name, seed=None).eval()


def empty_file(name):
    """All keys of a released file with their shapes, without memory."""
    return {
        key: torch.empty(entry["shape"], dtype=getattr(torch, entry["dtype"]), device="meta")
        for key, entry in recipe.specification(name)["keys"].items()
    }


def stand_in(name):
    """A released file with the weights of the recipe; its tables of indices are zero, for nobody may read them."""
    entries = recipe.specification(name)["keys"]
    tables = {
        key: torch.zeros((), dtype=getattr(torch, entry["dtype"])).expand(entry["shape"])
        for key, entry in entries.items()
        if "scale" not in entry
    }
    return recipe.weights(name) | tables


def norm_of(name):
    return recipe.IMAGENET if name.startswith("midas") else recipe.HALF


@pytest.fixture(scope="module", params=RECORDED)
def recorded(request):
    """One network after the other, with its golden; only one at a time is in memory."""
    net = midas.load(request.param, stand_in(request.param))
    yield net, Golden(request.param)
    del net
    gc.collect()


def recorded_blocks(net):
    """Row of the record and module, for every module whose output is one of the recorded blocks."""
    encoder, family = net.pretrained, net.spec.family
    if family == "convolutional":
        return list(enumerate([encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4]))
    model = encoder.model
    if family == "levit":  # counted with attention and MLP apart; only what follows an MLP or a subsampling is a module
        found = []
        for stage, first in zip(model.stages, (0, 10, 20), strict=True):
            if first:
                found += [(first - 2, stage.downsample.attn_downsample), (first - 1, stage.downsample)]
            found += [(first + 2 * i + 1, block) for i, block in enumerate(stage.blocks)]
        return [(row, module) for row, module in found if row <= 21]  # nothing behind the last tap is run
    if family == "swin":
        return list(enumerate(block for stage in model.layers for block in stage.blocks))
    if family == "next_vit":
        return list(enumerate(block for stage in model.stages for block in stage.blocks))
    stages = list(model.patch_embed.backbone.stages) if family == "hybrid" else []
    return list(enumerate([*stages, *model.blocks]))


def run_recorded(net, golden, case):
    """Compare blocks, taps and output, from the inside out, so that a failure names the first that differs."""
    worst, rms = LOOSE.get(net.spec.name, (MAX_ERROR, RMS_ERROR))
    blocks, taps, hooks = {}, {}, []
    rows = recorded_blocks(net)
    for row, module in rows:
        hooks.append(module.register_forward_hook(lambda m, i, o, row=row: blocks.__setitem__(row, o.clone())))
    for key in golden.arrays:
        if not key.startswith(f"{case}/tap/"):
            continue
        name = key.rsplit("/", 1)[1]
        module = net.scratch.get_submodule(name.removeprefix("feat_"))
        if name.startswith("feat_"):
            hooks.append(module.register_forward_pre_hook(lambda m, i, name=name: taps.__setitem__(name, i[0].clone())))
        else:
            hooks.append(module.register_forward_hook(lambda m, i, o, name=name: taps.__setitem__(name, o.clone())))
    height, width = map(int, case.split("x"))
    with torch.no_grad():
        output = net(recipe.net_input(height, width, norm_of(net.spec.name)))
    for hook in hooks:
        hook.remove()
    record = golden.arrays[f"{case}/blocks"]
    assert len(record) == (28 if net.spec.family == "levit" else len(rows))
    for row, value in sorted(blocks.items()):
        v = value.double().numpy()
        found = np.array([v.mean(), v.std(), v.min(), v.max()])
        assert np.abs(found - record[row]).max() <= worst * record[row][1], f"{case} block {row}"
    assert len(blocks) == len(rows)
    assert len(taps) >= 12
    for name, value in taps.items():
        golden.check_tap(case, name, value, worst)
    golden.check(case, output, worst, rms)


def test_outputs_and_all_stages_are_those_of_the_original(recorded):
    net, golden = recorded
    cases = [case for case in golden.cases if case != "384x384"]
    assert len(cases) in (1, 2, 3)
    for case in cases:
        run_recorded(net, golden, case)


@pytest.mark.slow
def test_outputs_at_native_size_are_those_of_the_original(recorded):
    net, golden = recorded
    if "384x384" not in golden.cases:
        pytest.skip("the native size is among the quick cases or was not recorded")
    run_recorded(net, golden, "384x384")


def test_recipe_draws_the_weights_behind_the_goldens():
    assert (
        recipe.checksum(recipe.weights("midas_v21_small_256"))
        == (recipe.specification("midas_v21_small_256")["weights_crc32"])
    )


# ---------------------------------------------------------------------------------------------------- released files


@pytest.mark.parametrize("name", RELEASED)
def test_released_keys_load_strictly(name):
    net, file = on_meta(name), empty_file(name)
    net.load_state_dict(file, strict=True)
    specification = recipe.specification(name)
    assert sum(p.numel() for p in net.parameters()) == specification["n_params"]
    weights = {key for key, entry in specification["keys"].items() if not entry.get("structural")}
    counters = {key for key in specification["keys"] if key.endswith("num_batches_tracked")}
    assert set(net.state_dict()) == weights | counters
    assert {key: list(value.shape) for key, value in net.state_dict().items()} == {
        key: specification["keys"][key]["shape"] for key in weights | counters
    }


@pytest.mark.parametrize("name", RELEASED)
def test_misfits_are_reported(name):
    net, file = on_meta(name), empty_file(name)
    kept = next(key for key in net.state_dict() if key.endswith(".weight"))
    with pytest.raises(RuntimeError, match="Missing key"):
        net.load_state_dict({key: value for key, value in file.items() if key != kept})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        net.load_state_dict(file | {"scratch.refinenet5.out_conv.weight": torch.empty(1, device="meta")})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        net.load_state_dict(file | {"relative_position_index.of_something": torch.empty(1, device="meta")})
    with pytest.raises(RuntimeError, match="size mismatch"):
        net.load_state_dict(file | {kept: torch.empty(1, 2, device="meta")})


@pytest.mark.parametrize("name", ["dpt_swin2_tiny_256", "dpt_levit_224", "dpt_next_vit_large_384", "dpt_beit_base_384"])
def test_names_of_todays_timm_are_not_taken_for_released_ones(name):
    """Stages of Swin shifted by one would fit half of the keys; nothing may be loaded under a name of two meanings."""
    net, file = on_meta(name), empty_file(name)
    own = next(key for key, _ in net.named_parameters() if key not in file)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        net.load_state_dict(file | {own: torch.empty(1, device="meta")})


# Counters that a file lacks are made by torch, on the CPU.
@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")
@pytest.mark.parametrize("name", RELEASED)
@pytest.mark.parametrize("other", ["dpt_hybrid_384", "midas_v21_small_256"])
def test_files_of_other_models_are_refused_and_named(name, other):
    file = empty_file(name)
    same = {"dpt_hybrid_384", "omnidata_dpt_depth"}  # one architecture, one set of keys
    assert midas.recognise(file) == ("dpt_hybrid_384" if name in same else name)
    if name == other or {name, other} == same:
        return
    with pytest.raises(RuntimeError):
        on_meta(other).load_state_dict(file)


def test_wrapped_files_are_recognised_and_loaded():
    file = empty_file("omnidata_dpt_depth")
    lightning = {"epoch": 3, "state_dict": {f"model.{key}": value for key, value in file.items()}}
    assert midas.recognise(lightning) == "omnidata_dpt_depth"
    assert set(midas.bare_state(lightning)) == set(file)
    parallel = {"model": {f"module.{key}": value for key, value in file.items()}, "optimizer": {}}
    assert midas.recognise(parallel) == "dpt_hybrid_384"
    assert set(midas.bare_state(parallel)) == set(file)
    for strange in ({}, {"pretrained.blocks.0.norm1.weight": torch.zeros(3)}, {"state_dict": {}}):
        assert midas.recognise(strange) is None


def test_a_net_inside_another_speaks_released_names_too():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.before = nn.Linear(1, 1)
            self.net = on_meta("dpt_levit_224")

    holder, file = Holder(), empty_file("dpt_levit_224")
    state = holder.state_dict()
    assert "net.pretrained.model.blocks.8.kv.c.weight" in state
    assert "before.weight" in state
    holder.load_state_dict(state, strict=True)
    holder.load_state_dict(
        {f"net.{key}": value for key, value in file.items()} | dict(holder.before.state_dict(prefix="before."))
    )
    copied = copy.deepcopy(holder)
    assert set(copied.state_dict()) == set(state)


def test_what_is_saved_is_what_was_loaded():
    weights = recipe.weights("dpt_swin2_tiny_256")
    saved = midas.load("dpt_swin2_tiny_256", stand_in("dpt_swin2_tiny_256")).state_dict()
    assert set(saved) == set(weights)
    assert all(torch.equal(saved[key], value) for key, value in weights.items())


@pytest.mark.parametrize("name", ["midas_v21_small_256", "dpt_levit_224"])
def test_keys_marked_unused_have_no_influence(name):
    unused = {key for key, entry in recipe.specification(name)["keys"].items() if entry.get("unused")}
    assert unused
    file = stand_in(name)
    x = recipe.net_input(*((224, 224) if "levit" in name else (64, 96)), norm_of(name))
    with torch.no_grad():
        reference = midas.load(name, file)(x)
        other = midas.load(name, {key: torch.full_like(v, 7) if key in unused else v for key, v in file.items()})(x)
    assert torch.equal(reference, other)


# ------------------------------------------------------------------------------------------------------ architecture


def inputs_of(modules):
    """Records what every module is given, by name."""
    found = {}
    for name, module in modules.items():
        module.register_forward_pre_hook(lambda m, i, name=name: found.__setitem__(name, i[0]))
    return found


@pytest.mark.parametrize(
    ("name", "taps"),
    [
        ("dpt_beit_large_512", (5, 11, 17, 23)),
        ("dpt_beit_large_384", (5, 11, 17, 23)),
        ("dpt_beit_base_384", (2, 5, 8, 11)),
        ("dpt_large_384", (5, 11, 17, 23)),
    ],
)
def test_transformers_are_tapped_before_the_final_norm(name, taps):
    net = on_meta(name)
    outputs = []
    for block in net.pretrained.model.blocks:
        block.register_forward_hook(lambda m, i, o: outputs.append(o))
    given = inputs_of({str(i): net.pretrained.get_submodule(f"act_postprocess{i + 1}") for i in range(4)})
    net(torch.empty(2, 3, 96, 160, device="meta"))
    assert all(given[str(i)] is outputs[tap] for i, tap in enumerate(taps))


@pytest.mark.parametrize("name", ["dpt_hybrid_384", "omnidata_dpt_depth", "omnidata_dpt_normal"])
def test_hybrid_is_tapped_at_two_stages_and_two_blocks(name):
    net = on_meta(name)
    outputs = []
    for module in [*net.pretrained.model.patch_embed.backbone.stages, *net.pretrained.model.blocks]:
        module.register_forward_hook(lambda m, i, o: outputs.append(o))
    given = inputs_of(
        {
            "1": net.scratch.layer1_rn,
            "2": net.scratch.layer2_rn,
            "3": net.pretrained.act_postprocess3,
            "4": net.pretrained.act_postprocess4,
        }
    )
    net(torch.empty(1, 3, 64, 96, device="meta"))
    assert [given["1"] is outputs[0], given["2"] is outputs[1]] == [True, True]
    assert [given["3"] is outputs[3 + 8], given["4"] is outputs[3 + 11]] == [True, True]


@pytest.mark.parametrize("name", ["dpt_swin2_large_384", "dpt_swin2_base_384", "dpt_swin_large_384"])
def test_swin_is_tapped_before_downsampling(name):
    net = on_meta(name)
    outputs = []
    for stage in net.pretrained.model.layers:
        stage.blocks[-1].register_forward_hook(lambda m, i, o: outputs.append(o))
    assert [len(stage.blocks) for stage in net.pretrained.model.layers] == [2, 2, 18, 2]
    features = net.features(torch.empty(1, 3, 384, 384, device="meta"))
    assert [list(f.shape) for f in features] == [[1, o.shape[3], *o.shape[1:3]] for o in outputs]
    assert [f.shape[-1] for f in features] == [96, 48, 24, 12]


@pytest.mark.parametrize("name", midas.MODELS)
def test_details_that_keys_do_not_show(name):
    net = on_meta(name)
    family = net.spec.family

    def found(kind, attribute):
        return {getattr(m, attribute) for m in net.modules() if isinstance(m, kind)}

    transformers = {"vit": {1e-6}, "hybrid": {1e-6}, "beit": {1e-6}, "swin": {1e-5}}
    assert found(nn.LayerNorm, "eps") == transformers.get(family, set())
    assert found(nn.GroupNorm, "eps") == ({1e-5} if family in ("hybrid", "unet") else set())
    assert found(nn.modules.batchnorm._BatchNorm, "eps") == {
        "midas_v21_small_256": {1e-3},
        "midas_v21_384": {1e-5},
        "midas_tiny": {1e-5},
        "midas_tiny_normal": {1e-5},
        "dpt_levit_224": {1e-5},
        "dpt_next_vit_large_384": {1e-5},
    }.get(name, set())
    assert found(timm.layers.StdConv2dSame, "eps") == ({1e-8} if family == "hybrid" else set())
    assert found(nn.GELU, "approximate") <= {"none"}
    assert found(ResidualUnit, "rectified_skip") == (set() if family == "unet" else {name == "midas_v21_384"})
    if family != "unet":
        assert net.scratch.output_conv[1].align_corners is (family != "convolutional")
        assert isinstance(net.scratch.output_conv[5], nn.Softplus if name.startswith("midas_tiny") else nn.ReLU)


def test_positions_are_resized_by_plain_bilinear_interpolation():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(1, 1 + 4 * 4, 3, generator=generator)
    found = resized_positions(table, (2, 3))
    assert torch.equal(found[:, 0], table[:, 0])
    grid = table[0, 1:].view(4, 4, 3)
    for i in range(2):
        for j in range(3):
            y, x = 2 * (i + 0.5) - 0.5, 4 / 3 * (j + 0.5) - 0.5  # half-pixel centres, no antialiasing
            a, b = int(y), int(x)
            top = (1 - (x - b)) * grid[a, b] + (x - b) * grid[a, b + 1]
            bottom = (1 - (x - b)) * grid[a + 1, b] + (x - b) * grid[a + 1, b + 1]
            expected = (1 - (y - a)) * top + (y - a) * bottom
            torch.testing.assert_close(found[0, 1 + 3 * i + j], expected)
    assert resized_positions(table, (4, 4)) is table


def test_relative_index_counts_as_the_tables_are_laid_out():
    h, w = 2, 3
    index = relative_index((h, w))
    rows = (2 * h - 1) * (2 * w - 1)
    assert index[0, 0] == rows + 2
    for a in range(h * w):
        assert index[0, 1 + a] == rows
        assert index[1 + a, 0] == rows + 1
        for b in range(h * w):
            dy, dx = a // w - b // w, a % w - b % w
            assert index[1 + a, 1 + b] == (dy + h - 1) * (2 * w - 1) + dx + w - 1


def test_relative_tables_keep_their_last_three_rows():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(7 * 7 + 3, 2, generator=generator)
    found = resized_table(table, (4, 4), (2, 3))
    assert found.shape == (3 * 5 + 3, 2)
    assert torch.equal(found[-3:], table[-3:])
    grid = table[:-3].view(7, 7, 2).permute(2, 0, 1)[None]
    expected = F.interpolate(grid, (3, 5), mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    torch.testing.assert_close(found[:-3].view(3, 5, 2), expected)
    assert resized_table(table, (4, 4), (4, 4)) is table


def test_skip_of_v21_carries_what_its_in_place_relu_leaves():
    unit = ResidualUnit(4, rectified_skip=True)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 6, 6, generator=generator)

    def literally(x):
        out = F.relu(x, inplace=True)
        out = F.relu(unit.conv1(out), inplace=True)
        return unit.conv2(out) + x

    with torch.no_grad():
        kept = x.clone()
        torch.testing.assert_close(unit(x), literally(x.clone()))
        assert torch.equal(x, kept)
        clean = ResidualUnit(4, rectified_skip=False)
        clean.load_state_dict(unit.state_dict())
        torch.testing.assert_close(clean(x) - unit(x), x.clamp(max=0))


def test_transposed_unit_of_levit_pads_its_output():
    unit = TransposedUnit(2, 3).eval()
    x = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = unit.c(x)
    assert found.shape == (1, 3, 10, 8)
    spread = torch.zeros(1, 2, 10, 8)
    spread[:, :, ::2, ::2] = x
    expected = F.conv2d(F.pad(spread, (1, 1, 1, 1)), unit.c.weight.flip(2, 3).transpose(0, 1))
    torch.testing.assert_close(found, expected)


def test_convolution_before_or_after_interpolation_is_one_thing():
    """The decoder convolves first, which is cheaper; the original does so last."""
    decoder = Decoder((3, 4), (8, 8), (4, 2, 1))
    fusion = decoder.refinenet1
    generator = torch.Generator().manual_seed(0)
    x, finer = torch.randn(2, 1, 8, 5, 7, generator=generator)
    with torch.no_grad():
        inside = fusion.resConfUnit2(x + fusion.resConfUnit1(finer))
        expected = fusion.out_conv(F.interpolate(inside, (10, 13), mode="bilinear", align_corners=True))
        torch.testing.assert_close(fusion(x, finer, (10, 13)), expected)


def test_unet_is_the_one_of_the_contract():
    """Written out once more with functions alone."""
    state = recipe.weights("omnidata_unet_normal")

    def block(x, path, convolution="conv{}", norm="bn{}"):
        for i in (1, 2, 3):
            c, n = path + convolution.format(i), path + norm.format(i)
            x = F.conv2d(x, state[f"{c}.weight"], state[f"{c}.bias"], padding=1)
            x = F.group_norm(x, 8, state[f"{n}.weight"], state[f"{n}.bias"]).relu()
        return x

    x = recipe.net_input(64, 128, ((0.0,) * 3, (1.0,) * 3))
    with torch.no_grad():
        found = midas.load("omnidata_unet_normal", state)(x)
        levels = [block(x, "down1.")]
        for i in range(6):
            levels.append(F.max_pool2d(block(levels[-1], f"down_blocks.{i}."), 2))
        y = block(levels[-1], "", "mid_conv{}")
        for i in (5, 4, 3, 2, 1, 0):
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
            y = block(torch.cat([y, levels[i]], 1), f"up_blocks.{i}.")
        y = F.conv2d(y, state["last_conv1.weight"], state["last_conv1.bias"], padding=1)
        y = F.group_norm(y, 8, state["last_bn.weight"], state["last_bn.bias"]).relu()
        expected = F.conv2d(y, state["last_conv2.weight"], state["last_conv2.bias"])
    assert found.shape == (1, 3, 64, 128)
    torch.testing.assert_close(found, expected)
    assert float(found.min()) < 0, "no activation at the end"


# ------------------------------------------------------------------------------------------------------------- sizes

LEGAL = {
    "vit": [(384, 384), (96, 160), (48, 80), (16, 32)],
    "hybrid": [(384, 384), (96, 160), (64, 32)],
    "beit": [(96, 160), (48, 80)],
    "swin": [],
    "levit": [],
    "next_vit": [(384, 384), (64, 96), (32, 64)],
    "convolutional": [(384, 384), (96, 160), (32, 64)],
    "unet": [(384, 384), (64, 128)],
}
ILLEGAL = {
    "vit": (70, 100),
    "hybrid": (72, 96),
    "beit": (70, 100),
    "swin": (256, 384),
    "levit": (256, 256),
    "next_vit": (14, 14),
    "convolutional": (48, 80),
    "unet": (96, 96),
}


@pytest.mark.parametrize("name", midas.MODELS)
def test_every_legal_size_gives_a_map_of_that_size(name):
    net = on_meta(name)
    spec = net.spec
    for height, width in LEGAL[spec.family] or [(spec.side, spec.side)]:
        out = net(torch.empty(2, 3, height, width, device="meta"))
        assert out.shape == ((2, 3, height, width) if spec.output == "normal" else (2, height, width))
    with pytest.raises(ValueError, match=f"^{name} takes ") as told:
        net(torch.empty(1, 3, *ILLEGAL[spec.family], device="meta"))
    assert str(spec.legal or f"{spec.side}x{spec.side}") in str(told.value)
    assert "\n" not in str(told.value)


def test_hybrid_of_midas_takes_sizes_that_omnidata_refuses():
    for height, width in ((48, 80), (80, 112)):
        x = torch.empty(1, 3, height, width, device="meta")
        assert on_meta("dpt_hybrid_384")(x).shape == (1, height, width)
        with pytest.raises(ValueError, match="multiples of 32"):
            on_meta("omnidata_dpt_depth")(x)


def test_next_vit_rounds_its_output_up_to_multiples_of_four():
    net = on_meta("dpt_next_vit_large_384")
    assert net(torch.empty(1, 3, 70, 100, device="meta")).shape == (1, 72, 100)
    assert net(torch.empty(1, 3, 28, 42, device="meta")).shape == (1, 28, 44)


def test_batches_are_looked_at_one_by_one():
    net = midas.create("midas_tiny").eval()
    x = torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(net(x)[1:2], net(x[1:2]))


# -------------------------------------------------------------------------------------------------- tiny and creation


def test_tiny_is_small_and_trains_everywhere():
    net = midas.create("midas_tiny")
    assert sum(p.numel() for p in net.parameters()) <= 5_000_000
    net(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))).square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert midas.recognise(net.state_dict()) == "midas_tiny"
    assert midas.recognise(midas.create("midas_tiny_normal").state_dict()) == "midas_tiny_normal"


def test_creation_depends_on_its_seed_alone():
    before = torch.random.get_rng_state()
    first, again, other = (midas.create("midas_tiny", seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    a, b, c = (net.state_dict() for net in (first, again, other))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["scratch.layer1_rn.weight"], c["scratch.layer1_rn.weight"])


def test_loading_draws_nothing():
    before = torch.random.get_rng_state()
    state = midas.create("midas_tiny").state_dict()
    net = midas.load("midas_tiny", {"model": state, "optimizer": {}})
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not net.training
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def test_unknown_names_are_refused_with_all_known():
    with pytest.raises(ValueError, match=r"dpt_large.*dpt_large_384"):
        midas.create("dpt_large")


def test_importing_the_package_leaves_timm_alone():
    code = "import sys, midas; assert 'timm' not in sys.modules and 'torchvision' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("name", ["midas_v21_small_256", "dpt_levit_224", "dpt_beit_base_384"])
def test_half_precision_stays_near(name):
    net = midas.load(name, stand_in(name))
    x = recipe.net_input(*((224, 224) if "levit" in name else (64, 96)), norm_of(name))
    with torch.no_grad():
        full = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = net(x).float()
    # bfloat16 has 8 bits, and random weights amplify more than trained ones: a map that is wrong is 1 off.
    assert float((half - full).square().mean().sqrt() / full.std()) < 0.3
