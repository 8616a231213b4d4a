"""Sums over the pixels of one map, from which every figure follows, for one image or pooled over many.

In the formulas p is the prediction, g the truth, w the weight of a pixel, and E[x] = sum(w x) / sum(w).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Values = NDArray[np.float64]

BASES = {"ln": 1.0, "log10": float(np.log(10.0))}
DELTAS = (1, 2, 3)  # powers of 1.25
# The formula of each figure, for the records.
FORMULAS = {
    "abs_rel": "E[|p - g| / g]",
    "sq_rel": "E[(p - g)^2 / g]",
    "mae": "E[|p - g|]",
    "rmse": "sqrt(E[(p - g)^2])",
    "rmse_log": "sqrt(E[(ln p - ln g)^2])",
    "rmse_log10": "sqrt(E[(log10 p - log10 g)^2])",
    "log10": "E[|log10 p - log10 g|]",
    "si_log": "sqrt(E[d^2] - E[d]^2), d = ln p - ln g",
    "delta1": "E[max(p/g, g/p) < 1.25]",
    "delta2": "E[max(p/g, g/p) < 1.25^2]",
    "delta3": "E[max(p/g, g/p) < 1.25^3]",
}
RISING = ("delta", "psnr", "ssim", "coverage", "precision", "recall", "boundary_f", "normal_within")  # more is better


def moments(
    prediction: Tensor, target: Tensor, weight: Tensor, log_least: float = 1e-6, log_below: str = "clamp"
) -> dict[str, float]:  # [N] each, float64
    """Weighted sums over pixels. A prediction below `log_least` counts as that in logarithms, or is left out there."""
    off = (prediction - target).abs()
    loggable = torch.ones_like(weight) if log_below == "clamp" else (prediction > log_least).to(weight)
    difference = prediction.clamp_min(log_least).log() - target.log()
    ratio = torch.where(prediction > 0, torch.maximum(prediction / target, target / prediction), torch.inf)
    sums = {
        "weight": weight,
        "abs": weight * off,
        "square": weight * off.square(),
        "abs_rel": weight * off / target,
        "sq_rel": weight * off.square() / target,
        "log_weight": weight * loggable,
        "log": weight * loggable * difference,
        "log_abs": weight * loggable * difference.abs(),
        "log_square": weight * loggable * difference.square(),
    }
    sums |= {f"delta{k}": weight * (ratio < 1.25**k).to(weight) for k in DELTAS}
    return {name: float(values.sum()) for name, values in sums.items()}


def figures(sums: Mapping[str, Any], log: str = "ln") -> dict[str, Values]:
    """The figures that sums give; each sum may be a number or an array, one value for each image or sample."""
    s = {name: np.asarray(value, np.float64) for name, value in sums.items()}

    def mean(name: str, by: str = "weight") -> Values:
        none = s[by] <= 0
        return np.where(none, np.nan, s[name] / np.where(none, 1.0, s[by]))

    second, first = mean("log_square", "log_weight"), mean("log", "log_weight")
    suffix = "" if log == "ln" else "10"
    return {
        "abs_rel": mean("abs_rel"),
        "sq_rel": mean("sq_rel"),
        "mae": mean("abs"),
        "rmse": np.sqrt(mean("square")),
        f"rmse_log{suffix}": np.sqrt(second) / BASES[log],
        "log10": mean("log_abs", "log_weight") / BASES["log10"],
        "si_log": np.sqrt(np.maximum(second - first**2, 0.0)),
        **{f"delta{k}": mean(f"delta{k}") for k in DELTAS},
    }


def rises(name: str) -> bool:
    """Whether more of a figure is better."""
    return name.startswith(RISING)
