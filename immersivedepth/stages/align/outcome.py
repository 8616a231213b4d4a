"""From solved unknowns to distances, trust and a report."""

from typing import Any

import torch

from ...geometry import fields, robust
from ...scene import Aligned, Prediction
from .anchors import Anchors
from .solver import FAR, SHIFT_PRIOR, Equations, Maps, Solution
from .views import border_fade, cosines

NEAREST_TO_NOTHING = 0.01  # smallest disparity against the median: noise must not turn far into behind


def to_aligned(
    prediction: Prediction, maps: Maps, equations: Equations, solution: Solution, anchors: Anchors, name: str
) -> Aligned:
    """Every map as distances on one scale, with the gauge fixed: metres if anything says so, else unit geometric mean.

    The gauge without metres: the geometric mean over views of the distance that the median pixel of a view would
    have on the view's axis is one.
    """
    rig, resolution = prediction.rig, prediction.rig.resolution
    metric = bool(maps.is_metric.any())
    if metric:
        votes = (maps.known_scale - solution.scale)[maps.is_metric]
        gauge = robust.weighted_median(votes, torch.ones_like(votes))
    else:
        gauge = -solution.scale.mean()
    scale = solution.scale + gauge
    device = prediction.values.device
    tau = (solution.shift * maps.bound).float().to(device)[:, None, None]
    p = 1 + tau * maps.value
    known = maps.valid
    p = p.clamp_min(NEAREST_TO_NOTHING)
    free = maps.free.to(device)[:, None, None]
    sure = torch.where(free, p.square() / (p.square() + FAR**2), torch.ones_like(p))
    log_factor = scale.float().to(device)[:, None, None]
    if equations.degree:
        log_factor = log_factor + fields.raster(solution.field.float().to(device), equations.degree, resolution)
    disparity = (maps.sign > 0).to(device)[:, None, None]
    distance = log_factor.exp() / (torch.where(disparity, p, 1 / p) * cosines(rig)[:, 0])
    weight = border_fade(rig)[:, 0] * known * sure
    if prediction.confidence is not None:
        weight = weight * prediction.confidence[:, 0]
    log_metres = anchors.log_factor(distance, weight, rig)
    if log_metres is not None:
        distance, metric = distance * float(torch.tensor(log_metres).exp()), True
    distance = torch.where(known, distance, torch.ones_like(distance))
    if prediction.sky is not None:
        sky = prediction.sky[:, 0]
        distance = distance.masked_fill(sky, torch.inf)
        weight = torch.where(sky, border_fade(rig)[:, 0], weight)
    report = _report(prediction, maps, equations, solution, name)
    return Aligned(distance[:, None], rig, weight[:, None], metric, prediction.normal, report)


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
    if alone:
        notes.append(f"views {alone} overlap no other; their scale is a guess")
    return {
        "align": name,
        "views": per_view,
        "noise": solution.noise,
        "turns": solution.turns,
        "notes": notes,
    }
