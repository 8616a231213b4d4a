"""Which triangle every pixel of a camera meets first, drawn by OpenGL without a screen (EGL).

OpenGL only tells the numbers of triangles; the distance is then that of the exact intersection, so that a frame
agrees with the plain z-buffer up to pixels on edges. Panoramas are looked up in six square pictures around the camera.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..checks import ConfigError
from .protocol import PANORAMA, Camera

log = logging.getLogger(__name__)

Backend = Literal["auto", "gl", "torch"]
NEAR = 1e-3  # of the median distance; nothing nearer is drawn
FINER = 3.0  # pixels of a square's middle for each of the panorama
_VERTEX = """
#version 330
uniform mat4 matrix;
in vec3 place;
void main() { gl_Position = matrix * vec4(place, 1.0); }
"""
_FRAGMENT = """
#version 330
out uint number;
void main() { number = uint(gl_PrimitiveID) + 1u; }
"""
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


@cache
def _painter(process: int) -> ThreadPoolExecutor:
    """The one thread of a process that a context belongs to: drivers crash when several take turns."""
    return ThreadPoolExecutor(1, thread_name_prefix="opengl")


@cache
def reason_against() -> str:
    """Why OpenGL cannot be used here; empty where it can."""
    try:
        _painter(os.getpid()).submit(_context).result()
    except Exception as error:  # whatever a driver may raise
        return f"{type(error).__name__}: {error}"
    return ""


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
    points: np.ndarray, views: list[tuple[np.ndarray, float, float]], width: int, height: int, near: float, far: float
) -> np.ndarray:  # [views, height, width], int64
    """Numbers of faces in views of (axes, tangent across, tangent along)."""
    found: np.ndarray = _painter(os.getpid()).submit(_paint, points, views, width, height, near, far).result()
    return found


def _paint(
    points: np.ndarray, views: list[tuple[np.ndarray, float, float]], width: int, height: int, near: float, far: float
) -> np.ndarray:
    context = _context()
    program = context.program(vertex_shader=_VERTEX, fragment_shader=_FRAGMENT)
    numbers = context.texture((width, height), 1, dtype="u4")
    depth = context.depth_renderbuffer((width, height))
    target = context.framebuffer([numbers], depth)
    buffer = context.buffer(points.astype(np.float32).tobytes())
    array = context.vertex_array(program, [(buffer, "3f", "place")])
    held = (array, buffer, target, depth, numbers, program)
    try:
        target.use()
        context.enable_only(context.DEPTH_TEST)
        found = []
        for axes, across, along in views:
            target.clear(0.0, 0.0, 0.0, 0.0)
            program["matrix"].write(_matrix(axes, across, along, near, far).T.astype(np.float32).tobytes())
            array.render(context.TRIANGLES)
            picture = np.frombuffer(target.read(components=1, dtype="u4"), np.uint32).reshape(height, width)
            found.append(picture.astype(np.int64) - 1)
    finally:
        for thing in held:
            thing.release()
    return np.stack(found)


def _matrix(axes: np.ndarray, across: float, along: float, near: float, far: float) -> np.ndarray:
    """World to clip space; the first row of what is read back is the upper one, as down is up there."""
    view = np.eye(4)
    view[:3, :3] = axes
    clip = np.zeros((4, 4))
    clip[0, 0], clip[1, 1] = 1 / across, 1 / along
    clip[2, 2], clip[2, 3] = (far + near) / (far - near), -2 * far * near / (far - near)
    clip[3, 2] = 1
    return clip @ view


@cache
def _context() -> Any:
    import moderngl

    settings: Any = {"backend": "egl"}
    return moderngl.create_context(330, standalone=True, **settings)
