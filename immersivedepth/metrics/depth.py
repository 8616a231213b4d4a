"""Errors of depth or distance maps as sums with their counts, so that means over any number of maps are exact.

Each function takes prediction, target and what is valid, of one shape, and an optional weight; it gives (sum, count).
"""

from __future__ import annotations

import torch
from torch import Tensor

Share = tuple[Tensor, Tensor]

_SMALLEST = 1e-6  # a prediction below it counts as this much where a ratio or a logarithm is taken


def abs_error(prediction: Tensor, target: Tensor, valid: Tensor, weight: Tensor | None = None) -> Share:
    """Mean absolute error."""
    return _share((prediction - target).abs(), valid, weight)


def square_error(prediction: Tensor, target: Tensor, valid: Tensor, weight: Tensor | None = None) -> Share:
    """Mean squared error; its root is to be taken after all sums are made."""
    return _share((prediction - target).square(), valid, weight)


def abs_rel(prediction: Tensor, target: Tensor, valid: Tensor, weight: Tensor | None = None) -> Share:
    """Mean of |prediction - target| / target."""
    return _share((prediction - target).abs() / _safe(target, valid), valid, weight)


def log_square_error(prediction: Tensor, target: Tensor, valid: Tensor, weight: Tensor | None = None) -> Share:
    """Mean squared difference of natural logarithms."""
    ratio = prediction.clamp_min(_SMALLEST) / _safe(target, valid)
    return _share(ratio.log().square(), valid, weight)


def within(
    prediction: Tensor, target: Tensor, valid: Tensor, ratio: float = 1.25, weight: Tensor | None = None
) -> Share:
    """Share of pixels whose prediction is less than `ratio` times too large or too small."""
    off = prediction.clamp_min(_SMALLEST) / _safe(target, valid)
    return _share((torch.maximum(off, 1 / off) < ratio).to(prediction.dtype), valid, weight)


def standard(
    prediction: Tensor, target: Tensor, valid: Tensor, weight: Tensor | None = None, prefix: str = ""
) -> dict[str, Share]:
    """The usual figures by name; `rooted` turns the means of those that are squares into roots."""
    return {
        f"{prefix}mae": abs_error(prediction, target, valid, weight),
        f"{prefix}rmse": square_error(prediction, target, valid, weight),
        f"{prefix}abs_rel": abs_rel(prediction, target, valid, weight),
        f"{prefix}rmse_log": log_square_error(prediction, target, valid, weight),
        f"{prefix}delta1": within(prediction, target, valid, weight=weight),
    }


def rooted(means: dict[str, float]) -> dict[str, float]:
    """Means with the root taken of those named rmse."""
    return {name: value**0.5 if "rmse" in name else value for name, value in means.items()}


def peak_ratio(prediction: Tensor, target: Tensor) -> Tensor:
    """PSNR in dB of two maps, each first divided by its own largest value over the whole batch; 0 if they agree.

    This is how the original 360 stereo program measured; the division makes it blind to scale.
    """
    error = (prediction / prediction.max() - target / target.max()).square().mean()
    safe = torch.where(error > 0, error, 1.0)
    return torch.where(error > 0, 20 * torch.log10(1 / safe.sqrt()), 0.0)


def _safe(target: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, target, 1.0)


def _share(values: Tensor, valid: Tensor, weight: Tensor | None) -> Share:
    weight = valid.to(values.dtype) if weight is None else torch.where(valid, weight, 0.0)
    return torch.where(valid, values * weight, 0.0).sum(), weight.sum()
