import pytest
import torch

from immersivedepth.nets.depthnet import CLAMP, DepthNet
from tests.parity import recipe
from tests.parity.golden import Golden

NORM = ((0.5,) * 3, (0.2,) * 3)
NETS = {
    "plain": {},
    "elu": {"elu": True},
    "clamp": {"clamp": True},
    "bn": {"batch_norm": True},
    "elu_bn": {"elu": True, "batch_norm": True},
}


def net_of(name):
    net = DepthNet(**NETS[name])
    missing, unexpected = net.load_state_dict(recipe.weights(f"depthnet_{name}"), strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    return net.eval()


def frames(height, width):
    return [recipe.net_input(height, width, NORM, seed) for seed in (0, 1)]


@pytest.mark.parametrize("name", NETS)
def test_keys_shapes_and_counts_are_those_of_the_original(name):
    net = DepthNet(**NETS[name])
    assert sum(p.numel() for p in net.parameters()) == (10_290_473 if "bn" in name else 10_287_593)
    wanted = {key: tuple(entry["shape"]) for key, entry in recipe.specification(f"depthnet_{name}")["keys"].items()}
    assert {key: tuple(value.shape) for key, value in net.state_dict().items()} == wanted


@pytest.mark.parametrize("name", ["plain", "elu_bn"])
@pytest.mark.parametrize("case", ["64x64", "64x128", "72x100"])
def test_outputs_are_those_of_the_original(name, case):
    golden, net = Golden(f"depthnet_{name}"), net_of(name)
    taps = {}
    net.deconv5.register_forward_hook(lambda m, i, o: taps.__setitem__("deconv5", o))
    with torch.no_grad():
        (out,) = net(*frames(*map(int, case.split("x"))))
    golden.check_tap(case, "deconv5", taps["deconv5"])
    golden.check(case, out[:, 0])


def test_training_gives_the_five_scales_of_the_original():
    golden, net = Golden("depthnet_plain"), net_of("plain").train()
    with torch.no_grad():
        scales = net(*frames(64, 128))
    assert [tuple(s.shape[-2:]) for s in scales] == [(16, 32), (8, 16), (4, 8), (2, 4), (1, 2)]
    for number, found in enumerate(scales):
        golden.check(f"train_64x128_scale{number}", found[:, 0])


def test_elu_is_positive_and_clamp_bounds():
    with torch.no_grad():
        assert net_of("elu")(*frames(64, 64))[0].min() > 0
        out = net_of("clamp")(*frames(64, 64))[0]
    assert (float(out.min()), float(out.max())) == CLAMP  # the weights are made to meet both bounds


@pytest.mark.parametrize("size", [(16, 16), (33, 47), (90, 140)])
def test_any_size(size):
    with torch.no_grad():
        (out,) = DepthNet(elu=True).eval()(*frames(*size))
    assert tuple(out.shape[-2:]) == tuple(-(-s // 4) for s in size)
