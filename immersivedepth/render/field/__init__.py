"""Radiance fields of a panorama: what they are supervised by, how rays march through them, and their kinds."""
