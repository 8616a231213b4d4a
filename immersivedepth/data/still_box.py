"""Still Box: short films of a camera that moves through rigid scenes without turning, with depth.

Layout: <root>/<folder>/metadata.json beside RGB_<scene>_<frame>.jpg and depth as .npy; depth in metres along the view
axis, a field of view of 90 degrees, speed in m/s in camera axes (right, up, forward).
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..checks import ConfigError, InputError, Range
from . import images
from .measured import MeasuredView
from .samples import Batch

Split = Literal["train", "val", "test"]
SHIFT = 3  # frames between the two pictures of the nominal displacement
FARTHEST = 100.0  # metres; what is farther counts as this far
MEAN, STD = 0.5, 0.2
_LEVEL = 1e-6  # 1 - cosine of half the angle between two frames: a sixth of a degree
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Film:
    """One scene: its frames in order, and how the camera moves."""

    pictures: tuple[Path, ...]
    depths: tuple[Path, ...]
    speed: tuple[float, float, float]  # m/s: right, up, forward
    time_step: float  # seconds
    orientation: tuple[tuple[float, ...], ...] = ()  # quaternions w, x, y, z per frame; empty: it does not turn

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def turns(self) -> bool:
        """Whether the camera looks another way in some frame; a quaternion and its negative are one rotation."""
        first = np.array(self.orientation[:1])
        return any(abs(abs(float(first[0] @ q)) - 1) > _LEVEL for q in map(np.array, self.orientation))

    def displacement(self, shift: int) -> Tensor:  # [3]
        """Metres that the camera moves in so many frames."""
        return torch.tensor(self.speed) * (shift * self.time_step)


@dataclass
class StillBox:
    """Where the data are and how films are cut into pairs; the fields are the keys of its YAML."""

    root: str | None = None
    seed: Annotated[int, Range(0)] = 0  # of the division into parts
    train_share: Annotated[float, Range(0.01, 0.99)] = 0.9  # of the films; the rest validates
    least_shift: Annotated[int, Range(0, 2 * SHIFT)] = 0  # frames between training pictures; 0: also one with itself
    flips: bool = True  # training mirrors pictures, and the displacement with them
    images: str | None = None  # of one's own, for mode=predict: a folder of frames, or a list of files in order
    # Metres between two frames that are compared: right, up, forward; null: nominal, 0.3 m.
    displacement: tuple[float, float, float] | None = None
    fov: Annotated[float, Range(1, 179)] | None = None  # degrees across one's own frames; null: taken as 90 both ways
    height: Annotated[int, Range(16)] | None = 512  # that of the training pictures; null: frames as they are
    width: Annotated[int, Range(16)] | None = 512
    extensions: tuple[str, ...] = ("png", "jpg", "bmp")

    def samples(self, split: Split) -> Pairs | None:
        """The pairs of a part; the films of val and test are the same, as in the original."""
        films = self.films
        order = np.random.default_rng([self.seed, len(films)]).permutation(len(films))
        cut = min(max(1, round(self.train_share * len(films))), max(1, len(films) - 1))
        chosen = [films[i] for i in (order[:cut] if split == "train" else order[cut:])]
        return Pairs(self, chosen, split == "train") if chosen else None

    def sources(self) -> list[Path]:
        """The frames of the films that validate, for the measurement of networks that see single pictures."""
        return list(self._depth_of)

    def name(self, path: Path) -> str:
        """Unlike all others, also where several folders hold films."""
        return f"{path.parent.name}-{path.stem}"

    def view(self, path: Path) -> MeasuredView:
        """A frame with its depth."""
        image, depth = images.read_image(path).image, read_depth(self._depth_of[path])
        if image.shape[-2:] != depth.shape[-2:]:
            raise InputError(f"{path} and its depth differ in size; copy them again")
        return MeasuredView.middle(image, depth, depth.isfinite() & (depth > 0), 1.0)

    @cached_property
    def _depth_of(self) -> dict[Path, Path]:
        samples = self.samples("val")
        films = [] if samples is None else samples.films
        return {p: d for film in films for p, d in zip(film.pictures, film.depths, strict=True)}

    @cached_property
    def films(self) -> list[Film]:
        """Every scene of every folder."""
        if self.root is None:
            raise ConfigError("dataset.root has no value: set it to a folder of Still Box, e.g. still_box/64")
        found = sorted(Path(self.root).expanduser().rglob("metadata.json"))
        if not found:
            raise InputError(f"{self.root} holds no metadata.json; set dataset.root to a folder of Still Box")
        films = [film for path in found for film in read_films(path)]
        turning = sum(film.turns for film in films)
        if turning:
            log.warning(
                "%s: the camera turns in %d of %d films, which DepthNet cannot see", self.root, turning, len(films)
            )
        return films


def read_films(path: Path) -> list[Film]:
    """The scenes that a metadata.json describes."""
    try:
        about = json.loads(path.read_text("utf-8"))
        films = [_film(scene, path.parent) for scene in about["scenes"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not the metadata of Still Box ({error}); copy it again") from error
    for film in films:
        if len(film.depths) != len(film) or len(film) < 2:
            raise InputError(f"{path}: a scene has {len(film)} pictures and {len(film.depths)} depth maps")
    return films


def _film(scene: dict[str, Any], folder: Path) -> Film:
    count = int(scene["length"])
    x, y, z = (float(v) for v in scene["speed"])
    return Film(
        tuple(folder / name for name in scene["imgs"][:count]),
        tuple(folder / name for name in scene["depth"][:count]),
        (x, y, z),
        float(scene["time_step"]),
        tuple(tuple(float(v) for v in q) for q in scene.get("orientation") or ()),
    )


@dataclass
class Pairs:
    """Pairs of frames: first, second [3, h, w], the depth of the second [1, h, w], the displacement [3] in metres."""

    data: StillBox
    films: list[Film]
    training: bool

    def __post_init__(self) -> None:
        if self.training:  # a film counts once for each of its frames
            self._places = [(film, i) for film in self.films for i in range(len(film))]
        else:
            self._places = [(film, i) for film in self.films for i in range(len(film) - SHIFT)]

    def __len__(self) -> int:
        return len(self._places)

    def sample(self, index: int, random: np.random.Generator) -> Batch:
        """Training draws both frames; evaluation takes every frame and the third after it, with depth as it is."""
        film, first = self._places[index]
        second = first + SHIFT
        if self.training:
            least = min(self.data.least_shift, len(film) - 1)
            first = int(random.integers(len(film) - least))
            second = min(len(film) - 1, first + max(least, round(2 * SHIFT * random.random())))
            if random.random() < 0.5:
                first, second = second, first
        depth = read_depth(film.depths[second])
        pictures = [images.read_image(film.pictures[i]).image for i in (first, second)]
        if not depth.shape[-2:] == pictures[0].shape[-2:] == pictures[1].shape[-2:]:
            raise InputError(f"{film.depths[second]} has another size than the pictures of its film; copy them again")
        if self.training:
            depth = scaled(depth, second - first)
        batch = {
            "first": normalised(pictures[0]),
            "second": normalised(pictures[1]),
            "depth": depth.clamp(0, FARTHEST),
            "displacement": film.displacement(second - first),
        }
        return flipped(batch, random) if self.training and self.data.flips else batch


def scaled(depth: Tensor, shift: int) -> Tensor:
    """The depth that would look the same at the nominal displacement; all is as far as can be where nothing moves."""
    return torch.full_like(depth, FARTHEST) if shift == 0 else depth * (SHIFT / abs(shift))


def flipped(batch: Batch, random: np.random.Generator) -> Batch:
    """Mirrored left to right and upside down with even chances; the displacement turns its sign with the axis."""
    sign = torch.ones(3)
    maps = {name: value for name, value in batch.items() if value.ndim == 3}
    for axis, component in ((-1, 0), (-2, 1)):
        if random.random() < 0.5:
            maps = {name: value.flip(axis) for name, value in maps.items()}
            sign[component] = -1
    return {**batch, **maps, "displacement": batch["displacement"] * sign}


def normalised(image: Tensor) -> Tensor:  # uint8 [3, h, w]
    """A picture as the network reads it."""
    return (image.float() / 255 - MEAN) / STD


def read_depth(path: Path) -> Tensor:  # [1, h, w]
    """Metres along the view axis."""
    return images.read_map(path)
