"""Normals and standardised depth over valid pixels; `supervision.masked` is the same for plain differences."""

from __future__ import annotations

import torch
from torch import Tensor

_CENTRAL = 0.8  # share of the depths, counted from their middle, that standardising looks at


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of the values [B, C, h, w] where valid [B, 1, h, w] is true; 0, with gradients of 0, where nothing is."""
    keep = valid.expand_as(values)
    return torch.where(keep, values, 0.0).sum() / keep.sum().clamp_min(1)


def masked_cosine(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean of minus the cosine between normals [B, 3, h, w] that are stored as (vector + 1) / 2; -1 is perfect."""
    cosine = torch.nn.functional.cosine_similarity(2 * prediction - 1, 2 * _safe(target, valid) - 1, dim=1)
    return -masked_mean(cosine[:, None], valid)


def standardised_depth(depth: Tensor, valid: Tensor) -> Tensor:  # [B, 1, h, w]
    """Depth minus the mean, over the standard deviation, of the central 80 % of the valid depths of each image."""
    count = valid.flatten(1).sum(1)
    ranked, _ = torch.where(valid, depth, torch.inf).flatten(1).sort(dim=1)
    place = torch.arange(ranked.shape[1], device=depth.device)
    cut = (1 - _CENTRAL) / 2 * count[:, None]
    inside = (place >= cut.floor()) & (place < (count[:, None] - cut).ceil())
    share = inside / inside.sum(1, keepdim=True).clamp_min(1)
    ranked = torch.where(inside, ranked, 0.0)
    mean = (ranked * share).sum(1, keepdim=True)
    variance = ((ranked - mean).square() * share).sum(1)
    tiny = torch.finfo(depth.dtype).eps
    return (depth - mean[..., None, None]) / (variance + tiny).sqrt()[:, None, None, None]


def _safe(target: Tensor, valid: Tensor) -> Tensor:
    """The target with 0 where it is not valid: infinity there would make gradients of nan."""
    return torch.where(valid, target, 0.0)
