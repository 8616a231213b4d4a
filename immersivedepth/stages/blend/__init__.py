"""Aligned -> Geometry: join the views on the sphere."""
