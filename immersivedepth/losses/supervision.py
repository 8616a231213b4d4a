"""Losses of maps against measured maps, over valid pixels alone, and sums of them over several scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Form = Literal["l1", "mse", "smooth_l1"]


def masked(
    prediction: Tensor, target: Tensor, valid: Tensor, form: Form = "smooth_l1", weight: Tensor | None = None
) -> Tensor:
    """Mean over valid pixels, weighted if a weight is given; 0 where nothing is valid."""
    target = torch.where(valid, target, 0.0)
    prediction = torch.where(valid, prediction, 0.0)
    if form == "l1":
        error = (prediction - target).abs()
    elif form == "mse":
        error = (prediction - target).square()
    else:
        error = F.smooth_l1_loss(prediction, target, reduction="none")
    share = (valid.to(error.dtype) if weight is None else torch.where(valid, weight, 0.0)).expand_as(error)
    return (error * share).sum() / share.sum().clamp_min(torch.finfo(error.dtype).tiny)


def over_scales(
    predictions: Sequence[Tensor],
    target: Tensor,
    weights: Sequence[float],
    form: Form = "l1",
) -> list[Tensor]:
    """One weighted term for each scale, against the target's mean over the area of each of its pixels."""
    if len(predictions) > len(weights):
        raise ValueError(f"expected a weight for each of {len(predictions)} scales, got {len(weights)}")
    terms = []
    for prediction, weight in zip(predictions, weights, strict=False):
        coarse = F.adaptive_avg_pool2d(target, (prediction.shape[-2], prediction.shape[-1]))
        terms.append(weight * masked(prediction, coarse, torch.ones_like(coarse, dtype=torch.bool), form))
    return terms
