"""Trust what the blend trusts."""

from ...scene import Geometry, Panorama


class Identity:
    """No segmentation."""

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry:
        """Hand on what came."""
        return geometry
