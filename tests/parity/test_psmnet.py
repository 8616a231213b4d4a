import pytest
import torch

from immersivedepth.nets.psmnet import PSMNet
from tests.parity import recipe
from tests.parity.golden import MAX_ERROR, RMS_ERROR, Golden

# Threads move the original itself by 1.5e-5 of the output's standard deviation, other releases of torch by 1.1e-5.
NORM = tuple(torch.tensor(v).view(3, 1, 1) for v in recipe.IMAGENET)


def pair(height, width, seed=0):
    mean, std = NORM
    both = [torch.from_numpy(p).movedim(-1, 0) / 255 for p in recipe.stereo_pair_u8(height, width, seed)]
    return [((p - mean) / std)[None] for p in both]


def net_of(name, **settings):
    net = PSMNet(name, **settings)
    state = recipe.weights(f"psmnet_{name}")
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    return net.eval()


@pytest.mark.parametrize(("kind", "count"), [("stackhourglass", 5_224_768), ("basic", 3_672_896)])
def test_keys_shapes_and_counts_are_those_of_the_original(kind, count):
    net = PSMNet(kind)
    assert sum(p.numel() for p in net.parameters()) == count
    wanted = {key: tuple(entry["shape"]) for key, entry in recipe.specification(f"psmnet_{kind}")["keys"].items()}
    assert {key: tuple(value.shape) for key, value in net.state_dict().items()} == wanted


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize(("height", "width", "disparities"), [(256, 256, 48), (256, 320, 96)])
def test_outputs_are_those_of_the_original(height, width, disparities, corners):
    golden = Golden("psmnet_stackhourglass")
    case = f"{height}x{width}_d{disparities}_ac{corners}"
    net = net_of("stackhourglass", max_disparity=disparities, align_corners=bool(corners))
    left, right = pair(height, width)
    with torch.no_grad():
        golden.check_tap(case, "feature_left", net.feature_extraction(left))
        golden.check_tap(case, "feature_extraction", net.feature_extraction(right))
        (out,) = net(left, right)
    golden.check(case, out, 2 * MAX_ERROR, 2 * RMS_ERROR)


def test_training_gives_the_three_maps_of_the_original():
    golden = Golden("psmnet_stackhourglass")
    net = net_of("stackhourglass", max_disparity=48).train()
    pairs = [pair(256, 256, seed) for seed in (0, 1)]
    left, right = (torch.cat(side) for side in zip(*pairs, strict=True))
    with torch.no_grad():
        maps = net(left, right)
    for number, found in enumerate(maps, start=1):
        case = f"train_256x256_d48_b2_pred{number}"
        # Statistics of the batch in every layer: a processor without AVX-512 was 6.7e-5 away, 1.4e-5 in rms.
        golden.check(case, found, 4 * MAX_ERROR, 4 * RMS_ERROR)
    mean = net.feature_extraction.firstconv[0][1].running_mean
    wanted = golden.arrays["train_running_mean_after_one_pass/feature_extraction.firstconv.0.1"]
    assert (mean - torch.from_numpy(wanted)).abs().max() < 1e-6
