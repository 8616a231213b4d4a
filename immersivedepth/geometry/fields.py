"""Smooth functions over a square view: products of Legendre polynomials, grouped by total degree."""

import torch
from torch import Tensor


def legendre(t: Tensor, degree: int) -> Tensor:  # [...] -> [..., degree + 1]
    """Legendre polynomials on -1..1, scaled to unit mean square."""
    rows = [torch.ones_like(t), t]
    for n in range(1, degree):
        rows.append(((2 * n + 1) * t * rows[n] - n * rows[n - 1]) / (n + 1))
    norm = torch.sqrt(2 * torch.arange(degree + 1, dtype=t.dtype, device=t.device) + 1)
    return torch.stack(rows[: degree + 1], dim=-1) * norm


def orders(degree: int) -> Tensor:  # [K, 2]
    """The orders (in x, in y) of all products of total degree 1 to `degree`, lowest first; the constant is left out."""
    return torch.tensor([(n - j, j) for n in range(1, degree + 1) for j in range(n + 1)], dtype=torch.long).reshape(
        -1, 2
    )


def basis(xy: Tensor, degree: int) -> Tensor:  # [R, 2] -> [R, K]
    """All products at given points; each has mean 0 and mean square 1 over the square."""
    order = orders(degree)
    return legendre(xy[..., 0], degree)[..., order[:, 0]] * legendre(xy[..., 1], degree)[..., order[:, 1]]


def raster(coefficients: Tensor, degree: int, resolution: int) -> Tensor:  # [V, K] -> [V, h, w]
    """The fields at all pixels of square views."""
    order = orders(degree)
    square = coefficients.new_zeros(len(coefficients), degree + 1, degree + 1)
    square[:, order[:, 1], order[:, 0]] = coefficients
    t = (torch.arange(resolution, device=coefficients.device, dtype=coefficients.dtype) + 0.5) / resolution * 2 - 1
    table = legendre(t, degree)
    return table @ square @ table.T
