"""From what a decoder gives to what a network takes: three channels, no transparency, no NaN, 0..1, upright."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .decoders import Decoded
from .doors import Source
from .metadata import upright

Array = NDArray[Any]
_BAND = 256  # rows converted at once, so that a large picture is never held in several forms


def finish(source: Source, decoded: Decoded, linear: bool) -> tuple[Array, Array | None, dict[str, Any]]:
    height, width, channels = decoded.pixels.shape
    pixels, mask = _over_black(source, decoded)
    if pixels.dtype != np.uint8:
        if _replace_infinity(source, pixels):
            decoded.notes.append("infinite pixels count as the brightest finite one")
        if decoded.linear and not linear:
            tone_map(pixels)
    about: dict[str, Any] = {
        "path": str(source.path),
        "format": source.format,
        "size": [width, height],
        "bits": decoded.bits,
    }
    if decoded.linear:
        about["tone_mapped"] = not linear
    if decoded.orientation != 1:
        about["exif_orientation"] = decoded.orientation
    about |= {key: value for key in ("gpano", "notes", "input_damaged") if (value := getattr(decoded, key))}
    orientation = 1 if decoded.turned else decoded.orientation
    return upright(pixels, orientation), None if mask is None else upright(mask, orientation), about


def _over_black(source: Source, decoded: Decoded) -> tuple[Array, Array | None]:
    """Three channels, uint8 or float32, without transparency; and where the picture is at least half opaque."""
    given = decoded.pixels
    height, width, channels = given.shape
    small = given.dtype == np.uint8
    colours = 3 if channels >= 3 else 1
    if small and channels == 3:
        return np.ascontiguousarray(given), None
    has_alpha = channels in (2, 4)
    full = {"u": np.iinfo(given.dtype).max if given.dtype.kind == "u" else 1, "f": 1}[given.dtype.kind]
    out = np.empty((height, width, 3), np.uint8 if small else np.float32)
    mask = np.empty((height, width), bool) if has_alpha else None
    for top in range(0, height, _BAND):
        band = given[top : top + _BAND]
        colour, target = band[..., :colours], out[top : top + _BAND]
        with np.errstate(over="ignore"):
            if mask is not None:
                mask[top : top + _BAND] = band[..., -1] * 2.0 >= full
            if mask is None or decoded.premultiplied:
                target[...] = colour if small or full == 1 else np.divide(colour, full, dtype=np.float32)
            elif small:
                target[...] = (colour.astype(np.uint16) * band[..., -1:] + 127) // 255
            else:
                target[...] = np.divide(colour, full, dtype=np.float32)
                target *= np.divide(band[..., -1:], full, dtype=np.float32)
    if mask is not None and not mask.any():
        raise source.error("is transparent everywhere; save it without its alpha channel")
    return out, None if mask is None or mask.all() else mask


def _replace_infinity(source: Source, pixels: Array) -> bool:
    """Refuse NaN and -inf, and give +inf the brightest finite value; says whether there was any."""
    endless = False
    high = 0.0
    for top in range(0, len(pixels), _BAND):
        band = pixels[top : top + _BAND]
        finite = np.isfinite(band)
        if finite.all():
            high = max(high, float(band.max()))
            continue
        bad = np.isnan(band) | (band == -np.inf)
        if bad.any():
            row, column = (int(i[0]) for i in np.nonzero(bad.any(-1)))
            count = sum(int((np.isnan(b) | (b == -np.inf)).any(-1).sum()) for b in _bands(pixels))
            raise source.error(
                f"has {count} NaN pixel{'s' * (count > 1)} of {pixels.shape[0] * pixels.shape[1]}, the first in column "
                f"{column}, row {top + row}; fill them in or make them transparent"
            )
        endless = True
        high = max(high, float(band[finite].max(initial=0)))
    if endless:
        for band in _bands(pixels):
            np.minimum(band, np.float32(high), out=band)
    return endless


def _bands(pixels: Array) -> Iterator[Array]:
    return (pixels[top : top + _BAND] for top in range(0, len(pixels), _BAND))


def tone_map(light: Array) -> Array:  # [H, W, 3]
    """Linear light to display values in 0..1, in place: median luminance to middle grey, Reinhard's curve, sRGB.

    The luminance of the brightest hundredth becomes white, and hues are kept below it. A common factor of all pixels
    changes nothing, so the exposure of the file does not matter.
    """
    weights = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Rec. 709
    step = max(1, math.isqrt(light.shape[0] * light.shape[1] // 2**20))
    sample = np.maximum(light[::step, ::step], 0).astype(np.float64) @ weights.astype(np.float64)
    sample = sample[sample > 0]
    middle = float(np.median(sample)) if len(sample) else 1.0
    middle = max(middle, 1e-37)  # so that its reciprocal is a float32
    brightest = min(middle * 1e6, 3e38)  # what is a million times above the median is white anyhow
    white = max(min(float(np.percentile(sample, 99)), brightest) / middle * 0.18, 1.0) if len(sample) else 1.0
    for band in _bands(light):
        np.clip(band, 0, np.float32(brightest), out=band)
        band *= np.float32(0.18 / middle)
        luminance = np.maximum(band @ weights, np.float32(1e-12))[..., None]
        band *= (1 + luminance / np.float32(white**2)) / (1 + luminance)
        np.minimum(band, 1, out=band)
        band[...] = np.where(band <= 0.0031308, 12.92 * band, 1.055 * band ** np.float32(1 / 2.4) - 0.055)
        np.clip(band, 0, 1, out=band)
    return light
