"""The affine map that takes one set of numbers to another."""

import torch
from torch import Tensor

ROUNDS = 20  # of reweighting; the L1 fit has settled to a thousandth of the residuals by then


def fit_affine(x: Tensor, y: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Least squares of weight * (scale x + shift - y)^2 over the last axis: scale and shift [...] from [..., N].

    Where x is constant, or nothing has weight, the scale is 0 and the shift the mean of y. Differentiable.
    """
    weight = torch.ones_like(x) if weight is None else weight
    total = weight.sum(-1, keepdim=True)
    share = weight / torch.where(total > 0, total, 1.0)
    mean_x, mean_y = (share * x).sum(-1, keepdim=True), (share * y).sum(-1, keepdim=True)
    # Centred, so that nothing cancels when x lies far from zero.
    variance = (share * (x - mean_x).square()).sum(-1)
    together = (share * (x - mean_x) * (y - mean_y)).sum(-1)
    rounding = (torch.finfo(x.dtype).eps * mean_x.detach().abs()[..., 0]).square()
    # Below the root of the smallest number the gradient would divide by a square that is none.
    varies = variance > (4 * rounding).clamp_min(torch.finfo(x.dtype).tiny ** 0.5)
    scale = torch.where(varies, together / torch.where(varies, variance, 1.0), 0.0)
    return scale, mean_y[..., 0] - scale * mean_x[..., 0]


def fit_affine_robust(x: Tensor, y: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The same with absolute instead of squared residuals, which outliers below half of the weight hardly move."""
    weight = torch.ones_like(x) if weight is None else weight
    total = weight.sum(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    scale, shift = fit_affine(x, y, weight)
    for _ in range(ROUNDS):
        with torch.no_grad():
            residual = (scale[..., None] * x + shift[..., None] - y).abs()
            # Residuals well below the mean count alike, or an exact fit would divide by zero.
            floor = (weight * residual).sum(-1, keepdim=True) / total * 1e-3
            again = weight / residual.clamp_min(floor.clamp_min(torch.finfo(x.dtype).tiny))
        scale, shift = fit_affine(x, y, again)
    return scale, shift
