"""Pictures and maps into files: whole under their name, or not at all.

Tensors are [C, H, W] with one or three channels; NumPy arrays are [H, W] or [H, W, C].
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ... import files
from ...checks import ResourceError
from ...memory import of_worker
from .doors import show

Array = NDArray[Any]


def write_png(
    path: str | Path, image: Tensor | Array, bits: Literal[8, 16] = 8, alpha: Tensor | Array | None = None
) -> Path:
    """Write bool, uint8, or floats in 0..1 (rounded to 8 or 16 bits, clipped); `alpha` has one channel, 1 is opaque."""
    pixels = _levels(image, bits)
    if alpha is not None:
        cover = _levels(alpha, bits)
        if cover.shape != (*pixels.shape[:2], 1) or pixels.shape[2] != 3:
            raise ValueError(f"expected colours and one alpha of their size, got {pixels.shape} and {cover.shape}")
        pixels = np.concatenate([pixels, cover], axis=-1)
    return _write_encoded(Path(path), ".png", pixels)


def write_map_png(path: str | Path, values: Tensor | Array, unit: float) -> Path:
    """Write a map as 16-bit PNG of round(value / unit); NaN and what does not fit (below 0, above 65535) become 0."""
    steps = np.rint(_channels_last(values).astype(np.float64) / unit)
    if steps.shape[2] != 1:
        raise ValueError(f"expected a map of one channel, got {steps.shape[2]}")
    fits = (steps >= 0) & (steps <= 65535)  # False for NaN
    return _write_encoded(Path(path), ".png", np.where(fits, steps, 0).astype(np.uint16))


def write_jpeg(path: str | Path, image: Tensor | Array, quality: int = 95) -> Path:
    """Write bool, uint8, or floats in 0..1."""
    import cv2

    return _write_encoded(Path(path), ".jpg", _levels(image, 8), cv2.IMWRITE_JPEG_QUALITY, quality)


def write_exr(path: str | Path, values: Tensor | Array, *, half: bool = False, channel: str = "Y") -> Path:
    """Write float32 or half floats, ZIP-compressed; three channels are R, G, B, a single one has the name given."""
    import OpenEXR

    pixels = _channels_last(values).astype(np.float32, copy=False)
    if half:
        if (np.abs(pixels[np.isfinite(pixels)]) > np.finfo(np.float16).max).any():
            raise ValueError("write_exr: values above 65504 do not fit half floats; write float32")
        pixels = pixels.astype(np.float16)
    names = "RGB" if pixels.shape[2] == 3 else (channel,)
    planes = {name: np.ascontiguousarray(pixels[..., k]) for k, name in enumerate(names)}
    with files.atomic(Path(path)) as temporary:
        try:
            header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
            OpenEXR.File(header, planes).write(str(temporary))
        except RuntimeError as error:  # how the package reports a full disk
            if of_worker(error):  # a process that reads samples died meanwhile
                raise
            raise OSError(" ".join(str(error).split())) from error
    return Path(path)


def write_npy(path: str | Path, values: Tensor | Array) -> Path:
    """Write a tensor or an array of any shape as it is."""
    array = np.asarray(values.detach().cpu().numpy() if isinstance(values, Tensor) else values, order="C")
    if array.dtype.hasobject:
        raise ValueError("write_npy: expected numbers, got Python objects")
    with files.atomic(Path(path)) as temporary, temporary.open("wb") as handle:
        np.lib.format.write_array_header_1_0(handle, np.lib.format.header_data_from_array_1_0(array))
        handle.write(array.data)  # np.save would tell of a full disk without saying so
    return Path(path)


def write_pfm(path: str | Path, values: Tensor | Array) -> Path:
    """Write float32, little-endian, rows from the bottom up as the format wants them."""
    pixels = _channels_last(values).astype("<f4", copy=False)
    height, width, channels = pixels.shape
    with files.atomic(Path(path)) as temporary, temporary.open("wb") as handle:
        handle.write(f"{'PF' if channels == 3 else 'Pf'}\n{width} {height}\n-1.0\n".encode())
        handle.write(np.ascontiguousarray(pixels[::-1]).data)
    return Path(path)


def write_dpt(path: str | Path, values: Tensor | Array) -> Path:
    """Write the float32 maps of 360MonoDepth: a tag, width and height, then rows from the top."""
    pixels = _channels_last(values).astype("<f4", copy=False)
    if pixels.shape[2] != 1:
        raise ValueError(f"expected a map of one channel, got {pixels.shape[2]}")
    height, width, _ = pixels.shape
    with files.atomic(Path(path)) as temporary, temporary.open("wb") as handle:
        handle.write(b"PIEH" + struct.pack("<ii", width, height))  # the tag is the float 202021.25
        handle.write(np.ascontiguousarray(pixels).data)
    return Path(path)


def _channels_last(values: Tensor | Array) -> Array:  # [H, W, 1 or 3]
    if isinstance(values, Tensor):
        array: Array = values.detach().cpu().movedim(0, -1).numpy() if values.ndim == 3 else np.empty(values.shape)
    else:
        array = values[..., None] if values.ndim == 2 else values
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        raise ValueError(f"expected a tensor [1 or 3, H, W] or an array [H, W] or [H, W, 3], got {list(values.shape)}")
    return array


def _levels(image: Tensor | Array, bits: int) -> Array:  # [H, W, 1 or 3], uint8 or uint16
    pixels = _channels_last(image)
    if pixels.dtype == bool:
        pixels = pixels * np.uint8(255)
    if pixels.dtype == np.uint8:
        return pixels if bits == 8 else pixels.astype(np.uint16) * np.uint16(257)
    if pixels.dtype.kind != "f":
        raise ValueError(f"expected bool, uint8 or floats in 0..1, got {pixels.dtype}")
    if not np.isfinite(pixels).all():
        raise ValueError("expected floats in 0..1, got NaN or infinity")
    levels = np.clip(pixels, 0, 1, dtype=np.float32)
    levels *= 2**bits - 1
    return np.rint(levels, out=levels).astype(np.uint8 if bits == 8 else np.uint16)


def _write_encoded(path: Path, suffix: str, pixels: Array, *options: int) -> Path:
    """Encode in memory: `cv2.imwrite` answers a full disk with False and a torn file."""
    import cv2

    order = [2, 1, 0, 3] if pixels.shape[2] == 4 else slice(None, None, -1)
    pixels = np.ascontiguousarray(pixels[..., order])
    try:
        done, data = cv2.imencode(suffix, pixels, options)
    except cv2.error:
        done = False
    if not done:
        raise ResourceError(f"{show(path)}: {pixels.shape[1]}x{pixels.shape[0]} pixels cannot be encoded as {suffix}")
    with files.atomic(path) as temporary:
        temporary.write_bytes(data.data)
    return path
