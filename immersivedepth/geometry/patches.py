"""Small flat pieces of the scene, and how neighbouring pieces meet: the graph behind instances and planes."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import filters, robust, segments, sphere
from .normals import normals_from_distance

_STEP = 0.25  # of log distance, a clear difference within a patch
_TURN = math.radians(35)  # a clear difference between normals within a patch
_CLEAN = 2e-3  # noise of log distance, below which nothing is smoothed
_WINDOW = 3.0  # pixels, standard deviation of the smoother
_EDGE = 4.0  # standard deviations of the noise that the smoother takes for a step
_MERGERS = 8  # rounds at most
_PULL = 1e-5  # towards a sphere about the camera, so that thin pieces do not tilt at will


class Folds(NamedTuple):
    """All pairs of neighbouring regions."""

    first: Tensor  # [P], the region with the smaller number
    second: Tensor  # [P]
    border: Tensor  # [P], length of the common border
    gap: Tensor  # [P], mean difference of log distance of the two planes where they meet
    turn: Tensor  # [P], angle between the planes in radians
    bulge: Tensor  # [P], bool, True where the fold comes towards the camera


def patches(distance: Tensor, colour: Tensor, count: int, colour_weight: float) -> tuple[Tensor, Tensor]:
    """About `count` flat pieces [1, H, W] from 1, 0 where the distance is 0, and the distance with less noise."""
    known = distance > 0
    log = torch.where(known, distance, 1.0).log()
    noise = white_noise(log, known)
    if noise > _CLEAN:  # normals of single pixels would be noise alone
        smooth = filters.guided(log, log, _WINDOW * math.pi / distance.shape[-2], _EDGE * noise, known)
        log = torch.where(known, smooth, log)
        distance = torch.where(known, log.exp(), 0.0)
    features = torch.cat([log / _STEP, normals_from_distance(distance) / _TURN, colour * colour_weight])
    return segments.superpixels(features, known, count, 1.0), distance


def white_noise(log: Tensor, known: Tensor) -> float:
    """Standard deviation of white noise of log distance [1, H, W], from distances to the mean of the neighbours."""
    around = sphere.pad_erp(log, 1)
    middle = (around[:, :-2, 1:-1] + around[:, 2:, 1:-1] + around[:, 1:-1, :-2] + around[:, 1:-1, 2:]) / 4
    return float(robust.spread((log - middle)[known])) / math.sqrt(1.25)


def fit_planes(labels: Tensor, distance: Tensor, trust: Tensor | None = None) -> Tensor:  # [N + 1, 3]
    """For every region, m of the plane 1 / distance = m . ray with the least relative error; row 0 is nothing."""
    count, own = int(labels.max()) + 1, labels.reshape(-1).long()
    ray = sphere.erp_rays(*distance.shape[-2:]).reshape(-1, 3).double()
    inverse = torch.where(own > 0, 1 / distance.reshape(-1).clamp_min(1e-9), 0.0).double()
    weight = _area(labels).double() * (own > 0)
    if trust is not None:
        weight = weight * trust.reshape(-1)
    mass = sums(own, weight, count).clamp_min(1e-15)
    direction = F.normalize(sums(own, ray * weight[:, None], count), dim=-1)
    mean = sums(own, inverse * weight, count) / mass
    relative = inverse / mean[own].clamp_min(1e-12)
    matrix = sums(own, (ray[:, :, None] * ray[:, None]).reshape(-1, 9) * weight[:, None], count).reshape(-1, 3, 3)
    right = sums(own, ray * (relative * weight)[:, None], count)
    pull = _PULL * mass[:, None]
    matrix = matrix + torch.diag_embed(pull.expand(-1, 3) + 1e-15)
    return (torch.linalg.solve(matrix, right + pull * direction) * mean[:, None]).float()


def folds(labels: Tensor, planes: Tensor) -> Folds:
    """How the planes of neighbouring regions meet, averaged along their common borders."""
    height, width = labels.shape[-2:]
    rays, own = sphere.erp_rays(height, width).reshape(-1, 3), labels.reshape(-1).long()
    first, second, which, here, there = segments.borders(labels)
    at = F.normalize(rays[here] + rays[there], dim=-1)
    # How far apart two planes stand where they meet: nothing at a fold, a lot where one hides the other.
    ends = [(planes[side[which]] * at).sum(-1).clamp_min(1e-6).log() for side in (first, second)]
    length = _area(labels).sqrt()[here]
    border = sums(which, length, len(first))
    gap = sums(which, (ends[0] - ends[1]).abs().clamp_max(1) * length, len(first)) / border.clamp_min(1e-12)
    normal = -F.normalize(planes, dim=-1)
    direction = F.normalize(sums(own, rays * _area(labels)[:, None], len(planes)), dim=-1)
    centre = direction / (planes * direction).sum(-1, keepdim=True).clamp_min(1e-9)
    turn = (normal[first] * normal[second]).sum(-1).clamp(-1, 1).acos()
    bulge = ((normal[first] - normal[second]) * (centre[first] - centre[second])).sum(-1) > 0
    return Folds(first, second, border, gap, turn, bulge)


def flat_regions(labels: Tensor, distance: Tensor, max_gap: float, max_angle: float) -> Tensor:  # [1, H, W], int32
    """Pieces that continue each other joined, with better planes every time, until nothing changes."""
    for _ in range(_MERGERS):
        meet = folds(labels, fit_planes(labels, distance))
        cost = meet.gap / max_gap + meet.turn / max_angle
        count = int(labels.max())
        labels = merged(labels, meet, cost)
        if int(labels.max()) == count:
            break
    return _join_slivers(labels, distance, max_angle)


def _join_slivers(labels: Tensor, distance: Tensor, max_angle: float) -> Tensor:
    """Narrow regions, whose own planes mean little, go to the larger neighbour whose plane runs through them."""
    planes, own = fit_planes(labels, distance), labels.reshape(-1).long()
    first, second, _, _, _ = segments.borders(labels)
    count = len(planes)
    area = sums(own, _area(labels), count)
    small, large = torch.where(area[first] < area[second], torch.stack([first, second]), torch.stack([second, first]))
    # Mean square of 1 - distance * (m . ray) over a region for the plane of another, from sums over the region alone.
    scaled = sphere.erp_rays(*labels.shape[-2:]).reshape(-1, 3) * distance.reshape(-1, 1)
    mean = sums(own, scaled * _area(labels)[:, None], count) / area.clamp_min(1e-12)[:, None]
    spread = (scaled[:, :, None] * scaled[:, None]).reshape(-1, 9) * _area(labels)[:, None]
    square = (sums(own, spread, count) / area.clamp_min(1e-12)[:, None]).reshape(-1, 3, 3)
    plane = planes[large]
    misfit = 1 - 2 * (plane * mean[small]).sum(-1) + torch.einsum("pi,pij,pj->p", plane, square[small], plane)
    # A plane turned by the angle would be off by about this much over a region of that size.
    allowed = math.tan(max_angle) * (area[small] / math.pi).sqrt()
    off = misfit.clamp_min(0).sqrt() / allowed.clamp_min(1e-9)
    target, best = torch.arange(count), torch.ones(count)
    for i, j, value in zip(small.tolist(), large.tolist(), off.tolist(), strict=True):
        if value < best[i]:
            best[i], target[i] = value, j
    for _ in range(count):  # always towards larger regions, so chains end
        if torch.equal(target[target], target):
            break
        target = target[target]
    return segments.renumber(target[labels.long()].int())


def merged(labels: Tensor, meet: Folds, cost: Tensor) -> Tensor:  # [1, H, W], [P] -> [1, H, W], int32
    """Regions joined while the mean cost along a common border is below one."""
    number = segments.merge(
        int(labels.max()), meet.first.tolist(), meet.second.tolist(), cost.tolist(), meet.border.tolist(), 1.0
    )
    return torch.from_numpy(number)[labels.long()].int()


def sums(which: Tensor, values: Tensor, count: int) -> Tensor:  # [M], [M, ...] -> [count, ...]
    """Sums of rows by number."""
    return values.new_zeros(count, *values.shape[1:]).index_add_(0, which, values)


def _area(labels: Tensor) -> Tensor:  # [H * W]
    return sphere.solid_angles(*labels.shape[-2:]).expand(labels.shape[-2:]).reshape(-1)
