"""Losses that do not see scale and shift (Ranftl et al., "Towards robust monocular depth estimation").

Maps are [B, 1, h, w] of any quantity that is known up to an affine map: disparity, or depth. The mask is that of the
target; what the target says elsewhere, infinity included, has no influence.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry.affine import fit_affine

SCALES = 4  # of the gradient term, each half as fine as the one before
_REGULARISER = 0.1  # weight of the gradient term


def standardised(values: Tensor, valid: Tensor) -> Tensor:
    """Values minus their median, over their mean absolute deviation from it, image by image."""
    flat, keep = values.flatten(1), valid.flatten(1)
    median = torch.where(keep, flat, torch.nan).nanmedian(dim=1, keepdim=True).values
    centred = flat - torch.where(keep.any(1, keepdim=True), median, 0.0)
    # The original counts one pixel more than there are, so that images without any divide by something.
    spread = torch.where(keep, centred.abs(), 0.0).sum(1, keepdim=True) / (keep.sum(1, keepdim=True) + 1)
    return (centred / spread.clamp_min(_tiny(values))).view_as(values)


def ssi_mae(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean absolute difference after both were standardised."""
    target = torch.where(valid, target, 0.0)
    residual = (standardised(prediction, valid) - standardised(target, valid)).abs()
    return _mean(residual, valid)


def aligned(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """The prediction with the scale and shift, one pair for each image, that fit it to the target best."""
    keep = valid.flatten(1)
    weight = keep.to(prediction.dtype)
    # What is masked has no weight, but 0 times infinity would not be 0.
    x, y = (torch.where(keep, v.flatten(1), 0.0) for v in (prediction, target))
    scale, shift = fit_affine(x, y, weight)
    return scale[:, None, None, None] * prediction + shift[:, None, None, None]


def ssi_mse(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean squared difference after the best scale and shift; in units of the target."""
    residual = (aligned(prediction, target, valid) - torch.where(valid, target, 0.0)).square()
    return _mean(residual, valid)


def relative_mae(prediction: Tensor, target: Tensor, valid: Tensor, least: float, floor: float = 0.5) -> Tensor:
    """Mean absolute difference after the best scale and shift, over the target plus a share of its mean.

    For disparity this is nearly the relative error of distance; unlike `ssi_mae` it does not blow up the noise of a
    view of one flat wall, whose values hardly spread.
    """
    residual = (aligned(prediction, target, valid) - torch.where(valid, target, 0.0)).abs()
    return _mean(residual / relative_to(target, valid, least, floor), valid)


def relative_to(target: Tensor, valid: Tensor, least: float, floor: float = 0.5) -> Tensor:
    """The target plus a share of the mean of each image, but no less than `least`: what an error is measured by."""
    return (torch.where(valid, target, 0.0) + floor * _image_means(target, valid)).clamp_min(least)


def ratio_mae(prediction: Tensor, target: Tensor, valid: Tensor, least: float, floor: float = 0.1) -> Tensor:
    """Mean relative error of distance, |target / fitted - 1| of disparities after the best scale and shift.

    What is near but taken for far costs most, as in AbsRel. For fitted values below a share of the target's mean the
    inverse goes on along its tangent.
    """
    lowest = (floor * _image_means(target, valid)).clamp_min(least)
    fitted = aligned(prediction, target, valid)
    inverse = torch.where(fitted > lowest, 1 / fitted.clamp_min(lowest), (2 * lowest - fitted) / lowest.square())
    return _mean((torch.where(valid, target, 0.0) * inverse - 1).abs(), valid)


def gradient_term(prediction: Tensor, target: Tensor, valid: Tensor, scales: int = SCALES) -> Tensor:
    """How much the residual after the best scale and shift changes from pixel to pixel, summed over scales.

    It keeps edges sharp and surfaces smooth; a difference counts where both its pixels are valid.
    """
    residual = torch.where(valid, aligned(prediction, target, valid) - torch.where(valid, target, 0.0), 0.0)
    total = residual.new_zeros(())
    for k in range(scales):
        step = 2**k
        r, m = residual[..., ::step, ::step], valid[..., ::step, ::step]
        along = torch.where(m[..., :, 1:] & m[..., :, :-1], (r[..., :, 1:] - r[..., :, :-1]).abs(), 0.0)
        down = torch.where(m[..., 1:, :] & m[..., :-1, :], (r[..., 1:, :] - r[..., :-1, :]).abs(), 0.0)
        total = total + (along.sum() + down.sum()) / m.sum().clamp_min(1)
    return total


def midas(prediction: Tensor, target: Tensor, valid: Tensor, regulariser: float = _REGULARISER) -> Tensor:
    """The loss of MiDaS: values after standardising, and gradients."""
    return ssi_mae(prediction, target, valid) + regulariser * gradient_term(prediction, target, valid)


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, values, 0.0).sum() / valid.sum().clamp_min(1)


def _image_means(values: Tensor, valid: Tensor) -> Tensor:  # [B, 1, h, w] -> [B, 1, 1, 1]
    total = torch.where(valid, values, 0.0).sum((-3, -2, -1), keepdim=True)
    return total / valid.sum((-3, -2, -1), keepdim=True).clamp_min(1)


def _tiny(values: Tensor) -> float:
    return torch.finfo(values.dtype).tiny ** 0.5  # its square is still a number, which the gradient needs
