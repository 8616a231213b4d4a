"""Masks and instances as pictures: the sky, the things by number and class, and all of them over the panorama."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data import images
from ...files import write_text
from ...geometry import segments, sphere
from ...scene import Geometry, Instances, Panorama
from ...visual.grids import rgb_picture
from ...visual.lettering import overlay

ENCODING = "R is the class, G * 256 + B the instance, counted from 1; black is no instance, and a class of 0 is unknown"
_MOST = 65535


@dataclass
class Labels:
    """sky.png; instances.png, .json and _overlay.png; with `each`, one mask per instance besides."""

    each: bool = False

    def __call__(self, geometry: Geometry, panorama: Panorama, folder: Path) -> list[Path]:
        """Write what there is."""
        paths = []
        if geometry.sky is not None:
            paths.append(images.write_png(folder / "sky.png", geometry.sky))
        found = geometry.instances
        if found is None:
            return paths
        labels = found.labels[0].cpu().numpy()
        about = table(found)
        boxes = [row["box"] for row in about]
        names = [f"{row['name'] or row['class'] or ''}_{row['instance']}".lstrip("_") for row in about]
        picture = overlay(rgb_picture(panorama.image), labels, boxes, names)
        record = {"encoding": ENCODING, "box": "[left, top, right, bottom), right beyond the width across the seam"}
        text = json.dumps({**record, "size": [labels.shape[1], labels.shape[0]], "instances": about}, indent=2)
        paths += [
            images.write_png(folder / "instances.png", encode(found)),
            images.write_png(folder / "instances_overlay.png", picture),
            write_text(folder / "instances.json", text + "\n"),
        ]
        if self.each:
            for row in about:
                name = f"instance_{row['instance']:05d}.png"
                paths.append(images.write_png(folder / "instances" / name, labels == row["instance"]))
        return paths


def encode(instances: Instances) -> NDArray[np.uint8]:  # [H, W, 3]
    """Class and instance of every pixel in the three bytes of a colour."""
    labels = instances.labels[0].cpu().numpy().astype(np.int64)
    labels = np.where(labels <= _MOST, labels, 0)
    classes = np.array([0, *instances.classes], np.uint8)
    return np.stack([classes[labels], labels // 256, labels % 256], axis=-1).astype(np.uint8)


def table(instances: Instances) -> list[dict[str, Any]]:
    """One row for each instance, for files and people."""
    labels = instances.labels[0].cpu().long()
    area = sphere.solid_angles(*labels.shape).expand(labels.shape).reshape(-1)
    shares = area.new_zeros(len(instances.classes) + 1).index_add_(0, labels.reshape(-1), area) / (4 * math.pi)
    rows = []
    for i, (kind, box) in enumerate(zip(instances.classes, segments.boxes(instances.labels).tolist(), strict=True)):
        row: dict[str, Any] = {"instance": i + 1, "class": kind, "name": instances.names.get(kind), "box": box}
        row["share_of_sphere"] = round(float(shares[i + 1]), 6)
        if instances.scores:
            row["score"] = instances.scores[i]
        rows.append(row)
    return rows
