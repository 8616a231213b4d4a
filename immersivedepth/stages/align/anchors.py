"""Known lengths that turn a shape known up to one factor into metres."""

import math
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from ...checks import ConfigError, Range
from ...geometry import overlaps, robust
from ...scene import Rig

FLOOR_CONE = 50.0  # degrees around straight down in which the floor is looked for


@dataclass
class Anchors:
    """Any of: the height of the camera over the floor, and points whose distance is known."""

    camera_height: Annotated[float, Range(1e-3)] | None = None  # metres
    points: list[list[float]] = field(default_factory=list)  # [longitude, latitude in degrees, distance in metres]

    def __post_init__(self) -> None:
        for point in self.points:
            if len(point) != 3 or not -90 <= point[1] <= 90 or point[2] <= 0:
                raise ConfigError(
                    f"align.anchors.points: expected [longitude, latitude in -90..90, distance > 0], got {point}"
                )

    def log_factor(self, distance: Tensor, weight: Tensor, rig: Rig) -> float | None:
        """Log of the factor from distances [V, h, w] to metres: the median over all anchors; None without any."""
        votes = [_point_votes(distance, weight, rig, p) for p in self.points]
        if self.camera_height is not None:
            votes.append(_floor_votes(distance, weight, rig, self.camera_height))
        return float(torch.stack(votes).median()) if votes else None


def _look_up(distance: Tensor, weight: Tensor, rig: Rig, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log distance and trust of every view that sees each direction, and which direction it is."""
    view, where, xy, cosine = overlaps.see(directions, rig.rotation, rig.tan_half_fov, 0.5 / rig.resolution)
    index, tap = overlaps.taps(view, xy, rig.resolution)
    near = distance.reshape(-1)[index].double()
    usable = near.isfinite() & (weight.reshape(-1)[index] > 0)
    near = (torch.where(usable, near, 1.0).log() * tap).sum(-1)
    trust = torch.where(usable.all(-1), (weight.reshape(-1)[index].double() * tap).sum(-1), 0.0)
    return near, trust * cosine**3, where


def _point_votes(distance: Tensor, weight: Tensor, rig: Rig, point: list[float]) -> Tensor:
    lon, lat = math.radians(point[0]), math.radians(point[1])
    direction = torch.tensor(
        [[math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)]],
        dtype=torch.float64,
        device=distance.device,
    )
    log_distance, trust, _ = _look_up(distance, weight, rig, direction)
    if not (trust > 0).any():
        raise ConfigError(f"align.anchors.points: no view knows the distance at {point[:2]}; move the point")
    return math.log(point[2]) - robust.weighted_median(log_distance, trust)


def _floor_votes(distance: Tensor, weight: Tensor, rig: Rig, height: float) -> Tensor:
    directions, angle = overlaps.grid_directions(rig.rotation, rig.tan_half_fov, 24)
    below = directions[:, 2] < -math.cos(math.radians(FLOOR_CONE))
    log_distance, trust, where = _look_up(distance, weight, rig, directions[below])
    if not (trust > 0).any():
        raise ConfigError("align.anchors.camera_height: no view sees the floor; give align.anchors.points instead")
    drop = log_distance + (-directions[below][where, 2]).log()
    return math.log(height) - robust.weighted_median(drop, trust * angle[below][where])
