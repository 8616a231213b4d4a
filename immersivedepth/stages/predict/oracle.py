"""The truth of a known world, spoiled the way networks spoil it: for tests, benchmarks and the demo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...checks import InputError, Range
from ...geometry import pinhole
from ...scene import Kind, Prediction, Views

_BEND_NODES = 4  # knots along one side of the smooth distortion: about the scale on which networks bend rooms
_EDGE = 1.2  # neighbouring inverse depths this far apart belong to two surfaces


@dataclass
class Oracle:
    """The true shape of every view, under an unknown scale and shift per view as a network's output has them."""

    kind: Literal["affine_disparity", "affine_depth", "scale_distance", "metric_distance"] = "affine_disparity"
    scale: Annotated[float, Range(0, 3)] = 0.5
    shift: Annotated[float, Range(0, 0.9)] = 0.5
    bend: Annotated[float, Range(0, 1)] = 0.0
    noise: Annotated[float, Range(0, 1)] = 0.0
    reduce: Annotated[int, Range(1, 16)] = 1
    seed: Annotated[int, Range(0)] = 0

    def __call__(self, views: Views) -> Prediction:
        if views.truth is None:
            raise InputError(
                "predict=[oracle] reads the truth of a synthetic world, and this picture has none beside it. "
                "Choose a network, e.g. predict=[depth_anything_v2], or leave dataset.image_path empty."
            )
        rig, kind = views.rig, Kind(self.kind)
        coarse = pinhole.view_rays(rig.rotation, rig.tan_half_fov, -(-rig.resolution // self.reduce))  # depth one
        inverse = _enlarge(coarse.norm(dim=-1) / views.truth.trace(coarse).distance, rig.resolution)
        sky = inverse == 0
        length = pinhole.view_rays(rig.rotation, rig.tan_half_fov, rig.resolution).norm(dim=-1)
        far = 100 / inverse[~sky].min() if (~sky).any() else inverse.new_tensor(1.0)  # finite everywhere
        distance = length * torch.where(sky, far, 1 / inverse.clamp_min(1e-12))
        true = {
            Kind.AFFINE_DISPARITY: length / distance,
            Kind.AFFINE_DEPTH: distance / length,
            Kind.SCALE_DISTANCE: distance,
            Kind.METRIC_DISTANCE: distance,
        }[kind]
        values = self._spoil(true, kind, sky)
        return Prediction(values[:, None], (kind,) * len(rig), rig, sky=sky[:, None], models=("oracle",) * len(rig))

    def _spoil(self, true: Tensor, kind: Kind, sky: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        count = len(true)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(true)

        a, b = (
            (self.scale * normal(count, 1, 1)).exp(),
            self.shift * (2 * torch.rand(count, 1, 1, generator=generator) - 1).to(true),
        )
        if self.bend:
            field = F.interpolate(
                normal(count, 1, _BEND_NODES, _BEND_NODES), true.shape[-2:], mode="bicubic", align_corners=True
            )
            true = true * (self.bend * field[:, 0]).exp()
        if self.noise:
            true = true * (self.noise * normal(*true.shape)).exp()
        if kind is Kind.METRIC_DISTANCE:
            return true
        if kind is Kind.SCALE_DISTANCE:
            return a * true
        seen = torch.where(sky, torch.nan, true).flatten(1).nanmedian(dim=1).values.nan_to_num(1.0)
        return a * (true + b * seen[:, None, None])


def _enlarge(inverse: Tensor, size: int) -> Tensor:  # [V, h, w] -> [V, size, size]
    """Enlarge inverse depths: smoothly within a surface, which is exact on planes, and never across its edge."""
    if inverse.shape[-1] == size:
        return inverse
    maps = inverse[:, None]
    near = F.max_pool2d(F.pad(maps, (1, 1, 1, 1), mode="replicate"), 3, 1)
    far = -F.max_pool2d(F.pad(-maps, (1, 1, 1, 1), mode="replicate"), 3, 1)
    edge = F.interpolate((near > _EDGE * far).to(maps), (size, size), mode="nearest") > 0
    smooth = F.interpolate(maps, (size, size), mode="bilinear", align_corners=False)
    return torch.where(edge, F.interpolate(maps, (size, size), mode="nearest"), smooth)[:, 0]
