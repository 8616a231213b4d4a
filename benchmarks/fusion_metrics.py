"""Errors of a merged panorama against the truth, and how visible its seams are."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from immersivedepth.geometry import sphere
from immersivedepth.scene import Rig

STEP = 3  # pixels to either side of a border


def median(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted median."""
    order = values.argsort()
    mass = weight[order].cumsum(0)
    return values[order][torch.searchsorted(mass, mass[-1:] / 2)[0]]


def scaled(distance: Tensor, truth: Tensor) -> Tensor:
    """The result after one factor for the whole sphere, by the area-weighted median."""
    area = sphere.solid_angles(*truth.shape).double().expand_as(truth).reshape(-1)
    return distance * median((truth / distance).reshape(-1), area)


def affine(distance: Tensor, truth: Tensor) -> Tensor:
    """The result after one scale and shift of 1 / distance, by least absolute relative error."""
    area = sphere.solid_angles(*truth.shape).double().expand_as(truth).reshape(-1)
    x, y = (1 / distance).reshape(-1), (1 / truth).reshape(-1)
    columns = torch.stack([x / y, 1 / y], dim=-1)
    weight = area
    solution = torch.zeros(2, dtype=torch.float64)
    for _ in range(30):
        solution = torch.linalg.lstsq(columns * weight.sqrt()[:, None], weight.sqrt()[:, None]).solution[:, 0]
        weight = area / (columns @ solution - 1).abs().clamp_min(1e-4)
    return (1 / (solution[0] * x + solution[1]).clamp_min(1e-6)).reshape(truth.shape)


def _shift(maps: Tensor, dy: int, dx: int) -> Tensor:
    return sphere.pad_erp(maps[None], STEP)[
        0, STEP + dy : STEP + dy + maps.shape[0], STEP + dx : STEP + dx + maps.shape[1]
    ]


def borders(size: tuple[int, int], rig: Rig) -> tuple[Tensor, Tensor]:
    """Pixels whose right and lower neighbour has another nearest view or is seen by other views: [2, H, W], bool."""
    rays = sphere.erp_rays(*size).double()
    local = torch.einsum("hwi,vij->vhwj", rays, rig.rotation.double())
    nearest = local[..., 2].argmax(0)
    tan = rig.tan_half_fov.double()[:, None, None, None]
    seen = (local[..., 2] > 1e-6) & (local[..., :2].abs() <= local[..., 2:] * tan).all(-1)
    cross = []
    for dy, dx in ((0, 1), (1, 0)):
        other = torch.stack([_shift(s.double(), dy, dx) > 0.5 for s in seen])
        cross.append((_shift(nearest.double(), dy, dx) != nearest) | (other != seen).any(0))
    return torch.stack(cross), seen.sum(0)


def seams(distance: Tensor, truth: Tensor, crossing: Tensor) -> tuple[float, float]:
    """Mean jump of the log error over borders of views, and that jump divided by the one elsewhere."""
    error = F.avg_pool2d(sphere.pad_erp((distance / truth).log()[None], 2), 5, 1)[0]
    area = sphere.solid_angles(*truth.shape).double().expand_as(truth)
    on, off = [], []
    for (dy, dx), border in zip(((0, 1), (1, 0)), crossing, strict=True):
        jump = (_shift(error, STEP * dy, STEP * dx) - _shift(error, -STEP * dy, -STEP * dx)).abs()
        log = truth.log()
        steps = [(_shift(log, k * dy, k * dx) - _shift(log, (k - 1) * dy, (k - 1) * dx)).abs() for k in range(-2, 4)]
        true_edge = torch.stack(steps).amax(0) > 0.1
        near = F.max_pool2d(sphere.pad_erp(border.double()[None], 2), 5, 1)[0] > 0
        on.append(torch.stack([(jump * area)[border & ~true_edge].sum(), area[border & ~true_edge].sum()]))
        off.append(torch.stack([(jump * area)[~near & ~true_edge].sum(), area[~near & ~true_edge].sum()]))
    at, elsewhere = torch.stack(on).sum(0), torch.stack(off).sum(0)
    seam = (at[0] / at[1]).item()
    return seam, seam / max((elsewhere[0] / elsewhere[1]).item(), 1e-12)


def errors(distance: Tensor, truth: Tensor, crossing: Tensor) -> dict[str, float]:
    """All figures of one result [H, W]: S after one scale, A after one scale and shift of 1 / distance."""
    distance, truth = distance.double(), truth.double()
    distance = torch.where(distance > 0, distance, distance[distance > 0].median())  # a hole is a guess
    area = sphere.solid_angles(*truth.shape).double().expand_as(truth)
    area = area / area.sum()
    s, a = scaled(distance, truth), affine(distance, truth)
    log = truth.log()
    around = torch.stack([(_shift(log, dy, dx) - log).abs() for dy in (-2, 0, 2) for dx in (-2, 0, 2)]).amax(0)
    flat = around < 0.1
    worst = torch.maximum(s / truth, truth / s)
    seam, ratio = seams(s, truth, crossing)
    wrap = (s[:, 0] / s[:, -1]).log() - (truth[:, 0] / truth[:, -1]).log()
    pole = torch.stack([(s[row] / truth[row]).log().std() for row in (0, -1)]).max()
    return {
        "S": (area * (s / truth - 1).abs()).sum().item(),
        "A": (area * (a / truth - 1).abs()).sum().item(),
        "S_flat": ((area * (s / truth - 1).abs())[flat].sum() / area[flat].sum()).item(),
        "rmse": math.sqrt((area * (s - truth) ** 2).sum().item()),
        "delta1": (area * (worst < 1.25)).sum().item(),
        "d05": (area * (worst < 1.05)).sum().item(),
        "seam": seam,
        "seam_ratio": ratio,
        "wrap": wrap.abs().median().item(),
        "pole": pole.item(),
    }
