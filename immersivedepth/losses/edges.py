"""Smoothness that knows of edges."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def edge_weighted_smoothness(prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:  # [B, 1, h, w]
    """Mean absolute differences of the prediction, across and down, each times exp of the target's own mean difference.

    This is the Keras example's: the weights are two numbers for the whole batch, and differences at the last column and
    row count as 0. With `valid`, the means are over differences between two valid pixels.
    """
    total = prediction.new_zeros(())
    for dim in (-1, -2):
        if valid is not None:
            both = valid & F.pad(
                valid.narrow(dim, 1, valid.shape[dim] - 1), (0, 1, 0, 0) if dim == -1 else (0, 0, 0, 1)
            )
            count = both.sum().clamp_min(1)
            found, true = (
                torch.where(both, _differences(x, dim).abs(), 0.0).sum() / count for x in (prediction, target)
            )
            total = total + found * true.exp()
            continue
        weight = _differences(target, dim).abs().mean().exp()
        total = total + (_differences(prediction, dim) * weight).abs().mean()
    return total


def _differences(x: Tensor, dim: int) -> Tensor:
    steps = torch.diff(x, dim=dim)
    return F.pad(steps, (0, 1, 0, 0) if dim == -1 else (0, 0, 0, 1))
