import pytest
import torch
import torch.nn.functional as F
from torch import nn

from immersivedepth.nets.mask_depth import DepthMaskNet8, MaskNet3, original_names


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


# ---- the original's program, in its names and its order of computation -----------------------------------------------


def conv(inside, outside):
    return [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]


class Encoder(nn.Module):
    def __init__(self, inside, outside):
        super().__init__()
        self.conv1 = nn.Sequential(nn.MaxPool2d(2), *conv(inside, outside))
        self.conv2 = nn.Sequential(*conv(outside, outside))
        self.skip_conn = nn.Sequential(nn.Conv2d(inside, outside, 1, 2, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x):
        return F.relu(self.conv2(self.conv1(x)) + self.skip_conn(x))


class Decoder(nn.Module):
    def __init__(self, inside, outside):
        super().__init__()
        self.layer = nn.Conv2d(inside, outside, 1)
        self.conv1, self.conv2 = nn.Sequential(*conv(outside, outside)), nn.Sequential(*conv(outside, outside))

    def forward(self, x, skip):
        large = F.interpolate(self.layer(x), scale_factor=2, mode="bilinear", align_corners=False)
        return self.conv2(self.conv1(large + skip))


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("layer1a", "layer1b"):
            setattr(self, name, nn.Sequential(*conv(3, 16), *conv(16, 16)))
        self.last_mask, self.last_depth = nn.Conv2d(16, 1, 1), nn.Conv2d(16, 1, 1)
        self.encodebg, self.encodebg_fg = Encoder(16, 16), Encoder(16, 16)
        for i in range(1, 5):
            setattr(self, f"encode{i}", Encoder(16 << i, 32 << i))
            setattr(self, f"decode{i}_map", Decoder(512 >> i, 256 >> i))
        for i in range(1, 6):
            setattr(self, f"decode{i}_depth", Decoder(1024 >> i, 512 >> i))

    def forward(self, background, picture):
        first = self.layer1b(picture)
        x3 = torch.cat([self.encodebg(self.layer1a(background)), self.encodebg_fg(first)], 1)
        x4 = self.encode1(x3)
        x5 = self.encode2(x4)
        x6 = self.encode3(x5)
        m1 = self.decode1_map(x6, x5)
        m2 = self.decode2_map(m1, x4)
        mask = self.last_mask(self.decode4_map(self.decode3_map(m2, x3), first))
        d = self.decode1_depth(self.encode4(x6), x6)
        d = self.decode2_depth(d, x5) + m1
        d = self.decode3_depth(d, x4) + m2
        d = self.decode4_depth(d, x3) + x3
        return mask, self.last_depth(self.decode5_depth(d, first))


def randomised(net):
    """Batch statistics that are not those of a new network."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.running_var, module.weight.data):
                value.uniform_(0.5, 1.5)
            for value in (module.running_mean, module.bias.data):
                value.normal_(0, 0.3)
    return net.eval()


def test_weights_of_the_original_give_the_maps_of_the_original():
    theirs, ours = randomised(Original()), DepthMaskNet8()
    ours.load_state_dict(original_names(theirs.state_dict()), strict=True)
    with torch.no_grad():
        for a, b in zip(theirs(*pair(64)), ours.eval()(*pair(64)), strict=True):
            assert torch.allclose(a, b, atol=1e-5)
    same = ours.state_dict()
    assert set(original_names(same)) == set(same)


def test_weights_of_the_original_mask_network():
    theirs = nn.Module()
    theirs.layer1, theirs.layer2 = nn.Sequential(*conv(3, 32)), nn.Sequential(*conv(3, 32))
    theirs.layer3 = nn.Sequential(*conv(64, 64), *conv(64, 64), nn.Conv2d(64, 1, 1))
    randomised(theirs)
    ours = MaskNet3()
    ours.load_state_dict(original_names(theirs.state_dict()), strict=True)
    a, b = pair(32)
    with torch.no_grad():
        want = theirs.layer3(torch.cat([theirs.layer1(a), theirs.layer2(b)], 1))
        assert torch.allclose(ours.eval()(a, b), want, atol=1e-6)
