"""Colours for distances, normals, masks and instances. The range of the colours is always handed out with them."""

from __future__ import annotations

import colorsys
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # [H, W, 3], RGB
ColourMap = Literal["turbo", "jet", "viridis", "magma", "inferno", "bone", "rainbow", "gray"]

LOW, HIGH = 2.0, 98.0  # percentiles of the trusted values at the two ends of the colours
_UNKNOWN, _ENDLESS = (0, 0, 0), (255, 255, 255)
_GOLDEN = 0.618033988749895  # steps of hue that keep many colours apart
_MAPS = {
    "turbo": cv2.COLORMAP_TURBO,
    "jet": cv2.COLORMAP_JET,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "magma": cv2.COLORMAP_MAGMA,
    "inferno": cv2.COLORMAP_INFERNO,
    "bone": cv2.COLORMAP_BONE,
    "rainbow": cv2.COLORMAP_RAINBOW,
}


class Scale(NamedTuple):
    """What the colours stand for: values between `low` and `high`, evenly in their logarithm or evenly."""

    low: float
    high: float
    logarithmic: bool = True
    colours: ColourMap = "turbo"
    reverse: bool = True  # True: low values take the upper end of the map, near is red

    def place(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """0..1 along the map."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.logarithmic:
                share = (np.log(values) - np.log(self.low)) / (np.log(self.high) - np.log(self.low))
            else:
                share = (np.asarray(values, np.float64) - self.low) / (self.high - self.low)
        share = np.clip(np.nan_to_num(share), 0, 1)
        return 1 - share if self.reverse else share

    def value(self, share: float) -> float:
        """The value at a share of the way from low to high."""
        if self.logarithmic:
            return float(self.low * (self.high / self.low) ** share)
        return self.low + share * (self.high - self.low)


def colour_map(shares: NDArray[Any], name: ColourMap = "turbo") -> Picture:
    """Values in 0..1 as colours of a named map."""
    codes = np.rint(np.atleast_2d(np.clip(shares, 0, 1)) * 255).astype(np.uint8)
    if name == "gray":
        return np.repeat(codes[..., None], 3, -1)
    return np.ascontiguousarray(cv2.applyColorMap(codes, _MAPS[name])[..., ::-1])


def distance_scale(
    distance: NDArray[Any], mask: NDArray[np.bool_] | None = None, colours: ColourMap = "turbo"
) -> Scale:
    """A range that suits the trusted distances: most of them, without the outermost few."""
    good = np.isfinite(distance) & (distance > 0)
    trusted = distance[good & mask] if mask is not None and (good & mask).any() else distance[good]
    if not len(trusted):
        return Scale(1.0, 2.0, colours=colours)
    low, high = (float(x) for x in np.percentile(trusted, [LOW, HIGH]))
    return Scale(low, max(high, low * 1.01), colours=colours)


def colour_distance(distance: NDArray[Any], scale: Scale) -> Picture:
    """Distances in the colours of a scale; unknown is black, sky is white."""
    good = np.isfinite(distance) & (distance > 0)
    picture = colour_map(scale.place(np.where(good, distance, scale.low)), scale.colours)
    picture[~good] = _UNKNOWN
    picture[np.isposinf(distance)] = _ENDLESS
    return picture


def colour_normal(normal: NDArray[Any]) -> Picture:
    """World axes [H, W, 3] as RGB: -1..1 becomes 0..255; no normal is black."""
    picture = np.rint((normal.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    picture[np.abs(normal).sum(-1) == 0] = _UNKNOWN
    return picture


def colour_difference(difference: NDArray[Any], limit: float, mask: NDArray[np.bool_] | None = None) -> Picture:
    """Blue below zero, white at zero, red above, full at `limit`; unknown is black."""
    share = np.clip(np.nan_to_num(difference) / limit, -1, 1)[..., None]
    picture = np.where(share > 0, [255, 0, 0], [0, 0, 255]) * np.abs(share) + 255 * (1 - np.abs(share))
    out = np.rint(picture).astype(np.uint8)
    out[~np.isfinite(difference) if mask is None else ~mask] = _UNKNOWN
    return out


def instance_colour(number: int) -> tuple[int, int, int]:
    """A lively colour for an instance, the same in every picture."""
    r, g, b = colorsys.hsv_to_rgb((number * _GOLDEN) % 1, 0.55 + 0.4 * (number % 2), 0.95 - 0.25 * (number // 2 % 2))
    return round(255 * r), round(255 * g), round(255 * b)


def colour_labels(labels: NDArray[Any]) -> Picture:
    """Instances [H, W] each in a colour of its own; 0 is black."""
    palette = np.array([_UNKNOWN, *(instance_colour(i) for i in range(1, int(labels.max(initial=0)) + 1))], np.uint8)
    return palette[labels]


def colour_mask(mask: NDArray[np.bool_]) -> Picture:
    """White where True."""
    return np.repeat(np.where(mask, 255, 0).astype(np.uint8)[..., None], 3, -1)
