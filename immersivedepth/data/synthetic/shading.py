"""Colours of hits: textures, lamps and suns with shadows, ambient light that fades in corners, sky, exposure."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from . import scene_tables, shapes, tracing
from .scene_tables import Tables
from .textures import Spots, Texture, fbm, noise, paint

_CONTACT = ((0.08, 0.4), (0.35, 0.45))  # metres looked ahead along the normal, and how much that may darken
_FAINT = 2e-4  # light that cannot be seen, and whose shadows are not looked for
_LIFT = 1e-3  # metres (and relative to the distance over ten) by which shadow rays start off the surface
_GOLDEN = (0.7548776662466927, 0.5698402909980532)  # steps of a sequence that fills a square evenly


def sky_colour(sky: Tensor, rays: Tensor, width: Tensor) -> Tensor:  # [N, S], [N, 3] unit, [N] -> [N, 3]
    """Linear colour of the sky: a gradient, the sun's disc and glow, clouds."""
    up = rays[:, 2:].clamp(-0.05, 1)
    zenith, horizon = sky[:, scene_tables.ZENITH], sky[:, scene_tables.HORIZON]
    colour = horizon + (zenith - horizon) * up.clamp_min(0).pow(0.55)
    cosine = (rays * sky[:, scene_tables.SUN]).sum(-1, keepdim=True).clamp(-1, 1)
    glow = sky[:, scene_tables.GLOW]
    colour = colour + glow * (0.25 * ((cosine + 1) / 2).pow(40) + 0.5 * ((cosine + 1) / 2).pow(600))
    amount, size, seed = (
        sky[:, i, None] for i in (scene_tables.CLOUDS, scene_tables.CLOUD_SCALE, scene_tables.SKY_SEED)
    )
    plane = rays[:, :2] / (up + 0.12) * size  # a flat layer, seen from below
    finest = width / (up[:, 0].clamp_min(0) + 0.12) ** 2 * size[:, 0]
    cover = fbm(torch.cat([plane, seed], -1), finest, 5)[:, None]
    dense = ((cover - 1 + amount) / 0.22).clamp(0, 1) * (up * 8).clamp(0, 1)
    white = (horizon.mean(-1, keepdim=True) * 1.25 + glow * 0.08) * (1.08 - 0.5 * dense * cover)
    colour = colour + (white - colour) * dense * 0.9
    disc = ((cosine - math.cos(0.02)) / 1e-4).clamp(0, 1) * (1 - 0.8 * dense)
    return colour + glow * 6 * disc


def tone(linear: Tensor, exposure: Tensor) -> Tensor:
    """Linear light to display colours in 0..1: a film-like shoulder, then the sRGB curve."""
    x = (linear * exposure).clamp_min(0)
    x = (x * (2.51 * x + 0.03)) / (x * (2.43 * x + 0.59) + 0.14)  # a common fit to the ACES film curve
    x = x.clamp(0, 1)
    return torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp_min(1e-8) ** (1 / 2.4) - 0.055)


def albedo_at(rows: Tensor, unit: Tensor, normal: Tensor, width: Tensor) -> Tensor:  # [N, F], [N, 3], [N, 3], [N]
    """Colour of the material at points given in local unit coordinates, with the local normal."""
    half = rows[:, shapes.HALF]
    solid = unit * half + rows[:, shapes.OFFSET : shapes.OFFSET + 3]
    kind = rows[:, shapes.KIND]
    face = normal.abs().argmax(-1)
    first = torch.where(face == 0, 1, 0)
    second = torch.where(face == 2, 1, 2)
    pair = torch.stack([first, second], -1)
    flat, on, extent = solid.gather(1, pair), unit.gather(1, pair), half.gather(1, pair)
    round_ = (kind == shapes.BALL) | ((kind == shapes.FRUSTUM) & (face != 2))
    turn = torch.atan2(unit[:, 1], unit[:, 0])
    wrapped = torch.stack([turn * half[:, 0], solid[:, 2]], -1)
    around = torch.stack([turn / math.pi, unit[:, 2]], -1)
    size = torch.stack([half[:, 0] * math.pi, half[:, 2]], -1)
    flat = torch.where(round_[:, None], wrapped, flat)
    on = torch.where(round_[:, None], around, on)
    extent = torch.where(round_[:, None], size, extent)
    albedo = rows[:, shapes.COLOURS][:, :3].clone()
    textures = rows[:, shapes.TEXTURE].to(torch.int64)
    for number in textures.unique().tolist():
        if number == Texture.PLAIN:
            continue
        where = (textures == number).nonzero()[:, 0]
        r = rows[where]
        a, b, c = r[:, shapes.COLOURS].split(3, dim=-1)
        spots = Spots(
            solid[where], flat[where], on[where], extent[where], a, b, c,
            r[:, shapes.SCALE], r[:, shapes.ASPECT], r[:, shapes.SEED], width[where],
        )  # fmt: skip
        albedo[where] = paint(Texture(number), spots)
    return albedo.clamp(0, 0.95)


def jitter(sample: int) -> tuple[float, float]:
    """Place on a lamp, -1..1 along both sides, for one of many samples of a pixel; the first is the middle."""
    u, v = ((0.5 + sample * step) % 1 * 2 - 1 for step in _GOLDEN)
    return u, v


def shade(
    tables: Tables,
    scene: Tensor,
    rays: Tensor,
    points: Tensor,
    normal: Tensor,
    albedo: Tensor,
    rows: Tensor,
    distance: Tensor,
    hit: Tensor,
    sample: int,
) -> Tensor:
    """Linear colour of the hits of some tiles: [G, n, 3]; all vectors in the scene's frame."""
    sky = tables.sky[scene][:, None]  # [G, 1, S]
    lift = (_LIFT + distance.clamp_max(1e3) * 1e-4)[..., None]
    start = points + normal * lift
    bump = rows[..., shapes.BUMP, None]
    bent = normal
    if bool((bump > 0).any()):
        rough = noise((points * (14 / (1 + 0.5 * distance[..., None]).floor().clamp_min(1))).reshape(-1, 3))
        fade = (3 / distance[..., None].clamp_min(1)).clamp_max(1)
        bent = F.normalize(normal + bump * fade * (rough.reshape(points.shape) - 0.5), dim=-1)
    open_ = _openness(tables, scene, points, normal, hit)
    level = (bent[..., 2:] + 1) / 2
    ambient = sky[..., scene_tables.BELOW] + (sky[..., scene_tables.ABOVE] - sky[..., scene_tables.BELOW]) * level
    # Two soft directional terms keep walls that meet at a corner apart when no lamp reaches them.
    ambient = ambient * (0.92 + 0.12 * bent[..., :1] + 0.06 * bent[..., 1:2])
    light = ambient * open_[..., None]
    shine = torch.zeros_like(light)
    gloss = rows[..., shapes.GLOSS, None]
    for number in range(tables.lights.shape[1]):
        lamp = tables.lights[scene, number]
        got, to = _arriving(lamp, start, bent, sample)
        lit = _unblocked(tables, scene, lamp, start, got * hit, sample)
        falling = (got * lit)[..., None] * lamp[:, None, scene_tables.INTENSITY]
        light = light + falling
        middle = F.normalize(to - rays, dim=-1)
        shine = shine + falling * gloss * 4 * (middle * bent).sum(-1, keepdim=True).clamp_min(0).pow(60)
    # A glossy surface also shows some of what is around it: bright above, and more at grazing angles.
    grazing = (1 + (rays * bent).sum(-1, keepdim=True)).clamp(0, 1).pow(4)
    shine = shine + gloss * (0.06 + 0.5 * grazing) * sky[..., scene_tables.ABOVE] * open_[..., None]
    glow = rows[..., shapes.EMISSION, None]
    return albedo * (light + glow) + shine


def _arriving(lamp: Tensor, points: Tensor, normal: Tensor, sample: int) -> tuple[Tensor, Tensor]:
    """Share of a lamp's intensity [G, n] that arrives if nothing is in between, and the directions to it."""
    there = _target(lamp, sample)
    path = torch.where(lamp[:, scene_tables.LAMP, None, None] > 0, there[:, None] - points, there[:, None])
    length = path.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    to = path / length
    cosine = (to * normal).sum(-1).clamp_min(0)
    facing = lamp[:, None, scene_tables.FACING]
    turned = facing.norm(dim=-1) > 0
    ahead = -(to * facing).sum(-1).clamp(-1, 0)
    length = length[..., 0]
    # Lamps have a size: the light does not grow without bound next to them.
    spread = 1 / (length * length + 0.15)
    reach = lamp[:, None, scene_tables.REACH]
    window = (1 - (length / reach.clamp_min(1e-6)) ** 2).clamp_min(0) * (reach > 0)
    share = torch.where(lamp[:, None, scene_tables.LAMP] > 0, spread * window, (reach > 0).to(length.dtype))
    return cosine * share * torch.where(turned, ahead, 1.0), to


def _target(lamp: Tensor, sample: int) -> Tensor:  # [G, 3]
    u, v = jitter(sample)
    there = lamp[:, scene_tables.AT] + u * lamp[:, scene_tables.ACROSS] + v * lamp[:, scene_tables.ALONG]
    sun = lamp[:, scene_tables.LAMP, None] == 0
    return torch.where(sun, F.normalize(there, dim=-1), there)


def _unblocked(tables: Tables, scene: Tensor, lamp: Tensor, points: Tensor, got: Tensor, sample: int) -> Tensor:
    """1 where the light arrives, 0 in shadow; tiles that get next to none are not looked at."""
    bright = (got * lamp[:, None, scene_tables.INTENSITY].amax(-1) > _FAINT).any(-1).nonzero()[:, 0]
    result = torch.ones_like(got)
    if len(bright) == 0:
        return result
    spots = points[bright]
    used = got[bright] > 0
    there = _target(lamp, sample)[bright]
    kind = lamp[bright, scene_tables.LAMP]
    for find, chosen in ((tracing.towards_lamp, kind > 0), (tracing.towards_sun, kind == 0)):
        these = chosen.nonzero()[:, 0]
        if len(these) == 0:
            continue
        candidates = find(tables, scene[bright][these], spots[these], used[these], there[these])
        for group, need in candidates.groups(spots.shape[1]):
            tiles = these[group]
            shadow = tracing.blocked(tables, candidates, group, need, spots[tiles], there[tiles], kind[tiles])
            result[bright[tiles]] = 1 - shadow.to(result.dtype)
    return result


def _openness(tables: Tables, scene: Tensor, points: Tensor, normal: Tensor, hit: Tensor) -> Tensor:
    """How free the space in front of a surface is, 0..1: dark in corners and under things that stand on it."""
    centre, radius = _ball(points, hit)
    reach = max(step for step, _ in _CONTACT)
    candidates = tracing.near_balls(tables, scene, centre, radius + 2 * reach)
    result = torch.ones_like(points[..., 0])
    for tiles, need in candidates.groups(points.shape[1]):
        for step, weight in _CONTACT:
            free = tracing.closest(tables, candidates, tiles, need, points[tiles] + step * normal[tiles])
            result[tiles] -= weight * (1 - free / step).clamp(0, 1)
    return result.clamp_min(0.1)


def _ball(points: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
    """A ball around those points of each tile [G, n, 3] that are used [G, n]."""
    keep = used[..., None]
    low = torch.where(keep, points, math.inf).amin(1)
    high = torch.where(keep, points, -math.inf).amax(1)
    some = used.any(-1, keepdim=True)
    low, high = torch.where(some, low, 0.0), torch.where(some, high, 0.0)
    return (low + high) / 2, (high - low).norm(dim=-1) / 2
