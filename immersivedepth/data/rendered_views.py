"""Views of synthetic worlds that are rendered while a network trains on them: nothing is read and nothing is written.

Panoramas are the costly part, so a window of them slides along: each is drawn once, and views are cut out of it in
random directions until it leaves the window.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from ..checks import ConfigError, Range
from ..geometry import pinhole, sphere
from .photometric import photographed
from .samples import Batch
from .synthetic import KINDS, STYLES, erp_maps, make_world, repainted, standing_places

# Styles that no network is trained on: what it says of them tells how it carries over.
KEPT_OUT = {
    "room": ("mediterranean", "office"),
    "interior": ("mediterranean", "office"),
    "outdoor": ("harbour", "winter"),
}
_TRAINING_SEEDS, _VALIDATION_SEEDS = 1_000_000, 500_000  # benchmarks take seeds below both


@dataclass
class RenderedViews:
    """Square views [3, size, size] with their depth; the fields are the keys of its YAML."""

    shares: dict[str, float]  # of the kinds of worlds
    size: Annotated[int, Range(32, 1024)] = 168  # pixels of a side
    small: Annotated[int, Range(32, 1024)] = 84  # pixels of a side in the first batches
    small_batches: Annotated[int, Range(0)] = 0  # how many those are
    height: Annotated[int, Range(64, 2048)] = 384  # rows of the panoramas that views are cut from
    window: Annotated[int, Range(1)] = 64  # panoramas in memory
    views: Annotated[int, Range(1)] = 40  # cut from each in the mean
    fov: tuple[Annotated[float, Range(1, 179)], Annotated[float, Range(1, 179)]] = (55.0, 105.0)  # degrees
    roll: Annotated[float, Range(0, 180)] = 6.0  # degrees, standard deviation
    strength: Annotated[float, Range(0, 2)] = 1.0  # of what cameras do to pictures; 0: nothing
    repaint: Annotated[float, Range(0, 1)] = 0.0  # largest share of a training world's materials that are changed
    validation: Annotated[int, Range(1)] = 24  # panoramas of styles kept out, four views of each
    seed: Annotated[int, Range(0)] = 0

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.shares if kind not in KINDS]
        if unknown or not self.shares or min(self.shares.values()) < 0 or not sum(self.shares.values()):
            raise ConfigError(f"dataset.shares: expected shares of {', '.join(KINDS)}, got {self.shares}")

    def stream(self) -> ViewStream:
        """Endless training views."""
        return ViewStream(self)

    def fixed(self) -> FixedViews:
        """Validation views: styles kept out, always the same ones."""
        return FixedViews(self)


@dataclass(frozen=True)
class Pool:
    """A panorama on its way to be cut up."""

    image: Tensor  # [3, H, W], uint8
    distance: Tensor  # [H, W], metres, inf for sky


def drawn(data: RenderedViews, number: int, *, kept_out: bool = False) -> Pool:
    """The panorama of that number."""
    random = np.random.default_rng([data.seed, number, kept_out, 1])
    kinds = sorted(data.shares)
    weights = np.array([data.shares[k] for k in kinds])
    kind = str(random.choice(kinds, p=weights / weights.sum()))
    apart = KEPT_OUT.get(kind, ())
    styles = [s for s in STYLES.get(kind, ()) if (s in apart) == kept_out]
    seed = (_VALIDATION_SEEDS if kept_out else _TRAINING_SEEDS) + number
    world = make_world(kind, seed, str(random.choice(styles)) if styles else None)
    if world.free:
        world = world.at(standing_places(world, seed, 1)[0])
    if data.repaint and not kept_out:
        # Some worlds stay as they are made, the others change more or less.
        world = repainted(world, random, data.repaint * min(1.0, 1.5 * random.random()))
    maps = erp_maps(world, data.height, 2 * data.height)
    assert maps.image is not None
    return Pool((maps.image.clamp(0, 1) * 255).round().to(torch.uint8), maps.distance[0])


def cut(pools: Sequence[Pool], random: np.random.Generator, data: RenderedViews, side: int) -> Batch:
    """One view of each panorama, of that many pixels a side, in a random direction, before any camera spoilt it."""
    n = len(pools)
    forward = torch.as_tensor(random.normal(size=(n, 3)), dtype=torch.float32)
    half = np.radians(random.uniform(*data.fov, n)) / 2
    tan = torch.as_tensor(np.tan(half), dtype=torch.float32)
    roll = torch.as_tensor(np.radians(random.normal(0, data.roll, n)), dtype=torch.float32)
    mirrored = torch.as_tensor(np.where(random.random(n) < 0.5, -1.0, 1.0), dtype=torch.float32)
    c, s, zero = roll.cos(), roll.sin(), torch.zeros(n)
    about = torch.stack([c * mirrored, -s, zero, s * mirrored, c, zero, zero, zero, zero + 1], -1).reshape(n, 3, 3)
    rays = pinhole.view_rays(pinhole.look_along(forward) @ about, tan, side)
    uv = sphere.rays_to_erp(rays).to(pools[0].image.device)
    images, depths = [], []
    for pool, at, ray in zip(pools, uv, rays, strict=True):
        images.append(sphere.sample_erp(pool.image.float() / 255, at).movedim(-1, 0))
        h, w = pool.distance.shape
        row, column = (at[..., 1] * h).long().clamp(0, h - 1), (at[..., 0] * w).long() % w
        depths.append(pool.distance[row, column] / ray.norm(dim=-1).to(at))
    depth = torch.stack(depths)[:, None]
    sky = depth.isinf()
    return {
        "image": torch.stack(images),
        "depth": torch.where(sky, 0.0, depth),
        "disparity": torch.where(sky, 0.0, 1 / depth.clamp_min(1e-3)),
        "sky": sky,
    }


class ViewStream:
    """Training batches, each a function of its number alone, so that a continued run sees the same."""

    def __init__(self, data: RenderedViews) -> None:
        self.data = data
        self.pools: OrderedDict[tuple[int, str], Pool] = OrderedDict()

    def batch(self, number: int, size: int, device: torch.device) -> Batch:
        """The batch of that number, on the device."""
        data = self.data
        random = np.random.default_rng([data.seed, number, 2])
        first = number * size // data.views
        chosen = first + random.choice(data.window, size, replace=size > data.window)
        side = data.small if number < data.small_batches else data.size
        batch = cut([self._pool(int(i), device) for i in chosen], random, data, side)
        return {**batch, "image": photographed(batch["image"], random, data.strength)}

    def _pool(self, number: int, device: torch.device) -> Pool:
        key = (number, str(device))
        if key not in self.pools:
            fresh = drawn(self.data, number)
            self.pools[key] = Pool(fresh.image.to(device), fresh.distance.to(device))
            while len(self.pools) > 2 * self.data.window:
                self.pools.popitem(last=False)
        return self.pools[key]


class FixedViews:
    """Views of styles that are kept out of training, each with a mild touch of a camera."""

    def __init__(self, data: RenderedViews) -> None:
        self.data = data
        self.pools: dict[int, Pool] = {}

    def __len__(self) -> int:
        return 4 * self.data.validation

    def sample(self, index: int, random: np.random.Generator) -> Batch:
        """One view; always the same of an index."""
        number = index // 4
        if number not in self.pools:
            self.pools[number] = drawn(self.data, number, kept_out=True)
        own = np.random.default_rng([self.data.seed, index, 3])
        batch = cut([self.pools[number]], own, self.data, self.data.size)
        batch["image"] = photographed(batch["image"], own, min(0.3, self.data.strength))
        return {name: value[0] for name, value in batch.items()}
