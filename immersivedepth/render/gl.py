"""Which triangle every pixel of a camera meets first, drawn by OpenGL without a screen (EGL).

The drawing is done by a program of its own, painter.py. It only tells the numbers of triangles; the distance is then
that of the exact intersection, so that a frame agrees with the plain z-buffer up to pixels on edges. Panoramas are
looked up in six square pictures around the camera.
"""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
import sys
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checks import ConfigError, ResourceError
from . import painter
from .protocol import PANORAMA, Camera

Floats = NDArray[Any]
log = logging.getLogger(__name__)

Backend = Literal["auto", "gl", "torch"]
NEAR = 1e-3  # of the median distance; nothing nearer is drawn
FINER = 3.0  # pixels of a square's middle for each of the panorama
# Right, down and forward of the six squares, in the panorama's axes (x forward, y left, z up).
_SQUARES = tuple(
    np.array([right, down, forward], np.float64)
    for right, down, forward in (
        ((0, -1, 0), (0, 0, -1), (1, 0, 0)),
        ((0, 1, 0), (0, 0, -1), (-1, 0, 0)),
        ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
        ((-1, 0, 0), (0, 0, -1), (0, -1, 0)),
        ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
        ((0, -1, 0), (-1, 0, 0), (0, 0, -1)),
    )
)


class _Painter:
    """The program that draws, for one process, and its turn."""

    def __init__(self) -> None:
        program = Path(__file__).with_name("painter.py")
        self.turn = threading.Lock()
        self.child = subprocess.Popen(
            [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.inward, self.outward = self.child.stdout, self.child.stdin
        try:
            self.reason = painter.receive(self.inward).tobytes().decode()
        except EOFError:
            self.reason = f"it ended with code {self.child.wait()}"
        atexit.register(self.close)

    def __call__(self, points: Floats, matrices: Floats, size: tuple[int, int]) -> NDArray[np.int32]:
        try:
            with self.turn:
                for array in (points.astype(np.float32), matrices, np.array(size)):
                    painter.send(self.outward, array)
                return painter.receive(self.inward)
        except (EOFError, OSError) as error:
            raise ResourceError(
                f"render.backend: OpenGL ended in the middle of a picture (code {self.child.poll()}); use "
                "render.backend=torch"
            ) from error

    def close(self) -> None:
        """Let it end."""
        with suppress(OSError):
            self.outward.close()
        self.inward.close()
        self.child.wait(timeout=10)


@cache
def _painter(process: int) -> _Painter:
    return _Painter()


def reason_against() -> str:
    """Why OpenGL cannot be used here; empty where it can."""
    return _painter(os.getpid()).reason


def chosen(backend: Backend, device: torch.device) -> bool:
    """Whether triangles are to be drawn by OpenGL: by itself wherever the processor would draw them."""
    if backend == "torch" or (backend == "auto" and device.type != "cpu"):
        return False
    reason = reason_against()
    if reason and backend == "gl":
        raise ConfigError(
            f"render.backend=gl: OpenGL without a screen does not work here ({reason}); install the extra `gl` and a "
            "driver (libegl1 and libgl1-mesa-dri on Debian), or use render.backend=torch"
        )
    if reason:
        log.debug("no OpenGL, so triangles meet rays in torch: %s", reason)
    return not reason


def candidates(corners: Tensor, rays: Tensor, camera: Camera) -> Tensor:  # [F, 3, 3], [H W, 3] -> [K, H W]
    """Numbers of faces that each ray may meet first, the likeliest first, -1 for none. Corners in the camera's axes."""
    points = corners.reshape(-1, 3).double().cpu().numpy()
    away = np.linalg.norm(points, axis=1)
    # As far out as corners allow, and no face touches the end: a depth of 24 bits has to tell the sky's dome from it.
    near = max(NEAR * float(np.median(away)), 0.3 * float(away.min()))
    far = 2 * float(away.max())
    if camera.kind != PANORAMA:
        pictures = _drawn(points, [(np.eye(3), *camera.tangents)], camera.width, camera.height, near, far)
        return torch.from_numpy(pictures.reshape(1, -1)).to(rays.device)
    side = 2 * int(np.ceil(FINER * camera.width / (2 * np.pi)))
    pictures = _drawn(points, [(square, 1.0, 1.0) for square in _SQUARES], side, side, near, far)
    seen = rays.double().cpu().numpy()
    local = np.stack([seen @ square.T for square in _SQUARES])  # [6, P, 3]
    which = local[..., 2].argmax(0)
    x, y, z = np.take_along_axis(local, which[None, :, None], 0)[0].T
    across, along = ((v / z + 1) * (side / 2) for v in (x, y))
    found = []
    # The pixel that holds the ray, then its neighbours on the sides that the ray is nearer to.
    to_side, to_row = (np.where(v % 1 < 0.5, -1, 1) for v in (across, along))
    for step_x, step_y in ((0, 0), (1, 0), (0, 1), (1, 1)):
        column = (across.astype(np.int64) + step_x * to_side).clip(0, side - 1)
        row = (along.astype(np.int64) + step_y * to_row).clip(0, side - 1)
        found.append(pictures[which, row, column])
    return torch.from_numpy(np.stack(found)).to(rays.device)


def _drawn(
    points: Floats, views: list[tuple[Floats, float, float]], width: int, height: int, near: float, far: float
) -> NDArray[np.int64]:  # [views, height, width]
    """Numbers of faces in views of (axes, tangent across, tangent along)."""
    matrices = np.stack([_matrix(axes, across, along, near, far) for axes, across, along in views])
    return _painter(os.getpid())(points, matrices, (width, height)).astype(np.int64)


def _matrix(axes: Floats, across: float, along: float, near: float, far: float) -> Floats:
    """World to clip space; the first row of what is read back is the upper one, as down is up there."""
    view = np.eye(4)
    view[:3, :3] = axes
    clip = np.zeros((4, 4))
    clip[0, 0], clip[1, 1] = 1 / across, 1 / along
    clip[2, 2], clip[2, 3] = (far + near) / (far - near), -2 * far * near / (far - near)
    clip[3, 2] = 1
    return clip @ view
