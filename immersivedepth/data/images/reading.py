"""Pictures and maps out of files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .decoders import MAPS, PICTURES, load_npy
from .display import finish
from .doors import MAX_SIZE, READABLE, opened


@dataclass(frozen=True)
class Picture:
    """A decoded picture and what its file said about it."""

    image: Tensor  # [3, H, W], RGB, uint8, or float32 in 0..1 (any positive value when read with linear=True)
    mask: Tensor | None = None  # [1, H, W], bool, False where the picture is transparent
    about: dict[str, Any] = field(default_factory=dict)  # for the records: path, format, size [W, H], bits, ...


def read_image(path: str | Path, *, linear: bool = False, max_size: tuple[int, int] = MAX_SIZE) -> Picture:
    """Read a picture as upright RGB; raises InputError for whatever cannot be one."""
    with opened(path, max_size) as source:
        decode = PICTURES.get(source.format)
        if decode is None:
            raise source.error(f"is a map ({source.format}), not a picture; expected {READABLE}")
        pixels, mask, about = finish(source, decode(source), linear)
    image = torch.from_numpy(pixels).permute(2, 0, 1)  # [3, H, W], laid out as the decoder wrote it
    return Picture(image, None if mask is None else torch.from_numpy(mask)[None], about)


def read_map(path: str | Path, *, unit: float | None = None, max_size: tuple[int, int] = MAX_SIZE) -> Tensor:
    """Read one number per pixel as float32 [1, H, W], with every value kept; `unit` scales integer files (PNG, NPY)."""
    with opened(path, max_size) as source:
        decode = MAPS.get(source.format)
        if decode is None:
            raise source.error(f"is a {source.format} picture; expected a map: EXR, NPY, PFM, TIFF, DPT or 16-bit PNG")
        values = decode(source)
        if values.dtype == np.uint8 or values.dtype.kind not in "fiu":
            raise source.error(f"has {values.dtype} values, too few for a map; expected 16-bit integers or floats")
        if values.dtype.kind in "iu":
            if unit is None:
                raise source.error(f"holds {values.dtype} numbers of unknown unit; say what one step is (unit=0.001)")
            scaled = np.multiply(values, np.float64(unit))
        else:
            scaled = values
        with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, as it is for any use here
            exact = np.ascontiguousarray(scaled, dtype=np.float32)
    return torch.from_numpy(exact)[None]


def read_vectors(path: str | Path, *, max_size: tuple[int, int] = MAX_SIZE) -> Tensor:  # [3, H, W]
    """Read three numbers per pixel out of an NPY file, normals for instance, with their signs."""
    with opened(path, max_size) as source:
        if source.format != "NPY":
            raise source.error(f"is a {source.format} file; expected NPY with three numbers per pixel")
        values = load_npy(source)
        if values.ndim != 3 or values.shape[-1] != 3 or values.dtype.kind != "f":
            raise source.error(f"is an array of {values.dtype} {list(values.shape)}; expected floats [H, W, 3]")
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).permute(2, 0, 1)
