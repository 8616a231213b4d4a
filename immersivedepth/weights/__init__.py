"""The one door to weights: what is known of them, where they lie, how they are fetched, verified, read and fitted."""

from .finding import Weights, download_named, fetch, load, table
from .reading import fit, read, read_checkpoint
from .registry import REGISTRY, Source

__all__ = [
    "REGISTRY",
    "Source",
    "Weights",
    "download_named",
    "fetch",
    "fit",
    "load",
    "read",
    "read_checkpoint",
    "table",
]
