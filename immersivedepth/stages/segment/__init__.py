"""Geometry -> Geometry that says where it can be trusted, and what belongs together."""
