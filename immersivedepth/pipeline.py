"""The order of the stages, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from .checks import ConfigError
from .config import build
from .scene import Geometry, Panorama
from .stages import protocols as stage
from .stages.looking import Looking

Stages = TypeVar("Stages", "Pipeline", "Finish")


@dataclass
class Pipeline:
    """Panorama in, Geometry out. The fields are in the order in which data meets them."""

    enhance: dict[str, stage.Enhance]
    project: stage.Project
    predict: dict[str, stage.Predict]
    fuse: stage.Fuse
    align: stage.Align
    blend: stage.Blend
    refine: dict[str, stage.Refine]
    segment: stage.Segment
    export: dict[str, stage.Export]

    def __post_init__(self) -> None:
        if not self.predict:
            raise ConfigError("predict=[] leaves nobody to look: choose at least one, e.g. predict=[oracle]")

    def prepare(self) -> None:
        """Load what the networks need, so that missing weights are told before anything is computed or written."""
        for one in (*self.predict.values(), *self.refine.values()):
            if isinstance(one, stage.Loading):
                one.load()

    def __call__(self, panorama: Panorama) -> Geometry:
        return self.finish(self.estimate(panorama), panorama)

    def estimate(self, panorama: Panorama) -> Geometry:
        """As far as the blend: what the views say together, neither refined nor masked."""
        seen = panorama  # only the networks see the enhanced picture; refinement and files use the original
        for enhance in self.enhance.values():
            seen = enhance(seen)
        return Looking(self.project, self.predict, self.fuse, self.align, self.blend)(seen)

    @property
    def finish(self) -> Finish:
        """The stages that any geometry goes through, wherever it comes from."""
        return Finish(self.refine, self.segment, self.export)

    def save(self, geometry: Geometry, panorama: Panorama, folder: Path) -> list[Path]:
        """Write every chosen product into a folder and name the files."""
        return self.finish.save(geometry, panorama, folder)


@dataclass
class Finish:
    """What follows once there is a geometry: from views, from a stereo pair, from anything."""

    refine: dict[str, stage.Refine]
    segment: stage.Segment
    export: dict[str, stage.Export]

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry:
        for refine in self.refine.values():
            geometry = refine(geometry, panorama)
        return self.segment(geometry, panorama)

    def save(self, geometry: Geometry, panorama: Panorama, folder: Path) -> list[Path]:
        """Write every chosen product into a folder and name the files."""
        return [path for export in self.export.values() for path in export(geometry, panorama, folder)]


def assemble(config: dict[str, Any]) -> Pipeline:
    """Build the stages of a checked config."""
    return _assembled(config, Pipeline)


def assemble_finish(config: dict[str, Any]) -> Finish:
    """Build the stages that follow a geometry which came from elsewhere."""
    return _assembled(config, Finish)


def _assembled(config: dict[str, Any], stages: type[Stages]) -> Stages:
    for field in fields(stages):
        node, several = config.get(field.name), field.type.startswith("dict")
        if not isinstance(node, dict) or ("_target_" in node) is several:
            raise ConfigError(f"{field.name}: expected {'a list of options' if several else 'one option'} of its group")
    return stages(**{field.name: build(config[field.name], field.name) for field in fields(stages)})
