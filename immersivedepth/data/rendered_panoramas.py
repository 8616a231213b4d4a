"""Panoramas of synthetic worlds with what a pipeline says of them at first, rendered while a network learns to mend it.

As in rendered_views a window slides along: each panorama is drawn and looked at once, and used several times.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ..checks import Range
from ..geometry.normals import normals_from_distance, to_local, trust
from ..scene import Geometry, Panorama
from .photometric import photographed
from .rendered_views import RenderedViews, drawn
from .samples import Batch

_MILD = 0.3  # strength of the camera in validation


class Looking(Protocol):
    """The stages as far as the views go."""

    def __call__(self, panorama: Panorama) -> Geometry:
        """Distances as the views gave them."""
        ...


class Seen(NamedTuple):
    """A panorama, what is true of it and what was said of it at first."""

    image: Tensor  # [3, H, W], uint8, as a camera took it
    truth: Tensor  # [1, H, W], metres, inf for sky
    distance: Tensor  # [1, H, W], inf for sky, 0 where unknown
    spread: Tensor  # [1, H, W]
    surface: Tensor  # [4, H, W], half: normals of the truth along local axes, and how far they can be trusted


@dataclass
class RenderedPanoramas:
    """Whole panoramas; the fields are the keys of its YAML."""

    shares: dict[str, float]  # of the kinds of worlds
    first: Looking  # who says what is to be mended
    height: Annotated[int, Range(64, 2048)] = 256
    window: Annotated[int, Range(1)] = 64  # panoramas in memory
    uses: Annotated[int, Range(1)] = 7  # of each in the mean, turned and mirrored at random
    strength: Annotated[float, Range(0, 2)] = 1.0  # at most, of what cameras do to pictures; 0: nothing
    holes: Annotated[float, Range(0, 1)] = 0.15  # share of the uses of which a part is unknown
    repaint: Annotated[float, Range(0, 1)] = 0.0  # largest share of a training world's materials that are changed
    validation: Annotated[int, Range(1)] = 24  # panoramas of styles kept out
    seed: Annotated[int, Range(0)] = 0

    def __post_init__(self) -> None:
        self.worlds = RenderedViews(self.shares, height=self.height, repaint=self.repaint, seed=self.seed)

    def stream(self) -> PanoramaStream:
        """Endless training panoramas."""
        return PanoramaStream(self)

    def fixed(self) -> FixedPanoramas:
        """Validation panoramas: styles kept out, always the same ones."""
        return FixedPanoramas(self)


def seen(data: RenderedPanoramas, number: int, *, kept_out: bool = False) -> Seen:
    """The panorama of that number, and what the first look says of it."""
    pool = drawn(data.worlds, number, kept_out=kept_out)
    random = np.random.default_rng([data.seed, number, kept_out, 7])
    strength = min(_MILD, data.strength) if kept_out else data.strength * random.uniform(0.2, 1)
    image = photographed(pool.image[None].float() / 255, random, strength)[0]
    with torch.no_grad():
        found = data.first(Panorama(image))
    spread = torch.zeros_like(found.distance) if found.spread is None else found.spread
    truth = pool.distance[None]
    return Seen((image * 255).round().to(torch.uint8), truth, found.distance, spread, surface(truth))


def surface(distance: Tensor) -> Tensor:  # [1, H, W] -> [4, H, W]
    """Normals along local axes, which turn with the picture, and 1 where they can be trusted, falling to 0."""
    sure = trust(distance) * distance.isfinite()
    return torch.cat([to_local(normals_from_distance(distance)), sure]).half()


def as_sample(panorama: Seen) -> Batch:
    """One sample, without batch axis."""
    sky = panorama.truth.isinf()
    return {
        "image": panorama.image.float() / 255,
        "first": panorama.distance.float(),
        "spread": panorama.spread.float(),
        "truth": torch.where(sky, 0.0, panorama.truth.float()),
        "sky": sky,
        "normal": panorama.surface[:3].float(),
        "sure": panorama.surface[3:].float(),
    }


def turned(sample: Batch, columns: int) -> Batch:
    """A sample whose panorama was turned about the vertical."""
    return {name: part.roll(columns, -1) for name, part in sample.items()}


def mirrored(sample: Batch) -> Batch:
    """A sample seen in a mirror: what pointed to the right points to the left."""
    other = {name: part.flip(-1) for name, part in sample.items()}
    sign = torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)
    return {**other, "normal": sign * other["normal"]}


def with_hole(sample: Batch, random: np.random.Generator) -> Batch:
    """A sample of which a cap or a part of the round is unknown, as in partial panoramas and above tripods.

    Where nothing is known, neither truth nor sky is told.
    """
    height, width = sample["truth"].shape[-2:]
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    kind, share = random.integers(3), random.uniform(0.03, 0.3)
    if kind == 0:
        lost = (rows >= height * (1 - share)).expand(height, width)
    elif kind == 1:
        lost = (rows < height * share).expand(height, width)
    else:
        lost = (columns < width * 2 * share).expand(height, width)
    return {name: part.masked_fill(lost, False if part.dtype == torch.bool else 0) for name, part in sample.items()}


class PanoramaStream:
    """Training batches, each a function of its number alone, so that a continued run sees the same."""

    def __init__(self, data: RenderedPanoramas) -> None:
        self.data = data
        self.kept: OrderedDict[int, Seen] = OrderedDict()

    def batch(self, number: int, size: int, device: torch.device) -> Batch:
        """The batch of that number, on the device: panoramas turned about the vertical, half of them mirrored."""
        data = self.data
        random = np.random.default_rng([data.seed, number, 8])
        first = number * size // data.uses
        chosen = first + random.choice(data.window, size, replace=size > data.window)
        samples = []
        for index in chosen:
            sample = turned(as_sample(self._seen(int(index))), int(random.integers(2 * data.height)))
            sample = mirrored(sample) if random.random() < 0.5 else sample
            samples.append(with_hole(sample, random) if random.random() < data.holes else sample)
        return {name: torch.stack([s[name] for s in samples]).to(device) for name in samples[0]}

    def _seen(self, number: int) -> Seen:
        if number not in self.kept:
            self.kept[number] = seen(self.data, number)
            while len(self.kept) > 2 * self.data.window:
                self.kept.popitem(last=False)
        return self.kept[number]


class FixedPanoramas:
    """Panoramas of styles that are kept out of training, each with a mild touch of a camera."""

    def __init__(self, data: RenderedPanoramas) -> None:
        self.data = data
        self.kept: dict[int, Seen] = {}

    def __len__(self) -> int:
        return self.data.validation

    def sample(self, index: int, random: np.random.Generator) -> Batch:
        """One panorama; always the same of an index."""
        if index not in self.kept:
            self.kept[index] = seen(self.data, index, kept_out=True)
        return as_sample(self.kept[index])
