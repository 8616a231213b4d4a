"""Joint bilateral filter whose windows fit planes: slanted walls stay as they are, noise goes, edges stay."""

import math

import torch
from torch import Tensor

from . import filters, sphere

_BAND = 256  # rows at once, so that large panoramas need little memory
_STEEPEST = 5.0  # times: no pixel moves farther in one go
_PULL = 2e-4  # towards a sphere about the camera, for windows of one or two usable pixels
_TINY = 1e-20


def smooth(
    distance: Tensor,
    guide: Tensor,
    trust: Tensor,
    current: Tensor,
    offsets: list[tuple[int, int, float]],
    colour: float,
    steps: Tensor,
) -> Tensor:  # [1, H, W], [G, H, W], [1, H, W], [1, H, W], ..., [1, H, W] -> [1, H, W]
    """Log distance by a weighted plane fit around every pixel.

    `distance` is what is fitted, with weights `trust`; neighbours count by angle (`offsets`: row, column at the
    equator, weight), by the guide's difference against `colour`, and by how near their log distance is to `current`,
    measured in `steps`. On a plane, 1 / distance is linear in the ray, so the fit is three by three.
    """
    height, width = distance.shape[-2:]
    reach = max(abs(row) for row, _, _ in offsets)
    latitude = sphere.latitudes(height)
    known = distance > 0
    log = torch.where(known, distance, 1.0).log()
    rays = sphere.erp_rays(height, width, distance.device).to(distance).permute(2, 0, 1)
    maps = torch.cat([guide, rays, log, trust * known])
    tall = filters.over_poles(maps, reach)
    out = torch.empty_like(log)
    for top in range(0, height, _BAND):
        rows = slice(top, min(top + _BAND, height))
        part = tall[:, rows.start : rows.stop + 2 * reach]
        out[:, rows] = _band(
            part,
            reach,
            latitude[rows],
            guide[:, rows],
            rays[:, rows],
            current[:, rows],
            steps[:, rows],
            offsets,
            colour,
        )
    return torch.where(known, out, log)


def _band(
    maps: Tensor,
    reach: int,
    latitude: Tensor,
    guide: Tensor,
    rays: Tensor,
    current: Tensor,
    steps: Tensor,
    offsets: list[tuple[int, int, float]],
    colour: float,
) -> Tensor:
    height, width = guide.shape[-2:]
    count = len(guide)
    matrix, right = guide.new_zeros(6, height, width), guide.new_zeros(3, height, width)
    column = torch.arange(width, device=guide.device)
    stretch = 1 / latitude.cos()
    for down, across, near in offsets:
        there = maps[:, reach + down : reach + down + height]
        if across:
            shift = (across * stretch).round().clamp(-width // 4, width // 4).long().to(guide.device)
            index = (column + shift[:, None]) % width
            there = there.gather(-1, index.expand(len(there), -1, -1))
        ray, log, trust = there[count : count + 3], there[count + 3], there[count + 4]
        unlike = (there[:count] - guide).square().sum(0) / colour**2 + ((log - current[0]) / steps[0]).square()
        weight = near * trust * torch.exp(-0.5 * unlike)
        inverse = (current[0] - log).clamp(-_STEEPEST, _STEEPEST).exp()  # relative to the pixel's own
        matrix += weight * torch.stack([ray[i] * ray[j] for i in range(3) for j in range(i, 3)])
        right += weight * ray * inverse
    mass = matrix[0] + matrix[3] + matrix[5]
    pull = _PULL * mass + _TINY
    mean = (right * rays).sum(0) / (mass + _TINY)
    full = matrix[[0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(3, 3, height, width).permute(2, 3, 0, 1).clone()
    full.diagonal(dim1=-2, dim2=-1).add_(pull[..., None])
    plane = filters.solve_small(full.double(), (right + pull * rays * mean).permute(1, 2, 0).double())
    inverse = (plane.to(rays) * rays.permute(1, 2, 0)).sum(-1)
    inverse = torch.where(mass > _TINY, inverse.clamp(1 / _STEEPEST, _STEEPEST), 1.0)
    return (current[0] - inverse.log())[None]


def disc(height: int, radius: float, across: int) -> list[tuple[int, int, float]]:
    """Offsets (row, column at the equator, Gaussian weight) over a disc of so many radians, `across` per radius."""
    pixels = max(1.0, radius * height / math.pi)
    step = max(1, round(pixels / across))
    most = max(1, int(pixels / step))
    sigma = 0.6 * most
    return [
        (i * step, j * step, math.exp(-0.5 * (i * i + j * j) / sigma**2))
        for i in range(-most, most + 1)
        for j in range(-most, most + 1)
        if i * i + j * j <= most * most + 1
    ]
