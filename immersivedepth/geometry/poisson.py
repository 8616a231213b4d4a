"""Screened Poisson equation on the sphere by finite volumes: from gradients to the map that fits them best.

Minimises  sum_edges k w (u_q - u_p - g)^2 + sum_pixels A c / length^2 (u_p - anchor_p)^2  over an equirectangular map.
k is the conductance of the edge between two pixels (length of the common side over distance of the centres) and A the
solid angle. The side that pixels share with a pole has no length, so neither poles nor seam need any code.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from . import sphere

Edges = tuple[Tensor, Tensor]  # to the right neighbour [H, W] or [H, 1], to the lower one [H - 1, W] or [H - 1, 1]


def conductance(height: int, width: int, device: torch.device | None = None) -> Edges:  # [H, 1], [H - 1, 1]
    """Length of the side two pixels share over the distance of their centres."""
    step, turn = math.pi / height, 2 * math.pi / width
    centre = math.pi * (0.5 - (torch.arange(height, dtype=torch.float64, device=device) + 0.5) / height)
    side = math.pi * (0.5 - torch.arange(1, height, dtype=torch.float64, device=device) / height)
    return (step / (centre.cos() * turn))[:, None], (side.cos() * turn / step)[:, None]


def gradient(u: Tensor) -> Edges:  # [H, W] -> [H, W], [H - 1, W]
    """Differences to the right neighbour, around the seam, and to the lower one."""
    return u.roll(-1, 1) - u, u[1:] - u[:-1]


def divergence(across: Tensor, down: Tensor) -> Tensor:  # [H, W], [H - 1, W] -> [H, W]
    """Transpose of the gradient."""
    out = across.roll(1, 1) - across
    out[1:] += down
    out[:-1] -= down
    return out


def stiffness(u: Tensor, edges: Edges, mass: Tensor) -> Tensor:  # [H, W]
    """The operator of the equation: transpose(gradient) * edges * gradient + mass."""
    across, down = gradient(u)
    return divergence(edges[0] * across, edges[1] * down) + mass * u


def solve_direct(right: Tensor, edges: Edges, mass: Tensor) -> Tensor:  # [H, W], ([H, 1], [H - 1, 1]), [H, 1]
    """The equation where nothing depends on longitude: exact, by Fourier transform and one tridiagonal sweep."""
    return direct_solver(edges, mass, right.shape[1])(right)


def direct_solver(edges: Edges, mass: Tensor, width: int) -> Callable[[Tensor], Tensor]:
    """The tridiagonal systems of all waves around, eliminated once, to be used for many right sides."""
    across, down = edges
    wave = torch.arange(width // 2 + 1, dtype=mass.dtype, device=mass.device)
    pivot = across * (2 - 2 * torch.cos(2 * math.pi / width * wave)) + mass  # [H, W / 2 + 1]
    pivot[1:] += down
    pivot[:-1] += down
    ratio = torch.empty_like(pivot[:-1])
    for row in range(len(pivot) - 1):
        torch.div(down[row], pivot[row], out=ratio[row])
        pivot[row + 1] -= down[row] * ratio[row]

    def solve(right: Tensor) -> Tensor:
        x = torch.fft.rfft(right, dim=1)
        for row in range(1, len(x)):
            x[row] += ratio[row - 1] * x[row - 1]
        x /= pivot
        for row in range(len(x) - 2, -1, -1):
            x[row] += ratio[row] * x[row + 1]
        return torch.fft.irfft(x, n=right.shape[1], dim=1)

    return solve


def solve_iterative(
    right: Tensor, edges: Edges, mass: Tensor, tolerance: float = 1e-6, most: int = 500
) -> tuple[Tensor, int, float]:
    """The equation with any weights >= 0, by conjugate gradients; returns the map, the turns and what is left.

    The preconditioner is the direct solver of the weights' means along each row. Pixels with no weight at all stay 0.
    """
    touched = edges[0] + edges[0].roll(1, 1)
    touched[1:] += edges[1]
    touched[:-1] += edges[1]
    alive = (touched + mass) > 0
    right = right * alive
    plain = conductance(right.shape[0], right.shape[1], right.device)
    share = alive.to(right).mean(1, keepdim=True).clamp_min(1e-3)
    row_mass = (mass.mean(1, keepdim=True) / share).clamp_min(1e-6 * float(mass.max()))
    means = (
        (edges[0].mean(1, keepdim=True) / share).clamp_min(1e-3 * plain[0]),
        (edges[1].mean(1, keepdim=True) / share[1:]).clamp_min(1e-3 * plain[1]),
    )
    precondition = direct_solver(means, row_mass, right.shape[1])
    x, left = torch.zeros_like(right), right.clone()
    search, before = torch.zeros_like(right), 1.0
    size = float(right.norm())
    if size == 0:
        return x, 0, 0.0
    for turn in range(1, most + 1):
        better = precondition(left) * alive
        now = float((left * better).sum())
        search.mul_(now / before).add_(better)
        before = now
        pushed = stiffness(search, edges, mass)
        step = now / float((search * pushed).sum())
        x.add_(search, alpha=step)
        left.sub_(pushed, alpha=step)
        if float(left.norm()) <= tolerance * size:
            return x, turn, float(left.norm()) / size
    return x, most, float(left.norm()) / size


def integrate(
    gradients: Edges,
    anchor: Tensor,
    length: float,
    weights: Edges | None = None,
    confidence: Tensor | None = None,
    tolerance: float = 1e-6,
) -> tuple[Tensor, int, float]:
    """The map [H, W] whose gradients fit best and that stays near an anchor beyond `length` radians.

    Without weights and confidence the answer is exact, else found by conjugate gradients. Parts that no edge joins to
    the rest stay on the level of their own anchor. Returns the map, the turns (0: direct) and the remaining residual.
    """
    kind = torch.float32 if anchor.device.type == "mps" else torch.float64
    height, width = anchor.shape
    plain = tuple(k.to(kind) for k in conductance(height, width, anchor.device))
    area = sphere.solid_angles(height, width, anchor.device).to(kind) / length**2
    exact = weights is None and confidence is None
    given = (1.0, 1.0) if weights is None else weights
    # Only what differs from the anchor is solved for, so its level loses no digits.
    slope = gradient(anchor)
    off = (gradients[0] - slope[0]) * (plain[0] * given[0]), (gradients[1] - slope[1]) * (plain[1] * given[1])
    del slope
    right = divergence(off[0].to(kind), off[1].to(kind))
    del off
    if exact:
        return anchor + solve_direct(right, (plain[0], plain[1]), area).to(anchor), 0, 0.0
    edges = (plain[0] * given[0]).expand(height, width), (plain[1] * given[1]).expand(height - 1, width)
    mass = (area * (1.0 if confidence is None else confidence.to(kind))).expand(height, width)
    change, turns, left = solve_iterative(right, edges, mass, tolerance)
    return anchor + change.to(anchor), turns, left
