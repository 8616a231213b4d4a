"""From solved unknowns to distances, trust and a report."""

import math
from typing import Any

import torch
from torch import Tensor

from ...geometry import fields, robust
from ...scene import Aligned, Prediction
from .anchors import Anchors
from .solver import FAR, SHIFT_LEAST, SHIFT_PRIOR, Equations, Maps, Solution
from .views import border_fade, cosines

NEAREST_TO_NOTHING = 0.01  # smallest disparity against the median: noise must not turn far into behind


def to_aligned(
    prediction: Prediction, maps: Maps, equations: Equations, solution: Solution, anchors: Anchors, name: str
) -> Aligned:
    """Every map as distances on one scale, with the gauge fixed: metres if anything says so, else unit geometric mean.

    The gauge without metres: the geometric mean over views of the distance that the median pixel of a view would
    have on the view's axis is one.
    """
    rig = prediction.rig
    metric = bool(maps.is_metric.any())
    if metric:
        votes = (maps.known_scale - solution.scale)[maps.is_metric]
        gauge = robust.weighted_median(votes, torch.ones_like(votes))
    else:
        gauge = -solution.scale.mean()
    scale = solution.scale + gauge
    distance, weight = _distances(prediction, maps, equations.degree, scale, solution)
    log_metres = anchors.log_factor(distance, weight, rig)
    if log_metres is not None:
        distance, metric = distance * math.exp(log_metres), True
    if prediction.sky is not None:
        sky = prediction.sky[:, 0]
        distance = distance.masked_fill(sky, torch.inf)
        weight = torch.where(sky, border_fade(rig)[:, 0], weight)
    report = _report(prediction, maps, equations, solution, name)
    return Aligned(distance[:, None], rig, weight[:, None], metric, prediction.normal, report)


def _distances(
    prediction: Prediction, maps: Maps, degree: int, scale: Tensor, solution: Solution
) -> tuple[Tensor, Tensor]:  # [V, h, w] each
    """Distances and their trust, view by view, so that little is held at once; where nothing is known, 1 and 0."""
    rig, device = prediction.rig, prediction.values.device
    distance, weight = torch.empty_like(maps.value), torch.empty_like(maps.value)
    cosine, fade = cosines(rig)[:, 0], border_fade(rig)[:, 0]
    bend = solution.field.float().to(device)
    tau = (solution.shift * maps.bound).tolist()
    for v, level in enumerate(scale.tolist()):
        p = (1 + tau[v] * maps.value[v]).clamp_min_(NEAREST_TO_NOTHING)
        torch.mul(fade[v], maps.valid[v], out=weight[v])
        if maps.free[v]:
            weight[v] *= p.square() / (p.square() + FAR**2)
        if prediction.confidence is not None:
            weight[v] *= prediction.confidence[v, 0]
        away = fields.raster(bend[v : v + 1], degree, rig.resolution)[0].exp_() if degree else torch.ones_like(p)
        away = away * math.exp(level) / cosine[v]
        away = away / p if maps.sign[v] > 0 else away * p
        distance[v] = torch.where(maps.valid[v], away, 1.0)
    return distance, weight


def _report(prediction: Prediction, maps: Maps, equations: Equations, solution: Solution, name: str) -> dict[str, Any]:
    o, views = equations.overlap, equations.views
    residual, trusted = solution.residual.abs(), equations.pair_weight > 0
    per_view = []
    for v in range(views):
        of_view = residual[trusted & ((o.view[o.first] == v) | (o.view[o.second] == v))]
        leaning = bool(maps.free[v]) and float(solution.shift_std[v]) > SHIFT_PRIOR[1] / 2
        per_view.append(
            {
                "kind": str(prediction.kinds[v]),
                "model": prediction.models[v] if prediction.models else "",
                "log_scale": round(float(solution.scale[v]), 6),
                "shift": round(float(solution.shift[v]), 6),
                "shift_std": round(float(solution.shift_std[v]), 6) if bool(maps.free[v]) else 0.0,
                "residual": round(float(of_view.median()), 6) if len(of_view) else None,
                "overlaps": len(of_view),
                "shift_from_prior": leaning,
            }
        )
    prior = [v for v, row in enumerate(per_view) if row["shift_from_prior"]]
    alone = [v for v, row in enumerate(per_view) if not row["overlaps"]]
    notes = []
    if prior:
        notes.append(f"overlap or texture does not tell the shift of views {prior}; a prior was used")
    flat = [v for v in range(views) if bool(maps.free[v]) and float(solution.shift[v]) <= SHIFT_LEAST * (1 + 1e-6)]
    if flat:
        notes.append(f"views {flat} fit their neighbours best as spheres around the camera; do not trust their shape")
    if alone:
        notes.append(f"views {alone} overlap no other; their scale is a guess")
    return {
        "align": name,
        "views": per_view,
        "noise": solution.noise,
        "turns": solution.turns,
        "notes": notes,
    }
