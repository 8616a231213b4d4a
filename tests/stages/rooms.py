"""A room with a few things in it, by closed formulas: distance, normals, things and colours along any rays."""

import math

import torch
import torch.nn.functional as F

from immersivedepth.geometry import filters, sphere
from immersivedepth.scene import Geometry, Hits, Panorama

HALF = torch.tensor([2.5, 2.0, 1.5])  # of the room, the camera in its middle
BALLS = {  # centre, radius; one across the seam, one straight above the camera
    7: ((-1.4, 0.0, -0.3), 0.5),
    8: ((0.05, -0.05, 1.0), 0.3),
    9: ((1.2, -1.1, -0.6), 0.35),
}
BOXES = {10: ((1.4, 0.9, -1.0), (0.4, 0.4, 0.5))}  # centre, half sides; it stands on the floor
WALLS = range(1, 7)


class Room:
    """The six walls are things 1 to 6."""

    def __init__(self, furnished=True):
        self.furnished = furnished

    def trace(self, rays):
        w = F.normalize(rays, dim=-1)
        t = HALF / w.abs().clamp_min(1e-12)
        distance, axis = t.min(-1)
        normal = -F.one_hot(axis, 3) * w.sign()
        thing = 1 + 2 * axis + (w.gather(-1, axis[..., None])[..., 0] > 0)
        for number, (centre, radius) in BALLS.items() if self.furnished else ():
            c = torch.tensor(centre)
            along = w @ c
            inside = along**2 - c.square().sum() + radius**2
            hit = along - inside.clamp_min(0).sqrt()
            met = (inside > 0) & (hit > 0) & (hit < distance)
            distance, thing = torch.where(met, hit, distance), torch.where(met, number, thing)
            normal = torch.where(met[..., None], (hit[..., None] * w - c) / radius, normal)
        for number, (centre, half) in BOXES.items() if self.furnished else ():
            c, h = torch.tensor(centre), torch.tensor(half)
            near, far = (c - h) / w, (c + h) / w
            enter, side = torch.minimum(near, far).max(-1)
            leave = torch.maximum(near, far).min(-1).values
            met = (enter < leave) & (enter > 0) & (enter < distance)
            distance, thing = torch.where(met, enter, distance), torch.where(met, number, thing)
            normal = torch.where(met[..., None], -F.one_hot(side, 3) * w.sign(), normal)
        hue = thing[..., None] * torch.tensor([0.9, 1.7, 2.3])
        shade = 0.6 + 0.4 * (normal @ F.normalize(torch.tensor([0.3, 0.5, 0.8]), dim=0))
        colour = (0.5 + 0.35 * hue.sin()) * shade[..., None].clamp(0.3, 1)
        return Hits(distance, normal.float(), thing, torch.zeros_like(thing, dtype=torch.bool), colour)


def panorama(height, furnished=True):
    """The picture of the room, with its truth."""
    room = Room(furnished)
    hits = room.trace(sphere.erp_rays(height, 2 * height))
    return Panorama(hits.colour.permute(2, 0, 1).contiguous(), name="room", truth=room)


def truth(height, furnished=True):
    """Hits along the pixels of a panorama."""
    return Room(furnished).trace(sphere.erp_rays(height, 2 * height))


def geometry(distance, normal=None, **more):
    """A geometry of a distance [H, W], all of it trusted."""
    distance = distance[None]
    return Geometry(distance, distance.isfinite() & (distance > 0), normal=normal, **more)


def noisy(distance, amount, seed=0):
    """Relative noise of every pixel."""
    noise = torch.randn(distance.shape, generator=torch.Generator().manual_seed(seed))
    return distance * (amount * noise).exp()


def soft(distance, degrees):
    """Edges as networks draw them: inverse distance, blurred."""
    return 1 / filters.blur(1 / distance[None], math.radians(degrees))[0]


def abs_rel(found, true, where=None):
    """Mean relative error by area after one common factor."""
    found = found[0] if found.ndim == 3 else found
    area = sphere.solid_angles(*true.shape).expand(true.shape)
    where = torch.ones_like(true, dtype=torch.bool) if where is None else where
    ratio = (found / true)[where]
    ratio = ratio / ratio.median()
    return float(((ratio - 1).abs() * area[where]).sum() / area[where].sum())


def degrees_between(a, b):  # [3, H, W], [H, W, 3] -> [H, W]
    """Angle between normals."""
    cross = torch.linalg.cross(a.permute(1, 2, 0), b, dim=-1).norm(dim=-1)
    return torch.rad2deg(torch.atan2(cross, (a.permute(1, 2, 0) * b).sum(-1)))


def away_from_edges(hits, pixels):
    """Pixels around which, so far, all is one wall or one smooth thing."""
    same = torch.ones_like(hits.instance, dtype=torch.bool)
    for dy in range(-pixels, pixels + 1):
        for dx in range(-pixels, pixels + 1):
            padded = filters.over_poles(torch.cat([hits.instance[None].float(), hits.normal.permute(2, 0, 1)]), pixels)
            moved = padded[:, pixels + dy : pixels + dy + same.shape[0]].roll(dx, -1)
            same &= (moved[0] == hits.instance) & ((moved[1:] * hits.normal.permute(2, 0, 1)).sum(0) > 0.8)
    return same
