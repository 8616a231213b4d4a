"""Many tasks of the same views, in the layouts of Omnidata's parts.

A file is point_<i>_view_<j>_domain_<task>.png; point and view name it within a building. Only views that are there in
all tasks are kept.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch

from ..checks import ConfigError, InputError, Range
from . import multiview, transforms
from .multiview import View
from .refocus import refocus
from .samples import Batch

log = logging.getLogger(__name__)

Split = Literal["train", "val", "test"]
Layout = Literal["omnidata", "taskonomy", "replica", "replica_gso", "hypersim", "blended_mvs"]
# Buildings that are left out, as published; the second by the digits of their names.
FORBIDDEN = {
    "taskonomy": frozenset(("mosquito", "tansboro", "tomkins", "darnestown", "brinnon", "rough")),
    "blended_mvs": frozenset((
        "5bf21799d43923194842c001", "000000000000000000000001", "000000000000000000000000", "5b21e18c58e2823a67a10dd8",
        "5ab8b8e029f5351f7f2ccf59", "00000000000000000000000c", "00000000000000000000000b", "58cf4771d0f5fb221defe6da",
        "5c2b3ed5e611832e8aed46bf", "584a7333fe3cb463906c9fe6", "585ee0632a57cc11d4933608", "5983012d1bd4b175e70c985a",
        "58a0dd1a3d0b4542479a28f3", "58a44463156b87103d3ed45e",
    )),
}  # fmt: skip
FORBIDDEN["blended_mvg"] = FORBIDDEN["blended_mvs"]  # its name among the data sets of the starter data
# What some layouts call a task.
ALIASES = {
    "replica": {"segment_semantic": "semantic"},
    "replica_gso": {"segment_semantic": "semantic"},
    "blended_mvs": {"mask_valid": "mask_valid_depth", "segment_semantic": "semantic"},
}
_FILTERED = "filtered_points.json"  # of a camera of Hypersim: points that are not to be used
_NAME = re.compile(r"point_(\d+)_view_(\d+)_domain_(\w+)\.(?:png|json|npy)")


@dataclass
class Part:
    """One data set: where it is, how its folders lie, and the list of which buildings belong to which split."""

    root: str
    layout: Layout = "omnidata"
    splits: str | None = None  # a CSV with the columns id, train, val, test; null: every building in every split


@dataclass
class MultiTask:
    """Several data sets with several tasks; the fields are the keys of its YAML."""

    parts: dict[str, Part] = field(default_factory=dict)
    tasks: tuple[str, ...] = ("rgb", "depth_zbuffer", "mask_valid")
    size: Annotated[int, Range(32)] = 384
    mirror: bool = True  # training shows half of the views from behind the mirror
    augment: bool = True  # training pictures are sharpened and blurred
    refocus: Annotated[float, Range(0, 1)] = 0.0  # share of training pictures that get another focus
    views: Annotated[int, Range(1)] = 1  # of a training sample: a view and its companions
    companions: Literal["filename", "shared_pixels", "center_visible"] = "filename"  # what makes views belong together
    camera: multiview.Camera = "backoff"  # of center_visible
    path_length: Annotated[int, Range(1)] = 1  # steps from view to view, of center_visible
    least_overlap: Annotated[float, Range(0, 1)] = multiview.LEAST_OVERLAP  # of shared_pixels
    most_views: Annotated[int, Range(1)] = multiview.MOST_VIEWS  # of shared_pixels: companions of a view
    legacy_depth: bool = False  # depth as the older loaders give it: 1.0 is 15.6 m and nothing is farther

    def samples(self, split: Split) -> Views | None:
        """The views of a split; with several data sets, each makes the same share of the training."""
        if not self.parts:
            raise ConfigError(
                "dataset.parts is empty: name at least one data set, e.g. dataset.parts={a: {root: DATA}}"
            )
        found: list[dict[str, Path]] = []
        others: list[Others] = []
        sets: list[tuple[str, str]] = []  # of each view: the part and, in layout omnidata, which of its data sets
        for name, part in self.parts.items():
            if part.splits is None and split != "train":
                log.warning("dataset.parts.%s.splits has no value: %s repeats the buildings of training", name, split)
            table = self._part(name, part, split)
            if self.views > 1 and split == "train":
                drawing = self._companions(name, part, table)
                others += [Others(drawing, view, table) for view in table if drawing.has(view)]
                table = {view: files for view, files in table.items() if drawing.has(view)}
            found += table.values()
            sets += [(name, building.split("/")[0] if part.layout == "omnidata" else "") for building, _, _ in table]
        sizes = Counter(sets)
        weights = torch.tensor([1 / sizes[key] for key in sets])
        return Views(self, found, split == "train", weights, others) if found else None

    def _part(self, name: str, part: Part, split: Split) -> dict[View, dict[str, Path]]:
        root = Path(part.root).expanduser()
        if not root.is_dir():
            raise InputError(f"{root} is not a folder; set dataset.parts.{name}.root")
        wanted = read_splits(Path(part.splits).expanduser())[split] if part.splits else None
        views = sorted(common_views(root, part.layout, self.tasks).items())
        return {view: files for view, files in views if wanted is None or names_of(view[0]) & wanted}

    def _companions(self, name: str, part: Part, views: dict[View, dict[str, Path]]) -> multiview.Companions:
        root = Path(part.root).expanduser()
        if self.companions == "filename":
            return multiview.of_same_point(views)
        if self.companions == "shared_pixels":
            within = part.layout == "omnidata"
            paths = sorted(root.glob("cooccurrence/*/*.csv" if within else "cooccurrence/*.csv"))
            if not paths:
                raise InputError(f"{root / 'cooccurrence'} holds no tables; dataset.parts.{name} cannot share pixels")
            tables = [(f"{path.parent.name}/" if within else "", path) for path in paths]
            return multiview.with_shared_pixels(views, tables, self.least_overlap, self.most_views)
        infos = common_views(root, part.layout, ("point_info",))
        sights = {v: multiview.read_sight(infos[v]["point_info"], v) for v in views if v in infos}
        return multiview.ByVisibleMiddles(sights, self.camera, self.path_length)


def common_views(root: Path, layout: Layout, tasks: tuple[str, ...]) -> dict[View, dict[str, Path]]:
    """The files of every view that all tasks have; the building of layout omnidata is <data set>/<building>."""
    found: dict[View, dict[str, Path]] = defaultdict(dict)
    for task in tasks:
        for building, folder in folders(root, layout, task):
            if _left_out(building, layout):
                continue
            bad = _bad_points(folder.parent / _FILTERED) if layout == "hypersim" else frozenset()
            for path in folder.iterdir():
                match = _NAME.fullmatch(path.name)
                if match and int(match[1]) not in bad:
                    found[building, int(match[1]), int(match[2])][task] = path
    return {view: files for view, files in found.items() if len(files) == len(tasks)}


def names_of(building: str) -> set[str]:
    """What a list of splits may call a building: with its data set or without, a camera of Hypersim or its scene."""
    names = {building, building.rsplit("/", 1)[-1]}
    return names | {n.rsplit("-cam", 1)[0] for n in names} if "-cam" in building else names


def _left_out(building: str, layout: Layout) -> bool:
    source, _, name = building.rpartition("/")
    return name in FORBIDDEN.get(source or layout, frozenset())


def _bad_points(path: Path) -> frozenset[int]:
    if not path.is_file():
        return frozenset()
    try:
        return frozenset(int(point) for point in json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: expected a list of numbers of points") from error


def folders(root: Path, layout: Layout, task: str) -> Iterator[tuple[str, Path]]:
    """Buildings with the folder that holds their files of one task."""
    task = ALIASES.get(layout, {}).get(task, task)
    patterns = {
        "omnidata": f"{task}/*/*",
        "taskonomy": f"{task}/*",
        "replica": f"*/{task}",
        "replica_gso": f"*/*/{task}",
        "hypersim": f"*/taskonomized/*/{task}",
        "blended_mvs": f"*/{task}",
    }
    for path in sorted(root.glob(patterns[layout])):
        if not path.is_dir():
            continue
        parts = path.relative_to(root).parts
        if layout == "omnidata":
            yield f"{parts[-2]}/{parts[-1]}", path
        elif layout == "taskonomy":
            yield parts[-1], path
        elif layout == "replica_gso":
            yield f"{parts[0]}-{parts[1]}", path
        elif layout == "hypersim":
            yield f"{parts[0]}-{parts[2]}", path
        else:
            yield parts[0], path


def read_splits(path: Path) -> dict[str, set[str]]:
    """Buildings of each split; the published files end their lines with a carriage return alone."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; set the splits of that part of dataset.parts")
    text = path.read_text("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    out: dict[str, set[str]] = {name: set() for name in ("train", "val", "test")}
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        try:
            for name in out:
                if int(row[name]):
                    out[name].add(row["id"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}:{number}: expected the columns id, train, val, test with 0 or 1") from error
    return out


@dataclass(frozen=True)
class Others:
    """Draws the companions of a view."""

    companions: multiview.Companions
    view: View
    table: dict[View, dict[str, Path]]

    def draw(self, count: int, random: np.random.Generator) -> list[dict[str, Path]]:
        """Files of so many companions."""
        return [self.table[view] for view in self.companions.draw(self.view, count, random) if view in self.table]


@dataclass
class Views:
    """One tensor for each task, and `valid` [1, s, s]; several views of a sample are stacked in front."""

    data: MultiTask
    files: list[dict[str, Path]]
    training: bool
    weights: torch.Tensor | None = None
    others: list[Others] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.training:
            self.weights = None

    def __len__(self) -> int:
        return len(self.files)

    @property
    def several(self) -> bool:
        """Whether a sample is a view with its companions."""
        return bool(self.others)

    def sample(self, index: int, random: np.random.Generator) -> Batch:
        """One view in all its tasks, with its companions if there are to be any."""
        if not self.others:
            return self._view(self.files[index], random)
        files = [self.files[index], *self.others[index].draw(self.data.views - 1, random)]
        views = [self._view(f, random) for f in files]
        return {task: torch.stack([view[task] for view in views]) for task in views[0]}

    def _view(self, files: dict[str, Path], random: np.random.Generator) -> Batch:
        data = self.data
        views = {task: transforms.read_task(path, task) for task, path in files.items()}
        sizes = {value.shape[-2:] for value in views.values()}
        if len(sizes) > 1:
            raise InputError(f"{next(iter(files.values()))}: its tasks differ in size")
        valid = transforms.valid_of(views)
        views = transforms.fitted({**views, "valid": valid.float()}, (data.size, data.size), random, self.training)
        if data.legacy_depth:
            views = {t: transforms.legacy_depth(v) if t.startswith("depth") else v for t, v in views.items()}
        if not self.training:
            return {**views, "valid": views["valid"] > 0.5}
        views = self._varied(views, random)
        # What a network that pools may look at; validation is over everything that is known.
        return {**views, "valid": transforms.make_valid_mask(views["valid"] > 0.5)}

    def _varied(self, views: Batch, random: np.random.Generator) -> Batch:
        data = self.data
        if data.mirror and random.random() < 0.5:
            views = transforms.mirrored(views)
        depth = next((task for task in views if task.startswith("depth")), None)
        if depth and "rgb" in views and random.random() < data.refocus:
            views["rgb"] = refocus(views["rgb"], views[depth], random)
        if data.augment and "rgb" in views:
            views["rgb"] = transforms.taken(views["rgb"], random)
        return views
