"""What the result is worth, in numbers, and what might help."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...files import write_text
from ...geometry import sphere
from ...scene import Geometry, Panorama
from .arrays import unit_of

# Beyond these, the report says what might help.
_LITTLE_TRUSTED, _MUCH_SPREAD, _VISIBLE_SEAM, _UNEVEN_POLE = 0.7, 0.1, 2.0, 0.02


@dataclass
class Quality:
    """quality.json: shares of the sphere, agreement of the views, seam and pole scores, and advice."""

    def __call__(self, geometry: Geometry, panorama: Panorama, folder: Path) -> list[Path]:
        """Write the report."""
        return [write_text(folder / "quality.json", json.dumps(assess(geometry), indent=2, default=str) + "\n")]


def assess(geometry: Geometry) -> dict[str, Any]:
    """The figures, and the reports of the stages behind them."""
    height, width = geometry.distance.shape[-2:]
    area = sphere.solid_angles(height, width, geometry.distance.device).double() / (4 * math.pi)
    known = geometry.distance.isfinite() & (geometry.distance > 0)
    share = lambda mask: round(float((mask[0] * area).sum()), 6)  # noqa: E731 - used thrice, one line each
    trusted = geometry.distance[geometry.mask & known]
    found: dict[str, Any] = {
        "unit": unit_of(geometry),
        "trusted": share(geometry.mask),
        "known": share(known),
        "sky": 0.0 if geometry.sky is None else share(geometry.sky),
        "distance": _quantiles(trusted),
        "seam_score": seam_score(geometry.distance, geometry.mask & known),
        "pole_scores": pole_scores(geometry.distance, known),
        "spread": None if geometry.spread is None else _quantiles(geometry.spread[geometry.mask & known]),
        "instances": None if geometry.instances is None else len(geometry.instances.classes),
    }
    advice = [*geometry.report.get("notes", []), *_advice(found)]
    return {**found, "advice": advice, "stages": geometry.report}


def seam_score(distance: Tensor, mask: Tensor) -> float | None:
    """Mean step of log distance across the cut against the median of all other columns; 1: no seam to be seen."""
    log = torch.where(mask, distance, 1.0).log()[0]
    both = (mask & mask.roll(-1, -1))[0]
    steps = ((log - log.roll(-1, -1)).abs() * both).sum(0) / both.sum(0).clamp_min(1)
    used = both.sum(0) > 0
    if not used[-1] or not used[:-1].any():
        return None
    usual = float(steps[:-1][used[:-1]].median())
    return round(float(steps[-1]) / usual, 4) if usual > 0 else None


def pole_scores(distance: Tensor, known: Tensor) -> list[float | None]:
    """Standard deviation of log distance around the first and the last row, which are all but one point each."""
    scores: list[float | None] = []
    for row in (0, -1):
        there = distance[0, row][known[0, row]]
        scores.append(round(float(there.log().std(correction=0)), 6) if len(there) > 1 else None)
    return scores


def _quantiles(values: Tensor) -> dict[str, float] | None:
    if not len(values):
        return None
    ranked = values.float().sort().values
    at = {"least": 0.0, "p5": 0.05, "median": 0.5, "p95": 0.95, "most": 1.0}
    return {name: round(float(ranked[round(share * (len(ranked) - 1))]), 6) for name, share in at.items()}


def _advice(found: dict[str, Any]) -> list[str]:
    advice = []
    if found["trusted"] + found["sky"] < _LITTLE_TRUSTED:
        advice.append("Little can be trusted: see segment.distrusted below for the reasons.")
    if found["spread"] and found["spread"]["median"] > _MUCH_SPREAD:
        advice.append("The views disagree: try another aligner, wider views (project.fov) or another predictor.")
    if found["seam_score"] is not None and found["seam_score"] > _VISIBLE_SEAM:
        advice.append("A step shows at the left and right border: is the picture a whole, uncropped panorama?")
    if any(score is not None and score > _UNEVEN_POLE for score in found["pole_scores"]):
        advice.append("A pole is uneven: a tripod or a hanging thing? segment.nadir masks the lower one.")
    return advice
