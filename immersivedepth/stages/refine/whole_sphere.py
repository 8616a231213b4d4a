"""A small network looks at the whole panorama and at the distances its views gave, and mends those."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from ...checks import Range
from ...geometry import sphere
from ...geometry.normals import to_world
from ...nets.whole_sphere import NEAREST, ROWS, WholeSphere, described, log_distance, scale_of
from ...scene import Geometry, Panorama, unit_image
from ...weights import Weights, fetch, fit, read
from ..predict.running import Runner, Running
from .normals import face_camera


@dataclass
class Whole:
    """Distances and sky, at the size of the panorama; what is unknown stays unknown.

    Normals, where there are any, become those that the network sees, which are smoother than those of the distances. It
    has learnt what certain networks get wrong, so it leaves alone what others said.
    """

    of: list[str] | None = field(default_factory=lambda: ["depth_anything_v2_vitt", "midas_tiny"])  # null: anybody's
    sky_from: Annotated[float, Range(0.01, 0.99)] = 0.9  # what is sky with at least this probability is marked
    weights: str | None = None  # a file of your own, of system=whole_sphere; null: the one of the package
    settings: Weights = field(default_factory=Weights)
    running: Running = field(default_factory=Running)

    def load(self) -> None:
        """Read the weights now rather than at the first look."""
        _ = self._runner

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry:
        """Mend, unless somebody else looked."""
        who = geometry.report.get("models", [])
        if self.of is not None and not (who and set(who) <= set(self.of)):
            return replace(geometry, report={**geometry.report, "whole_sphere": {"mended": False}})
        size = panorama.size
        distance = geometry.distance.float()
        given = self._described(distance, geometry.spread, panorama)
        found = self._runner(given)[0]
        added = sphere.resize_erp(found[:1] - given[0, 3:4], *size)
        up = sphere.resize_erp(found[1:2], *size).sigmoid() >= self.sky_from
        scale = scale_of(distance[None])[0]
        known = distance > 0
        log = (log_distance(distance, scale) + added).clamp_min(NEAREST)
        mended = torch.where(known, (log.exp() * scale).masked_fill(up, torch.inf), 0.0)
        sky, mask = known & up, (geometry.mask | distance.isinf()) & ~up
        changed = float((mask & (added.abs() > 0.1)).float().mean())
        report = {**geometry.report, "whole_sphere": {"mended": True, "changed": round(changed, 4)}}
        normal = None if geometry.normal is None else self._normals(found[2:], size) * known * ~up
        return replace(
            geometry, distance=mended.to(geometry.distance), mask=mask, sky=sky, normal=normal, report=report
        )

    def _normals(self, local: Tensor, size: tuple[int, int]) -> Tensor:  # [3, H, W]
        world = sphere.resize_erp(to_world(F.normalize(local, dim=0)), *size)
        return face_camera(world)

    def _described(self, distance: Tensor, spread: Tensor | None, panorama: Panorama) -> Tensor:
        size = (ROWS, 2 * ROWS)
        image = sphere.resize_erp(unit_image(panorama.image).to(distance), *size)
        small = sphere.resize_erp(distance, *size, "nearest")
        spread = torch.zeros_like(small) if spread is None else sphere.resize_erp(spread.float(), *size, "nearest")
        return described(image[None], small[None], spread[None])

    @cached_property
    def _runner(self) -> Runner:
        path = fetch("whole_sphere", self.weights, self.settings)
        net = WholeSphere()
        fit(net, read(path), what=str(path), key="refine.whole_sphere wants a network of system=whole_sphere")
        return Runner(net.float(), self.running, channels_last=True)
