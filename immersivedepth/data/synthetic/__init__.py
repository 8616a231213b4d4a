"""Synthetic worlds: rooms, interiors and outdoor scenes with exact colour, distance, normals, instances and sky."""

from .recipes import KINDS, STYLES, load_world, make_world, standing_places
from .render import Maps, erp_maps, render_batch, render_erp, render_pinhole, render_rig
from .repaint import repainted
from .world import World, trace_batch

__all__ = [
    "KINDS",
    "STYLES",
    "Maps",
    "World",
    "erp_maps",
    "load_world",
    "make_world",
    "render_batch",
    "render_erp",
    "render_pinhole",
    "render_rig",
    "repainted",
    "standing_places",
    "trace_batch",
]
