"""Many pictures on one sheet, with what they are written beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from .colours import Picture, colour_distance, colour_labels, colour_mask, colour_normal, distance_scale
from .lettering import PAPER, text_size, write

_GAP = 4  # pixels between pictures


def as_picture(task: str, image: Tensor) -> Picture:  # [C, h, w] -> [h, w, 3]
    """A map of a named task in the colours that suit it; what the name does not tell is told by type and channels."""
    array = np.ascontiguousarray(image.detach().cpu().movedim(0, -1).numpy())
    flat = array[..., 0]
    if "normal" in task:
        return colour_normal(array)
    if flat.dtype == bool:
        return colour_mask(flat)
    if any(word in task for word in ("instance", "label", "segment")):
        return colour_labels(flat.astype(np.int64))
    if array.shape[-1] == 3:
        return array if array.dtype == np.uint8 else np.rint(array.clip(0, 1) * 255).astype(np.uint8)
    return colour_distance(flat, distance_scale(flat))


def show_batch_images(
    batch: Mapping[str, Tensor | Sequence[Tensor]], titles: Sequence[str] = (), side: int = 192
) -> Picture:
    """A grid with one row for each task and one column for each view: {"rgb": [V, 3, h, w], "distance": [V, 1, h, w]}.

    `side` is the width of a picture; each keeps its shape.
    """
    rows = {task: [as_picture(task, view) for view in views] for task, views in batch.items()}
    return grid(rows, titles, side)


def grid(rows: Mapping[str, Sequence[Picture]], titles: Sequence[str] = (), side: int = 192) -> Picture:
    """Pictures in named rows under titled columns; missing ones leave the paper blank."""
    if not rows or not any(rows.values()):
        raise ValueError("grid: expected at least one picture, got none")
    scale = max(0.7, side / 300)
    margin = max(text_size(name, scale)[0] for name in rows) + 4 * _GAP
    columns = max(len(row) for row in rows.values())
    band = round(24 * scale)
    lines = []
    if titles:
        line = _blank(band, margin + columns * (side + _GAP))
        for i, title in enumerate(titles[:columns]):
            write(line, title, (margin + i * (side + _GAP), band - round(7 * scale)), scale)
        lines.append(line)
    for name, row in rows.items():
        cells = [_fit(picture, side) for picture in row]
        tall = max((cell.shape[0] for cell in cells), default=band)
        line = _blank(tall + _GAP, margin + columns * (side + _GAP))
        for i, cell in enumerate(cells):
            line[: cell.shape[0], margin + i * (side + _GAP) :][:, :side] = cell
        write(line, name, (2 * _GAP, tall // 2 + round(5 * scale)), scale)
        lines.append(line)
    return np.vstack(lines)


def _fit(picture: Picture, side: int) -> Picture:
    height = max(1, round(picture.shape[0] * side / picture.shape[1]))
    shrinks = side < picture.shape[1]
    fitted = cv2.resize(picture, (side, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST)
    return np.asarray(fitted, np.uint8)


def _blank(height: int, width: int) -> Picture:
    return np.full((height, width, 3), PAPER, np.uint8)


def shrunk(picture: Picture, width: int) -> Picture:
    """No wider than that."""
    return picture if picture.shape[1] <= width else _fit(picture, width)


def rgb_picture(image: Tensor) -> Picture:  # [3, H, W] -> [H, W, 3]
    """A colour image, uint8 or floating in 0..1, as a picture."""
    image = image.detach()
    if image.dtype != torch.uint8:
        image = (image.clamp(0, 1) * 255).round().byte()
    return np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
