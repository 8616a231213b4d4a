"""The small networks that come with the package: disparity of single views, learnt from synthetic worlds alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from torch import Tensor, nn

from ..checks import ConfigError, Range
from ..data.rendered_views import RenderedViews
from ..data.samples import Batch, Samples, Stream
from ..losses import affine
from ..metrics import depth as metrics
from ..training import Share, Split, System, decaying
from ..visual.colours import colour_map

if TYPE_CHECKING:
    from depth_anything_v2 import DepthAnythingV2

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # both families read pictures so
_FAR = 1 / 200.0  # disparity in 1/m below which a fitted value counts as 200 m
_MIDDLE = 0.3  # disparity in 1/m that networks begin with
_LEAST = 0.02  # disparity in 1/m that errors are at least measured by: views of nothing but sky have none


@dataclass(kw_only=True)
class TinyDepth(System):
    """Disparity up to an affine map; sky is 0."""

    model: Literal["vitt", "midas_tiny"] = "vitt"
    gradients: Annotated[float, Range(0)] = 0.5  # weight of the gradients of what is left
    anchor: Annotated[float, Range(0)] = 1.0  # weight of the same error without a fit: views stay on one scale
    ratios: Annotated[float, Range(0)] = 0.0  # weight of the relative error of distance: nothing near may be called far

    def net(self) -> nn.Module:
        """The network, drawn from torch's seeded random numbers."""
        net: nn.Module
        with torch.no_grad():
            if self.model == "midas_tiny":
                from midas import create

                net = create("midas_tiny", int(torch.randint(2**31, (1,)))).to(memory_format=torch.channels_last)
                _start_near(net, _softplus_inverse(_MIDDLE))
                _depthwise_in_full(net)
                return net
            from depth_anything_v2 import DepthAnythingV2

            net = DepthAnythingV2("vitt")
            _waves(net)
            _start_near(net, _MIDDLE)
            # The same weights, but a rectifier that learning gets through; where it lasts, the network's own is used.
            head: Any = net.depth_head.scratch["output_conv2"]
            head[-1] = nn.LeakyReLU(0.1)
            _attention_step_by_step(net)
        return net

    def data(self, dataset: Any, split: Split) -> Samples | Stream | None:
        """Views that are rendered on the way."""
        if not isinstance(dataset, RenderedViews):
            raise ConfigError("system=tiny_depth reads dataset=rendered_views; leave dataset to it")
        return dataset.stream() if split == "train" else dataset.fixed()

    def parameters(self, net: nn.Module) -> Iterable[Any]:
        """Matrices decay, biases and norms do not."""
        return decaying(net)

    def forward(self, net: nn.Module, batch: Batch) -> Any:
        """Disparity [B, 1, h, w]."""
        image = batch["image"]
        mean, std = (image.new_tensor(v).view(3, 1, 1) for v in (_MEAN, _STD))
        side = image.shape[-1]
        multiple = 14 if self.model == "vitt" else 32
        if side % multiple:
            raise ConfigError(f"dataset.size={side}: {self.model} takes multiples of {multiple}")
        image = (image - mean) / std
        if self.model == "midas_tiny":
            image = image.contiguous(memory_format=torch.channels_last)
        return net(image)[:, None].float()

    def losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Errors of disparity relative to the disparity itself, their gradients, and the anchor."""
        target = batch["disparity"]
        everywhere = torch.ones_like(batch["sky"])
        scale = affine.relative_to(target, everywhere, _LEAST)
        mean = target.mean((-3, -2, -1), keepdim=True).clamp_min(_LEAST)
        found = {
            "values": affine.relative_mae(outputs, target, everywhere, _LEAST),
            "gradients": self.gradients * affine.gradient_term(outputs, target / mean, everywhere),
            "anchor": self.anchor * ((outputs - target).abs() / scale).mean(),
        }
        if self.ratios:  # where there is sky, the ratio is 0 whatever is found
            found["ratios"] = self.ratios * affine.ratio_mae(outputs, target, ~batch["sky"], _FAR)
        return found

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Share]:
        """Figures of depth after the best scale and shift of each view, where there is no sky."""
        valid = ~batch["sky"]
        fitted = affine.aligned(outputs, batch["disparity"], valid)
        return metrics.standard(1 / fitted.clamp_min(_FAR), batch["depth"], valid)

    def summary(self, means: dict[str, float]) -> dict[str, float]:
        """Roots of the mean squares."""
        return metrics.rooted(means)

    def panels(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Picture, truth and result."""
        target = batch["disparity"]
        fitted = affine.aligned(outputs, target, torch.ones_like(batch["sky"]))
        top = target.amax((-3, -2, -1), keepdim=True).clamp_min(1e-4)
        shown = {"truth": target, "found": fitted}
        return {"picture": batch["image"], **{name: _coloured(v / top) for name, v in shown.items()}}


def _softplus_inverse(value: float) -> float:
    """The number whose softplus is that value."""
    return math.log(math.expm1(value))


def _waves(net: DepthAnythingV2) -> None:
    """Positions begin as waves of all lengths, so that near and far patches differ from the first step."""
    table = net.pretrained.pos_embed
    side, width = round((table.shape[1] - 1) ** 0.5), table.shape[2]
    at = torch.linspace(0, 1, side)
    octave = 2.0 ** torch.linspace(0, 4, width // 4)
    waves = torch.cat([(torch.pi * at[:, None] * octave).sin(), (torch.pi * at[:, None] * octave).cos()], -1)
    half = waves.shape[-1]
    grid = torch.cat([waves[:, None].expand(side, side, half), waves[None].expand(side, side, half)], -1)
    table.zero_()
    table[0, 1:, : grid.shape[-1]] = 0.5 * grid.reshape(side * side, -1)


def _start_near(net: nn.Module, value: float) -> None:
    """The last layer begins near one value everywhere: outputs of all sizes would drive it into the rectifier."""
    last = [m for m in net.modules() if isinstance(m, nn.Conv2d)][-1]
    assert last.bias is not None
    last.weight.mul_(0.1)
    last.bias.fill_(value)


class _Full(nn.Conv2d):
    """A convolution that no half precision touches."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def _depthwise_in_full(net: nn.Module) -> None:
    """On processors, gradients of depthwise filters in bfloat16 were measured to cost up to eight times float32."""
    for module in net.modules():
        if type(module) is nn.Conv2d and module.groups > 1:
            module.__class__ = _Full


def _attention_step_by_step(net: nn.Module) -> None:
    """On processors fused attention is slow to learn through: 0.84 s of gradients for 32 views, against 0.57 s so."""
    module: Any
    for module in net.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False


def _coloured(shares: Tensor) -> Tensor:  # [B, 1, h, w] -> [B, 3, h, w]
    flat = shares[:, 0].detach().float().cpu().clamp(0, 1).numpy()
    return torch.stack([torch.from_numpy(colour_map(s).copy()).movedim(-1, 0) for s in flat]).float() / 255
