import json

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from depth_anything_v2 import ENCODERS, MAX_DEPTH, DepthAnythingV2, Encoder, network_size, prepare, recognise
from tests.parity import recipe
from tests.parity.golden import GOLDENS, MAX_ERROR, RMS_ERROR, Golden
from tests.parity.transformers_layout import peer

RELEASED = ("vits", "vitb", "vitl", "vitg")
# Relative and metric files have the same keys and shapes; vitg has no metric network.
VARIANTS = [(e, d) for e in RELEASED for d in (None, *MAX_DEPTH.values()) if e != "vitg" or d is None]


def on_meta(encoder, max_depth=None):
    with torch.device("meta"):
        return DepthAnythingV2(encoder, max_depth=max_depth)


def with_recipe(encoder, max_depth=None):
    net = on_meta(encoder, max_depth)
    net.load_state_dict(recipe.weights(f"dav2_{encoder}"), strict=True, assign=True)
    return net.eval()


@pytest.fixture(scope="module")
def vits():
    return {max_depth: with_recipe("vits", max_depth) for max_depth in (None, 20.0)}


@pytest.fixture(scope="module")
def small():
    """The smallest member with weights of its own, for what does not depend on the released ones."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return DepthAnythingV2("vitt").eval()


def measured(net, ours):
    """Inputs and outputs of the modules that the goldens have taps of, and of every block."""
    taps, blocks = {}, []
    scratch = net.depth_head.scratch
    hooks = [b.register_forward_hook(lambda m, i, o: blocks.append(o.clone())) for b in net.pretrained.blocks]
    for level in range(1, 5):

        def entering(module, inputs, output, level=level):
            taps[f"feat_layer{level}_rn"], taps[f"layer{level}_rn"] = inputs[0].clone(), output.clone()

        hooks.append(scratch[f"layer{level}_rn"].register_forward_hook(entering))
    for name in ("refinenet4", "refinenet3", "refinenet2", "refinenet1", "output_conv1"):
        hooks.append(scratch[name].register_forward_hook(lambda m, i, o, name=name: taps.__setitem__(name, o.clone())))
    with torch.no_grad():
        output = net(ours)
    for hook in hooks:
        hook.remove()
    return output, taps, blocks


@pytest.mark.parametrize(("model", "max_depth"), [("dav2_vits", None), ("dav2_vits_metric_20", 20.0)])
@pytest.mark.parametrize("case", ["70x98", "98x70", "518x518"])
def test_outputs_and_all_stages_are_those_of_the_original(vits, model, max_depth, case):
    golden = Golden(model)
    assert golden.cases == ["70x98", "98x70", "518x518"]
    height, width = map(int, case.split("x"))
    output, taps, blocks = measured(vits[max_depth], recipe.net_input(height, width, recipe.IMAGENET))
    # From the inside out, so that a failure names the first stage that differs.
    golden.check_blocks(case, blocks)
    for name, value in taps.items():
        golden.check_tap(case, name, value)
    golden.check(case, output)


def test_far_metric_network_is_the_near_one_with_another_unit(vits):
    x = recipe.net_input(70, 98, recipe.IMAGENET)
    far = with_recipe("vits", 80.0)
    with torch.no_grad():
        # The two differ by one multiplication: exact, as 80 is 20 times a power of two.
        torch.testing.assert_close(far(x), 4 * vits[20.0](x), rtol=0, atol=0)


def test_recipe_draws_the_recorded_bits():
    found = recipe.weights("dav2_vits")
    assert recipe.checksum(found) == recipe.specification("dav2_vits")["weights_crc32"]


@pytest.mark.parametrize(("encoder", "max_depth"), VARIANTS)
def test_every_key_and_shape_is_that_of_the_released_file(encoder, max_depth):
    keys = recipe.specification(f"dav2_{encoder}")["keys"]
    released = {key: torch.empty(entry["shape"], device="meta") for key, entry in keys.items()}
    net = on_meta(encoder, max_depth)
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in released.items()}
    net.load_state_dict(released, strict=True, assign=True)
    assert recognise(released) == encoder


def test_state_dict_comes_back_as_it_was_loaded():
    state = recipe.weights("dav2_vits")
    net = DepthAnythingV2("vits")
    net.load_state_dict(state, strict=True)
    found = net.state_dict()
    assert set(found) == set(state)
    for key, value in state.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=0)


def test_recognises_nothing_else():
    assert recognise({}) is None
    assert recognise({"pretrained.cls_token": torch.zeros(1, 1, 384)}) is None
    assert recognise(on_meta("vitt").state_dict()) == "vitt"
    state = on_meta("vitt").state_dict()
    assert recognise({k: v for k, v in state.items() if "blocks.11." not in k}) is None


# Against transformers: the same sums in another order and another attention kernel. The goldens' bounds hold.
def compare(net, height, width, monkeypatch, same_positions):
    theirs = peer(net)
    if same_positions:
        monkeypatch.setattr(
            type(theirs.backbone.embeddings),
            "interpolate_pos_encoding",
            lambda self, tokens, height, width: net.pretrained.positions(height, width),
        )
    x = torch.cat([recipe.net_input(height, width, recipe.IMAGENET, seed) for seed in (0, 1)])
    with torch.no_grad():
        ours, reference = net(x), theirs(pixel_values=x).predicted_depth
    assert reference.std() > 0.1 * reference.abs().mean()  # not a flat map, which anything would match
    off = (ours - reference).double() / reference.double().std()
    assert off.abs().max() < MAX_ERROR
    assert off.square().mean().sqrt() < RMS_ERROR


@pytest.mark.parametrize("max_depth", [None, 80.0])
@pytest.mark.parametrize(("height", "width"), [(70, 98), (140, 56)])
def test_base_agrees_with_transformers_but_for_its_positions(monkeypatch, max_depth, height, width):
    # transformers resizes the position table by size and without the tenth, so at sizes other than 518x518 it is
    # given ours; everything else is its own.
    compare(with_recipe("vitb", max_depth), height, width, monkeypatch, same_positions=True)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["vitb", "vitl"])
def test_agrees_with_transformers_at_full_size(monkeypatch, encoder):
    compare(with_recipe(encoder), 518, 518, monkeypatch, same_positions=False)


@pytest.mark.slow
@pytest.mark.parametrize("max_depth", [None, 20.0, 80.0])
def test_large_agrees_with_transformers_but_for_its_positions(monkeypatch, max_depth):
    compare(with_recipe("vitl", max_depth), 70, 98, monkeypatch, same_positions=True)


def test_gated_encoder_agrees_with_transformers(monkeypatch):
    # The giant itself takes 5 GB: its parts at a small width.
    monkeypatch.setitem(ENCODERS, "gated", Encoder(96, 5, 3, (1, 2, 3, 4), 16, (96, 96, 96, 96), gated=True))
    net = DepthAnythingV2("gated").eval()
    assert net.pretrained.blocks[0].mlp.w3.in_features == 256
    entries = {k: recipe.specification("dav2_vitg")["keys"][k] for k in net.state_dict() if "blocks.4" not in k}
    state = {}
    for key, value in net.state_dict().items():
        entry = entries.get(key) or entries[key.replace("blocks.4", "blocks.3")]
        fan = [int(np.prod(s[1:])) if len(s) > 1 else 1 for s in (entry["shape"], value.shape)]
        state[key] = recipe.draw(key, list(value.shape), entry["offset"], entry["scale"] * (fan[0] / fan[1]) ** 0.5)
    net.load_state_dict(state, strict=True)
    compare(net, 70, 98, monkeypatch, same_positions=True)


def cubic(t):
    """Keys' kernel with a = -0.75."""
    t, a = abs(t), -0.75
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


@pytest.mark.parametrize(("height", "width"), [(392, 784), (14, 14), (560, 518), (518, 532)])
def test_positions_follow_the_formula(vits, height, width):
    rows, columns = height // 14, width // 14
    found = vits[None].pretrained.positions(height, width)
    assert found.shape == (1, 1 + rows * columns, 384)
    table = vits[None].pretrained.pos_embed[0, 1:].detach().double().reshape(37, 37, -1).numpy()
    torch.testing.assert_close(found[:, :1], vits[None].pretrained.pos_embed[:, :1], rtol=0, atol=0)
    for row, column in {(0, 0), (rows - 1, columns - 1), (rows // 2, columns // 3)}:
        # A tenth of a patch in the scale, and the scale itself as the step
        y = (row + 0.5) / ((rows + 0.1) / 37) - 0.5
        x = (column + 0.5) / ((columns + 0.1) / 37) - 0.5
        expected = np.zeros(384)
        for j in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
            for i in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
                weight = cubic(y - j) * cubic(x - i)
                expected += weight * table[min(max(j, 0), 36), min(max(i, 0), 36)]
        ours = found[0, 1 + row * columns + column].detach().double().numpy()
        # Coordinates up to 37 in float32 (2e-6), times the slopes of the table, summed over sixteen
        np.testing.assert_allclose(ours, expected, atol=5e-6, rtol=0)


def test_positions_are_the_table_itself_at_its_own_size(vits):
    assert vits[None].pretrained.positions(518, 518) is vits[None].pretrained.pos_embed
    # As many patches, but not square: 1 x 1369
    assert vits[None].pretrained.positions(14, 14 * 1369).shape == vits[None].pretrained.pos_embed.shape
    assert not torch.equal(vits[None].pretrained.positions(14, 14 * 1369), vits[None].pretrained.pos_embed)


@pytest.mark.parametrize("side", [518, 392, 140])
def test_network_sizes_are_those_of_the_original(side):
    table = json.loads((GOLDENS / "preprocess_sizes.json").read_text())["tables"][f"depth_anything_v2_{side}"]
    assert len(table) == 17
    for given, expected in table.items():
        width, height = map(int, given.split("x"))
        assert network_size(height, width, side) == tuple(map(int, expected.split("x")))[::-1], given


@pytest.mark.parametrize(
    ("name", "height", "width", "seed"), [("dav2_140", 90, 140, 3), ("dav2_140_down", 700, 900, 4)]
)
def test_preparation_is_that_of_the_original(name, height, width, seed):
    with np.load(GOLDENS / "preprocess.npz") as archive:
        golden = {key: archive[f"{name}/{key}"] for key in ("shape", "stats", "sub")}
    picture = torch.from_numpy(recipe.image_u8(height, width, seed)).permute(2, 0, 1)[None]
    x = prepare(picture, 140)
    assert list(x[0].shape) == golden["shape"].tolist()
    # OpenCV keeps its cubic weights in float32, and their positions are rounded otherwise: 3e-5 was found.
    np.testing.assert_allclose(x[0, :, ::7, ::7].numpy(), golden["sub"], rtol=0, atol=5e-5)
    stats = [x.mean().item(), x.std(correction=0).item(), x.min().item(), x.max().item()]
    np.testing.assert_allclose(stats, golden["stats"], rtol=0, atol=5e-5)
    floating = prepare(picture.double() / 255, 140)
    torch.testing.assert_close(floating, x, rtol=0, atol=1e-5)


def original_way(net, raw, input_size):
    """What the original program does with a picture as OpenCV reads it, step by step, by OpenCV."""
    image = raw[..., ::-1] / 255.0
    height, width = network_size(*raw.shape[:2], input_size)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    image = (image - np.array(recipe.IMAGENET[0])) / np.array(recipe.IMAGENET[1])
    x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[None])).float()
    with torch.no_grad():
        depth = net(x)
    return F.interpolate(depth[:, None], raw.shape[:2], mode="bilinear", align_corners=True)[0, 0].numpy()


@pytest.mark.parametrize("max_depth", [None, 20.0])
def test_a_picture_gives_the_map_of_the_original_program(vits, max_depth):
    raw = recipe.image_u8(90, 140, 3)[..., ::-1].copy()
    expected = original_way(vits[max_depth], raw, 140)
    found = vits[max_depth].infer_image(raw, 140)
    assert found.shape == (90, 140)
    assert found.dtype == np.float32
    # The two resizings differ by up to 3e-5 of the normalised range, and the network hands that on.
    assert np.abs(found - expected).max() < 3e-4 * expected.std()


def test_infer_takes_one_or_many_in_any_form(small):
    pictures = np.stack([recipe.image_u8(60, 100, seed) for seed in (0, 1)])
    tensors = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    expected = small.infer(tensors, 56)
    assert expected.shape == (2, 60, 100)
    assert expected.std() > 0
    one = small.infer(tensors[1], 56)
    assert one.shape == (60, 100)
    # Another batch size lets the kernels sum in another order
    close = {"rtol": 0, "atol": MAX_ERROR * expected.std().item()}
    torch.testing.assert_close(one, expected[1], **close)
    torch.testing.assert_close(small.infer(pictures, 56), expected, **close)  # memory laid out otherwise does so too
    torch.testing.assert_close(small.infer(pictures[1], 56), one, **close)
    torch.testing.assert_close(small.infer(tensors.float() / 255, 56), expected, **close)
    torch.testing.assert_close(torch.from_numpy(small.infer_image(pictures[1][..., ::-1], 56)), one, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(1, 3, 70, 99), (1, 4, 70, 70), (3, 70, 70), (1, 3, 0, 14)])
def test_forward_names_the_shape_it_wants(small, shape):
    with pytest.raises(ValueError, match="multiples of 14"):
        small(torch.zeros(shape))


def test_infer_names_the_form_it_wants(small):
    with pytest.raises(ValueError, match="three colours"):
        small.infer(torch.zeros(70, 70, 3))


def test_unknown_encoder_is_named():
    with pytest.raises(ValueError, match="vits, vitb"):
        DepthAnythingV2("vitx")


def test_own_sizes_norms_and_readout():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = DepthAnythingV2("vitt", 16, [8, 16, 32, 64], use_bn=True, use_clstoken=True, max_depth=5.0).eval()
    state = net.state_dict()
    assert state["depth_head.readout_projects.3.0.weight"].shape == (192, 384)
    assert state["depth_head.scratch.refinenet1.resConfUnit2.bn2.running_mean"].shape == (16,)
    assert state["depth_head.projects.1.weight"].shape == (16, 192, 1, 1)
    with torch.no_grad():
        out = net(torch.randn(2, 3, 28, 42, generator=torch.Generator().manual_seed(0)))
    assert out.shape == (2, 28, 42)
    assert ((out > 0) & (out < 5)).all()


def test_every_used_weight_learns(small):
    net = DepthAnythingV2("vitt")
    net.load_state_dict(small.state_dict())
    net(torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))).sum().backward()
    idle = {name for name, p in net.named_parameters() if p.grad is None}
    unused = {"pretrained.mask_token"}
    unused |= {f"depth_head.scratch.refinenet4.resConfUnit1.conv{i}.{p}" for i in (1, 2) for p in ("weight", "bias")}
    assert idle == unused


def test_last_layer_is_not_rounded_by_autocast(small):
    x = recipe.net_input(70, 70, recipe.IMAGENET)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded = small(x)
    assert rounded.dtype == torch.float32
    steps = rounded.bfloat16().float() == rounded
    assert steps[rounded > 0].float().mean() < 0.05  # by chance one in 2^16


def test_dropped_class_token_is_not_read_by_the_head(small):
    taps = small.pretrained.tapped(recipe.net_input(28, 28, recipe.IMAGENET), small.taps)
    assert [t.shape for t in taps] == [(1, 5, 192)] * 4
    assert isinstance(small.pretrained.norm, nn.LayerNorm)
    changed = [torch.cat([t[:, :1] + 1, t[:, 1:]], 1) for t in taps]
    with torch.no_grad():
        torch.testing.assert_close(small.depth_head(changed, 2, 2), small.depth_head(taps, 2, 2), rtol=0, atol=0)
