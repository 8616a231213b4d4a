"""The nouns of the pipeline. Every stage takes some of these and returns one of these.

Letters: H W panorama size (W = 2H), h w view size, V views. Channels come first.
World axes: +x forward (image centre), +y left, +z up. View axes: +x right, +y down, +z forward (OpenCV).
distance: length of the ray. depth: distance along the view axis. disparity: 1 / depth up to an affine map.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import torch
from torch import Tensor

from .checks import ShapeError, check_shapes


class Kind(StrEnum):
    """What the numbers of one predicted map mean; nothing downstream guesses."""

    AFFINE_DISPARITY = "affine_disparity"  # a / depth + b, with unknown a > 0 and b
    AFFINE_DEPTH = "affine_depth"  # a * depth + b, with unknown a > 0 and b
    SCALE_DISTANCE = "scale_distance"  # a * distance, with unknown a > 0
    METRIC_DISTANCE = "metric_distance"  # distance in metres


@dataclass(frozen=True)
class Hits:
    """What rays meet in a world whose shape is known. `...` is any shape of rays."""

    distance: Tensor  # [...], inf where the ray leaves the world
    normal: Tensor | None = None  # [..., 3], unit, world axes, facing the origin of the ray; 0 for sky
    instance: Tensor | None = None  # [...], integer, 0 for sky
    sky: Tensor | None = None  # [...], bool
    colour: Tensor | None = None  # [..., 3], RGB in 0..1


class Truth(Protocol):
    """Knows the true shape seen from the centre of a panorama: a synthetic world or a measured map."""

    def trace(self, rays: Tensor) -> Hits:
        """Follow rays [..., 3] of any length, in world axes, from the centre of the panorama."""
        ...


@dataclass(frozen=True)
class Panorama:
    """One equirectangular image, with its truth where a data set gives one."""

    image: Tensor  # [3, H, W], RGB, uint8 in 0..255 or floating in 0..1
    name: str = "panorama"
    mask: Tensor | None = None  # [1, H, W], bool, False where a partial panorama shows nothing
    truth: Truth | None = None
    about: dict[str, Any] = field(default_factory=dict)  # facts on the source for the records: path, original size

    def __post_init__(self) -> None:
        check_shapes("Panorama", image=(self.image, "3 H W"), mask=(self.mask, "1 H W"))
        height, width = self.size
        if width != 2 * height:
            raise ShapeError(f"Panorama.image: expected width = 2 * height, got {width}x{height}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[-2], self.image.shape[-1]


@dataclass(frozen=True)
class Rig:
    """Square pinhole cameras at the centre of the panorama."""

    rotation: Tensor  # [V, 3, 3], view axes to world axes
    tan_half_fov: Tensor  # [V], half the side of a view at depth one
    resolution: int  # pixels along one side

    def __post_init__(self) -> None:
        check_shapes("Rig", rotation=(self.rotation, "V 3 3"), tan_half_fov=(self.tan_half_fov, "V"))

    def __len__(self) -> int:
        return len(self.rotation)


@dataclass(frozen=True)
class Views:
    """What the cameras of a rig see."""

    images: Tensor  # [V, 3, h, w], RGB, uint8 in 0..255 or floating in 0..1
    rig: Rig
    mask: Tensor | None = None  # [V, 1, h, w], bool, False where the panorama shows nothing
    truth: Truth | None = None

    def __post_init__(self) -> None:
        check_shapes(
            "Views",
            images=(self.images, "V 3 h h"),
            mask=(self.mask, "V 1 h h"),
            rotation=(self.rig.rotation, "V 3 3"),
        )


@dataclass(frozen=True)
class Prediction:
    """One map for every view, with what each map means; a view may occur once per model."""

    values: Tensor  # [V, 1, h, w]
    kinds: tuple[Kind, ...]  # one per view
    rig: Rig
    confidence: Tensor | None = None  # [V, 1, h, w] in 0..1
    normal: Tensor | None = None  # [V, 3, h, w], unit, world axes, facing the camera
    sky: Tensor | None = None  # [V, 1, h, w], bool
    models: tuple[str, ...] = ()  # who looked, one per view, for the report

    def __post_init__(self) -> None:
        check_shapes(
            "Prediction",
            values=(self.values, "V 1 h h"),
            confidence=(self.confidence, "V 1 h h"),
            normal=(self.normal, "V 3 h h"),
            sky=(self.sky, "V 1 h h"),
            rotation=(self.rig.rotation, "V 3 3"),
        )
        for name in ("kinds", "models"):
            given = getattr(self, name)
            if len(given) != len(self.values) and (name == "kinds" or given):
                raise ShapeError(f"Prediction.{name}: expected one per view ({len(self.values)}), got {len(given)}")


@dataclass(frozen=True)
class Aligned:
    """Predictions brought to one common scale, so that views agree where they overlap."""

    distance: Tensor  # [V, 1, h, w], inf for sky
    rig: Rig
    weight: Tensor  # [V, 1, h, w], trust, 0 where nothing is known
    metric: bool = False  # True: metres; False: up to one factor common to all views
    normal: Tensor | None = None  # [V, 3, h, w], unit, world axes, facing the camera
    report: dict[str, Any] = field(default_factory=dict)  # what the aligner found, for the quality report

    def __post_init__(self) -> None:
        check_shapes(
            "Aligned",
            distance=(self.distance, "V 1 h h"),
            weight=(self.weight, "V 1 h h"),
            normal=(self.normal, "V 3 h h"),
            rotation=(self.rig.rotation, "V 3 3"),
        )


@dataclass(frozen=True)
class Instances:
    """Things seen in a panorama, numbered from 1."""

    labels: Tensor  # [1, H, W], int32, 0 where nothing was found
    classes: tuple[int, ...]  # one per instance, 1..254; 0 says no class is known
    names: dict[int, str] = field(default_factory=dict)  # of the classes
    scores: tuple[float, ...] = ()  # one per instance in 0..1, where a network gives any

    def __post_init__(self) -> None:
        check_shapes("Instances", labels=(self.labels, "1 H W"))
        if self.scores and len(self.scores) != len(self.classes):
            raise ShapeError(f"Instances.scores: expected one per class ({len(self.classes)}), got {len(self.scores)}")


@dataclass(frozen=True)
class Geometry:
    """The result: the shape of the scene as seen from the centre of the panorama."""

    distance: Tensor  # [1, H, W], inf for sky, 0 where nothing is known
    mask: Tensor  # [1, H, W], bool, True where distance can be trusted
    metric: bool = False  # True: metres; False: up to one factor
    normal: Tensor | None = None  # [3, H, W], unit, world axes, facing the camera
    sky: Tensor | None = None  # [1, H, W], bool
    spread: Tensor | None = None  # [1, H, W], standard deviation of log distance between the views
    report: dict[str, Any] = field(default_factory=dict)  # for the quality report
    instances: Instances | None = None
    aligned: Aligned | None = None  # what the views said, for contact sheets

    def __post_init__(self) -> None:
        check_shapes(
            "Geometry",
            distance=(self.distance, "1 H W"),
            mask=(self.mask, "1 H W"),
            normal=(self.normal, "3 H W"),
            sky=(self.sky, "1 H W"),
            spread=(self.spread, "1 H W"),
            instances=(None if self.instances is None else self.instances.labels, "1 H W"),
        )


def unit_image(image: Tensor) -> Tensor:
    """An image as floating numbers in 0..1, whichever of the two forms it came in."""
    return image.float() / 255 if image.dtype == torch.uint8 else image
