"""What mode=render_dense is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ..checks import Range
from .protocol import Camera


@dataclass
class Film:
    """From what, with which camera, and what becomes of places that the panorama did not see."""

    source: Literal["auto", "mesh", "splats", "field"] = "auto"
    fill: Literal["harmonic", "navier_stokes", "mark"] = "harmonic"
    kind: Literal["panorama", "perspective"] = "panorama"
    height: Annotated[int, Range(2, 8192)] = 512
    width: Annotated[int, Range(2, 16384)] = 1024
    fov: Annotated[float, Range(1, 170)] = 75.0
    backend: Literal["auto", "gl", "torch"] = "auto"
    fps: Annotated[int, Range(1, 240)] = 30
    video: bool = True

    def __post_init__(self) -> None:
        self.camera = Camera(self.kind, self.height, self.width, self.fov)


@dataclass
class View:
    """Where mode=view serves its page, and for how long."""

    host: str = "127.0.0.1"
    port: Annotated[int, Range(0, 65535)] = 8080
    max_points: Annotated[int, Range(1)] = 200_000
    seconds: Annotated[float, Range(0)] | None = None
