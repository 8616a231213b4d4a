"""Splats that are learnt: discs begun from the panorama, moved along their rays, resized and recoloured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from ...checks import Range
from .. import raster
from ..layers import layers
from ..protocol import Camera, Frame, Pose
from ..splats import REACH, SOFT, Splats, look, splats
from .base import Field, Taught
from .pool import Known, Pool, Rays

SPARE = 1.5  # times what counts now: discs that may come to count while they move


@dataclass
class Splat:
    """conf/scene/splat.yaml."""

    rate: Annotated[float, Range(0)] = 0.1  # of the learning rate: they begin near their end

    def field(self) -> SplatField:
        """None yet."""
        return SplatField()


@dataclass(frozen=True)
class Meetings:
    """Which discs each pixel of a view may meet, pixel by pixel."""

    disc: Tensor  # [P]
    first: Tensor  # [H W], where a pixel's discs begin
    count: Tensor  # [H W]


class SplatField(Field):
    """Discs, and for every view of the pool which of them its rays can meet."""

    def __init__(self) -> None:
        super().__init__()
        self.push = nn.Parameter(torch.zeros(0))  # logarithm of how much farther from its view a disc has moved
        self.size = nn.Parameter(torch.zeros(0, 2))  # logarithm of how much larger it has become
        self.tint = nn.Parameter(torch.zeros(0, 3))
        self.views = 0
        self.meetings: list[Meetings] = []

    def start(self, pool: Pool) -> None:
        """Discs of the panorama, of what may lie behind its edges, and of the views beside it."""
        source = pool.source
        if not self.views:
            parts = layers(source.image, source.distance)
            shown = splats(source.image, parts.distance, source.normal)
            hidden = splats(parts.hidden_image, parts.hidden_distance)
            self.fronts, self.dome = len(shown.centre), parts.dome
            self.begun, self.origin = shown, torch.zeros_like(shown.centre)
            self.tint = nn.Parameter(shown.colour.clone())
            self._join(hidden, torch.zeros(3))
        for view in pool.views[max(self.views, 1) :]:
            own = splats(view.image, view.distance, view.normal, view.mask)
            place = view.position.to(own.centre)
            self._join(Splats(own.centre + place, own.axes, own.sigma, own.colour), place)
        self.views = len(pool.views)
        with torch.no_grad():
            self.meetings = [self._meet(view) for view in pool.views]

    def _join(self, new: Splats, place: Tensor) -> None:
        both = [torch.cat(pair) for pair in zip(vars(self.begun).values(), vars(new).values(), strict=True)]
        self.begun = Splats(*both)
        self.origin = torch.cat([self.origin, place.to(self.origin).expand_as(new.centre)])
        more = len(self.origin) - len(self.push)
        self.push = nn.Parameter(torch.cat([self.push.data.to(new.centre), new.centre.new_zeros(more)]))
        self.size = nn.Parameter(torch.cat([self.size.data.to(new.centre), new.centre.new_zeros(more, 2)]))
        self.tint = nn.Parameter(torch.cat([self.tint.data.to(new.centre), new.colour]))

    def splats(self) -> Splats:
        """As they are now."""
        centre = self.origin + (self.begun.centre - self.origin) * self.push.exp()[:, None]
        return Splats(centre, self.begun.axes, self.begun.sigma * self.size.exp(), self.tint.clamp(0, 1))

    def geometry_parameters(self) -> list[nn.Parameter]:
        """Places and sizes."""
        return [self.push, self.size]

    def appearance_parameters(self) -> list[nn.Parameter]:
        """Colours."""
        return [self.tint]

    def _meet(self, view: Known) -> Meetings:
        """All discs near the nearest one of each pixel."""
        height, width = view.distance.shape[-2:]
        camera = Camera("panorama", height, width)
        # As they were begun, not as they are: a continued run must find the same ones.
        now, rays = self.begun, camera.rays(view.image.device).flatten(0, 1)
        centre = now.centre - view.position.to(now.centre)
        length = centre.norm(dim=-1).clamp_min(1e-9)
        cap = torch.atan(REACH * SPARE * now.sigma.amax(-1) / length).clamp_max(math.pi / 4)
        unit = centre / length[:, None]

        def strikes(thing: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
            reach, square = _strike(now, centre, thing, ray)
            return reach, square <= REACH**2

        nearest, _ = raster.nearest(unit, cap, camera, rays, strikes)
        discs, pixels = [], []
        for thing, pixel in raster.pairs(unit, cap, camera):
            reach, square = _strike(now, centre, thing, rays[pixel])
            near = (square <= (REACH * SPARE) ** 2) & (reach <= nearest[pixel] * (1 + SOFT * SPARE))
            discs.append(thing[near])
            pixels.append(pixel[near])
        pixel, order = torch.cat(pixels).sort(stable=True)
        count = torch.bincount(pixel, minlength=height * width)
        return Meetings(torch.cat(discs)[order], count.cumsum(0) - count, count)

    def teach(self, rays: Rays, generator: torch.Generator, appearance: bool) -> Taught:
        """Weighted means over the discs that each ray meets, as they are drawn."""
        disc, ray = self._chosen(rays)
        now = self.splats()
        with torch.set_grad_enabled(not appearance and torch.is_grad_enabled()):
            direction, origin = rays.direction[ray], rays.origin[ray]
            reach, square = _strike(now, now.centre, disc, direction, origin)
            good = square.isfinite()
            weight = torch.where(good, torch.exp(-2 * torch.where(good, square, 0.0)), 0.0)
            reach = torch.where(good, reach, 1.0)
            total = self._sum(weight, ray, len(rays))
            distance = self._sum(weight * reach, ray, len(rays)) / total.clamp_min(1e-9)
            apart = (reach / distance[ray].clamp_min(1e-9)).clamp_min(1e-9).log()
            spread = self._sum(weight * apart.square(), ray, len(rays)) / total.clamp_min(1e-9)
            met = total > 1e-6
            distance = torch.where(met, distance, rays.distance)  # nothing is met, so nothing can be corrected
        colour = None
        if appearance:
            share = (weight / total.clamp_min(1e-9)[ray]).detach()
            sums = torch.zeros(len(rays), 3, device=share.device).index_add(0, ray, now.colour[disc] * share[:, None])
            colour = torch.where(met[:, None], sums, rays.colour)
        return Taught(colour, distance, spread, (~met).float())

    def _chosen(self, rays: Rays) -> tuple[Tensor, Tensor]:
        discs, numbers = [], []
        for number, meetings in enumerate(self.meetings):
            mine = (rays.view == number).nonzero()[:, 0]
            count, first = meetings.count[rays.pixel[mine]], meetings.first[rays.pixel[mine]]
            ray = torch.repeat_interleave(mine, count)
            step = torch.arange(len(ray), device=ray.device) - torch.repeat_interleave(count.cumsum(0) - count, count)
            discs.append(meetings.disc[torch.repeat_interleave(first, count) + step])
            numbers.append(ray)
        return torch.cat(discs), torch.cat(numbers)

    @staticmethod
    def _sum(values: Tensor, ray: Tensor, count: int) -> Tensor:
        return torch.zeros(count, device=values.device).index_add(0, ray, values)

    def render(self, pose: Pose, camera: Camera) -> Frame:
        """One view."""
        with torch.no_grad():
            frame = look(self.splats(), self.fronts, self.dome, "harmonic", pose, camera)
        if self.fill == "mark":
            return Frame(frame.image * frame.seen, torch.where(frame.seen, frame.distance, 0.0), frame.seen)
        return frame


def _strike(
    now: Splats, centre: Tensor, thing: Tensor, ray: Tensor, origin: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Distance along rays, and squared standard deviations from the centres."""
    middle = centre[thing] if origin is None else centre[thing] - origin
    along, across, facing = now.axes[thing].unbind(-1)
    level = (facing * ray).sum(-1)
    good = level.abs() > 1e-6
    reach = (middle * facing).sum(-1) / torch.where(good, level, 1.0)
    apart = ray * reach[:, None] - middle
    a = (apart * along).sum(-1) / now.sigma[thing, 0]
    b = (apart * across).sum(-1) / now.sigma[thing, 1]
    return reach, torch.where(good & (reach > 0), a * a + b * b, torch.inf)
