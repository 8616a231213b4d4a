"""What mode=demo is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ..checks import Range

_Side = Annotated[int, Range(32, 65536)]


@dataclass
class App:
    """Where the page is served, what it takes, and how long it keeps it."""

    host: str = "127.0.0.1"
    port: Annotated[int, Range(0, 65535)] = 7860
    folder: str | None = None
    upload_mb: Annotated[int, Range(1, 4096)] = 64
    max_size: tuple[_Side, _Side] = (8192, 4096)
    queue: Annotated[int, Range(1, 100_000)] = 100
    keep_minutes: Annotated[float, Range(0.01, 100_000)] = 60.0
    downloads: bool = True
    stereo_weights: str | None = None
    unet_weights: str | None = None
    seconds: Annotated[float, Range(0)] | None = None
