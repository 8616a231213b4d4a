"""The numbers themselves: distance, normals and mask, with a JSON that says what they mean."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ...data import images
from ...files import write_text
from ...scene import Geometry, Panorama

CONVENTION = {
    "projection": "equirectangular, pixel centres at (i + 0.5) / n, image centre looks along +x",
    "axes": "+x forward, +y left, +z up",
    "distance": "length of the ray from the centre, not depth along an axis",
    "invalid": "0 where nothing is known, inf for sky; the mask is 255 where distance can be trusted",
}


@dataclass
class Arrays:
    """Distance (and normals, where known) as float32, the mask as PNG, and what they mean as JSON."""

    formats: tuple[Literal["exr", "npy"], ...] = ("exr", "npy")

    def __call__(self, geometry: Geometry, panorama: Panorama, folder: Path) -> list[Path]:
        maps = {"distance": geometry.distance, "normal": geometry.normal, "spread": geometry.spread}
        write = {"exr": images.write_exr, "npy": images.write_npy}
        paths = []
        for name, tensor in maps.items():
            if tensor is None:
                continue
            array = _channels_last(tensor)
            paths += [write[kind](folder / f"{name}.{kind}", array) for kind in self.formats]
        paths.append(images.write_png(folder / "mask.png", _channels_last(geometry.mask.byte() * 255)))
        trusted = geometry.distance[geometry.mask & geometry.distance.isfinite()]
        about = {
            **CONVENTION,
            "unit": "metre" if geometry.metric else "arbitrary, one factor for the whole panorama",
            "size": [panorama.size[1], panorama.size[0]],
            "range": [float(trusted.min()), float(trusted.max())] if len(trusted) else None,
            "trusted_share": round(float(geometry.mask.float().mean()), 6),
        }
        paths.append(write_text(folder / "distance.json", json.dumps(about, indent=2) + "\n"))
        return paths


def _channels_last(tensor: torch.Tensor) -> np.ndarray:  # [C, H, W] -> [H, W] or [H, W, C]
    array = tensor.permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(array[..., 0] if array.shape[-1] == 1 else array)
