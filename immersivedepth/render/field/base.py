"""What all kinds of fields share: a shell around what is known, marching, and views of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...geometry import sphere
from ...geometry.normals import normals_from_distance
from ..holes import close_holes
from ..layers import Layers, layers
from ..protocol import Camera, Frame, Pose
from .pool import Pool, Rays
from .shell import BLOCK, FINE, Samples, Shell, composed, distortion

CHUNK = 16384  # rays of a view at once
FIRST_BLOCKS = 4  # of those that a ray meets: most light ends there
SPENT = 0.01  # of the light: less is not followed further
OPAQUE = 0.5  # of the light, below which a ray has met nothing
THICK, STEEPEST = 2.5, 0.15  # half of a shell across the surface, in cells; least cosine that makes it longer
OPEN_SKY = 0.5  # share of sky in the panorama's pixels from which on light that is left comes from the sky


@dataclass(frozen=True)
class Taught:
    """What a field says on supervised rays."""

    colour: Tensor | None  # [R, 3]; None in the geometry phase
    distance: Tensor  # [R]
    distortion: Tensor  # [R]
    left: Tensor  # [R], light that met nothing


class Field(nn.Module):
    """A scene that is learnt. Geometry and appearance have parameters of their own."""

    fill = "harmonic"  # `mark` leaves open what the panorama did not show
    step = 0  # of training, for whoever asks what a film was made of

    def start(self, pool: Pool) -> None:
        """Make room for all that the pool shows, keep what is there, and begin new places from what is known."""
        raise NotImplementedError

    def geometry_parameters(self) -> list[nn.Parameter]:
        """What the geometry phase trains."""
        raise NotImplementedError

    def appearance_parameters(self) -> list[nn.Parameter]:
        """What the appearance phase trains."""
        raise NotImplementedError

    def teach(self, rays: Rays, generator: torch.Generator, appearance: bool) -> Taught:
        """What the rays show; in the appearance phase only colours have slopes."""
        raise NotImplementedError

    def render(self, pose: Pose, camera: Camera) -> Frame:
        """One view."""
        raise NotImplementedError


@runtime_checkable
class SceneSettings(Protocol):
    """A kind of field, as conf/scene chooses it."""

    rate: float  # share of the learning rate

    def field(self) -> Field:
        """An empty one."""
        ...


class MarchedField(Field):
    """A field of densities and colours at points, in a shell."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.shell: Shell
        self.views = 0
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(1, 1))  # of every vertex, whether the panorama showed it

    def density(self, points: Tensor) -> Tensor:  # [N, 3] -> [N]
        """Optical depth per cell."""
        raise NotImplementedError

    def colour(self, points: Tensor) -> Tensor:  # [N, 3] -> [N, 3]
        """Colours in 0..1."""
        raise NotImplementedError

    def begin(self, depth: Tensor, colour: Tensor) -> None:  # [N], [N, 3]
        """New vertices: their depth behind the surface in cells, and their colours."""
        raise NotImplementedError

    def start(self, pool: Pool) -> None:
        """The shell of the panorama, of what may lie behind its edges, and of the views beside it."""
        source = pool.source
        if not self.views:
            distance = source.distance[source.distance.isfinite() & (source.distance > 0)]
            self.shell = Shell(min(self.rows, source.distance.shape[-2]), float(distance.min()), float(distance.max()))
            self.shell.to(source.distance.device)
            self._sky(source.image, source.distance)
            rows = self.shell.rows  # a larger panorama takes part in the size of the grid
            image = sphere.resize_erp(source.image, rows, 2 * rows)
            whole = sphere.resize_erp(source.distance, rows, 2 * rows, "nearest")
            parts = layers(image, whole)
            finite = torch.where(whole.isfinite(), whole, 0.0)
            self._imprint(finite, image, sphere.resize_erp(source.normal, rows, 2 * rows, "nearest"), seen=True)
            back = torch.where(parts.hidden_distance < parts.dome / 2, parts.hidden_distance, 0.0)
            self._imprint(back, parts.hidden_image, self._hidden_normal(parts), seen=False)
            self.views = 1
        for view in pool.views[self.views :]:
            good = (view.mask & view.distance.isfinite() & (view.distance > 0))[0]
            rays = sphere.erp_rays(good.shape[0], good.shape[1], good.device)[good]
            points = view.position + rays * view.distance[0][good][:, None]
            self._scatter(points, view.image.permute(1, 2, 0)[good], view.normal.permute(1, 2, 0)[good])
        self.views = len(pool.views)

    @staticmethod
    def _hidden_normal(parts: Layers) -> Tensor:
        whole = torch.where(parts.hidden_distance > 0, parts.hidden_distance, parts.distance)
        return normals_from_distance(whole)

    def _sky(self, image: Tensor, distance: Tensor) -> None:
        sky = distance.isinf()
        if sky.any() and not sky.all():  # colours of the sky go on behind things by widening means
            camera = Camera("panorama", *distance.shape[-2:])
            image = close_holes(Frame(image, torch.ones_like(distance), sky), sky, camera).image
        self.sky_image, self.sky = image, sky.float()

    def _imprint(self, distance: Tensor, image: Tensor, normal: Tensor, seen: bool) -> None:
        """Vertices along the rays of the centre, as deep behind the surface as its normal says."""
        shell = self.shell
        rows, columns = shell.rows, shell.columns
        rays = sphere.erp_rays(rows, columns, distance.device)
        uv = sphere.rays_to_erp(rays)
        reach = sphere.sample_erp(distance, uv, "nearest")[..., 0]
        colour = sphere.resize_erp(image, rows, columns).permute(1, 2, 0)  # means over cells of larger pictures
        facing = sphere.sample_erp(normal, uv, "nearest")
        known = reach > 0
        cosine = (facing * rays).sum(-1).abs().clamp(STEEPEST, 1)
        centre = (reach.clamp_min(1e-9).log() - shell.low) / shell.cell
        j, i = torch.meshgrid(
            torch.arange(rows, device=reach.device), torch.arange(columns, device=reach.device), indexing="ij"
        )
        base = centre.floor().long()
        flats, depths, colours = [], [], []
        most = int(THICK / STEEPEST) + 2
        for shift in range(-most, most + 1):
            level = base + shift
            behind = (level - centre) * cosine
            use = known & (behind.abs() <= THICK + 0.5) & (level >= 0) & (level < shell.depths)
            flats.append(shell.flat(i[use], j[use], level[use]))
            depths.append(behind[use])
            colours.append(colour[use])
        self._enter(torch.cat(flats), torch.cat(depths), torch.cat(colours), seen)

    def _scatter(self, points: Tensor, colour: Tensor, normal: Tensor) -> None:
        """The 27 vertices around each point, as deep behind its plane."""
        shell = self.shell
        at = shell.place(points).round().long()
        flats, depths, colours = [], [], []
        for dk in (-1, 0, 1):
            for dj in (-1, 0, 1):
                for di in (-1, 0, 1):
                    column, row, level = (at + torch.tensor([di, dj, dk], device=at.device)).unbind(-1)
                    inside = (level >= 0) & (level < shell.depths)
                    flat = shell.flat(column, row, level)[inside]
                    offset = shell.vertex(flat) - points[inside]
                    size = points[inside].norm(dim=-1).clamp_min(1e-9) * shell.cell
                    flats.append(flat)
                    depths.append(-(offset * normal[inside]).sum(-1) / size)
                    colours.append(colour[inside])
        self._enter(torch.cat(flats), torch.cat(depths), torch.cat(colours), False)

    def _enter(self, flat: Tensor, depth: Tensor, colour: Tensor, seen: bool) -> None:
        """New vertices with the means of all that was said of them; those that exist stay as they are."""
        fresh = self.shell.index.flatten()[flat] == 0
        flat, depth, colour = flat[fresh], depth[fresh], colour[fresh]
        places = self.shell.add(flat)
        slot = torch.searchsorted(places, flat)
        sums = torch.zeros(len(places), 5, device=flat.device)
        sums.index_add_(0, slot, torch.cat([colour, depth[:, None], torch.ones_like(depth)[:, None]], 1))
        mean = sums[:, :4] / sums[:, 4:]
        self.seen = torch.cat([self.seen.to(flat.device), torch.full_like(mean[:, :1], float(seen))])
        self.begin(mean[:, 3], mean[:, :3])

    def teach(self, rays: Rays, generator: torch.Generator, appearance: bool) -> Taught:
        """Stratified samples; light that is left meets a random colour, so that nothing hides behind it."""
        jitter = torch.rand(len(rays), generator=generator).to(rays.origin)
        background = torch.rand(len(rays), 3, generator=generator).to(rays.origin)
        samples = self.shell.march(rays.origin, rays.direction, jitter)
        with torch.set_grad_enabled(not appearance and torch.is_grad_enabled()):
            weights, left = composed(self.density(samples.points), samples)
            along = torch.where(samples.valid, samples.along, 1.0)
            distance = (weights * along).sum(1) / (1 - left).clamp_min(1e-3)
            spread = distortion(weights, along, self.shell.cell * BLOCK / FINE)
        colour = None
        if appearance:
            colour = self._colours(samples, weights) + left[:, None] * background
        return Taught(colour, distance, spread, left)

    def _colours(self, samples: Samples, weights: Tensor) -> Tensor:  # [R, 3]
        ray, _ = samples.valid.nonzero(as_tuple=True)
        weight = weights[samples.valid]
        matters = weight > 1e-4
        tints = self.colour(samples.points[matters]) * weight[matters][:, None]
        return torch.zeros(len(weights), 3, device=weights.device).index_add(0, ray[matters], tints)

    def seen_share(self, points: Tensor) -> Tensor:  # [N, 3] -> [N]
        """How much of what is at points was shown by the panorama."""
        number, weight = self.shell.corners(points)
        return blend(self.seen, number, of_those(number, weight))[:, 0]

    def render(self, pose: Pose, camera: Camera) -> Frame:
        """One view; light that meets nothing comes from the sky or from a gap, which is filled from around."""
        device = self.shell.index.device
        turn, place = pose.rotation.to(device), pose.position.to(device)
        rays = camera.rays(device).flatten(0, 1) @ turn.T
        with torch.no_grad():
            parts = [self._look(place, chunk) for chunk in rays.split(CHUNK)]
        colour, distance, left, seen = (torch.cat(part) for part in zip(*parts, strict=True))
        uv = sphere.rays_to_erp(rays)
        sky = sphere.sample_erp(self.sky, uv)[:, 0]
        open_sky = sky > OPEN_SKY
        met = left < OPAQUE
        solid = colour / (1 - left).clamp_min(1e-3)[:, None]
        through = colour + left[:, None] * sphere.sample_erp(self.sky_image, uv)
        colour = torch.where(open_sky[:, None], through, solid)
        distance = torch.where(met, distance, torch.where(open_sky, torch.inf, 0.0))
        shape = (camera.height, camera.width)
        covered = (met | open_sky).reshape(1, *shape)
        seen = torch.where(met, seen > 0.5, open_sky).reshape(1, *shape)
        image = (colour * covered.reshape(-1, 1)).T.unflatten(1, shape)
        frame = Frame(image, distance.reshape(1, *shape), seen)
        if self.fill == "mark":
            return Frame(frame.image * seen, torch.where(seen, frame.distance, 0.0), seen)
        return close_holes(frame, covered, camera)

    def _look(self, place: Tensor, rays: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sums along rays: colour, mean distance, light left, share that was seen; most end in the first blocks."""
        sums, left = self._gathered(place, rays, slice(0, FIRST_BLOCKS))
        more = (left > SPENT).nonzero()[:, 0]
        if len(more):
            rest, behind = self._gathered(place, rays[more], slice(FIRST_BLOCKS, None))
            sums[more] += rest * left[more][:, None]
            left[more] *= behind
        total = (1 - left).clamp_min(1e-3)
        return sums[:, :3], sums[:, 4] / total, left, sums[:, 3] / total

    def _gathered(self, place: Tensor, rays: Tensor, part: slice) -> tuple[Tensor, Tensor]:  # [R, 5], [R]
        samples = self.shell.march(place.expand_as(rays), rays, None, part)
        weights, left = composed(self.density(samples.points), samples)
        ray, _ = samples.valid.nonzero(as_tuple=True)
        weight = weights[samples.valid]
        matters = weight > 1e-3
        points, share = samples.points[matters], weight[matters]
        row = torch.cat([self.colour(points), self.seen_share(points)[:, None]], 1) * share[:, None]
        sums = torch.zeros(len(rays), 4, device=rays.device).index_add_(0, ray[matters], row)
        along = torch.where(samples.valid, samples.along, 0.0)
        return torch.cat([sums, (weights * along).sum(1, keepdim=True)], 1), left


def blend(table: Tensor, number: Tensor, weight: Tensor) -> Tensor:  # [V, C], [N, 8], [N, 8] -> [N, C]
    """Weighted sums of rows."""
    return F.embedding_bag(number, table, per_sample_weights=weight, mode="sum")


def of_those(number: Tensor, weight: Tensor) -> Tensor:  # [N, 8], [N, 8] -> [N, 8]
    """Weights of the vertices that are there, which make one."""
    weight = weight * (number > 0)
    return weight / weight.sum(1, keepdim=True).clamp_min(1e-6)
