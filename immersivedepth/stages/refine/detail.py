"""A second, closer look: narrower views show more detail, and the first result tells them where everything is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from ...checks import ConfigError, Range
from ...geometry import affine, filters, pinhole, robust, sphere
from ...scene import Aligned, Geometry, Kind, Panorama, Prediction
from ..protocols import Blend, Predict, Project

_SAMPLES = 96  # a view is fitted on a grid of so many pixels a side
_CALM, _LEAST = 3.0, 0.01  # standard deviations of the usual difference of log distance, and its least
_FEWEST = 32  # pixels known to both; a view with fewer is left out


@dataclass
class Detail:
    """Every narrow view is brought to the first result by the affine map its kind allows, and the views are blended.

    Up to `width` the blend decides, beyond it the first result: what narrow views know least is the large shape.
    """

    project: Any
    predict: dict[str, Any]
    blend: Any
    width: Annotated[float, Range(0.1, 90)] = 5.0

    def __post_init__(self) -> None:
        if not self.predict:
            raise ConfigError(
                "refine.detail.predict: expected at least one predictor; ${predict} takes those of the run"
            )

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry:
        """Look again, fit, blend, and take the fine part."""
        project: Project = self.project
        views = project(panorama)
        predictors: dict[str, Predict] = self.predict
        first = torch.where(geometry.distance.isfinite(), geometry.distance, 0.0)
        fitted = [fit_to(first, predict(views)) for predict in predictors.values()]
        blend: Blend = self.blend
        rig = replace(
            views.rig,
            rotation=torch.cat([f.rig.rotation for f in fitted]),
            tan_half_fov=torch.cat([f.rig.tan_half_fov for f in fitted]),
        )
        aligned = Aligned(torch.cat([f.distance for f in fitted]), rig, torch.cat([f.weight for f in fitted]))
        second = blend(aligned, (geometry.distance.shape[-2], geometry.distance.shape[-1])).distance
        known = (first > 0) & second.isfinite() & (second > 0)
        near, fine = (torch.where(known, x, 1.0).log() for x in (first, second))
        # At edges the two differ because one of them is sharper; that must not leak into what lies around.
        apart = torch.where(known, near - fine, 0.0)
        calm = known & (apart.abs() <= _CALM * robust.spread(apart[known]).clamp_min(_LEAST))
        drift = filters.known_blur(apart, calm, math.radians(self.width) / 2)
        distance = torch.where(known, (fine + drift).exp(), geometry.distance)
        moved = float((distance[known] / geometry.distance[known]).log().abs().median()) if known.any() else 0.0
        report = {"views": len(rig), "used": round(float(known.float().mean()), 4), "median_change": round(moved, 6)}
        return replace(geometry, distance=distance, report={**geometry.report, "detail": report})


def fit_to(distance: Tensor, prediction: Prediction) -> Aligned:  # [1, H, W]
    """Each map brought to known distances by the robust affine map that its kind leaves open."""
    rig = prediction.rig
    out, weight = torch.empty_like(prediction.values), torch.zeros_like(prediction.values)
    step = max(1, rig.resolution // _SAMPLES)
    t = ((torch.arange(rig.resolution) + 0.5) / rig.resolution * 2 - 1).abs().to(out)
    fade = ((1 - torch.maximum(t[:, None], t[None])) / 0.35).clamp(0, 1)
    for view, kind in enumerate(prediction.kinds):
        rays = pinhole.view_rays(rig.rotation[view : view + 1], rig.tan_half_fov[view : view + 1], rig.resolution)[0]
        length = rays.norm(dim=-1)
        values = prediction.values[view, 0]
        part = (slice(step // 2, None, step),) * 2
        there = sphere.sample_erp(distance, sphere.rays_to_erp(rays[part]), "nearest")[..., 0]
        good = (there > 0) & values[part].isfinite()
        if prediction.sky is not None:
            good &= ~prediction.sky[view, 0][part]
        found = _fit(kind, values, length, values[part][good], there[good], length[part][good])
        sure = found.isfinite() & (found > 0) & (int(good.sum()) >= _FEWEST)
        out[view, 0] = torch.where(sure, found, 1.0)
        weight[view, 0] = fade * sure
        if prediction.confidence is not None:
            weight[view, 0] *= prediction.confidence[view, 0]
        if prediction.sky is not None:
            weight[view, 0] *= ~prediction.sky[view, 0]
    return Aligned(out, rig, weight)


def _fit(kind: Kind, values: Tensor, length: Tensor, x: Tensor, there: Tensor, ratio: Tensor) -> Tensor:
    """Distances of a view; x, there and ratio are the samples: values, known distances, distance over depth."""
    if len(x) < _FEWEST:
        return torch.full_like(values, torch.nan)
    if kind in (Kind.SCALE_DISTANCE, Kind.METRIC_DISTANCE):
        return values * (there / x.clamp_min(1e-12)).log().median().exp()
    depth = there / ratio
    target = 1 / depth if kind is Kind.AFFINE_DISPARITY else depth
    # Relative errors count, wherever they are.
    scale, shift = affine.fit_affine_robust(x.double(), target.double(), 1 / target.double().clamp_min(1e-12))
    found = (scale * values.double() + shift).to(values)
    found = torch.where(found > 0, found, torch.nan)
    return length / found if kind is Kind.AFFINE_DISPARITY else length * found
