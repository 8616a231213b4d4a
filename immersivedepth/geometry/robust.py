"""Estimates that a minority of wrong samples cannot move."""

import torch
from torch import Tensor


def weighted_median(values: Tensor, weights: Tensor) -> Tensor:  # [N], [N] -> []
    """The value with half of the weight on either side, and the middle of two where the weight splits evenly."""
    order = values.argsort()
    ranked = values[order]
    mass = weights[order].cumsum(0)
    half = mass[-1:] / 2
    low = torch.searchsorted(mass, half).clamp(max=len(ranked) - 1)
    high = torch.searchsorted(mass, half, right=True).clamp(max=len(ranked) - 1)
    return (ranked[low] + ranked[high])[0] / 2


def spread(residuals: Tensor) -> Tensor:  # [N] -> []
    """Standard deviation of zero-mean Gaussian residuals, from their median size."""
    if not len(residuals):
        return residuals.new_zeros(())
    return 1.4826 * residuals.abs().median()


def geman_mcclure(residuals: Tensor, scale: Tensor) -> Tensor:
    """Weights of iteratively reweighted least squares: 1 for small residuals, falling as the fourth power."""
    return (1 + (residuals / scale) ** 2) ** -2


def least_absolute(residuals: Tensor, floor: Tensor) -> Tensor:
    """Weights of iteratively reweighted least squares for the sum of absolute values, in 0..1."""
    return floor / residuals.abs().clamp_min(floor)


def layer_median(values: Tensor, weights: Tensor) -> Tensor:  # [N, ...] -> [...]
    """Weighted median over the first axis; the mean of the two middle values where the weight splits evenly."""
    ranked, order = torch.where(weights > 0, values, torch.inf).sort(0)
    mass = weights.gather(0, order).cumsum(0)
    half = mass[-1:] / 2
    low = (mass >= half * (1 - 1e-6)).to(torch.uint8).argmax(0, keepdim=True)
    high = (mass > half * (1 + 1e-6)).to(torch.uint8).argmax(0, keepdim=True)
    middle = (ranked.gather(0, low) + ranked.gather(0, high))[0] / 2
    return torch.where(mass[-1] > 0, middle, 0.0)
