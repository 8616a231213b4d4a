"""Distances whose surface has the normals that a network saw: one linear equation on the sphere."""

import math
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from ...checks import Range
from ...geometry import poisson, robust, sphere
from ...scene import Geometry, Panorama
from .normals import face_camera, predicted_normals

_NOISE = 2e-3  # of log distance from pixel to pixel; the least that counts as normal


@dataclass
class NormalIntegration:
    """Normals say how log distance changes from pixel to pixel; the solver finds the map that agrees with both.

    On a plane with normal n, log r differs between the rays v and w by log((n . v) / (n . w)), whatever its distance.
    Differences that the distances contradict strongly are depth edges, which normals know nothing of.
    """

    length: Annotated[float, Range(0.01, 180)] = 5.0
    robustness: Annotated[float, Range(0.5, 100)] = 6.0
    rounds: Annotated[int, Range(1, 20)] = 3
    least_cosine: Annotated[float, Range(0.01, 0.9)] = 0.1

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry:
        """Solve for the distance; the normals stay as they are."""
        normal = face_camera(predicted_normals(geometry, "refine=[normal_integration]"))
        known = ((geometry.distance > 0) & geometry.distance.isfinite())[0]
        anchor = torch.where(known, geometry.distance[0], 1.0).log()
        steps, weights = plane_steps(normal, known, self.least_cosine)
        usual, found = [], anchor
        for _ in range(self.rounds):
            slope = poisson.gradient(found)
            misfit = [a - b for a, b in zip(slope, steps, strict=True)]
            every = torch.cat([m[w > 0] for m, w in zip(misfit, weights, strict=True)])
            scale = self.robustness * robust.spread(every).clamp_min(_NOISE)
            trust = [w * robust.geman_mcclure(m, scale) for m, w in zip(misfit, weights, strict=True)]
            usual.append(float(scale))
            found, turns, _ = poisson.integrate(
                steps, anchor, math.radians(self.length), (trust[0], trust[1]), known.to(anchor), 1e-4
            )
            found = found.to(anchor)
        distance = torch.where(known, found.exp(), geometry.distance[0])[None]
        change = (found - anchor)[known].abs()
        report = {"scale": [round(s, 6) for s in usual], "median_change": round(float(change.median()), 6)}
        report |= {"turns": turns}
        return replace(geometry, distance=distance, report={**geometry.report, "normal_integration": report})


def plane_steps(normal: Tensor, known: Tensor, least: float) -> tuple[poisson.Edges, poisson.Edges]:
    """What the normals [3, H, W] say of log distance: to the right [H, W] and down [H - 1, W], and how far to trust it.

    Where planes are seen at a grazing angle, small errors of the normal are large ones of the step.
    """
    rays = sphere.erp_rays(normal.shape[-2], normal.shape[-1], normal.device).permute(2, 0, 1)
    known = known & (normal.abs().sum(0) > 0)
    steps: list[Tensor] = []
    weights: list[Tensor] = []
    for ahead in (lambda x: x.roll(-1, -1), lambda x: x[..., 1:, :]):
        here = slice(None) if not steps else slice(None, -1)
        own, other = [], []
        for one in (normal[..., here, :], ahead(normal)):
            own.append(-(one * rays[..., here, :]).sum(0))
            other.append(-(one * ahead(rays)).sum(0))
        cosine = torch.stack(own + other).amin(0)
        step = [(a.clamp_min(least) / b.clamp_min(least)).log() for a, b in zip(own, other, strict=True)]
        good = known[here] & ahead(known) & (cosine > least)
        steps.append(torch.where(good, (step[0] + step[1]) / 2, 0.0))
        weights.append(torch.where(good, cosine.clamp_min(0).square(), 0.0))
    return (steps[0], steps[1]), (weights[0], weights[1])
