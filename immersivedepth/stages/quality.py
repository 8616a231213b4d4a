"""How far a result can be trusted: figures for a JSON file and pictures to look at."""

import math
from typing import Any

import torch
from torch import Tensor

from ..geometry import sphere
from ..scene import Geometry

FULL_SPREAD = 0.2  # standard deviation of log distance painted as bad as it gets
# What stages tell of themselves.
_LOOKING = ("models", "align", "noise", "views", "blend")
_REFINING = ("whole_sphere", "normal_integration", "planes", "detail", "sphere_field")
SUSPECT = 3.0  # a view whose residual is this many times the median of all stands out


def figures(geometry: Geometry) -> dict[str, Any]:
    """Coverage, agreement of the views, seam and poles, and what the aligner found, with advice in words."""
    height, width = geometry.distance.shape[-2:]
    area = sphere.solid_angles(height, width, geometry.distance.device).double().expand(height, width) / (4 * math.pi)
    known = geometry.mask[0]
    report: dict[str, Any] = {"coverage": round(float(area[known].sum()), 6), "metric": geometry.metric}
    if geometry.sky is not None:
        report["sky"] = round(float(area[geometry.sky[0]].sum()), 6)
    if geometry.spread is not None and bool(known.any()):
        report["spread"] = _spread(geometry.spread[0][known].double(), area[known])
    log = torch.where(known, geometry.distance[0].double(), 1.0).log()
    report["seam"] = _seam(log, known)
    report["poles"] = {"top": _row_spread(log[0], known[0]), "bottom": _row_spread(log[-1], known[-1])}
    found = geometry.report
    for key in (*_LOOKING, *_REFINING):
        if key in found:
            report[key] = found[key]
    report["advice"] = [*found.get("notes", []), *_advice(report)]
    return report


def pictures(geometry: Geometry) -> dict[str, Tensor]:  # name: [3, H, W], uint8
    """Disagreement of the views, black to yellow; and what is known, white, is sky, blue, or is unknown, black."""
    out = {}
    if geometry.spread is not None:
        amount = (geometry.spread[0] / FULL_SPREAD).clamp(0, 1)
        out["spread"] = torch.stack([amount.sqrt(), amount, 0.3 * amount * (1 - amount)])
    coverage = geometry.mask.float().expand(3, -1, -1).clone()
    if geometry.sky is not None:
        coverage[2] = torch.maximum(coverage[2], geometry.sky[0].float())
    out["coverage"] = coverage
    return {name: (picture.clamp(0, 1) * 255).round().to(torch.uint8) for name, picture in out.items()}


def _spread(values: Tensor, area: Tensor) -> dict[str, float]:
    order = values.argsort()
    mass = area[order].cumsum(0) / area.sum()

    def quantile(part: float) -> float:
        return round(
            float(values[order][torch.searchsorted(mass, mass.new_tensor([part])).clamp(max=len(mass) - 1)]), 6
        )

    mean = float((values * area).sum() / area.sum())
    return {"mean": round(mean, 6), "median": quantile(0.5), "p95": quantile(0.95)}


def _seam(log: Tensor, known: Tensor) -> float | None:
    """Median step of log distance between the last and the first column, beyond what their neighbours lead one to."""
    last, first = log[:, -1], log[:, 0]
    step = (first - last) - ((log[:, 1] - first) + (last - log[:, -2])) / 2
    rows = known[:, [0, 1, -2, -1]].all(-1)
    return round(float(step[rows].abs().median()), 6) if bool(rows.any()) else None


def _row_spread(log: Tensor, known: Tensor) -> float | None:
    return round(float(log[known].std(correction=0)), 6) if bool(known.any()) else None


def _advice(report: dict[str, Any]) -> list[str]:
    advice = []
    if report["coverage"] + report.get("sky", 0.0) < 0.999:
        advice.append("parts of the sphere are unknown; widen project.fov or use more views")
    if report.get("spread", {}).get("p95", 0.0) > FULL_SPREAD:
        advice.append("views disagree by more than 20 % in places; try align=grid_affine and blend=robust")
    residuals = [view["residual"] for view in report.get("views", []) if view["residual"] is not None]
    if residuals:
        usual = sorted(residuals)[len(residuals) // 2]
        odd = [
            i
            for i, view in enumerate(report["views"])
            if (view["residual"] or 0.0) > SUSPECT * usual and view["residual"] > 0.01
        ]
        if odd:
            advice.append(f"views {odd} do not agree with their neighbours")
    return advice
