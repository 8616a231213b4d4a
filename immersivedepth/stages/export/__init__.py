"""Geometry -> files. Every file appears whole or not at all, and arrays say their unit beside them."""
