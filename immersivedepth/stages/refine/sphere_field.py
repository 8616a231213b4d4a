"""Distances as a function of direction: a hash grid in the cube around the sphere, with neither pole nor seam."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import Range
from ...geometry import sphere
from ...geometry.normals import normals_from_distance, trust
from ...scene import Geometry, Panorama
from .normals import face_camera

log = logging.getLogger(__name__)

_PRIMES = (1, 2654435761, 805459861)  # of the spatial hash of instant-ngp
_FEATURES, _HIDDEN = 2, 64
_DISTANCE_BETA, _NORMAL_BETA = 0.01, 0.5  # where SmoothL1 turns from square to straight
_LAST_RATE = 0.01  # of the learning rate, at the end of its cosine
_CHUNK = 1 << 17  # directions at once when the field is read


@dataclass
class SphereField:
    """Fits a field to the distances and, where they are known, the normals (PeRF's PanoGeoRefiner, pure torch).

    The original's settings are steps=5000, rays=32768, levels=16, table=19, finest=4096, normal_weight=0.05: for a GPU.
    Normals and a coarse grid keep the field from following the noise of the distances.
    """

    steps: Annotated[int, Range(1)] = 300
    rays: Annotated[int, Range(16)] = 2048
    levels: Annotated[int, Range(1, 32)] = 10
    table: Annotated[int, Range(8, 24)] = 16
    coarsest: Annotated[int, Range(2, 512)] = 16
    finest: Annotated[int, Range(2, 16384)] = 256
    learning_rate: Annotated[float, Range(1e-6, 1)] = 0.01
    normal_weight: Annotated[float, Range(0, 10)] = 0.5
    seed: Annotated[int, Range(0)] = 0

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry:
        """Optimise, then read the field along all rays."""
        with torch.inference_mode(False), torch.enable_grad():
            distance = geometry.distance.clone()
            normal = None if geometry.normal is None else geometry.normal.clone()
            found, loss = self._fit(distance, normal)
        known = distance.isfinite() & (distance > 0)
        report = {**geometry.report, "sphere_field": {"steps": self.steps, "loss": round(loss, 6)}}
        return replace(geometry, distance=torch.where(known, found, distance), report=report)

    def _fit(self, distance: Tensor, normal: Tensor | None) -> tuple[Tensor, float]:
        height, width = distance.shape[-2:]
        device = distance.device
        known = (distance.isfinite() & (distance > 0))[0]
        scale = distance[0][known].median().log() if known.any() else torch.zeros((), device=device)
        target = torch.where(known, distance[0], 1.0).log() - scale
        facing = face_camera(normals_from_distance(distance) if normal is None else normal).permute(1, 2, 0)
        smooth = trust(torch.where(known, distance[0], 1.0)[None])[0]
        generator = torch.Generator().manual_seed(self.seed)
        field = Field(self.levels, self.table, self.coarsest, self.finest, generator).to(device)
        rate = lambda step: _LAST_RATE + (1 - _LAST_RATE) * (1 + math.cos(math.pi * step / self.steps)) / 2  # noqa: E731
        optimizer = torch.optim.Adam(field.parameters(), self.learning_rate, betas=(0.9, 0.99), eps=1e-15)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        rays = sphere.erp_rays(height, width, device)
        pitch = math.pi / height
        loss = torch.zeros(())
        for _ in range(self.steps):
            # Pixels by area: even over the sphere.
            row = (torch.rand(self.rays, generator=generator) * 2 - 1).acos() / math.pi * height
            column = torch.rand(self.rays, generator=generator) * width
            at = row.long().clamp(0, height - 1).to(device), column.long().clamp(0, width - 1).to(device)
            ray, weight = rays[at], known[at].to(distance)
            value, slope = field.with_normals(ray, pitch, generator)
            loss = (F.smooth_l1_loss(value, target[at], beta=_DISTANCE_BETA, reduction="none") * weight).mean()
            if self.normal_weight:
                off = F.smooth_l1_loss(slope, facing[at], beta=_NORMAL_BETA, reduction="none").sum(-1)
                there = weight * smooth[at] * (facing[at].abs().sum(-1) > 0)
                loss = loss + self.normal_weight * (off * there).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            parts = [field(part) for part in rays.reshape(-1, 3).split(_CHUNK)]
        return (torch.cat(parts).reshape(1, height, width) + scale).exp(), float(loss.detach())


class Field(nn.Module):
    """Log distance of any direction."""

    def __init__(self, levels: int, table: int, coarsest: int, finest: int, generator: torch.Generator) -> None:
        super().__init__()
        growth = (finest / coarsest) ** (1 / max(1, levels - 1))
        sides = torch.tensor([math.floor(coarsest * growth**level) for level in range(levels)])
        corners = torch.tensor([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
        self.size = 2**table
        self.sides: Tensor
        self.corners: Tensor
        self.register_buffer("sides", sides)
        self.register_buffer("corners", corners)
        start = (torch.rand(levels * self.size, _FEATURES, generator=generator) * 2 - 1) * 1e-4
        self.features = nn.Parameter(start)
        wide = 3 + levels * _FEATURES
        first, last = torch.empty(_HIDDEN, wide), torch.empty(1, _HIDDEN)
        for weight in (first, last):
            bound = math.sqrt(3 / weight.shape[1])
            weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) * bound)
        self.first, self.last = nn.Parameter(first), nn.Parameter(last * 0.1)
        self.bias, self.offset = nn.Parameter(torch.zeros(_HIDDEN)), nn.Parameter(torch.zeros(1))

    def forward(self, rays: Tensor) -> Tensor:  # [N, 3] -> [N]
        """Log distance relative to the median."""
        inside = F.softplus(F.linear(torch.cat([rays, self._grid(rays)], dim=-1), self.first, self.bias), beta=100)
        return F.linear(inside, self.last, self.offset)[:, 0]

    def with_normals(
        self, rays: Tensor, pitch: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:  # [N, 3] -> [N], [N, 3]
        """Log distance, and the normal of the surface through it and two points one pitch away, at random sides.

        Differences instead of derivatives: no second pass backwards through the grid, and gaps of one pixel are seen.
        """
        turn = (torch.rand(len(rays), generator=generator) * 2 * math.pi).to(rays)
        helper = torch.where(rays[:, 2:].abs() < 0.9, rays.new_tensor([0.0, 0, 1]), rays.new_tensor([1.0, 0, 0]))
        a = F.normalize(torch.linalg.cross(helper, rays), dim=-1)
        b = torch.linalg.cross(rays, a)
        sides = [turn.cos()[:, None] * a + turn.sin()[:, None] * b, turn.cos()[:, None] * b - turn.sin()[:, None] * a]
        around = [F.normalize(rays + pitch * side, dim=-1) for side in sides]
        every = self(torch.cat([rays, *around]))
        here, first, second = (every[:, None].exp() * torch.cat([rays, *around])).split(len(rays))
        normal = F.normalize(torch.linalg.cross(first - here, second - here), dim=-1)
        away = (normal * rays).sum(-1, keepdim=True) > 0
        return every[: len(rays)], torch.where(away, -normal, normal)

    def _grid(self, rays: Tensor) -> Tensor:  # [N, 3] -> [N, levels * features]
        place = (rays * 0.49 + 0.49)[:, None] * self.sides[:, None]  # [N, L, 3]
        cell = place.detach().floor()
        share = place - cell
        share = share * share * (3 - 2 * share)
        corner = cell.long()[:, :, None] + self.corners  # [N, L, 8, 3]
        dense = (self.sides + 1) ** 3 <= self.size
        side = (self.sides + 1)[:, None]
        direct = (corner[..., 0] * side + corner[..., 1]) * side + corner[..., 2]
        hashed = corner[..., 0] * _PRIMES[0] ^ corner[..., 1] * _PRIMES[1] ^ corner[..., 2] * _PRIMES[2]
        index = torch.where(dense[:, None], direct, hashed % self.size)
        index = index + (torch.arange(len(self.sides), device=rays.device) * self.size)[:, None]
        weight = torch.where(self.corners.bool(), share[:, :, None], 1 - share[:, :, None]).prod(-1)  # [N, L, 8]
        found = F.embedding(index, self.features)  # [N, L, 8, features]
        return (found * weight[..., None]).sum(2).flatten(1)
