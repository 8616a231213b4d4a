import pytest
import torch

from immersivedepth.nets.psmnet import PSMNet


def small(**settings):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = PSMNet(**{"kind": "basic", "max_disparity": 16, **settings}).eval()
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():  # statistics as after training, so that maps vary
        if hasattr(module, "running_var"):
            module.running_mean.normal_(0, 0.1, generator=generator)
    return net


def pictures(height, width, seed=0, channels=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, channels, height, width, generator=generator) for _ in range(2)]


@pytest.mark.parametrize("size", [(64, 64), (47, 90), (16, 33), (270, 70)])
@pytest.mark.parametrize("kind", ["basic", "stackhourglass"])
def test_any_size(kind, size):
    net = small(kind=kind)
    with torch.no_grad():
        (out,) = net(*pictures(*size))
    assert tuple(out.shape) == (1, 1, *size)
    assert 0 <= out.min() <= out.max() <= 15


@pytest.mark.parametrize("kind", ["basic", "stackhourglass"])
def test_rows_that_wrap_may_be_rolled(kind):
    """By the largest window of the pyramid, which is 64 pixels at a quarter of the resolution."""
    net = small(kind=kind, wrap_rows=True)
    left, right = pictures(512, 32)
    with torch.no_grad():
        straight = net(left, right)[0]
        rolled = net(left.roll(256, -2), right.roll(256, -2))[0]
        flat = small(kind=kind)(left.roll(256, -2), right.roll(256, -2))[0]
    assert (straight.roll(256, -2) - rolled).abs().max() < 1e-3  # sums in another order
    assert (straight.roll(256, -2) - flat).abs().max() > 0.05  # a net that does not wrap shows its borders


def test_columns_do_not_wrap():
    net = small(wrap_rows=True)
    left, right = pictures(64, 64)
    with torch.no_grad():
        a, b = net(left, right)[0], net(left.roll(32, -1), right.roll(32, -1))[0]
    assert (a.roll(32, -1) - b).abs().max() > 0.05


def test_the_cost_volume_is_that_of_a_slow_loop():
    net = small()
    left, right = (torch.randn(2, 32, 3, 7, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    volume = net.cost_volume(left, right)
    for d in range(4):
        for x in range(7):
            want = torch.cat([left[..., x], right[..., x - d]], 1) if x >= d else torch.zeros(2, 64, 3)
            assert torch.equal(volume[:, :, d, :, x], want)


def test_identical_costs_give_the_middle():
    net = small()
    out = net._regressed(torch.zeros(1, 1, 4, 2, 2), (8, 8))
    assert torch.allclose(out, torch.full_like(out, 7.5))


@pytest.mark.parametrize("kind", ["basic", "stackhourglass"])
def test_one_small_pair_can_be_trained_on(kind):
    """The widest pool leaves one value, which has no variance; the original fails here."""
    net = small(kind=kind).train()
    maps = net(*pictures(64, 64))
    assert len(maps) == (1 if kind == "basic" else 3)
    sum(m.mean() for m in maps).backward()
    gradients = [p.grad for p in net.feature_extraction.branch1.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert gradients[0].abs().sum() > 0


def test_more_channels_for_a_map_of_angles():
    net = small(channels=4)
    with torch.no_grad():
        (out,) = net(*pictures(32, 32, channels=4))
    assert tuple(out.shape) == (1, 1, 32, 32)


def test_half_precision_on_the_way(tmp_path):
    net = small()
    left, right = pictures(32, 64)
    with torch.no_grad():
        exact = net(left, right)[0]
        with torch.autocast("cpu", torch.bfloat16):
            rough = net(left, right)[0]
    assert rough.dtype == torch.float32
    assert (exact - rough).abs().mean() < 0.5


@pytest.mark.parametrize("settings", [{"max_disparity": 24, "kind": "stackhourglass"}, {"max_disparity": 0}])
def test_impossible_disparities_are_refused(settings):
    with pytest.raises(ValueError, match="expected a multiple of"):
        small(**settings)


def test_rows_that_wrap_are_continued_from_the_other_end():
    net = small(wrap_rows=True)
    left, right = pictures(40, 30)
    padded = net._padded(left)
    assert padded.shape[-2:] == (48, 32)
    assert torch.equal(padded[..., :8, :30], left[..., -8:, :])
    assert padded[..., 30:].count_nonzero() == 0
    with torch.no_grad():
        assert net(left, right)[0].shape == (1, 1, 40, 30)
    tiny = net._padded(left[..., :5, :])  # around more than once
    assert torch.equal(tiny[..., :11, :30], torch.cat([left[..., 4:5, :], left[..., :5, :], left[..., :5, :]], -2))


def test_corners_that_are_pinned_cannot_wrap():
    with pytest.raises(ValueError, match="align_corners"):
        small(wrap_rows=True, align_corners=True)
