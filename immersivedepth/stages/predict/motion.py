"""DepthNet looks at every view of two panoramas taken a known way apart: depth from motion on the sphere."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import ConfigError, Range, WeightsError
from ...data.panoramas import Wild
from ...data.still_box import MEAN, STD
from ...geometry import pinhole, warp
from ...nets.depthnet import NOMINAL, DepthNet
from ...scene import Kind, Prediction, Views, unit_image
from ...weights import fit, read
from .running import Runner, Running

_BLIND = 0.05  # sine of the angle to the motion below which there is no parallax to see


@dataclass
class Motion:
    """Both panoramas must look the same way (stabilised); the picture of the run is the second of the two.

    The network knows pictures of 90 degrees and a way of 0.3 m. A narrower or wider view sees what one of 90 degrees
    would see on another way, of the same depth along its axis, so depth scales with the length of that one. Rays along
    the motion have little parallax: they are trusted by the sine of the angle to it. Without `displacement` every view
    has a scale of its own, which the alignment finds.
    """

    second: str | None = None  # the other panorama, taken before
    displacement: tuple[float, float, float] | None = None  # metres from it to this one: forward, left, up
    size: Annotated[int, Range(32, 2048)] = 256  # pixels of the pictures that the weights were trained with
    batch_norm: bool = True
    elu: bool = True
    clamp: bool = False
    weights: str | None = None  # a checkpoint of system=motion_stillbox, or of the original program
    running: Running = field(default_factory=Running)

    def load(self) -> None:
        """Read the weights now rather than at the first look."""
        _ = self._runner

    def __call__(self, views: Views) -> Prediction:
        rig = views.rig
        other = warp.erp_to_views(unit_image(self._second).to(views.images.device), rig)
        pairs = torch.cat([other, unit_image(views.images)], 1)
        values = self._runner(pairs, self._before, lambda y: self._restored(y, rig.resolution))
        rays = pinhole.view_rays(rig.rotation, rig.tan_half_fov, rig.resolution)
        scale = values.new_ones(len(rig))
        kind, confidence = Kind.SCALE_DISTANCE, None
        if self.displacement is not None:
            way = torch.tensor(self.displacement)
            in_view = way.to(rig.rotation) @ rig.rotation  # [V, 3]
            tangents = rig.tan_half_fov.to(in_view)[:, None].expand(-1, 2)
            scale = pinhole.apparent_way(in_view, tangents).norm(dim=-1).to(values) / NOMINAL
            kind = Kind.METRIC_DISTANCE
            unit = (F.normalize(rays, dim=-1) @ F.normalize(way, dim=0).to(rays)).square()
            confidence = (1 - unit).clamp_min(0).sqrt()[:, None].to(values)
            confidence = torch.where(confidence > _BLIND, confidence, 0.0)
        distance = values * scale[:, None, None, None] * rays.norm(dim=-1)[:, None].to(values)
        return Prediction(distance, (kind,) * len(rig), rig, confidence, models=("depthnet",) * len(rig))

    @cached_property
    def _second(self) -> Tensor:
        if self.second is None:
            raise ConfigError("predict=[motion] compares two panoramas: set predict.motion.second to the other one")
        wild = Wild(image_path=self.second)
        return wild.load(wild.sources()[0]).image

    @cached_property
    def _runner(self) -> Runner:
        if self.weights is None:
            raise WeightsError(
                "predict.motion.weights has no value: train one with mode=train system=motion_stillbox, or set it to a "
                "released DepthNet file"
            )
        net = DepthNet(self.batch_norm, self.elu, self.clamp)
        path = Path(self.weights).expanduser()
        fit(net, read(path), what=str(path), key="predict.motion.batch_norm, elu and clamp choose the network")
        return Runner(_Finest(net), self.running)

    def _before(self, pairs: Tensor) -> Tensor:
        size = (self.size, self.size)
        shrink = pairs.shape[-1] > self.size
        return (F.interpolate(pairs, size, mode="bilinear", antialias=shrink) - MEAN) / STD

    def _restored(self, depth: Tensor, side: int) -> Tensor:
        return F.interpolate(depth, (side, side), mode="bilinear").clamp_min(1e-3)


class _Finest(nn.Module):
    """Six channels in, the finest depth out."""

    def __init__(self, net: DepthNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, pairs: Tensor) -> Tensor:
        finest: Tensor = self.net(pairs[:, :3], pairs[:, 3:])[0]
        return finest
