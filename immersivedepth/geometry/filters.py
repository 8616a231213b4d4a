"""Filters on the sphere: widths are angles, the same in every direction and at every latitude, seam and poles included.

A fixed pixel kernel would blur the poles hardly at all across and leave an edge where the panorama was cut open.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from . import sphere

_FLOOR = 1e-6  # share of a window that must be known for its mean to count


def blur(image: Tensor, sigma: float) -> Tensor:  # [C, H, W] -> [C, H, W]
    """Mean under a Gaussian of `sigma` radians on the sphere, by Fourier transforms: the width costs nothing."""
    height, width = image.shape[-2:]
    exact = torch.float32 if image.device.type == "mps" else torch.float64
    area = sphere.latitudes(height).cos().to(image.device, exact)  # [H]
    # Around: the Gaussian of one angle is wider in longitude by 1 / cos(latitude).
    wave = torch.arange(width // 2 + 1, device=image.device, dtype=exact)
    around = torch.exp(-0.5 * (wave * sigma / area[:, None]) ** 2).to(image.dtype)
    rows = torch.fft.irfft(torch.fft.rfft(image) * around, n=width)
    # Along meridians: down one side of the globe and up the other, as one closed circle, weighted by area so that the
    # few square degrees about a pole do not count as much as the many below it.
    circle = torch.cat([rows[..., : width // 2], rows[..., width // 2 :].flip(-2)], dim=-2).to(exact)
    mass = torch.cat([area, area.flip(0)])[:, None]
    wave = torch.arange(height + 1, device=image.device, dtype=exact)
    along = torch.exp(-0.5 * (wave * sigma) ** 2)[:, None]
    spread = [torch.fft.irfft(torch.fft.rfft(x, dim=-2) * along, n=2 * height, dim=-2) for x in (circle * mass, mass)]
    out = (spread[0] / spread[1]).to(image.dtype)
    return torch.cat([out[..., :height, :], out[..., height:, :].flip(-2)], dim=-1)


def known_blur(image: Tensor, known: Tensor, sigma: float) -> Tensor:  # [C, H, W], [1, H, W] -> [C, H, W]
    """As `blur`, over known pixels only; what has none near it becomes 0."""
    weight = known.to(image.dtype)
    both = blur(torch.cat([torch.where(known > 0, image, 0) * weight, weight]), sigma)
    return torch.where(both[-1:] > _FLOOR, both[:-1] / both[-1:].clamp_min(_FLOOR), 0)


def dilate(image: Tensor, radius: float) -> Tensor:  # [C, H, W] -> [C, H, W]
    """Greatest value within about `radius` radians; masks stay masks."""
    if image.dtype == torch.bool:
        return dilate(image.float(), radius) > 0.5
    height, width = image.shape[-2:]
    # The greatest difference in longitude within a cap; all of the row where the cap holds a pole.
    across = (math.sin(min(radius, math.pi / 2)) / sphere.latitudes(height).cos()).clamp_max(1).asin()
    across = torch.where(sphere.latitudes(height).abs() + radius < math.pi / 2, across, math.pi)
    reach = (across * width / (2 * math.pi)).round().clamp_max((width - 1) // 2)
    rows = _row_maximum(image, (2 * reach + 1).long().to(image.device))
    step = round(radius * height / math.pi)
    return F.max_pool2d(over_poles(rows, step)[None], (2 * step + 1, 1), 1)[0]


def erode(image: Tensor, radius: float) -> Tensor:  # [C, H, W] -> [C, H, W]
    """Least value within about `radius` radians; masks stay masks."""
    if image.dtype == torch.bool:
        return ~dilate(~image, radius)
    return -dilate(-image, radius)


def over_poles(image: Tensor, pad: int) -> Tensor:  # [..., H, W] -> [..., H + 2 pad, W]
    """Rows beyond the poles: those of the other side, half a turn around."""
    half = image.shape[-1] // 2
    above = image[..., :pad, :].flip(-2).roll(half, -1)
    below = image[..., image.shape[-2] - pad :, :].flip(-2).roll(half, -1)
    return torch.cat([above, image, below], dim=-2)


def _row_maximum(image: Tensor, window: Tensor) -> Tensor:  # [C, H, W], [H] -> [C, H, W]
    """Greatest value in a window around each pixel of a row, whose odd width differs from row to row.

    A window of any width is the union of two whose width is the next lower power of two.
    """
    width = image.shape[-1]
    out, powers, level = image.clone(), image, 0
    column = torch.arange(width, device=image.device)
    while 2**level <= int(window.max()):
        rows = ((window >= 2**level) & (window < 2 ** (level + 1))).nonzero()[:, 0]
        if len(rows):
            wide = window[rows, None]
            first = (column - wide // 2) % width
            second = (first + wide - 2**level) % width
            part = powers[:, rows]
            index = [x.expand(len(image), -1, -1) for x in (first, second)]
            out[:, rows] = torch.maximum(part.gather(-1, index[0]), part.gather(-1, index[1]))
        powers = torch.maximum(powers, powers.roll(-(2**level), -1))
        level += 1
    return out


def guided(
    guide: Tensor, image: Tensor, sigma: float, edge: float, known: Tensor | None = None
) -> Tensor:  # [G, H, W], [1, h, w] -> [1, H, W]
    """Guided filter (He, Sun, Tang): locally, the result is an affine function of the guide.

    `image` may be smaller than `guide`; the affine functions are found at its size and applied at the guide's.
    Contrasts of the guide well above `edge` are kept as edges, those below are smoothed away.
    """
    height, width = image.shape[-2:]
    small = sphere.resize_erp(guide, height, width)
    known = torch.ones_like(image) if known is None else known.to(image)
    count = len(small)
    offset = (image * known).sum() / known.sum().clamp_min(1)  # differences of large numbers lose digits
    centred = torch.where(known > 0, image - offset, 0)
    pairs = [(i, j) for i in range(count) for j in range(i, count)]
    products = torch.stack([small[i] * small[j] for i, j in pairs])
    means = known_blur(torch.cat([small, centred, small * centred, products]), known, sigma)
    guide_mean, mean = means[:count], means[count]
    covariance = means[count + 1 : 2 * count + 1] - guide_mean * mean
    matrix = torch.zeros(height, width, count, count, dtype=image.dtype, device=image.device)
    for (i, j), product in zip(pairs, means[2 * count + 1 :], strict=True):
        matrix[..., i, j] = matrix[..., j, i] = product - guide_mean[i] * guide_mean[j] + (edge**2 if i == j else 0)
    slope = solve_small(matrix, covariance.permute(1, 2, 0)).permute(2, 0, 1)
    constant = mean - (slope * guide_mean).sum(0)
    lines = known_blur(torch.cat([slope, constant[None]]), known, sigma)
    if guide.shape[-2:] != image.shape[-2:]:
        lines = sphere.resize_erp(lines, *guide.shape[-2:])
    return (lines[:count] * guide).sum(0, keepdim=True) + lines[count:] + offset


def solve_small(matrix: Tensor, right: Tensor) -> Tensor:  # [..., n, n], [..., n] -> [..., n]
    """Symmetric positive systems by Gauss without pivots: far faster on millions of tiny ones than a solver call."""
    size = matrix.shape[-1]
    rows = [[matrix[..., i, j] for j in range(size)] + [right[..., i]] for i in range(size)]
    for k in range(size):
        for i in range(k + 1, size):
            factor = rows[i][k] / rows[k][k]
            rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k], strict=True)]
    found: list[Tensor] = []
    for k in reversed(range(size)):
        rest = rows[k][size]
        for value, j in zip(found, reversed(range(size)), strict=False):
            rest = rest - rows[k][j] * value
        found.append(rest / rows[k][k])
    return torch.stack(found[::-1], dim=-1)
