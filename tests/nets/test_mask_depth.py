import pytest
import torch

from immersivedepth.nets.mask_depth import DepthMaskNet8, MaskNet3


def pair(size=32):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(2, 3, size, size, generator=generator) for _ in range(2)]


def test_counts_are_those_of_the_original():
    assert sum(p.numel() for p in MaskNet3().parameters()) == 76_097
    for fusion in ("code", "diagram"):
        assert sum(p.numel() for p in DepthMaskNet8(fusion).parameters()) == 7_083_874


def test_maps_have_the_size_of_the_picture():
    assert MaskNet3()(*pair(20)).shape == (2, 1, 20, 20)
    mask, depth = DepthMaskNet8()(*pair(64))
    assert mask.shape == depth.shape == (2, 1, 64, 64)
    with pytest.raises(ValueError, match="multiples of 32"):
        DepthMaskNet8()(*pair(48))


@pytest.mark.parametrize(("fusion", "helping"), [("code", 2), ("diagram", 4)])
def test_the_depth_decoder_is_given_so_many_maps_of_the_mask_decoder(fusion, helping):
    """Whether a block of the mask decoder has a gradient from depth alone."""
    net = DepthMaskNet8(fusion)
    _, depth = net(*pair(64))
    depth.square().sum().backward()
    reached = [block.narrow.weight.grad is not None and bool(block.narrow.weight.grad.any()) for block in net.mask_up]
    assert reached == [True] * helping + [False] * (4 - helping)


def test_background_and_picture_are_not_alike():
    net = DepthMaskNet8().eval()
    a, b = pair(32)
    with torch.no_grad():
        assert not torch.allclose(net(a, b)[0], net(b, a)[0])
