"""Normals of the result: of the surface that the distances describe, as a network saw them, or both."""

from dataclasses import dataclass, replace
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from ...checks import ConfigError
from ...geometry import sphere
from ...geometry.normals import normals_from_distance, trust
from ...scene import Geometry, Panorama


@dataclass
class Normals:
    """Unit normals in world axes, facing the camera; 0 where nothing is known.

    distance: exact on planes, but as noisy as the distances. predicted: those a network gave with its views.
    both: their mean, where the network decides at depth edges and for noisy distances.
    """

    source: Literal["distance", "predicted", "both"] = "distance"

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry:
        """Add or replace the normals."""
        if self.source == "distance":
            return replace(geometry, normal=normals_from_distance(geometry.distance))
        predicted = predicted_normals(geometry, f"refine.normals.source={self.source}")
        facing = face_camera(predicted)
        if self.source == "both":
            analytic = normals_from_distance(geometry.distance)
            share = 0.5 * trust(geometry.distance) * (analytic.abs().sum(0, keepdim=True) > 0)
            mixed = F.normalize(share * analytic + (1 - share) * facing, dim=0)
            facing = face_camera(mixed)
        known = (geometry.distance > 0) & geometry.distance.isfinite()
        return replace(geometry, normal=facing * known)


def predicted_normals(geometry: Geometry, key: str) -> Tensor:  # [3, H, W]
    """The normals that the views brought along; an error that names the key if there are none."""
    if geometry.normal is None:
        raise ConfigError(
            f"{key} needs normals from a network, and none of those in predict=[...] gives any. Add one that does, "
            "and put this stage before normals in refine=[...]."
        )
    return geometry.normal


def face_camera(normal: Tensor) -> Tensor:  # [3, H, W] -> [3, H, W]
    """Unit length and turned towards the camera; 0 stays 0."""
    rays = sphere.erp_rays(normal.shape[-2], normal.shape[-1], normal.device).permute(2, 0, 1)
    away = (normal * rays).sum(0, keepdim=True) > 0
    return F.normalize(normal.where(~away, -normal), dim=0)
