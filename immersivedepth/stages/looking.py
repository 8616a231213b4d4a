"""From a panorama to what its views say together."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..scene import Geometry, Panorama
from . import protocols as stage
from .sound import sound, tell


@dataclass
class Looking:
    """The stages between the picture and the first geometry, which is neither refined nor masked."""

    project: stage.Project
    predict: dict[str, stage.Predict]
    fuse: stage.Fuse
    align: stage.Align
    blend: stage.Blend

    def __call__(self, panorama: Panorama) -> Geometry:
        views = self.project(panorama)
        predictions, lost = sound({name: predict(views) for name, predict in self.predict.items()})
        who = sorted({model for name, found in predictions.items() for model in found.models or (name,)})
        aligned = tell(self.align(self.fuse(predictions)), lost)
        geometry = self.blend(aligned, panorama.size)
        return replace(geometry, aligned=aligned, report={**geometry.report, "models": who})
