import pytest
import torch

from immersivedepth.nets.residual_unet import ResidualUNet


def test_counts_are_those_of_the_original():
    net = ResidualUNet()
    assert sum(p.numel() for p in net.parameters()) == 1_964_545
    running = [b for name, b in net.named_buffers() if "running" in name]
    assert sum(b.numel() for b in running) == 1_920


@pytest.mark.parametrize("head", ["tanh", "linear"])
def test_the_head_bounds_the_map_or_does_not(head):
    net = ResidualUNet(head).eval()
    torch.nn.init.constant_(net.last.bias, 3.0)
    with torch.no_grad():
        out = net(torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0)))
    assert out.shape == (1, 1, 32, 48)
    assert (float(out.max()) <= 1) is (head == "tanh")


def test_the_shortcut_is_the_first_convolution_before_its_normalisation():
    block = ResidualUNet().down[0].eval()
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        skip, pooled = block(x)
        first = block.conv1(x)
    assert torch.allclose(skip, first, atol=1e-6)  # the second path is silent: BN of zeros is its bias, zero
    assert torch.equal(pooled, torch.nn.functional.max_pool2d(skip, 2))


def test_sizes_that_do_not_halve_are_refused():
    with pytest.raises(ValueError, match="multiples of 16"):
        ResidualUNet()(torch.zeros(1, 3, 40, 32))
