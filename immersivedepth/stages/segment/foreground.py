"""What was added to a scene: the panorama against a clean one taken at the same place, view by view."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import ConfigError, Range, WeightsError
from ...data.modest import BACKGROUND_NORM, PICTURE_NORM
from ...data.panoramas import Wild
from ...geometry import pinhole, segments, sphere, warp
from ...nets.mask_depth import MULTIPLE, DepthMaskNet8, MaskNet3
from ...scene import Geometry, Instances, Panorama, Rig, unit_image
from ...weights import fit, read
from ..predict.running import Runner, Running
from ..project import Icosahedron
from .valid_geometry import ValidGeometry

_CLASS = 1
_FAINT = 1e-3  # weight of a view at its very border, so that no direction is without one


@dataclass
class Foreground:
    """Each connected part of the mask is an instance of the class "foreground".

    Both panoramas must be taken at one place, looking one way. A mask says nothing of distance: the depth of
    DepthMaskNet, which is relative, is not used.
    """

    background: str | None = None  # the clean panorama
    weights: str | None = None  # a checkpoint of system=foreground_modest
    network: Literal["mask", "mask_depth"] = "mask_depth"
    fusion: Literal["code", "diagram"] = "code"
    size: Annotated[int, Range(MULTIPLE, 2048)] = 224  # pixels at which views are looked at
    threshold: Annotated[float, Range(0, 1)] = 0.5  # of the chance that a pixel was added
    min_area: Annotated[float, Range(0, 1)] = 0.0002  # share of the sphere; smaller parts are dropped
    running: Running = field(default_factory=Running)
    valid: ValidGeometry = field(default_factory=ValidGeometry)
    project: Icosahedron = field(default_factory=Icosahedron)

    def __post_init__(self) -> None:
        if self.size % MULTIPLE:
            raise ConfigError(f"segment.size={self.size}: expected a multiple of {MULTIPLE}")

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry:
        """Look at every view of both, then join."""
        chance = self.chance(panorama)
        found = instances_of(chance, self.threshold, self.min_area)
        trusted = self.valid(geometry, panorama)
        area = sphere.solid_angles(*panorama.size, chance.device).expand(panorama.size)
        share = float(area[found.labels[0] > 0].sum() / (4 * math.pi))
        report = {**trusted.report, "foreground": {"instances": len(found.classes), "share": round(share, 5)}}
        return replace(trusted, instances=found, report=report)

    def chance(self, panorama: Panorama) -> Tensor:  # [1, H, W]
        """How likely each pixel shows what the clean panorama does not."""
        views = self.project(panorama)
        clean = self._clean(panorama.size).to(views.images.device)
        other = warp.erp_to_views(clean, views.rig, self.project.antialias)
        pairs = torch.cat([unit_image(other), unit_image(views.images)], 1)
        side = views.rig.resolution
        seen = self._runner(pairs, self._before, lambda y: _resized(y, side).sigmoid())
        return onto_sphere(seen, views.rig, panorama.size)

    def _clean(self, size: tuple[int, int]) -> Tensor:
        if self.background is None:
            raise ConfigError("segment=foreground compares two panoramas: set segment.background to the clean one")
        wild = Wild(image_path=self.background)
        image = unit_image(wild.load(wild.sources()[0]).image)
        return image if image.shape[-2:] == size else sphere.resize_erp(image, *size)

    @cached_property
    def _runner(self) -> Runner:
        if self.weights is None:
            raise WeightsError(
                "segment.weights has no value: train a network with mode=train system=foreground_modest and set it to "
                "its best.ckpt"
            )
        net = MaskNet3() if self.network == "mask" else DepthMaskNet8(self.fusion)
        path = Path(self.weights).expanduser()
        fit(net, read(path), what=str(path), key=f"segment.network is {self.network}")
        return Runner(_MaskAlone(net), self.running)

    def _before(self, pairs: Tensor) -> Tensor:
        norms = (BACKGROUND_NORM, PICTURE_NORM)
        mean, std = (torch.tensor([v for n in norms for v in n[i]]).to(pairs).view(1, 6, 1, 1) for i in (0, 1))
        return (_resized(pairs, self.size) - mean) / std


class _MaskAlone(nn.Module):
    """Six channels in, the logit of the mask out."""

    def __init__(self, net: Callable[[Tensor, Tensor], Tensor | tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.net = net

    def forward(self, pairs: Tensor) -> Tensor:
        found = self.net(pairs[:, :3], pairs[:, 3:])
        return found if isinstance(found, Tensor) else found[0]


def onto_sphere(values: Tensor, rig: Rig, size: tuple[int, int]) -> Tensor:  # [V, 1, h, w] -> [1, H, W]
    """The mean over views, each weighted less towards its border."""
    rays = sphere.erp_rays(*size, values.device)
    total, weights = values.new_zeros(size), values.new_zeros(size)
    for view, value in enumerate(values):
        xy, inside = pinhole.project_rays(rays, rig.rotation[view].to(values), float(rig.tan_half_fov[view]))
        sampled = F.grid_sample(value[None], xy[None], "bilinear", "border", align_corners=False)[0, 0]
        weight = torch.where(inside, (1 - xy.abs()).clamp_min(_FAINT).prod(-1), 0.0)
        total += weight * torch.where(inside, sampled, 0.0)
        weights += weight
    return (total / weights.clamp_min(torch.finfo(total.dtype).tiny))[None]


def instances_of(chance: Tensor, threshold: float, min_area: float) -> Instances:
    """Connected parts above the threshold, with their mean chance as score."""
    size = (chance.shape[-2], chance.shape[-1])
    labels = segments.components(chance > threshold)
    area = (sphere.solid_angles(*size, chance.device) / (4 * math.pi)).expand(size)
    flat = labels.reshape(-1).long()
    shares = torch.zeros(int(flat.max()) + 1, dtype=area.dtype, device=area.device)
    shares = shares.index_add(0, flat, area.reshape(-1))
    small = shares < min_area
    labels = segments.renumber(torch.where(small[flat].view_as(labels), torch.zeros_like(labels), labels))
    count = int(labels.max())
    scores = tuple(round(float(chance[labels == number].mean()), 4) for number in range(1, count + 1))
    return Instances(labels, (_CLASS,) * count, {_CLASS: "foreground"}, scores)


def _resized(images: Tensor, side: int) -> Tensor:
    shrink = images.shape[-1] > side
    return F.interpolate(images, (side, side), mode="bilinear", antialias=shrink)
