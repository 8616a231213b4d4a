"""Pictures of the geometry for people: distance in colours, normals as RGB, and all of it on one sheet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray

from ...checks import Range
from ...data import images
from ...scene import Geometry, Panorama, unit_image

_BAR = 0.06  # height of the colour bar, as a share of the picture's height
_INK = (235, 235, 235)
_PAPER = (24, 24, 28)
_LOW, _HIGH = 2.0, 98.0  # percentiles of the trusted distances at the two ends of the colours


@dataclass
class Preview:
    """distance.png, normal.png and overview.png."""

    max_width: Annotated[int, Range(64, 16384)] = 2048

    def __call__(self, geometry: Geometry, panorama: Panorama, folder: Path) -> list[Path]:
        distance = geometry.distance[0].cpu().numpy()
        colours, low, high = colour_distance(distance, geometry.mask[0].cpu().numpy())
        pictures = {"distance": colours}
        if geometry.normal is not None:
            pictures["normal"] = colour_normal(geometry.normal.permute(1, 2, 0).cpu().numpy())
        paths = [images.write_png(folder / f"{name}.png", picture) for name, picture in pictures.items()]
        unit = " m" if geometry.metric else ""
        bar = colour_bar(colours.shape[1], max(24, round(_BAR * colours.shape[0])), low, high, unit)
        image = (unit_image(panorama.image).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        sheet = np.vstack([image, np.vstack([colours, bar]), *(pictures[k] for k in pictures if k != "distance")])
        if sheet.shape[1] > self.max_width:
            height = round(sheet.shape[0] * self.max_width / sheet.shape[1])
            sheet = cv2.resize(sheet, (self.max_width, height), interpolation=cv2.INTER_AREA)
        return [*paths, images.write_png(folder / "overview.png", np.ascontiguousarray(sheet))]


def colour_distance(distance: NDArray[np.float32], mask: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], float, float]:
    """Near is red, far is blue, evenly in log distance; unknown is black, sky is white. Also the ends of the range."""
    good = np.isfinite(distance) & (distance > 0)
    trusted = distance[good & mask] if (good & mask).any() else distance[good]
    if not len(trusted):
        return np.zeros((*distance.shape, 3), np.uint8), 0.0, 0.0
    low, high = (float(x) for x in np.percentile(trusted, [_LOW, _HIGH]))
    high = max(high, low * 1.01)
    with np.errstate(divide="ignore"):
        place = (np.log(np.where(good, distance, low)) - np.log(low)) / (np.log(high) - np.log(low))
    picture = turbo(1 - np.clip(place, 0, 1))
    picture[~good] = 0
    picture[np.isinf(distance)] = 255
    return picture, low, high


def turbo(value: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Values in 0..1 as colours, blue to red."""
    codes = np.rint(np.atleast_2d(value) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(codes, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)


def colour_normal(normal: NDArray[np.float32]) -> NDArray[np.uint8]:
    """World axes as RGB: -1..1 becomes 0..255; no normal is black."""
    picture = np.rint((normal.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    picture[np.abs(normal).sum(-1) == 0] = 0
    return picture


def colour_bar(width: int, height: int, low: float, high: float, unit: str) -> NDArray[np.uint8]:
    """A legend for `colour_distance`: the colours between two margins, with the distances they stand for."""
    bar = np.full((height, width, 3), _PAPER, np.uint8)
    margin, scale = round(0.06 * width), height / 42
    inner = turbo(np.linspace(1, 0, width - 2 * margin)[None])
    bar[height // 8 : height // 2, margin : width - margin] = inner
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        text = f"{low * (high / low) ** share:.3g}{unit}" if low > 0 else "?"
        (text_width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5 * scale, max(1, round(scale)))
        x = round(margin + share * (width - 2 * margin) - text_width / 2)
        place = (x, height - height // 8)
        cv2.putText(bar, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5 * scale, _INK, max(1, round(scale)), cv2.LINE_AA)
    return bar
