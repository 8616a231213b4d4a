"""The panorama as discs: one for each pixel, lying in its surface, as wide as its share of the sphere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import sphere
from ..geometry.normals import normals_from_distance
from . import raster
from .holes import close_holes
from .layers import Fill, layers
from .protocol import Camera, Frame, Pose

STEEPEST = 0.15  # least cosine between normal and ray that widens a disc; steeper ones are guesses
SOFT = 0.03  # discs so much behind the nearest, relatively, still add their colour
REACH = 2.0  # standard deviations to which a disc is drawn
WIDTH = 0.6  # standard deviation in pixels: neighbours overlap without blur


@dataclass(frozen=True)
class Splats:
    """Flat Gaussians in the world."""

    centre: Tensor  # [N, 3]
    axes: Tensor  # [N, 3, 3], columns: along, across, normal; unit
    sigma: Tensor  # [N, 2], standard deviations along and across
    colour: Tensor  # [N, 3] in 0..1


def splats(image: Tensor, distance: Tensor, normal: Tensor | None = None, keep: Tensor | None = None) -> Splats:
    """A disc for each known pixel (and kept): on its surface, and covering exactly what the pixel does."""
    height, width = distance.shape[-2:]
    good = (distance > 0) & distance.isfinite()
    good = (good if keep is None else good & keep)[0]
    # Columns crowd towards the poles: only one of several makes a disc there, so that all are about equally wide.
    step = (1 / sphere.latitudes(height).cos()).floor().clamp(1, width // 4).long().to(distance.device)
    good = good & (torch.arange(width, device=distance.device) % step[:, None] == 0)
    rays = sphere.erp_rays(height, width, distance.device)
    facing = normals_from_distance(distance) if normal is None else normal.to(distance)
    facing = facing.permute(1, 2, 0)
    facing = torch.where(facing.norm(dim=-1, keepdim=True) > 0.5, facing, -rays)[good]
    ray, reach, facing = rays[good], distance[0][good], F.normalize(facing, dim=-1)
    # Across the ray the disc is a pixel's width; along the tilt it is longer by 1 / cosine.
    cosine = -(facing * ray).sum(-1)
    facing = torch.where(cosine[:, None] < 0, -facing, facing)
    cosine = cosine.abs().clamp(STEEPEST, 1.0)
    tilt = ray + facing * (-(facing * ray).sum(-1))[:, None]  # the ray's part within the surface
    spare = torch.linalg.cross(facing, _other(facing))
    along = F.normalize(torch.where(tilt.norm(dim=-1, keepdim=True) > 1e-3, tilt, spare), dim=-1)
    across = torch.linalg.cross(facing, along)
    share = (sphere.solid_angles(height, width, distance.device) * step[:, None]).expand(height, width)[good].sqrt()
    sigma = WIDTH * reach * share
    colour = image.permute(1, 2, 0)[good]
    return Splats(
        ray * reach[:, None],
        torch.stack([along, across, facing], -1),
        torch.stack([sigma / cosine, sigma], -1),
        colour,
    )


class SplatScene:
    """Discs of the shown surface, and of the hidden one behind its edges."""

    def __init__(self, image: Tensor, distance: Tensor, normal: Tensor | None = None, fill: Fill = "harmonic") -> None:
        parts = layers(image, distance, fill)
        shown = splats(image, parts.distance, normal)
        hidden = splats(parts.hidden_image, parts.hidden_distance)
        self.fronts = len(shown.centre)
        both = [torch.cat(pair) for pair in zip(vars(shown).values(), vars(hidden).values(), strict=True)]
        self.splats, self.dome, self.fill = Splats(*both), parts.dome, fill

    def render(self, pose: Pose, camera: Camera) -> Frame:
        """One view."""
        return look(self.splats, self.fronts, self.dome, self.fill, pose, camera)


def look(own: Splats, fronts: int, dome: float, fill: Fill, pose: Pose, camera: Camera) -> Frame:
    """One view: the nearest disc of each pixel decides, those just behind it soften its colour."""
    place, turn = pose.position.to(own.centre), pose.rotation.to(own.centre)
    rays = camera.rays(own.centre.device).flatten(0, 1)
    centre = (own.centre - place) @ turn
    along, across, facing = (turn.T @ own.axes).unbind(-1)
    length = centre.norm(dim=-1).clamp_min(1e-9)
    offset = (centre * facing).sum(-1)
    cap = torch.atan(REACH * own.sigma.amax(-1) / length).clamp_max(math.pi / 4)
    scale = 1 / own.sigma

    def strike(thing: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
        """Distance and squared standard deviations from the centre."""
        reach = offset[thing] / (facing[thing] * ray).sum(-1)
        apart = ray * reach[:, None] - centre[thing]
        a = (apart * along[thing]).sum(-1) * scale[thing, 0]
        b = (apart * across[thing]).sum(-1) * scale[thing, 1]
        return reach, torch.where((reach > 0) & reach.isfinite(), a * a + b * b, torch.inf)

    def meet(thing: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
        reach, square = strike(thing, ray)
        return reach, square <= REACH**2

    nearest, number = raster.nearest(centre / length[:, None], cap, camera, rays, meet)
    sums = rays.new_zeros(len(rays), 6)  # colour, distance, shown weight, all weight
    for thing, pixel in raster.pairs(centre / length[:, None], cap, camera):
        reach, square = strike(thing, rays[pixel])
        near = (square <= REACH**2) & (reach <= nearest[pixel] * (1 + SOFT))
        thing, pixel, reach = thing[near], pixel[near], reach[near]
        # Narrow weights: the disc that is centred nearest to the ray decides most, as interpolation would.
        weight = torch.exp(-2 * square[near])
        row = torch.cat([own.colour[thing], reach[:, None], (thing < fronts).float()[:, None]], -1)
        sums.index_add_(0, pixel, torch.cat([row, torch.ones_like(reach)[:, None]], -1) * weight[:, None])
    met = number >= 0
    total = sums[:, 5:].clamp_min(1e-12)
    shape = (camera.height, camera.width)
    distance = torch.where(met, (sums[:, 3:4] / total)[:, 0], 0.0)
    distance = torch.where(distance > dome / 2, torch.inf, distance).reshape(1, *shape)
    image = torch.where(met[:, None], sums[:, :3] / total, 0.0).T.unflatten(1, shape)
    frame = Frame(image, distance, (met & (sums[:, 4] > 0.5 * sums[:, 5])).reshape(1, *shape))
    return frame if fill == "mark" else close_holes(frame, met.reshape(1, *shape), camera)


def _other(vector: Tensor) -> Tensor:
    """An axis that a unit vector is not along."""
    upright = vector[:, 2:].abs() > 0.9
    return torch.where(upright, vector.new_tensor([1.0, 0.0, 0.0]), vector.new_tensor([0.0, 0.0, 1.0]))
