"""Coloured points as binary PLY; a cloud without points is a file too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from ...files import atomic

_COLUMNS = [*((axis, "<f4") for axis in "xyz"), *((colour, "u1") for colour in ("red", "green", "blue"))]


def write_cloud(path: Path, points: Tensor, colours: Tensor) -> Path:  # [N, 3], [N, 3] in 0..1
    """Write it."""
    from plyfile import PlyData, PlyElement

    rows = np.empty(len(points), _COLUMNS)
    values = [*points.unbind(1), *(colours.clamp(0, 1) * 255).round().byte().unbind(1)]
    for (name, _), column in zip(_COLUMNS, values, strict=True):
        rows[name] = column.numpy()
    with atomic(path) as temporary:
        PlyData([PlyElement.describe(rows, "vertex")], byte_order="<").write(str(temporary))
    return path
