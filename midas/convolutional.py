"""MidasNet: convolutional encoders, v2.1 large and small, and a tiny one of our own."""

from __future__ import annotations

import timm
from torch import Tensor, nn

from .blocks import Decoder
from .network import Network
from .specs import Spec


class Stages(nn.Module):
    """Four stages of an encoder, at 1/4, 1/8, 1/16 and 1/32 of the image."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layer1, self.layer2, self.layer3, self.layer4 = layers

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps


def _resnext(name: str) -> Stages:
    net = timm.create_model(name, num_classes=0)
    stem = nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool, net.layer1)
    return Stages(stem, net.layer2, net.layer3, net.layer4)


def _efficientnet(name: str) -> Stages:
    net = timm.create_model(name, num_classes=0)
    blocks = net.blocks
    # The activation of the stem is inside its norm; released keys count it as a layer.
    stem = nn.Sequential(net.conv_stem, net.bn1, nn.Identity(), blocks[0], blocks[1])
    return Stages(
        stem,
        nn.Sequential(blocks[2]),
        nn.Sequential(blocks[3], blocks[4]),
        nn.Sequential(blocks[5], blocks[6]),
    )


class MidasNet(Network):
    """The v2.1 architecture; the head doubles without aligning corners, unlike that of the transformers."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        if spec.name == "midas_v21_384":
            self.pretrained = _resnext(spec.backbone)
            self.scratch = Decoder((256, 512, 1024, 2048), rectified_skip=True, project=False, align_head=False)
            return
        self.pretrained = _efficientnet(spec.backbone)
        if spec.name == "midas_v21_small_256":
            self.scratch = Decoder((32, 48, 136, 384), (64, 128, 256, 512), (32, 32, 1), align_head=False)
        else:
            last = 3 if spec.output == "normal" else 1
            self.scratch = Decoder(
                (24, 40, 112, 320), (64, 64, 64, 64), (32, 16, last), align_head=False, spare_unit=False, smooth=True
            )

    def features(self, x: Tensor) -> list[Tensor]:
        """Maps at 1/4, 1/8, 1/16 and 1/32 of the image."""
        return self.pretrained(x)
