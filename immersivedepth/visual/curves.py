"""Curves for people: losses over steps, errors over epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .colours import Picture, instance_colour
from .lettering import INK, PAPER, text_size, write

_FAINT = (70, 70, 76)
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 24, 44, 56  # margins in pixels at scale one
_TICKS = 5
_SUB = 8  # fractional bits of cv2's line ends


@dataclass(frozen=True)
class Curve:
    """One line of a chart; points that are not finite are left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    logarithmic: bool

    def share(self, value: float) -> float:
        """Where a value lies between the ends, from 0 to 1; nan where it has no place."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else math.nan
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        shares = [i / (_TICKS - 1) for i in range(_TICKS)]
        if self.logarithmic:
            return [self.low * (self.high / self.low) ** s for s in shares]
        return [self.low + (self.high - self.low) * s for s in shares]


def chart(
    curves: Sequence[Curve],
    *,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
    size: tuple[int, int] = (640, 400),
) -> Picture:
    """A chart of that width and height with a legend."""
    width, height = size
    paper: Picture = np.full((height, width, 3), PAPER, np.uint8)
    across = _axis([v for c in curves for v in c.x], log_x)
    up = _axis([v for c in curves for v in c.y], log_y)
    left, right, top, bottom = _LEFT, width - _RIGHT, _TOP, height - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return left + across.share(x) * (right - left), bottom - up.share(y) * (bottom - top)

    for value in up.ticks():
        y = round(place(across.low, value)[1])
        cv2.line(paper, (left, y), (right, y), _FAINT, 1)
        text = f"{value:.3g}"
        write(paper, text, (left - 8 - text_size(text, 0.8)[0], y + 5), 0.8)
    for value in across.ticks():
        x = round(place(value, up.low)[0])
        cv2.line(paper, (x, bottom), (x, bottom + 5), INK, 1)
        text = f"{value:.3g}"
        write(paper, text, (x - text_size(text, 0.8)[0] // 2, bottom + 20), 0.8)
    cv2.line(paper, (left, bottom), (right, bottom), INK, 1)
    for number, curve in enumerate(curves, start=1):
        colour = tuple(int(v) for v in instance_colour(number))
        _draw(
            paper, [place(x, y) for x, y in zip(curve.x, curve.y, strict=True) if _drawable(x, y, across, up)], colour
        )
        y = top + 18 * number - 8
        cv2.line(paper, (right - 150, y - 5), (right - 130, y - 5), colour, 2)
        write(paper, curve.name, (right - 124, y), 0.8)
    write(paper, title, (left, 24), 1.0)
    write(paper, x_label, ((left + right - text_size(x_label, 0.8)[0]) // 2, height - 12), 0.8)
    write(paper, y_label, (8, 24 if not title else _TOP - 6), 0.8)
    return paper


def _axis(values: Sequence[float], logarithmic: bool) -> _Axis:
    good = [v for v in values if math.isfinite(v) and (v > 0 or not logarithmic)]
    low, high = (min(good), max(good)) if good else (1.0, 2.0)
    if low == high:
        low, high = (low / 2, high * 2) if logarithmic else (low - 0.5, high + 0.5)
    return _Axis(low, high, logarithmic)


def _drawable(x: float, y: float, across: _Axis, up: _Axis) -> bool:
    if not (math.isfinite(x) and math.isfinite(y)):
        return False
    return (x > 0 or not across.logarithmic) and (y > 0 or not up.logarithmic)


def _draw(paper: Picture, points: list[tuple[float, float]], colour: tuple[int, ...]) -> None:
    if len(points) == 1:
        cv2.circle(paper, (round(points[0][0]), round(points[0][1])), 3, colour, -1, cv2.LINE_AA)
    line = np.round(np.array(points).reshape(-1, 1, 2) * 2**_SUB).astype(np.int32)
    cv2.polylines(paper, [line], False, colour, 2, cv2.LINE_AA, _SUB)
