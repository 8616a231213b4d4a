"""Many tasks of the same views, in the layouts of Omnidata's parts.

A file is point_<i>_view_<j>_domain_<task>.png; point and view name it within a building. Only views that are there in
all tasks are kept.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch

from ..checks import ConfigError, InputError, Range
from . import transforms
from .refocus import refocus
from .samples import Batch

Split = Literal["train", "val", "test"]
Layout = Literal["omnidata", "taskonomy", "replica", "replica_gso", "hypersim", "blended_mvs"]
FORBIDDEN = frozenset(("mosquito", "tansboro", "tomkins", "darnestown", "brinnon", "rough"))  # buildings of Taskonomy
_NAME = re.compile(r"point_(\d+)_view_(\d+)_domain_(\w+)\.(?:png|json|npy)")
View = tuple[str, int, int]  # building, point, view


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

    def samples(self, split: Split) -> Views | None:
        """The views of a split; with several data sets, each makes the same share of the training."""
        if not self.parts:
            raise ConfigError(
                "dataset.parts is empty: name at least one data set, e.g. dataset.parts={a: {root: DATA}}"
            )
        found, weights = [], []
        for name, part in self.parts.items():
            views = self._part(name, part, split)
            found += views
            weights += [1 / len(views)] * len(views)
        return Views(self, found, split == "train", torch.tensor(weights)) if found else None

    def _part(self, name: str, part: Part, split: Split) -> list[dict[str, Path]]:
        root = Path(part.root).expanduser()
        if not root.is_dir():
            raise InputError(f"{root} is not a folder; set dataset.parts.{name}.root")
        wanted = read_splits(Path(part.splits).expanduser())[split] if part.splits else None
        views = common_views(root, part.layout, self.tasks)
        return [files for (building, _, _), files in sorted(views.items()) if wanted is None or building in wanted]


def common_views(root: Path, layout: Layout, tasks: tuple[str, ...]) -> dict[View, dict[str, Path]]:
    """The files of every view that all tasks have."""
    found: dict[View, dict[str, Path]] = defaultdict(dict)
    for task in tasks:
        for building, folder in folders(root, layout, task):
            if layout == "taskonomy" and building in FORBIDDEN:
                continue
            for path in folder.iterdir():
                match = _NAME.fullmatch(path.name)
                if match:
                    found[building, int(match[1]), int(match[2])][task] = path
    return {view: files for view, files in found.items() if len(files) == len(tasks)}


def folders(root: Path, layout: Layout, task: str) -> Iterator[tuple[str, Path]]:
    """Buildings with the folder that holds their files of one task."""
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
        if layout in ("omnidata", "taskonomy"):
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


@dataclass
class Views:
    """One tensor for each task, and `valid` [1, s, s]."""

    data: MultiTask
    files: list[dict[str, Path]]
    training: bool
    weights: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if not self.training:
            self.weights = None

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int, random: np.random.Generator) -> Batch:
        """One view in all its tasks."""
        data = self.data
        views = {task: transforms.read_task(path, task) for task, path in self.files[index].items()}
        sizes = {value.shape[-2:] for value in views.values()}
        if len(sizes) > 1:
            raise InputError(f"{next(iter(self.files[index].values()))}: its tasks differ in size")
        valid = transforms.valid_of(views)
        views = transforms.fitted({**views, "valid": valid.float()}, (data.size, data.size), random, self.training)
        if self.training:
            views = self._varied(views, random)
        return {**views, "valid": views["valid"] > 0.5}

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
