"""Solids of synthetic worlds and exact ray casting on them: boxes, balls, frusta (cylinders, cones) and discs.

Every solid is the affine image of a unit solid, so that casting is the same for all sizes and poses: rays are taken to
the local frame, where the box is |x|, |y|, |z| <= 1, the ball has radius one, the frustum has radius one at z = -1 and
`taper` at z = +1, and the disc lies in z = 0. The parameter of a ray is the same in both frames. All solids are convex:
a ray enters once and leaves once. A hollow solid is a shell seen from within, and is met where the ray leaves it.

Solids are rows of one table, so that many worlds stand in one batch. Misses are numbers above `MISS` rather than
branches, since additions and minima run about ten times faster than comparisons and selections on a CPU.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

BOX, BALL, FRUSTUM, DISC = range(4)
KINDS = ("box", "ball", "frustum", "disc")

# Columns of the table of solids.
MATRIX = slice(0, 9)  # scene axes to local axes, row by row; local = matrix (point - centre)
CENTRE = slice(9, 12)  # metres, scene frame
TAPER = 12  # frustum: radius at the top over radius at the bottom, 0..1
HOLLOW = 13  # 1: a shell seen from within
RADIUS = 14  # metres, of the ball around the centre that holds all of the solid; -1: no solid, fills up a batch
HALF = slice(15, 18)  # metres, half size along the local axes
SHAPE = slice(0, 18)  # all that casting needs
KIND = 18
INSTANCE = 19  # the object that the solid is part of, from 1
TEXTURE = 20
COLOURS = slice(21, 30)  # three linear RGB colours
SCALE = 30  # metres, size of the texture's features
ASPECT = 31  # of the texture's features, length over width; meaning differs a little between textures
GLOSS = 32  # strength of the highlight
EMISSION = 33  # light given off, times the first colour; such solids cast no shadow
BUMP = 34  # roughness of the shading normal
SEED = 35
OFFSET = 36  # metres, local coordinates of the texture's origin, three columns
EDGES = slice(39, 48)  # metres, half edges of the tight box around the solid, one vector after the other
COLUMNS = 48

MISS = 1e9  # metres; what is further away is not there
_HUGE = 1e30
_TINY = 1e-20  # keeps zeros out of denominators without changing other numbers
_NEAREST = 1e-4  # metres (or fraction of the way to a light): what is nearer is the surface the ray starts from
_RIM = 1e-6  # caps and side of a frustum overlap this much, so that no ray slips through the rim

Triple = tuple[Tensor, Tensor, Tensor]


def to_local(rows: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Triple:  # rows [..., K, F], x [..., n] -> [..., K, n]
    """Turn and scale vectors to the local frames; written out, since a matrix product may be rounded by the caller's
    precision settings (TF32, autocast).
    """
    x, y, z = x.unsqueeze(-2), y.unsqueeze(-2), z.unsqueeze(-2)
    m = [rows[..., i : i + 1] for i in range(9)]
    a, b, c = (torch.addcmul(torch.addcmul(m[i] * x, m[i + 1], y), m[i + 2], z) for i in (0, 3, 6))
    return a, b, c


def local_origin(rows: Tensor, origin: Tensor) -> Triple:  # rows [G, K, F], origin [G, 3] -> [G, K, 1]
    """One point per group in the local frames."""
    x, y, z = (origin[:, None] - rows[..., CENTRE]).unbind(-1)  # [G, K]: each solid has its own difference
    m = rows[..., MATRIX]
    a, b, c = (torch.addcmul(torch.addcmul(m[..., i] * x, m[..., i + 1], y), m[..., i + 2], z) for i in (0, 3, 6))
    return a[..., None], b[..., None], c[..., None]


def cast(kind: int, rows: Tensor, o: Triple, d: Triple) -> Tensor:  # -> [G, K, n]
    """Ray parameter of the first hit with every solid, above MISS where there is none; o and d in local frames."""
    if kind == BOX:
        near, far, off = _box(o, d)
    elif kind == BALL:
        near, far, off = _ball(o, d)
    elif kind == FRUSTUM:
        near, far, off = _frustum(o, d, rows[..., TAPER, None])
    else:
        near, off = _disc(o, d)
        far = near
    t = torch.addcmul(near, far - near, rows[..., HOLLOW, None])
    return t + (off + (_NEAREST - t).clamp_min_(0)).mul_(_HUGE)


def _box(o: Triple, d: Triple) -> Triple:
    """Slabs: the ray is inside between the last entry and the first exit."""
    entries, leaves = [], []  # minus the parameters of the entries, parameters of the exits
    for origin, direction in zip(o, d, strict=True):
        inverse = (direction + _TINY).reciprocal_()
        middle = inverse * origin
        half = inverse.abs_()
        entries.append(middle + half)
        leaves.append(half.sub_(middle))
    entry, leave = _minimum(entries), _minimum(leaves)
    off = (entry + leave).neg_().clamp_min_(0)
    return entry.neg_(), leave, off


def _ball(o: Triple, d: Triple) -> Triple:
    """From the point nearest to the centre half a chord either way, which stays exact far from small balls."""
    dd = _dot(d, d) + _TINY
    middle = -_dot(o, d) / dd
    x, y, z = (torch.addcmul(a, middle, b) for a, b in zip(o, d, strict=True))
    rest = 1 - _dot((x, y, z), (x, y, z))
    half = (rest.clamp_min(0) / dd).sqrt_()
    return middle - half, middle + half, rest.neg_().clamp_min_(0)


def _frustum(o: Triple, d: Triple, taper: Tensor) -> Triple:
    """First and last of the four places where a ray may cross the surface: twice the side, and the two caps."""
    middle = -_dot(o, d) / (_dot(d, d) + _TINY)
    x, y, z = (torch.addcmul(a, middle, b) for a, b in zip(o, d, strict=True))  # start next to the solid
    dx, dy, dz = d
    slope, waist = (taper - 1) / 2, (taper + 1) / 2
    radius = waist + slope * z
    fall = slope * dz
    a = dx * dx + dy * dy - fall * fall
    a = a + _TINY
    b = x * dx + y * dy - radius * fall
    c = x * x + y * y - radius * radius
    rest = b * b - a * c
    q = b + torch.copysign(rest.clamp_min(0).sqrt_(), b)
    q = q + torch.copysign(torch.full_like(q, _TINY), q)
    none = rest.neg_().clamp_min_(0)
    step = (dz + _TINY).reciprocal()
    ins, outs = [], []
    for t in (-q / a, -c / q):
        height = torch.addcmul(z, t, dz)
        off = ((height.abs() - (1 + _RIM)).clamp_min_(0) + none).clamp_max_(1).mul_(_HUGE)
        ins.append(t + off)
        outs.append(off - t)
    for end, limit in ((-1.0, torch.ones_like(taper)), (1.0, taper)):
        t = (end - z) * step
        px, py = torch.addcmul(x, t, dx), torch.addcmul(y, t, dy)
        off = (px * px + py * py - limit * limit * (1 + _RIM)).clamp_(0, 1).mul_(_HUGE)
        ins.append(t + off)
        outs.append(off - t)
    near, far = _minimum(ins), -_minimum(outs)
    return near + middle, far + middle, ((near - far) / _HUGE).clamp_min_(0)


def _disc(o: Triple, d: Triple) -> tuple[Tensor, Tensor]:
    t = -o[2] / (d[2] + _TINY)
    x, y = torch.addcmul(o[0], t, d[0]), torch.addcmul(o[1], t, d[1])
    return t, (x * x + y * y - 1).clamp_min_(0)


def _minimum(values: list[Tensor]) -> Tensor:
    return functools.reduce(torch.minimum, values)


def _dot(a: Triple, b: Triple) -> Tensor:
    return torch.addcmul(torch.addcmul(a[0] * b[0], a[1], b[1]), a[2], b[2])


def local_normal(rows: Tensor, q: Tensor) -> Tensor:  # rows [N, F], q [N, 3] on the surface -> [N, 3]
    """Outward normals in the local frames, not yet of unit length."""
    kind = rows[:, KIND, None]
    size = q.abs()
    box = torch.where(size == size.amax(-1, keepdim=True), q.sign(), 0)
    # The cap or the side, whichever surface the point is nearer to.
    taper = rows[:, TAPER, None]
    radius = (1 + taper) / 2 + (taper - 1) / 2 * q[:, 2:]
    reach = q[:, :2].norm(dim=-1, keepdim=True)
    side = torch.cat([q[:, :2], reach * (1 - taper) / 2], dim=-1)
    up = torch.zeros_like(q)
    up[:, 2] = 1
    # Compared in the local frame; a flat cap with a hit at its rim belongs to either.
    cap = (1 - size[:, 2:]).abs() <= (radius - reach).abs()
    frustum = torch.where(cap, up * q[:, 2:].sign(), side)
    normal = torch.where(kind == BOX, box, q)
    normal = torch.where(kind == FRUSTUM, frustum, normal)
    return torch.where(kind == DISC, up, normal)


def gap(kind: int, rows: Tensor, p: Triple) -> Tensor:  # p local, [..., K, n] -> [..., K, n]
    """Distance in metres from points to every solid, negative inside: exact for boxes, balls, cylinders and discs,
    nearly so close to ellipsoids and never larger than the truth for cones. Hollow solids are the space around them.
    """
    x, y, z = p
    hx, hy, hz = (rows[..., i, None] for i in range(HALF.start, HALF.stop))
    if kind == BOX:
        a, b, c = x.abs() * hx - hx, y.abs() * hy - hy, z.abs() * hz - hz
        out = (a.clamp_min(0) ** 2 + b.clamp_min(0) ** 2 + c.clamp_min(0) ** 2).sqrt()
        distance = out + torch.maximum(torch.maximum(a, b), c).clamp_max_(0)
    elif kind == BALL:
        # At the very centre both lengths would vanish; the smallest half size is the limit there.
        least = torch.minimum(torch.minimum(hx, hy), hz)
        length = (x * x + y * y + z * z + _TINY).sqrt()
        slope = ((x / hx) ** 2 + (y / hy) ** 2 + (z / hz) ** 2 + _TINY / least**2).sqrt()
        distance = (length - 1) * length / slope
    elif kind == FRUSTUM:
        taper = rows[..., TAPER, None]
        wide, thin = torch.maximum(hx, hy), torch.minimum(hx, hy)
        radius = (1 + taper) / 2 + (taper - 1) / 2 * z.clamp(-1, 1)
        cosine = 2 * hz / torch.sqrt(4 * hz * hz + (wide * (1 - taper)) ** 2)
        side = ((x * x + y * y).sqrt() - radius) * thin * cosine
        cap = (z.abs() - 1) * hz
        out = (side.clamp_min(0) ** 2 + cap.clamp_min(0) ** 2).sqrt()
        distance = out + torch.maximum(side, cap).clamp_max_(0)
    else:
        beyond = ((x * x + y * y).sqrt() - 1).clamp_min(0) * hx
        distance = (beyond**2 + (z * hz) ** 2).sqrt()
    return distance * (1 - 2 * rows[..., HOLLOW, None])
