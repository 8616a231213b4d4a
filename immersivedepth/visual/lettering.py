"""Text, legends and boxes on pictures."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .colours import Picture, Scale, colour_labels, colour_map, instance_colour

INK, PAPER = (235, 235, 235), (24, 24, 28)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def text_size(text: str, scale: float) -> tuple[int, int]:
    """Width and height in pixels."""
    (width, height), _ = cv2.getTextSize(text, _FONT, 0.5 * scale, max(1, round(scale)))
    return width, height


def write(picture: Picture, text: str, place: tuple[int, int], scale: float = 1.0, ink: Sequence[int] = INK) -> None:
    """Write in place; `place` is the lower left corner of the text."""
    cv2.putText(picture, text, place, _FONT, 0.5 * scale, tuple(ink), max(1, round(scale)), cv2.LINE_AA)


def colour_bar(width: int, height: int, scale: Scale, unit: str) -> Picture:
    """A legend: the colours between two margins, with the values they stand for."""
    bar: Picture = np.full((height, width, 3), PAPER, np.uint8)
    margin, size = round(0.06 * width), min(height / 42, width / 400)
    shares = np.linspace(0, 1, max(1, width - 2 * margin))[None]
    bar[height // 8 : height // 2, margin : width - margin] = colour_map(
        1 - shares if scale.reverse else shares, scale.colours
    )
    for share in _TICKS:
        text = f"{scale.value(share):.3g}{unit}"
        x = round(margin + share * (width - 2 * margin) - text_size(text, size)[0] / 2)
        write(bar, text, (x, height - height // 8), size)
    return bar


def overlay(
    picture: Picture,
    labels: np.ndarray,
    boxes: Sequence[Sequence[int]] = (),
    names: Sequence[str] = (),
    alpha: float = 0.5,
) -> Picture:
    """Instances in colours over the picture, with their boxes [left, top, right, bottom) and names.

    A box whose right end lies beyond the width goes on at the left, as the panorama does.
    """
    width, line = picture.shape[1], max(1, round(picture.shape[0] / 400))
    inside = labels > 0
    out = picture.copy()
    out[inside] = np.rint(alpha * colour_labels(labels)[inside] + (1 - alpha) * picture[inside]).astype(np.uint8)
    for number, (left, top, right, bottom) in enumerate(boxes, start=1):
        if right <= left:
            continue
        for shift in (0, -width) if right > width else (0,):
            cv2.rectangle(out, (left + shift, top), (right - 1 + shift, bottom - 1), instance_colour(number), line)
        if number <= len(names):
            write(out, names[number - 1], (left + 2 * line, top + 14 * line), line)
    return out
