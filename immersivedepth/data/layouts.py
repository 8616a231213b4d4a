"""Measured panoramas in the layouts in which they are published; unit, holes and limits belong to the layout.

Pictures keep their size unless `image_resize` says otherwise; distances then take the nearest pixel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml

from ..checks import ConfigError, InputError, Range
from . import images, three_d60
from .measured import Pair, Paired, Pairs, Stored, read_pairs

_STANFORD = re.compile(r"camera_(?P<camera>[0-9a-f]+)_(?P<room>.+)_frame_equirectangular_domain_rgb\.png")
_AREAS = ("1", "2", "3", "4", "5a", "5b", "6")


@dataclass
class Matterport(Paired):
    """Matterport3D as UniFuse stitches it: <scene>/pano_skybox_color/<id>.jpg and <scene>/pano_depth/<id>.png."""

    list: str | None = None  # lines "picture map" below root; None: all there are

    def stored(self) -> Stored:
        """Steps of 1/4000 m; 0 is no measurement."""
        return Stored(unit=1 / 4000)

    def pairs(self) -> Pairs:
        """Those of the list, or all."""
        if self.list is not None:
            return read_pairs(_list(self.list, self.home), self.home)
        found = sorted(self.home.glob("*/pano_skybox_color/*"))
        return [
            Pair(path, path.parents[1] / "pano_depth" / f"{path.stem}.png")
            for path in found
            if path.suffix.lower() in (".jpg", ".jpeg", ".png")
        ]


@dataclass
class Stanford(Paired):
    """Stanford2D3D: area_<k>/pano/rgb/camera_<id>_<room>_frame_equirectangular_domain_rgb.png, depth beside rgb."""

    list: str | None = None  # lines "picture map" below root; None: all of the areas
    areas: tuple[str, ...] = ("5a", "5b")  # the test part of fold 1

    def stored(self) -> Stored:
        """Steps of 1/512 m along the ray; 65535 and 0 are no measurement."""
        return Stored(unit=1 / 512, holes=(0.0, 65535.0))

    def pairs(self) -> Pairs:
        """Those of the list, or all of the areas."""
        if self.list is not None:
            return read_pairs(_list(self.list, self.home), self.home)
        if wrong := [area for area in self.areas if area not in _AREAS]:
            raise ConfigError(f"dataset.areas: {wrong[0]} is no area; expected some of {', '.join(_AREAS)}")
        found = []
        for area in self.areas:
            for path in sorted((self.home / f"area_{area}").rglob("camera_*_frame_equirectangular_domain_rgb.png")):
                if not _STANFORD.fullmatch(path.name):
                    continue
                name = path.name.replace("_domain_rgb", "_domain_depth")
                apart = path.parent.parent / "depth" / name
                found.append(Pair(path, apart if apart.is_file() else path.with_name(name)))
        return found


@dataclass
class Replica(Paired):
    """Replica360-2K, 4K and Matterport3D-360 of 360MonoDepth: a list of pictures and their .dpt maps in metres."""

    list: str | None = None  # lines "<name>_rgb.png <name>_depth.dpt", or None for the map, relative to root

    def pairs(self) -> Pairs:
        """Those of the list."""
        if self.list is None:
            raise ConfigError("dataset.list has no value: set it to the list of pictures and .dpt maps")
        path = Path(self.list).expanduser()
        return read_pairs(path if self.root is None else _list(self.list, self.home), self._base(path))

    def _base(self, path: Path) -> Path:
        return path.parent if self.root is None else self.home


@dataclass
class Pano3D(Paired):
    """Pano3D's Matterport3D and GibsonV2: <scene>/<n>_spherical_1_emission_center_0.png, with depth as .exr."""

    split: str | None = None  # a YAML of scenes and their pictures, as Pano3D publishes; None: all there are
    max_depth: Annotated[float, Range(1e-3)] = 8.0  # metres; what is farther counts as not measured
    position: Literal["center", "left", "right", "up", "down"] = "center"

    def stored(self) -> Stored:
        """Metres; 0 and what lies beyond max_depth is no measurement."""
        return Stored(farthest=self.max_depth)

    def pairs(self) -> Pairs:
        """Those of the split, or all."""
        end = f"_emission_{self.position}_"
        if self.split is None:
            return [self._pair(path) for path in sorted(self.home.glob(f"*/*{end}*.png"))]
        path = _list(self.split, self.home)
        try:
            scenes = yaml.safe_load(path.read_text("utf-8"))
            named = [self.home / scene / name for scene, names in scenes.items() for name in names]
        except (yaml.YAMLError, AttributeError, TypeError, UnicodeDecodeError) as error:
            raise InputError(f"{images.show(path)} is no split of Pano3D (scene: [pictures]): {error}") from error
        return [self._pair(path.with_name(path.name.replace("_center_", f"_{self.position}_"))) for path in named]

    def _pair(self, path: Path) -> Pair:
        return Pair(path, path.with_name(path.name.replace("_emission_", "_depth_")).with_suffix(".exr"))


@dataclass
class ThreeD60Mono(Paired):
    """The lower left panorama of every viewpoint of 3D60, each by itself."""

    split: Literal["lists", "areas", "folds", "all"] = "lists"
    part: Literal["train", "val", "test"] = "test"
    list: str = "splits/test.txt"  # of split=lists, below root
    yaws: tuple[float, ...] | None = None  # which renderings of a viewpoint; None: all there are

    def stored(self) -> Stored:
        """Metres; 1e10 is no measurement."""
        return Stored(farthest=three_d60.HOLE)

    def pairs(self) -> Pairs:
        """The viewpoints of the part."""
        data = three_d60.ThreeD60(
            root=str(self.home),
            split=self.split,
            lists=three_d60.Lists(**{self.part: self.list}),
            yaws=None if self.yaws is None else [*self.yaws],
        )
        return [
            Pair(view.path("color", three_d60.REFERENCE), view.path("depth", three_d60.REFERENCE))
            for view in data.views(self.part)
        ]


def _list(name: str, root: Path) -> Path:
    """A list by its own path, or below the data set's folder."""
    path = Path(name).expanduser()
    inside = root / path
    if not path.is_absolute() and inside.is_file():
        return inside
    if not path.is_file():
        raise InputError(f"{images.show(path)} not found, neither here nor in {root}; name the list of the data set")
    return path
