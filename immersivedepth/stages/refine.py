"""Geometry -> better Geometry."""

from dataclasses import replace

from ..geometry.normals import normals_from_distance
from ..scene import Geometry, Panorama


class Normals:
    """Add the normals of the surface that the distances describe."""

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry:
        return replace(geometry, normal=normals_from_distance(geometry.distance))
