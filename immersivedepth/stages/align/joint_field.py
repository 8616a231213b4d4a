"""The joint optimisation of the first version of this software, kept as the historical baseline."""

import math
from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import Range
from ...geometry import pinhole
from ...scene import Aligned, Prediction
from .anchors import Anchors
from .identity import Identity


class HashSphere(nn.Module):
    """Distance by direction: a small network on features from hashed grids of many resolutions (Mueller 2022)."""

    def __init__(self, levels: int, log_size: int, generator: torch.Generator) -> None:
        super().__init__()
        growth = 128 ** (1 / max(levels - 1, 1))  # from 16 to 2048 cells
        self.sides = [int(16 * growth**level) for level in range(levels)]
        self.table = nn.Parameter((torch.rand(levels, 2**log_size, 2, generator=generator) * 2 - 1) * 1e-4)
        wide = 3 + 2 * levels
        layers = [nn.Linear(wide, 64), nn.Linear(64, 64), nn.Linear(64, 1)]
        for layer in layers:
            bound = 1 / math.sqrt(layer.in_features)
            layer.weight.data = (torch.rand(layer.weight.shape, generator=generator) * 2 - 1) * bound
            layer.bias.data.zero_()
        self.layers = nn.ModuleList(layers)

    def forward(self, rays: Tensor) -> Tensor:  # [N, 3] -> [N]
        place = 0.49 * rays + 0.49
        features = [rays]
        size = self.table.shape[1]
        corner = torch.tensor([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], device=rays.device)
        primes = torch.tensor([1, 2654435761, 805459861], device=rays.device)
        for level, side in enumerate(self.sides):
            at = place * side
            low = at.floor()
            part = (at - low)[:, None]
            cell = low.long()[:, None] + corner  # [N, 8, 3]
            hashed = cell * primes
            index = (hashed[..., 0] ^ hashed[..., 1] ^ hashed[..., 2]) % size
            weight = torch.where(corner.bool(), part, 1 - part).prod(-1, keepdim=True)
            features.append((self.table[level][index] * weight).sum(1))
        x = torch.cat(features, dim=-1)
        x = F.relu(self.layers[1](F.relu(self.layers[0](x))))
        return F.softplus(self.layers[2](x)[:, 0] + 1)


@dataclass
class JointField:
    """Adam on a hash-grid field, a scale per view and a bias per pixel; scales only first.

    For comparison with the past: no metric distances survive it, and its scales act on distance although the networks
    predict disparity up to a shift. Use global_affine or grid_affine.
    """

    steps: Annotated[int, Range(1)] = 1500  # of each of the two phases
    rays: Annotated[int, Range(1)] = 256  # of each view in a step
    levels: Annotated[int, Range(1, 16)] = 16  # of the hash grid
    log_size: Annotated[int, Range(8, 24)] = 19  # of each level's table, as a power of two
    rate: Annotated[float, Range(1e-6, 1)] = 1e-2  # of learning
    seed: Annotated[int, Range(0)] = 0
    anchors: Anchors = field(default_factory=Anchors)

    def __call__(self, prediction: Prediction) -> Aligned:
        """Optimise, then let every view report the field instead of its own map."""
        start = Identity()(prediction)
        rig, device = prediction.rig, prediction.values.device
        views, resolution = len(rig), rig.resolution
        with torch.no_grad():
            known = (start.weight[:, 0] > 0) & start.distance[:, 0].isfinite()
            distance = torch.where(known, start.distance[:, 0], 1.0)  # sky times a weight of 0 would be no number
            for row, ok in zip(distance, known, strict=True):
                row /= row[ok].median() if bool(ok.any()) else 1.0
            rays = F.normalize(pinhole.view_rays(rig.rotation, rig.tan_half_fov, resolution), dim=-1)
        with torch.enable_grad():
            model, loss = self._fit(distance.flatten(1), known.flatten(1), rays.flatten(1, 2), resolution)
        with torch.no_grad():
            parts = [model(r) for r in rays.reshape(-1, 3).split(1 << 16)]
            fitted = torch.cat(parts).reshape(views, 1, resolution, resolution)
        weight = start.weight * known[:, None]
        factor = self.anchors.log_factor(fitted[:, 0], weight[:, 0], rig)
        metric = factor is not None
        if factor is not None:
            fitted = fitted * math.exp(factor)
        if prediction.sky is not None:
            fitted = fitted.masked_fill(prediction.sky, torch.inf)
            weight = torch.where(prediction.sky, start.weight, weight)
        report = {"align": "joint_field", "loss": loss, "steps": 2 * self.steps, "device": str(device)}
        return Aligned(fitted, rig, weight, metric, prediction.normal, report)

    def _fit(self, distance: Tensor, known: Tensor, rays: Tensor, resolution: int) -> tuple[HashSphere, float]:
        generator = torch.Generator().manual_seed(self.seed)
        device, views = distance.device, len(distance)
        model = HashSphere(self.levels, self.log_size, generator).to(device)
        scale = nn.Parameter(torch.full((views, 1), math.log(math.e - 1), device=device))  # softplus of it is 1
        bias = nn.Parameter(torch.zeros(views, resolution, resolution, device=device))
        adam = torch.optim.Adam([*model.parameters(), scale, bias], lr=self.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 2 * self.steps)
        last = math.nan
        for step in range(2 * self.steps):
            pick = torch.randint(distance.shape[1], (views, self.rays), generator=generator).to(device)
            target = F.softplus(scale) * distance.gather(1, pick)
            if step >= self.steps:
                target = target + bias.flatten(1).gather(1, pick)
            found = model(rays.gather(1, pick[..., None].expand(-1, -1, 3)).reshape(-1, 3)).reshape(target.shape)
            loss = (F.huber_loss(found, target, reduction="none", delta=0.5) * known.gather(1, pick)).mean()
            loss = loss + 0.1 * (F.softplus(scale).mean() - 1) ** 2
            if step >= self.steps:
                rough = (bias[:, 1:] - bias[:, :-1]).square().mean() + (bias[..., 1:] - bias[..., :-1]).square().mean()
                loss = loss + rough
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            schedule.step()
            last = float(loss.detach())
        return model, last
