"""Miniature data sets in the real layouts, rendered from synthetic worlds."""
