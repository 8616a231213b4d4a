"""Depth Anything V2, compatible with the released weights: the networks, and sizes and units around them."""

from .network import DepthAnythingV2
from .pictures import network_size, prepare, restore
from .variants import ENCODERS, MAX_DEPTH, Encoder, recognise

__all__ = [
    "ENCODERS",
    "MAX_DEPTH",
    "DepthAnythingV2",
    "Encoder",
    "network_size",
    "prepare",
    "recognise",
    "restore",
]
