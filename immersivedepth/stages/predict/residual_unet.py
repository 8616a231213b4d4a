"""The residual U-Net looks at every view."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor

from ...checks import ConfigError, Range, WeightsError
from ...geometry import pinhole
from ...nets.residual_unet import MULTIPLE, ResidualUNet
from ...scene import Kind, Prediction, Views, unit_image
from ...weights import fit, read
from .running import Runner, Running


@dataclass
class UNet:
    """Its map is the logarithm of depth in metres, so that each view is a metric distance of its own.

    Metric only as far as it was trained for such views: with `kind: scale` the overlaps find the scale of each.
    """

    size: Annotated[int, Range(16, 4096)] = 256  # pixels at which views are looked at
    head: Literal["tanh", "linear"] = "linear"
    kind: Literal["metric", "scale"] = "scale"
    weights: str | None = None  # a checkpoint of system=unet_diode
    running: Running = field(default_factory=Running)

    def __post_init__(self) -> None:
        if self.size % MULTIPLE:
            raise ConfigError(f"predict.unet.size={self.size}: expected a multiple of {MULTIPLE}")

    def load(self) -> None:
        """Read the weights now rather than at the first look."""
        _ = self._runner

    def __call__(self, views: Views) -> Prediction:
        rig = views.rig
        depth = self._runner(unit_image(views.images), self._before, lambda y: self._after(y, rig.resolution))
        lengths = pinhole.ray_lengths(rig.tan_half_fov, rig.resolution)[:, None].to(depth)
        kind = Kind.METRIC_DISTANCE if self.kind == "metric" else Kind.SCALE_DISTANCE
        return Prediction(depth * lengths, (kind,) * len(rig), rig, models=("unet",) * len(rig))

    @cached_property
    def _runner(self) -> Runner:
        if self.weights is None:
            raise WeightsError(
                "predict.unet.weights has no value: train one with mode=train system=unet_diode and set it to best.ckpt"
            )
        net, path = ResidualUNet(self.head), Path(self.weights).expanduser()
        fit(net, read(path), what=str(path), key=f"predict.unet.head is {self.head}")
        return Runner(net, self.running, channels_last=True)

    def _before(self, images: Tensor) -> Tensor:
        shrink = images.shape[-1] > self.size
        return F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=shrink)

    def _after(self, logarithm: Tensor, side: int) -> Tensor:
        return F.interpolate(logarithm, (side, side), mode="bilinear").exp()
