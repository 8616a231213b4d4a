"""What of a prediction is taken as free: a factor, or a factor and a shift, found by the truth before errors count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..geometry.affine import fit_affine, fit_affine_robust
from ..geometry.robust import weighted_median

Align = Literal[
    "none", "median", "mean_ratio", "scale_robust", "affine_depth_robust", "affine_disparity", "affine_disparity_robust"
]
Median = Literal["middle", "lower"]
_SHORTEST = 1e-9  # metres; what is nearer has the disparity of that

FORMULAS: dict[str, str] = {
    "none": "p as it is, in metres",
    "median": "s p with s = median(g) / median(p)",
    "mean_ratio": "s p with s = E[g / p]",
    "scale_robust": "s p with the s that minimises E[|s p - g| / g]",
    "affine_depth_robust": "s p + t with the s, t that minimise E[|s p + t - g| / g]",
    "affine_disparity": "1 / (s / p + t) with the s, t that minimise E[(s / p + t - 1 / g)^2]",
    "affine_disparity_robust": "1 / (s / p + t) with the s, t that minimise E[|s / p + t - 1 / g|]",
}


def fitted(how: Align, p: Tensor, g: Tensor, w: Tensor, median: Median = "middle") -> Callable[[Tensor], Tensor]:
    """The map that brings predictions to the truth, found on [N] samples with weights; infinite p is sky."""
    if how == "none":
        return lambda values: values
    if how.startswith("affine_disparity"):
        fit = fit_affine if how == "affine_disparity" else fit_affine_robust
        scale, shift = fit(1 / p.clamp_min(_SHORTEST), 1 / g, w)
        # A disparity of 0 is endless; below 0 it comes out below 0, which the protocol's clip then decides upon.
        return lambda values: 1 / (scale / values.clamp_min(_SHORTEST) + shift)
    near = p.isfinite()
    p, g, w = p[near], g[near], w[near]
    if how == "affine_depth_robust":
        scale, shift = fit_affine_robust(p, g, w / g)
        return lambda values: scale * values + shift
    if how == "median":
        s = middle(g, w, median) / middle(p, w, median)
    elif how == "mean_ratio":
        s = (w * g / p).sum() / w.sum()
    else:
        s = weighted_median(g / p, w * p / g)
    return lambda values: s * values


def nearest_of_cells(valid: Tensor, cells: int) -> Tensor:  # [H, W], bool -> [H, W], bool
    """Of each of cells x cells parts of a map the valid pixel nearest to its middle; of several the first."""
    rows, columns = valid.nonzero(as_tuple=True)
    cell, off = np.zeros(len(rows), np.int64), np.zeros(len(rows))
    for at, extent in ((rows.numpy(), valid.shape[0]), (columns.numpy(), valid.shape[1])):
        place = (at + 0.5) * cells / extent
        number = np.ceil(place - 1e-9).astype(np.int64) - 1  # what lies on a border belongs to the part before it
        cell = cell * cells + number
        off += ((place - number - 0.5) * extent / cells) ** 2
    order = np.lexsort((np.arange(len(cell)), off.round(6), cell))
    first = np.flatnonzero(np.diff(cell[order], prepend=-1))
    chosen = torch.zeros_like(valid)
    chosen[rows[order[first]], columns[order[first]]] = True
    return chosen


def middle(values: Tensor, weight: Tensor, median: Median) -> Tensor:
    """The weighted median; `lower` takes the lower of two middle values, as torch.median does."""
    if median == "middle":
        return weighted_median(values, weight)
    order = values.argsort()
    mass = weight[order].cumsum(0)
    return values[order][torch.searchsorted(mass, mass[-1:] / 2).clamp(max=len(order) - 1)][0]
