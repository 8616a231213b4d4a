"""Which further views belong to a view: of the same point, with shared pixels, or by what their middles show."""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from ..checks import InputError

View = tuple[str, int, int]  # building, point, view
Camera = Literal["same", "fixated", "different", "backoff"]
_BACKOFF: tuple[Camera, ...] = ("different", "fixated", "same")  # what is tried one after another
LEAST_OVERLAP = 0.25
MOST_VIEWS = 45  # companions of a view that are remembered
_COLUMNS = tuple(f"{end}.{name}" for end in ("src", "dst") for name in ("building", "point", "view"))
_SHARE = "valid_and_shared_prop"


class Companions(ABC):
    """Draws further views for a view."""

    @abstractmethod
    def has(self, view: View) -> bool:
        """Whether there is a companion to draw."""

    @abstractmethod
    def draw(self, view: View, count: int, random: np.random.Generator) -> list[View]:
        """So many companions; one may come twice."""


class _Listed(Companions):
    """Companions from a table."""

    def __init__(self, table: Mapping[View, list[View]]) -> None:
        self.table = table

    def has(self, view: View) -> bool:
        return bool(self.table.get(view))

    def draw(self, view: View, count: int, random: np.random.Generator) -> list[View]:
        others = self.table[view]
        return [others[int(i)] for i in random.integers(len(others), size=count)]


def of_same_point(views: Iterable[View]) -> Companions:
    """The other views of the same point of the same building, as their names tell."""
    points: dict[tuple[str, int], list[View]] = defaultdict(list)
    for view in views:
        points[view[:2]].append(view)
    return _Listed({v: [o for o in group if o != v] for group in points.values() for v in group})


def with_shared_pixels(
    views: Iterable[View], tables: Iterable[tuple[str, Path]], least: float = LEAST_OVERLAP, most: int = MOST_VIEWS
) -> Companions:
    """Views that share that much of their pixels by the tables of a building, the most overlapping ones.

    The tables are Omnidata's: CSV with the columns src and dst .building, .point, .view and valid_and_shared_prop. Each
    comes with what stands before its buildings' names in ours.
    """
    known = set(views)
    shares: dict[View, list[tuple[float, View]]] = defaultdict(list)
    for prefix, path in tables:
        for number, row in enumerate(csv.DictReader(path.read_text("utf-8").splitlines()), start=2):
            try:
                ends = [row[name] for name in _COLUMNS]
                a, b = ((prefix + e[0], int(e[1]), int(e[2])) for e in (ends[:3], ends[3:]))
                share = float(row[_SHARE])
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"{path}:{number}: expected the columns {', '.join(_COLUMNS)}, {_SHARE}") from error
            if share >= least and a != b and a in known and b in known:
                shares[a].append((share, b))
    return _Listed({v: [other for _, other in sorted(found, reverse=True)[:most]] for v, found in shares.items()})


@dataclass
class ByVisibleMiddles(Companions):
    """Steps from view to view in the graph of which view shows the point that another one looks at.

    same: another point seen by the same camera. fixated: the same point from another camera. different: another point
    in sight, from another camera. backoff: different, else fixated, else same, else the view itself. `steps` are gone
    one after another.
    """

    sights: Mapping[View, Sight]
    camera: Camera = "backoff"
    steps: int = 1

    def has(self, view: View) -> bool:
        return view in self.sights and (self.camera == "backoff" or bool(self._found(view, self.camera)))

    def draw(self, view: View, count: int, random: np.random.Generator) -> list[View]:
        return [self._walk(view, random) for _ in range(count)]

    def _walk(self, view: View, random: np.random.Generator) -> View:
        for _ in range(self.steps):
            for camera in _BACKOFF if self.camera == "backoff" else (self.camera,):
                found = self._found(view, camera)
                if found:
                    view = found[int(random.integers(len(found)))]
                    break
        return view

    def _found(self, view: View, camera: Camera) -> list[View]:
        here, (building, point, _) = self.sights[view], view
        wanted = {point} if camera == "fixated" else here.points - ({point} if camera == "different" else set())
        same = camera == "same"
        return [
            other
            for p in sorted(wanted)
            for other in self._of_point.get((building, p), ())
            if other != view and (self.sights[other].camera == here.camera) == same
        ]

    @cached_property
    def _of_point(self) -> dict[tuple[str, int], list[View]]:
        out: dict[tuple[str, int], list[View]] = defaultdict(list)
        for view in sorted(self.sights):
            out[view[:2]].append(view)
        return out


@dataclass(frozen=True)
class Sight:
    """Where a view is taken from, and the points that it shows."""

    camera: str
    points: frozenset[int]


def read_sight(path: Path, view: View) -> Sight:
    """From a point_info file: camera_location, and the points of nonfixated_points_in_view beside its own."""
    try:
        about = json.loads(path.read_text("utf-8"))
        camera = ",".join(f"{float(c):.6f}" for c in about["camera_location"])
        points = {int(p) for p in about.get("nonfixated_points_in_view", ())}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected camera_location and numbers in nonfixated_points_in_view") from error
    return Sight(camera, frozenset(points | {view[1]}))
