"""Views of which a model made no numbers are left out and named, so that they spoil nothing."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..checks import InputError
from ..scene import Aligned, Prediction

MOST_LOST = 0.2  # of the views of a model: 4 of an icosahedron's 20
HALF = 0.5  # of a view's pixels; single ones without a number are holes, which every aligner passes over

Lost = dict[str, list[int]]  # views by model


def sound(predictions: dict[str, Prediction]) -> tuple[dict[str, Prediction], Lost]:
    """The predictions without confidence in views whose values or normals are mostly NaN or infinite, and which."""
    good, lost = {}, {}
    for name, prediction in predictions.items():
        good[name], gone = _sound(prediction)
        if gone:
            lost[name] = gone
        if len(gone) > MOST_LOST * len(prediction.values):
            raise InputError(
                f"{name} made no numbers (NaN or infinite) of {len(gone)} of {len(prediction.values)} views "
                f"({', '.join(map(str, gone[:20]))}): set device.precision=fp32, or choose other weights or another "
                "network"
            )
    return good, lost


def tell(aligned: Aligned, lost: Lost) -> Aligned:
    """The same with the lost views in its report."""
    if not lost:
        return aligned
    notes = [f"{name} made no numbers of views {views}; they were left out" for name, views in lost.items()]
    report = {**aligned.report, "lost": lost, "notes": [*aligned.report.get("notes", []), *notes]}
    return replace(aligned, report=report)


def _sound(prediction: Prediction) -> tuple[Prediction, list[int]]:
    values, confidence, normal, sky = prediction.values, prediction.confidence, prediction.normal, prediction.sky
    claimed = torch.ones_like(values, dtype=torch.bool) if sky is None else ~sky
    if confidence is not None:
        confidence = torch.where(confidence.isfinite(), confidence, 0.0)
        claimed = claimed & (confidence > 0)
    broken = _share(claimed & ~values.isfinite()) > HALF * _share(claimed)
    if normal is not None:
        broken = broken | (_share(~normal.isfinite()) > HALF)
        normal = torch.where(normal.isfinite(), normal, 0.0)
    gone: list[int] = broken.nonzero()[:, 0].tolist()
    if not gone:
        return replace(prediction, confidence=confidence, normal=normal), gone
    out = broken[:, None, None, None]
    return (
        replace(
            prediction,
            values=values.masked_fill(out, 1.0),
            confidence=(torch.ones_like(values) if confidence is None else confidence).masked_fill(out, 0.0),
            normal=None if normal is None else normal.masked_fill(out, 0.0),
            sky=None if sky is None else sky & ~out,
        ),
        gone,
    )


def _share(of: torch.Tensor) -> torch.Tensor:  # [V, c, h, w] -> [V]
    return of.flatten(1).float().mean(1)
