"""3D60: pairs of panoramas with depth, in the layouts in which the data set was published and used.

A file is <stem>_<type>_0_<place>_<yaw>.<ext>; the stem names pose and scene, in one of three patterns:
Matterport3D <pose>_<hash>, Stanford2D3D <pose>_area_<number>, SunCG <hash>. Two pictures are a pair when their whole
stem and their yaw agree. Depth is the distance along the ray in metres; 1e10 marks holes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from ..checks import ConfigError, InputError, Range
from ..geometry import sphere, stereo
from ..scene import unit_image
from . import images
from .samples import Batch

Split = Literal["train", "val", "test"]
BASELINE = 0.26  # metres
REFERENCE = "Left_Down"
PLACE = {"right": "Right", "up": "Up"}
_SUFFIX = {"color": "png", "depth": "exr", "normal": "exr"}
HOLE = 1000.0  # metres; what is farther is a hole
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_NAME = re.compile(
    r"(?P<stem>.+)_(?P<type>color|depth|normal)_0_(?P<place>Left_Down|Right|Up)_(?P<yaw>\d+(?:\.\d+)?)\.(?:png|exr)"
)
_AREA = re.compile(r"\d+_area_(?P<area>[1246]|3|5a|5b)\d")
# The official division of Stanford2D3D; those of the other two are published as lists only.
_AREAS: dict[str, tuple[str, ...]] = {"train": ("1", "2", "4", "6"), "val": ("3",), "test": ("5a", "5b")}
_SETS = ("Matterport3D", "Matterport", "Matteport3D", "Stanford2D3D", "Stanford", "SunCG")
# The order in which the original program listed the data before it cut the list into five parts.
_ORDER = ("SunCG", "Stanford2D3D", "Matterport3D")
_FOLDS = 5
_HASH_LENGTH = 32  # a stem without a pose begins with that many digits
_MULTIPLE = 16  # of the rows of a Cassini view: then the network joins their ends exactly
_NS_RADIUS, _NS_PAD = 3, 32  # pixels: of the inpainting, and of what is added at the seam before it


@dataclass(frozen=True)
class View:
    """One viewpoint of one scene: where its files are, by type and place."""

    collection: str
    stem: str
    yaw: float
    files: dict[tuple[str, str], Path] = field(default_factory=dict, compare=False)

    def path(self, kind: str, place: str) -> Path:
        """The file of a type and a place; InputError if the data set lacks it."""
        found = self.files.get((kind, place))
        if found is None:
            raise InputError(f"{self.collection}/{self.stem}: the data set holds no {kind} picture of {place}")
        return found


@dataclass(frozen=True)
class Lists:
    """The published list of each part, below the root."""

    train: str = "splits/train.txt"
    val: str = "splits/val.txt"
    test: str = "splits/test.txt"


@dataclass
class ThreeD60:
    """Where the data are, which part is used, and how a pair is looked at; the fields are the keys of its YAML."""

    root: str | None = None
    left: str | None = None  # of one's own, for mode=predict: the reference panorama,
    right: str | None = None  # and the one to its right,
    up: str | None = None  # or above it
    side: Literal["right", "up"] = "right"
    baseline: Annotated[float, Range(1e-6)] = BASELINE  # metres
    split: Literal["lists", "areas", "folds", "all"] = "lists"
    lists: Lists = Lists()
    yaws: list[float] | None = None  # which renderings of a viewpoint; null: all there are
    projection: Literal["cassini", "erp"] = "cassini"
    columns: Annotated[int, Range(16)] | None = None  # of the Cassini view; null: as many as a panorama has rows
    inpaint: bool = False  # fill holes of the depth instead of leaving them out
    crop_rows: Annotated[int, Range(16)] | None = None  # training looks at so many rows of a pair
    roll: bool = True  # training turns pairs around the baseline
    colour_jitter: Annotated[float, Range(0, 1)] = 0.0  # training changes brightness and contrast by so much

    def views(self, split: Split) -> list[View]:
        """The viewpoints of a part."""
        if self.split == "lists":
            path = self._root / getattr(self.lists, split)
            if not path.is_file() and split == "train":
                raise InputError(f"{path} not found; set dataset.lists.train to a list of 3D60, or dataset.split")
            return self._chosen(read_list(path, self._root)) if path.is_file() else []
        every = self._chosen(scan(self._root))
        if self.split == "all":
            return every
        if self.split == "areas":
            return [v for v in every if (area := area_of(v)) is not None and area in _AREAS[split]]
        return folds(every)[split]

    def samples(self, split: Split) -> Pairs | None:
        """The pairs of a part; None if there are none."""
        views = [v for v in self.views(split) if ("color", PLACE[self.side]) in v.files]
        return Pairs(self, views, split == "train") if views else None

    @property
    def _root(self) -> Path:
        if self.root is None:
            raise ConfigError("dataset.root has no value: set it to the folder that holds 3D60")
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise InputError(f"{root} is not a folder; set dataset.root to the folder that holds 3D60")
        return root

    def _chosen(self, views: Iterable[View]) -> list[View]:
        return [v for v in views if self.yaws is None or v.yaw in self.yaws]


def scan(root: Path) -> list[View]:
    """Every viewpoint below a folder, whether places lie together or in folders such as SunCG_left and SunCG_right."""
    found: dict[tuple[str, str, float], View] = {}
    for path in sorted(root.rglob("*")):
        match = _NAME.fullmatch(path.name)
        if not match:
            continue
        collection = path.relative_to(root).parts[0] if path.parent != root else root.name
        collection = re.sub(r"_(left|right|up)$", "", collection)
        key = (collection, match["stem"], float(match["yaw"]))
        view = found.setdefault(key, View(*key))
        view.files[match["type"], match["place"]] = path
    views = [v for v in found.values() if ("color", REFERENCE) in v.files]
    return sorted(views, key=lambda v: (_rank(v.collection), v.collection, area_of(v) or "", _counted(v.stem), v.yaw))


def read_list(path: Path, root: Path) -> list[View]:
    """The viewpoints of a published list, whatever its roots and separators.

    A line names nine files, or a picture and its depth: then the other places are those that lie beside them.
    """
    views = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        files = [rerooted(name, root) for name in line.split()]
        matches = [_NAME.fullmatch(file.name) for file in files]
        if not all(matches) or len(files) not in (2, 9):
            raise InputError(f"{path}:{number}: expected two or nine names of 3D60 files, got {line[:80]!r}")
        stems = {(m["stem"], float(m["yaw"])) for m in matches if m}
        if len(stems) != 1:
            raise InputError(f"{path}:{number}: the files are of different viewpoints: {sorted(s for s, _ in stems)}")
        stem, yaw = stems.pop()
        collection = files[0].relative_to(root).parts[0] if files[0].is_relative_to(root) else files[0].parent.name
        view = View(collection, stem, yaw)
        view.files.update({(m["type"], m["place"]): f for m, f in zip(matches, files, strict=True) if m})
        if len(files) < len(_SUFFIX) * (1 + len(PLACE)):
            view.files.update(_beside(files[0], view) | view.files)
        views.append(view)
    return views


def _beside(path: Path, view: View) -> dict[tuple[str, str], Path]:
    """The files of a viewpoint that are there, told by their names."""
    every = {
        (kind, place): path.with_name(f"{view.stem}_{kind}_0_{place}_{view.yaw:.1f}.{suffix}")
        for kind, suffix in _SUFFIX.items()
        for place in (REFERENCE, *PLACE.values())
    }
    return {key: file for key, file in every.items() if file.is_file()}


def rerooted(name: str, root: Path) -> Path:
    """A name of a list, of Windows or not, below our root: from the folder of the collection on."""
    parts = [p for p in re.split(r"[\\/]+", name.strip()) if p not in ("", ".")]
    start = next((i for i, p in enumerate(parts) if p in _SETS), None)
    if start is None:
        return root.joinpath(*parts[-1:])
    parts = parts[start:]
    # Lists spell collections in their own ways.
    spellings = {"Matterport": "Matterport3D", "Matteport3D": "Matterport3D", "Stanford": "Stanford2D3D"}
    if not (root / parts[0]).is_dir():
        parts[0] = spellings.get(parts[0], parts[0])
    return root.joinpath(*parts)


def area_of(view: View) -> str | None:
    """The area of Stanford2D3D that a viewpoint lies in."""
    match = _AREA.match(view.stem)
    return match["area"] if match else None


def folds(views: Sequence[View]) -> dict[str, list[View]]:
    """The original program's division: five parts in the order of the list; the first tests, the last validates."""
    size = len(views) // _FOLDS
    cut = [list(views[i * size : (i + 1) * size if i + 1 < _FOLDS else None]) for i in range(_FOLDS)]
    return {"test": cut[0], "train": cut[1] + cut[2] + cut[3], "val": cut[4]}


def read_depth(path: Path, inpaint: bool = False) -> tuple[Tensor, Tensor]:  # [1, H, W] twice, the second bool
    """Distance in metres and where it is measured; with inpaint, holes are filled and everything counts as measured."""
    distance = images.read_map(path)
    valid = distance.isfinite() & (distance > 0) & (distance < HOLE)
    if inpaint and not valid.all():
        return filled(distance, valid), torch.ones_like(valid)
    return torch.where(valid, distance, 0.0), valid


def filled(distance: Tensor, valid: Tensor) -> Tensor:
    """Holes continued from around them by Navier-Stokes, across the seam, within the range of what is measured."""
    if not valid.any():
        raise InputError("a depth map holds nothing but holes")
    known = torch.where(valid, distance, distance[valid].max())
    pad = min(_NS_PAD, distance.shape[-1])
    wide = np.pad(known[0].numpy(), ((0, 0), (pad, pad)), mode="wrap")
    holes = np.pad(~valid[0].numpy(), ((0, 0), (pad, pad)), mode="wrap").astype(np.uint8)
    done = cv2.inpaint(wide.astype(np.float32), holes, _NS_RADIUS, cv2.INPAINT_NS)[:, pad:-pad]
    measured = distance[valid]
    out = torch.from_numpy(done)[None].clamp(float(measured.min()), float(measured.max()))
    return torch.where(valid, distance, out)


@dataclass
class Pairs:
    """Pairs of one part of 3D60, ready for the network.

    Cassini: left, right [3, W, H], distance and valid [1, W, H], theta [1, W, H]. ERP: the same upright.
    """

    data: ThreeD60
    views: list[View]
    training: bool

    def __len__(self) -> int:
        return len(self.views)

    def sample(self, index: int, random: np.random.Generator) -> Batch:
        """One pair."""
        view, data = self.views[index], self.data
        left, right = (self._picture(view.path("color", place)) for place in (REFERENCE, PLACE[data.side]))
        distance, valid = read_depth(view.path("depth", REFERENCE), data.inpaint)
        if left.shape != right.shape or left.shape[1:] != distance.shape[1:]:
            raise InputError(f"{view.path('color', REFERENCE)}: pictures and depth of a pair differ in size")
        batch = arranged(left, right, data)
        if data.projection == "cassini":
            size = (batch["theta"].shape[-2], batch["theta"].shape[-1])
            distance, known = (
                stereo.to_cassini(v, data.side, "nearest", size) for v in (distance, valid.to(distance.dtype))
            )
            valid = known > 0
        batch["distance"], batch["valid"] = distance, valid
        batch = self._varied(batch, random) if self.training else batch
        return {**batch, "baseline": torch.tensor(data.baseline)}

    def _picture(self, path: Path) -> Tensor:
        return unit_image(images.read_image(path).image)

    def _varied(self, batch: Batch, random: np.random.Generator) -> Batch:
        data = self.data
        if data.projection == "cassini":
            rows = batch["left"].shape[-2]
            if data.roll:
                by = int(random.integers(rows))
                batch = {name: value.roll(by, -2) for name, value in batch.items()}
            if data.crop_rows and data.crop_rows < rows:
                first = int(random.integers(rows - data.crop_rows + 1))
                batch = {name: value[..., first : first + data.crop_rows, :] for name, value in batch.items()}
        if data.colour_jitter:
            gain, contrast = 1 + data.colour_jitter * random.uniform(-1, 1, 2)
            for name in ("left", "right"):
                mean = batch[name].mean()
                batch[name] = ((batch[name] - mean) * contrast + mean) * gain
        return batch


def arranged(left: Tensor, right: Tensor, data: ThreeD60) -> Batch:  # [3, H, W] in 0..1 each
    """Two panoramas as the network is to see them, normalised, with theta of every pixel."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    both = [(picture - mean) / std for picture in (left, right)]
    height, width = left.shape[-2:]
    if data.projection == "erp":
        pole = stereo.frame(data.side)[:, 2].float()
        angle = torch.acos((sphere.erp_rays(height, width) @ pole).clamp(-1, 1))[None]
        return {"left": both[0], "right": both[1], "theta": angle}
    columns = data.columns or height
    rows = math.ceil(width * columns / height / _MULTIPLE) * _MULTIPLE
    if columns < height:  # mean over areas first: what is looked up point by point would flicker
        both = [sphere.resize_erp(picture, columns, round(width * columns / height)) for picture in both]
    both = [stereo.to_cassini(picture, data.side, size=(rows, columns)) for picture in both]
    angle = stereo.thetas(columns).float().expand(1, rows, columns)
    return {"left": both[0], "right": both[1], "theta": angle}


def _counted(stem: str) -> tuple[int, str]:
    """Poses in the order of their numbers, not of their digits."""
    pose = stem.split("_", 1)[0]
    return int(pose) if pose.isdecimal() and len(pose) < _HASH_LENGTH else 0, stem


def _rank(collection: str) -> int:
    return _ORDER.index(collection) if collection in _ORDER else len(_ORDER)
