"""Distance as a 16-bit PNG that any program reads, with the one number that turns it back into distance."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ...data import images
from ...files import write_text
from ...scene import Geometry, Panorama
from .arrays import describe

_SKY = 65535
_LARGEST = 65534
_MILLIMETRE = 1e-3


@dataclass
class Png16:
    """distance_16bit.png and .json; linear steps are millimetres where the result is metric and they suffice."""

    encoding: Literal["linear", "log"] = "linear"

    def __call__(self, geometry: Geometry, panorama: Panorama, folder: Path) -> list[Path]:
        """Write the picture and what its numbers mean."""
        distance = geometry.distance.double()
        good = distance.isfinite() & (distance > 0)
        sky = distance.isinf()
        far = float(distance[good].max()) if good.any() else 1.0
        about: dict[str, Any]
        if self.encoding == "linear":
            step = far / _LARGEST
            if geometry.metric and far <= _MILLIMETRE * _LARGEST:
                step = _MILLIMETRE
            codes = distance / step
            about = {"encoding": "linear", "formula": "distance = value * step", "step": step}
        else:
            near = float(distance[good].min()) if good.any() else 1.0
            step = max(math.log(far / near), 1e-6) / (_LARGEST - 1)
            codes = (distance.clamp_min(near) / near).log() / step + 1
            about = {"encoding": "log", "formula": "distance = nearest * exp((value - 1) * step)"}
            about |= {"step": step, "nearest": near}
        codes = torch.where(good, codes.round().clamp(1, _LARGEST), 0.0)
        codes = torch.where(sky, float(_SKY), codes)
        about |= {"bad_pixels": {"unknown": 0, "sky": _SKY}, **describe(geometry, panorama)}
        return [
            images.write_map_png(folder / "distance_16bit.png", codes, 1.0),
            write_text(folder / "distance_16bit.json", json.dumps(about, indent=2) + "\n"),
        ]
