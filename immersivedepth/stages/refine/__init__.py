"""Geometry -> better Geometry. Every option may be chosen on its own, or several in the order given."""
