"""The robust joint solve behind the aligners: scale, shift and smooth bending of every view from overlaps alone.

Every map is written as p = 1 + tau * (standardised value), where tau is the shift: p is 1 at the median, and stays
positive for tau below a bound known from the map. With c the cosine of a pixel and F the bending, log distance is
    u = G - sign * log(p) - log(c) + F(x, y),
sign +1 for disparities and -1 for depths; for distances tau is known. The equations are in docs/solver.md.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...geometry import fields, overlaps, robust
from ...scene import Kind, Prediction, Rig
from .views import cosines

SHIFT_LIMIT = 0.995  # of the bound at which the farthest pixels lie at infinity
SHIFT_PRIOR = (0.6, 0.25)  # mean and deviation of the shift as a part of its bound, where overlaps do not tell
SCALE_PRIOR = 3.0  # deviation of the log scales of views, wide: it only ties together what no overlap joins
METRIC_PRIOR = 0.1  # deviation of the log scale of a metric view
FAR = 0.05  # disparities of an affine map this small against the median are trusted half


@dataclass
class Maps:
    """Predictions of all kinds in one form."""

    value: Tensor  # [V, h, w], standardised disparity or depth; 0 where invalid
    valid: Tensor  # [V, h, w], bool
    sign: Tensor  # [V], +1 for disparity, -1 for depth
    bound: Tensor  # [V], largest tau
    free: Tensor  # [V], bool: tau is unknown
    known_scale: Tensor  # [V], log scale as the map itself claims; meaningful for metric views
    is_metric: Tensor  # [V], bool


def standardise(prediction: Prediction) -> Maps:
    """Bring every map to median 0 and unit spread, so that any scale or shift of the input changes nothing."""
    cosine = cosines(prediction.rig)[:, 0]
    values, valid = prediction.values[:, 0], prediction.values[:, 0].isfinite()
    if prediction.sky is not None:
        valid = valid & ~prediction.sky[:, 0]
    if prediction.confidence is not None:
        valid = valid & (prediction.confidence[:, 0] > 0)
    rows = []
    for v, kind in enumerate(prediction.kinds):
        value, ok = values[v].double(), valid[v]
        is_distance = kind in (Kind.SCALE_DISTANCE, Kind.METRIC_DISTANCE)
        if is_distance:
            ok = ok & (value > 0)
            value = 1 / (value * cosine[v].double()).clamp_min(1e-30)  # interpolates exactly on planes, unlike distance
        seen = value[ok]
        if len(seen) < 16:
            ok, seen = torch.zeros_like(ok), value.new_ones(1)
        middle = seen.median()
        width = middle if is_distance else (seen - middle).abs().mean()
        width = width.clamp_min(1e-12 * middle.abs().clamp_min(1e-30))
        value = torch.where(ok, (value - middle) / width, 0.0)
        low = _quantile((seen - middle) / width, 0.002)
        rows.append((value.float(), ok, low, middle))
    kinds = prediction.kinds
    flag = dict(device=values.device)
    free = torch.tensor([k in (Kind.AFFINE_DISPARITY, Kind.AFFINE_DEPTH) for k in kinds], **flag)
    low = torch.stack([r[2] for r in rows])
    return Maps(
        value=torch.stack([r[0] for r in rows]),
        valid=torch.stack([r[1] for r in rows]),
        sign=torch.tensor([-1.0 if k is Kind.AFFINE_DEPTH else 1.0 for k in kinds], dtype=torch.float64, **flag),
        bound=torch.where(free, 1 / (-low).clamp_min(1e-6), 1.0),
        free=free,
        known_scale=-torch.stack([r[3] for r in rows]).abs().clamp_min(1e-30).log(),
        is_metric=torch.tensor([k is Kind.METRIC_DISTANCE for k in kinds], **flag),
    )


def _quantile(values: Tensor, part: float) -> Tensor:
    return values.kthvalue(max(1, int(part * len(values))))[0]


@dataclass
class Overlap:
    """Rows (view, direction) and pairs of rows with a direction in common; depends on the rig alone."""

    view: Tensor  # [R]
    xy: Tensor  # [R, 2]
    cosine: Tensor  # [R]
    index: Tensor  # [R, 4]
    weight: Tensor  # [R, 4]
    direction: Tensor  # [R]
    first: Tensor  # [P]
    second: Tensor  # [P]
    groups: list[tuple]
    prior: Tensor  # [R], border fade
    angle: Tensor  # [N], solid angle of each direction


def find_overlap(rig: Rig, samples: int) -> Overlap:
    """About `samples` directions, spread over the views."""
    per_side = min(rig.resolution, max(8, round((samples / len(rig)) ** 0.5)))
    directions, angle = overlaps.grid_directions(rig.rotation, rig.tan_half_fov, per_side)
    view, direction, xy, cosine = overlaps.see(directions, rig.rotation, rig.tan_half_fov, 0.5 / rig.resolution)
    first, second, groups = overlaps.pairs(view, direction, len(rig), len(directions))
    index, weight = overlaps.taps(view, xy, rig.resolution)
    fade = ((1 - xy.abs().amax(-1)) / 0.15).clamp(0.1, 1)
    return Overlap(view, xy, cosine, index, weight, direction, first, second, groups, fade, angle)


@dataclass
class Solution:
    """Unknowns of all views, and what the solve knows about itself."""

    scale: Tensor  # [V], G
    shift: Tensor  # [V], tau as a part of its bound
    field: Tensor  # [V, K]
    noise: float  # standard deviation of log distance of one sample
    scale_std: Tensor  # [V]
    shift_std: Tensor  # [V]
    variance: Tensor | None = None  # prior variance of the bending by degree
    residual: Tensor = field(default_factory=lambda: torch.zeros(0))  # [P]
    iterations: int = 0


class Equations:
    """Residuals and normal equations of one set of maps."""

    def __init__(self, maps: Maps, overlap: Overlap, confidence: Tensor | None, degree: int) -> None:
        self.maps, self.overlap, self.degree = maps, overlap, degree
        self.views = len(maps.value)
        flat = maps.value.reshape(-1)
        self.value = (flat[overlap.index].double() * overlap.weight).sum(-1)
        ok = maps.valid.reshape(-1)[overlap.index].all(-1)
        trust = overlap.prior * ok
        if confidence is not None:
            trust = trust * (confidence.reshape(-1)[overlap.index].double() * overlap.weight).sum(-1)
        self.trust = trust
        total = torch.zeros_like(overlap.angle).index_add_(0, overlap.direction, trust)
        first, second = overlap.first, overlap.second
        mean_angle = overlap.angle.mean()
        where = overlap.direction[first]
        self.pair_weight = (
            trust[first] * trust[second] / total[where].clamp_min(1e-9) * overlap.angle[where] / mean_angle
        )
        self.basis = fields.basis(overlap.xy, degree) if degree else overlap.xy.new_zeros(len(overlap.xy), 0)

    def positive(self, shift: Tensor) -> Tensor:  # [R]
        """The positive part p of every row, before the floor."""
        tau = shift * self.maps.bound
        return 1 + tau[self.overlap.view] * self.value

    def log_distance(self, scale: Tensor, shift: Tensor, bend: Tensor) -> Tensor:  # [R]
        """Log distance u of every row."""
        view = self.overlap.view
        p = self.positive(shift).clamp_min(1e-3)
        u = scale[view] - self.maps.sign[view] * p.log() - self.overlap.cosine.log()
        return u + (self.basis * bend[view]).sum(-1) if self.degree else u

    def jacobian(self, shift: Tensor) -> Tensor:  # [R, 2 + K]
        """Derivatives of u by G, by the shift and by the bending."""
        view = self.overlap.view
        p = self.positive(shift)
        slope = -self.maps.sign[view] * self.maps.bound[view] * self.value / p.clamp_min(1e-3)
        slope = torch.where((p > 1e-3) & self.maps.free[view], slope, 0.0)
        return torch.cat([torch.ones_like(slope)[:, None], slope[:, None], self.basis], dim=-1)

    def far_trust(self, shift: Tensor) -> Tensor:  # [P]
        """Noise of a disparity near zero is magnified in log distance: trust such pairs less."""
        p = self.positive(shift)
        part = torch.where(self.maps.free[self.overlap.view], p**2 / (p**2 + FAR**2) * (p > 1e-3), 1.0)
        return torch.minimum(part[self.overlap.first], part[self.overlap.second])

    def normal(self, jacobian: Tensor, weight: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Normal matrix [V C, V C] and right side [V C] of sum over pairs of weight * (residual + J dx)^2."""
        o, count = self.overlap, jacobian.shape[1]
        row_weight = torch.zeros_like(o.cosine).index_add_(0, o.first, weight).index_add_(0, o.second, weight)
        pull = torch.zeros_like(o.cosine).index_add_(0, o.first, weight * residual)
        pull = pull.index_add_(0, o.second, -weight * residual)
        matrix = jacobian.new_zeros(self.views, count, self.views, count)
        right = jacobian.new_zeros(self.views, count)
        weighted = jacobian * row_weight[:, None]
        bounds = torch.searchsorted(o.view, torch.arange(self.views + 1, device=o.view.device)).tolist()
        for v, (start, stop) in enumerate(zip(bounds, bounds[1:], strict=False)):
            block = jacobian[start:stop]
            matrix[v, :, v] = block.T @ weighted[start:stop]
            right[v] = -(block.T @ pull[start:stop])
        left, other = jacobian[o.first] * weight[:, None], jacobian[o.second]
        for i, j, start, stop in o.groups:
            cross = left[start:stop].T @ other[start:stop]
            matrix[i, :, j] -= cross
            matrix[j, :, i] -= cross.T
        size = self.views * count
        return matrix.reshape(size, size), right.reshape(size)


def solve(
    equations: Equations, start: Solution | None = None, robustness: float = 3.0, iterations: int = 30
) -> Solution:
    """Gauss-Newton on reweighted least squares: absolute values first, then Geman-McClure."""
    maps, views = equations.maps, equations.views
    o = equations.overlap
    count = 2 + equations.basis.shape[1]
    device = o.cosine.device
    mean = torch.zeros(views, count, dtype=torch.float64, device=device)
    mean[:, 0] = torch.where(maps.is_metric, maps.known_scale, _centre(maps))
    mean[:, 1] = SHIFT_PRIOR[0]
    precision = torch.zeros_like(mean)
    precision[:, 0] = torch.where(maps.is_metric, METRIC_PRIOR**-2, SCALE_PRIOR**-2)
    precision[:, 1] = torch.where(maps.free, SHIFT_PRIOR[1] ** -2, 1e12)
    x = mean.clone()
    x[:, 1] = torch.where(maps.free, 0.6, 1.0)
    mean[:, 1] = torch.where(maps.free, mean[:, 1], 1.0)
    noise = torch.tensor(1.0, dtype=torch.float64)
    inverse = None
    for turn in range(iterations):
        residual = _residual(equations, x)
        far = equations.far_trust(x[:, 1])
        live = equations.pair_weight * far > 1e-3
        noise = robust.spread(residual[live]).clamp_min(1e-6) / 2**0.5
        scale = noise * 2**0.5
        absolute = turn < 6
        loss = (
            robust.least_absolute(residual, scale) if absolute else robust.geman_mcclure(residual, robustness * scale)
        )
        weight = equations.pair_weight * far * loss
        matrix, right = equations.normal(equations.jacobian(x[:, 1]), weight, residual)
        matrix = matrix / noise**2 + torch.diag(precision.reshape(-1))
        right = right / noise**2 - (precision * (x - mean)).reshape(-1)
        step = _bounded_step(matrix, right, x)
        x = x + step
        x[:, 1] = torch.where(maps.free, x[:, 1].clamp(0, SHIFT_LIMIT), 1.0)
        if not absolute and step.abs().max() < 1e-6:
            break
    inverse = torch.linalg.inv(matrix).diagonal().reshape(views, count).clamp_min(0).sqrt()
    return Solution(x[:, 0], x[:, 1], x[:, 2:], float(noise), inverse[:, 0], inverse[:, 1], None, residual, turn + 1)


def _centre(maps: Maps) -> Tensor:
    if not maps.is_metric.any():
        return torch.zeros_like(maps.known_scale)
    return maps.known_scale[maps.is_metric].median().expand_as(maps.known_scale)


def _residual(equations: Equations, x: Tensor) -> Tensor:  # [P]
    u = equations.log_distance(x[:, 0], x[:, 1], x[:, 2:])
    return u[equations.overlap.first] - u[equations.overlap.second]


def _bounded_step(matrix: Tensor, right: Tensor, x: Tensor) -> Tensor:  # [V, C]
    """The Newton step with shifts held at their bounds where they push against them, and no shift moving far."""
    step = torch.linalg.solve(matrix, right).reshape(x.shape)
    wanted = x[:, 1] + step[:, 1]
    held = (wanted < 0) | (wanted > SHIFT_LIMIT)
    limit = (wanted.clamp(0, SHIFT_LIMIT) - x[:, 1]).clamp(-0.3, 0.3)
    stiff = torch.zeros_like(x)
    stiff[:, 1] = torch.where(held | (step[:, 1].abs() > 0.3), 1e12, 0.0)
    if (stiff > 0).any():
        right = right + (
            stiff * torch.cat([torch.zeros_like(x[:, :1]), limit[:, None], torch.zeros_like(x[:, 2:])], 1)
        ).reshape(-1)
        step = torch.linalg.solve(matrix + torch.diag(stiff.reshape(-1)), right).reshape(x.shape)
    return step
