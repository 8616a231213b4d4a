"""The robust joint solve behind the aligners: scale, shift and smooth bending of every view from overlaps alone.

Every map is written as p = 1 + tau * (standardised value), where tau is the shift: p is 1 at the median, and stays
positive for tau below a bound known from the map. With c the cosine of a pixel and F the bending, log distance is
    u = G - sign * log(p) - log(c) + F(x, y),
sign +1 for disparities and -1 for depths; for distances tau is known. The equations are in docs/solver.md.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...geometry import fields, overlaps, pinhole, robust
from ...geometry.cached import cached, rig_key, rig_of
from ...scene import Kind, Prediction, Rig

OVERLAP_BYTES = 64 << 20  # most that remembered overlaps may hold
FEW = 4  # columns up to which one large sum is quicker than a product for each pair of views
EVIDENCE_TURNS = 5  # after which the variances of the bending stay
HELD_TURNS = 2  # at the start of a solve with bending
STATISTICS_SIDE = 256  # pixels along a side, of which the median and spread of a map are taken
NOISE_FLOOR = 1e-4  # of log distance; below it the numbers of a map are not to be believed
PATCHES = 30  # independent parts of a view, where nothing is said about its bending
# Where hardly anything lies below the middle, as before a flat wall, positivity bounds no shift: the bound is then that
# of a map whose low side is so large a part of its high side.
ONE_SIDED = 0.15  # 0.2 and more cut off the right shifts of halls; below 0.1 those of cube views run away
DOUBTFUL = 0.1  # standard deviation of log distance between views above which a rigid solve is begun elsewhere too
OTHER_STARTS = (0.1, 0.3, 0.9)  # of the shifts, as parts of their bound
SHIFT_LEAST = 0.01  # of the bound; a map without any shift is a sphere
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
    values = prediction.values[:, 0].float()  # half precision has too few digits for logarithms
    valid = values.isfinite()
    if prediction.sky is not None:
        valid = valid & ~prediction.sky[:, 0]
    if prediction.confidence is not None:
        valid = valid & (prediction.confidence[:, 0] > 0)
    lengths = pinhole.ray_lengths(prediction.rig.tan_half_fov, prediction.rig.resolution)
    value, known, lows, middles = torch.zeros_like(values), valid.clone(), [], []
    for v, kind in enumerate(prediction.kinds):
        is_distance = kind in (Kind.SCALE_DISTANCE, Kind.METRIC_DISTANCE)
        if is_distance:
            known[v] &= values[v] > 0
        ok = known[v]
        # Distances become disparities, which bilinear look-up reads exactly on planes.
        plain = lengths[v] / torch.where(ok, values[v], 1.0) if is_distance else values[v]
        step = 1 + len(plain) // STATISTICS_SIDE
        seen = plain[::step, ::step][ok[::step, ::step]]
        if len(seen) < 16:
            known[v], seen = False, torch.ones_like(plain[0])
        middle = seen.double().median()
        width = middle if is_distance else (seen - middle).abs().mean()
        width = width.clamp_min(1e-12 * middle.abs().clamp_min(1e-30))
        value[v] = torch.where(known[v], (plain - middle) / width, 0.0)
        low, high = ((_quantile(seen, part) - middle) / width for part in (0.002, 0.998))
        lows.append(torch.minimum(low, -ONE_SIDED * high))
        middles.append(middle)
    kinds = prediction.kinds
    free = torch.tensor([k in (Kind.AFFINE_DISPARITY, Kind.AFFINE_DEPTH) for k in kinds])
    return Maps(
        value=value,
        valid=known,
        sign=torch.tensor([-1.0 if k is Kind.AFFINE_DEPTH else 1.0 for k in kinds], dtype=torch.float64),
        bound=torch.where(free, 1 / (-torch.stack(lows).cpu()).clamp_min(1e-6), 1.0),
        free=free,
        known_scale=-torch.stack(middles).cpu().abs().clamp_min(1e-30).log(),
        is_metric=torch.tensor([k is Kind.METRIC_DISTANCE for k in kinds]),
    )


def _quantile(values: Tensor, part: float) -> Tensor:
    return values.kthvalue(max(1, int(part * len(values))))[0]


class Overlap(NamedTuple):
    """Rows (view, direction) and pairs of rows with a direction in common; depends on the rig alone."""

    view: Tensor  # [R]
    xy: Tensor  # [R, 2]
    cosine: Tensor  # [R]
    taps: Tensor  # [R, 4], neighbouring pixels of each row
    weight: Tensor  # [R, 4]
    direction: Tensor  # [R]
    first: Tensor  # [P]
    second: Tensor  # [P]
    groups: list[tuple[int, int, int, int]]  # two views, and where their pairs start and stop
    fade: Tensor  # [R], trust that falls towards the border
    angle: Tensor  # [N], solid angle of each direction


def find_overlap(rig: Rig, samples: int) -> Overlap:
    """About `samples` directions, spread over the views. Remembered, since panoramas mostly share one rig."""
    return _overlap(*rig_key(rig), samples)


@cached(OVERLAP_BYTES)
def _overlap(rotations: bytes, tans: bytes, resolution: int, samples: int) -> Overlap:
    rig = rig_of(rotations, tans, resolution)
    per_side = min(resolution, max(8, round((samples / len(rig)) ** 0.5)))
    directions, angle = overlaps.grid_directions(rig.rotation, rig.tan_half_fov, per_side)
    view, direction, xy, cosine = overlaps.see(directions, rig.rotation, rig.tan_half_fov, 0.5 / resolution)
    first, second, groups = overlaps.pairs(view, direction, len(rig), len(directions))
    index, weight = overlaps.taps(view, xy, resolution)
    fade = ((1 - xy.abs().amax(-1)) / 0.15).clamp(0.1, 1)
    return Overlap(view, xy, cosine, index, weight, direction, first, second, groups, fade, angle)


@dataclass
class Solution:
    """Unknowns of all views, and what the solve knows about itself."""

    scale: Tensor  # [V], G
    shift: Tensor  # [V], tau as a part of its bound
    field: Tensor  # [V, K], coefficients of the bending
    scale_std: Tensor  # [V], relative to the mean of all views
    shift_std: Tensor  # [V]
    variance: Tensor  # [degree], of the coefficients of each degree, as found from the overlaps
    noise: float  # standard deviation of log distance of one sample
    independent: float  # part of the samples that count as independent
    residual: Tensor  # [P], differences of log distance
    loss: Tensor  # [P], robust weights in 0..1
    turns: int


class Equations:
    """Residuals and normal equations of one set of maps, in float64 on the CPU: a few thousand numbers per view."""

    def __init__(self, maps: Maps, overlap: Overlap, confidence: Tensor | None, degree: int) -> None:
        self.maps, self.overlap, self.degree = maps, overlap, degree
        self.views = len(maps.value)
        index = overlap.taps.to(maps.value.device)
        self.value = (maps.value.reshape(-1)[index].cpu().double() * overlap.weight).sum(-1)
        ok = maps.valid.reshape(-1)[index].all(-1).cpu()
        trust = overlap.fade * ok
        if confidence is not None:
            trust = trust * (confidence.reshape(-1)[index].cpu().double() * overlap.weight).sum(-1)
        self.trust = trust
        total = torch.zeros_like(overlap.angle).index_add_(0, overlap.direction, trust)
        first, second = overlap.first, overlap.second
        mean_angle = overlap.angle.mean()
        where = overlap.direction[first]
        self.pair_weight = (
            trust[first] * trust[second] / total[where].clamp_min(1e-9) * overlap.angle[where] / mean_angle
        )
        self.basis = fields.basis(overlap.xy, degree)
        one = torch.ones_like(overlap.xy[:, :1])
        self.columns = torch.cat([one, one, self.basis], dim=-1)  # of the Jacobian; the second one changes

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
        self.columns[:, 1] = slope
        return self.columns

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
        if count <= FEW:
            cross = (left[:, :, None] * other[:, None]).reshape(-1, count * count)
            blocks = jacobian.new_zeros(self.views**2, count * count)
            blocks.index_add_(0, o.view[o.first] * self.views + o.view[o.second], cross)
            blocks = blocks.reshape(self.views, self.views, count, count).transpose(1, 2)
            matrix -= blocks + blocks.permute(2, 3, 0, 1)
        else:
            for i, j, start, stop in o.groups:
                product = left[start:stop].T @ other[start:stop]
                matrix[i, :, j] -= product
                matrix[j, :, i] -= product.T
        size = self.views * count
        return matrix.reshape(size, size), right.reshape(size)

    def residual(self, x: Tensor) -> Tensor:  # [V, 2 + K] -> [P]
        """Differences of log distance over all pairs."""
        u = self.log_distance(x[:, 0], x[:, 1], x[:, 2:])
        return u[self.overlap.first] - u[self.overlap.second]

    def add_volume(self, matrix: Tensor, right: Tensor, shift: Tensor, weight: Tensor, noise: Tensor) -> None:
        """Add, in place, what keeps shifts from shrinking: the likelihood is one of the maps, not of their logs.

        Residuals of log distance fall with the shift, down to a sphere that fits anything. The change of variables
        from u to the map contributes -log(du / dvalue) = log(p) - log(shift) per sample, which balances that exactly.
        """
        o, view = self.overlap, self.overlap.view
        p = self.positive(shift)
        counts = (p > 1e-3) & self.maps.free[view]
        row = torch.zeros_like(p).index_add_(0, o.first, weight).index_add_(0, o.second, weight) * counts
        p, t = p.clamp_min(1e-3), shift.clamp_min(SHIFT_LEAST)[view]
        slope = self.maps.bound[view] * self.value / p
        pull = torch.zeros_like(shift).index_add_(0, view, row / (t * p))
        curve = torch.zeros_like(shift).index_add_(0, view, row * (t**-2 - slope**2)).clamp_min(0)
        at = torch.arange(self.views, device=view.device) * (matrix.shape[0] // self.views) + 1
        matrix[at, at] += curve * noise
        right[at] += pull * noise


def solve(
    equations: Equations,
    start: Solution | None = None,
    robustness: float = 3.0,
    turns: int = 30,
    tolerance: float | None = None,
    shift: float = SHIFT_PRIOR[0],
) -> Solution:
    """Gauss-Newton on reweighted residuals: absolute values first unless a start is given, then Geman-McClure.

    With bending, the variance of each degree is re-estimated at every turn by the evidence (MacKay 1992): stiff where
    views agree, soft where they do not, and no setting to tune. `shift` is where the shifts of a first solve begin.
    """
    maps, o, degree = equations.maps, equations.overlap, equations.degree
    tolerance = tolerance or (3e-4 if degree else 1e-6)
    mean, prior = _prior(maps, equations.basis.shape[1])
    shift_mean, shift_prior = mean[:, 1].clone(), prior[:, 1].clone()
    x = mean.clone()
    x[:, 1] = torch.where(maps.free, shift, x[:, 1])
    if start is not None:
        x[:, 0], x[:, 1] = start.scale, start.shift
    far = equations.far_trust(x[:, 1])
    order = fields.orders(degree).sum(1).to(o.view.device) - 1
    variance = 1e-3 * 0.4 ** torch.arange(degree, dtype=torch.float64)
    known = mean.new_zeros(())
    absolute_turns = 6 if start is None else 0
    for turn in range(turns):
        if start is None:
            far = equations.far_trust(x[:, 1])
        residual = equations.residual(x)
        live = equations.pair_weight * far > 1e-3
        deviation = robust.spread(residual[live]).clamp_min(NOISE_FLOOR)
        if turn < absolute_turns:
            loss = robust.least_absolute(residual, deviation)
        else:
            loss = robust.geman_mcclure(residual, robustness * deviation)
        weight = equations.pair_weight * far * loss
        total = weight.sum().clamp_min(1e-9)
        noise = ((weight * residual.square()).sum() / (2 * total)).clamp_min(NOISE_FLOOR**2)
        independent = _independent(noise, variance, degree, 2 * total / equations.views)
        jacobian = equations.jacobian(x[:, 1])
        matrix, right = equations.normal(jacobian, weight, residual)
        # The bending takes part in what shrinks with a shift, by as many unknowns as the overlaps determine.
        equations.add_volume(matrix, right, x[:, 1], weight, noise * (1 + known / (independent * 2 * total)))
        prior[:, 2:] = 1 / variance[order]
        if degree:  # the bending finds its size before the shifts may answer to it
            prior[:, 1], mean[:, 1] = (1e12, x[:, 1]) if turn < HELD_TURNS else (shift_prior, shift_mean)
        matrix = matrix * (independent / noise) + torch.diag(prior.reshape(-1))
        right = right * (independent / noise) - (prior * (x - mean)).reshape(-1)
        factor = torch.linalg.cholesky(matrix)
        step = _bounded_step(matrix, factor, right, x, maps.free)
        x = x + step
        if degree and turn < EVIDENCE_TURNS:
            covariance = torch.cholesky_inverse(factor).diagonal().reshape(x.shape)[:, 2:]
            known = (1 - covariance * prior[:, 2:]).sum()
            variance = _evidence(x[:, 2:], covariance, prior[:, 2:], order, degree, exact=turn < HELD_TURNS)
        if turn > max(absolute_turns, HELD_TURNS) + 1 and step.abs().max() < tolerance:
            break
    covariance = torch.cholesky_inverse(factor)
    shift_std = covariance.diagonal().reshape(x.shape)[:, 1].sqrt() * maps.free
    scales = covariance[:: x.shape[1], :: x.shape[1]]
    centred = scales - scales.mean(0) - scales.mean(1, keepdim=True) + scales.mean()
    return Solution(
        scale=x[:, 0],
        shift=x[:, 1],
        field=x[:, 2:],
        scale_std=centred.diagonal().clamp_min(0).sqrt(),
        shift_std=shift_std,
        variance=variance,
        noise=float(noise.sqrt()),
        independent=float(independent),
        residual=equations.residual(x),
        loss=loss,
        turns=turn + 1,
    )


def solve_rigid(equations: Equations, robustness: float, tolerance: float | None = None) -> Solution:
    """Scale and shift alone. Where views disagree widely after it, other beginnings are tried and the best is kept.

    Views of flat walls that overlap little have several solutions to which the iteration may run.
    """
    best = solve(equations, robustness=robustness, tolerance=tolerance)
    for shift in OTHER_STARTS if best.noise > DOUBTFUL else ():
        other = solve(equations, robustness=robustness, tolerance=tolerance, shift=shift)
        best = min(best, other, key=lambda solution: solution.noise)
    return best


def _prior(maps: Maps, columns: int) -> tuple[Tensor, Tensor]:
    """Mean and precision of all unknowns [V, 2 + K]; those of the bending are filled in later."""
    known, free, metric = maps.known_scale, maps.free, maps.is_metric
    mean = torch.zeros(len(known), 2 + columns, dtype=torch.float64, device=known.device)
    precision = torch.ones_like(mean)
    centre = known[metric].median() if bool(metric.any()) else known.new_zeros(())
    mean[:, 0] = torch.where(metric, known, centre)
    mean[:, 1] = torch.where(free, SHIFT_PRIOR[0], 1.0)
    precision[:, 0] = torch.where(metric, METRIC_PRIOR**-2, SCALE_PRIOR**-2)
    precision[:, 1] = torch.where(free, SHIFT_PRIOR[1] ** -2, 1.0)
    return mean, precision


def _independent(noise: Tensor, variance: Tensor, degree: int, rows: Tensor) -> Tensor:
    """The part of a view's samples that count as independent.

    Bending finer than the basis is left in the residuals, where neighbours share it; taken for independent noise, it
    would make the solve sure of what no overlap shows. Its variance follows from the fall of the variances by degree.
    """
    if degree < 4:
        return (PATCHES / rows).clamp(max=1)
    low, high = variance[-4:-2].sum(), variance[-2:].sum()
    fall = (high / low.clamp_min(1e-20)).sqrt().clamp(0.1, 0.8)
    beyond = torch.arange(1, 12, dtype=torch.float64, device=variance.device)
    finer = (high / 2 * fall ** (beyond - 0.5) * (degree + beyond + 1)).sum()
    return noise / (noise + finer * rows / ((degree + 1) * (degree + 2)))


def _evidence(
    bend: Tensor, covariance: Tensor, precision: Tensor, order: Tensor, degree: int, exact: bool
) -> Tensor:  # [degree]
    """New variances by degree: expectation-maximisation for the first turns, then MacKay's faster fixed point."""
    zero = bend.new_zeros(degree)
    size = zero.index_add(0, order, bend.square().sum(0))
    if exact:
        count = torch.bincount(order, minlength=degree) * len(bend)
        return ((size + zero.index_add(0, order, covariance.sum(0))) / count).clamp_min(1e-10)
    known = zero.index_add(0, order, (1 - covariance * precision).sum(0)).clamp_min(0.5)
    return (size / known).clamp_min(1e-10)


def _bounded_step(matrix: Tensor, factor: Tensor, right: Tensor, x: Tensor, free: Tensor) -> Tensor:  # [V, 2 + K]
    """The Newton step, with shifts held where they leave their bounds or move far, and the others solved again."""
    step = torch.cholesky_solve(right[:, None], factor).reshape(x.shape)
    wanted = x[:, 1] + step[:, 1].clamp(-0.3, 0.3)
    allowed = torch.where(free, wanted.clamp(SHIFT_LEAST, SHIFT_LIMIT), x[:, 1]) - x[:, 1]
    held = torch.zeros_like(x)
    off = free & ((allowed - step[:, 1]).abs() > 1e-9)
    held[:, 1] = torch.where(off, 1e9 * matrix.diagonal().reshape(x.shape)[:, 1], 0.0)
    if bool((held > 0).any()):
        target = torch.zeros_like(x)
        target[:, 1] = allowed
        right = right + (held * target).reshape(-1)
        step = torch.linalg.solve(matrix + torch.diag(held.reshape(-1)), right).reshape(x.shape)
    step[:, 1] = allowed
    return step
