"""The numbers themselves: distance, normals and spread, with a JSON that says what they mean."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...data import images
from ...files import write_text
from ...scene import Geometry, Panorama

CONVENTION = {
    "projection": "equirectangular, pixel centres at (i + 0.5) / n, image centre looks along +x, first row straight up",
    "axes": "+x forward, +y left, +z up",
    "distance": "length of the ray from the centre, not depth along an axis",
}
BAD_PIXELS = {
    "distance": {"unknown": 0.0, "sky": "inf"},
    "normal": {"unknown": [0.0, 0.0, 0.0], "sky": [0.0, 0.0, 0.0]},
    "spread": {"unknown": 0.0, "sky": 0.0},
    "mask.png": "255 where the distance can be trusted, 0 elsewhere; distances outside it may still be good guesses",
}


def unit_of(geometry: Geometry) -> str:
    """What one is one of."""
    return "metre" if geometry.metric else "arbitrary, one factor for the whole panorama"


def describe(geometry: Geometry, panorama: Panorama) -> dict[str, Any]:
    """Unit, range and conventions, as every sidecar states them."""
    trusted = geometry.distance[geometry.mask & geometry.distance.isfinite()]
    return {
        **CONVENTION,
        "unit": unit_of(geometry),
        "metric": geometry.metric,
        "size": [panorama.size[1], panorama.size[0]],
        "range": [float(trusted.min()), float(trusted.max())] if len(trusted) else None,
        "trusted_share": round(float(geometry.mask.float().mean()), 6),
    }


@dataclass
class Arrays:
    """Distance (normals and spread where known) as float32, the mask as PNG, and what they mean as JSON."""

    formats: tuple[Literal["exr", "npy"], ...] = ("exr", "npy")

    def __call__(self, geometry: Geometry, panorama: Panorama, folder: Path) -> list[Path]:
        """Write them under fixed names."""
        maps = {"distance": geometry.distance, "normal": geometry.normal, "spread": geometry.spread}
        paths = []
        for name, tensor in maps.items():
            if tensor is None:
                continue
            if "exr" in self.formats:
                paths.append(images.write_exr(folder / f"{name}.exr", tensor))
            if "npy" in self.formats:
                flat = tensor[0] if len(tensor) == 1 else tensor.permute(1, 2, 0)  # [H, W] or [H, W, 3]
                paths.append(images.write_npy(folder / f"{name}.npy", flat.contiguous()))
        paths.append(images.write_png(folder / "mask.png", geometry.mask))
        about = {**describe(geometry, panorama), "bad_pixels": BAD_PIXELS}
        paths.append(write_text(folder / "distance.json", json.dumps(about, indent=2) + "\n"))
        return paths
