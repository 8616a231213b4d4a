"""Panorama -> Panorama that networks read more easily. Widths are degrees on the sphere; no option leaves a seam."""
