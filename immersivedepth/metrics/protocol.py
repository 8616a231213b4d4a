"""A protocol: what exactly is compared with what, and how errors become figures. One YAML each in conf/protocol."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..checks import ConfigError, InputError, Range, ShapeError
from ..geometry import sphere
from ..geometry.normals import normals_from_distance
from . import boundary, surfaces
from .fitting import FORMULAS as ALIGNMENTS
from .fitting import Align, Median, fitted, nearest_of_cells
from .moments import FORMULAS, figures, moments

LATITUDES = tuple(range(-90, 91, 15))  # degrees: edges of the bands of the curve over latitude
DISTANCES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 50.0, math.inf)  # metres
Limits = tuple[float, float]


@dataclass(frozen=True)
class Verdict:
    """What a protocol says of one image."""

    moments: dict[str, float]  # sums over pixels, to be pooled
    figures: dict[str, float]
    extras: dict[str, float]  # figures that exist for single images only
    curves: dict[str, list[tuple[float, float]]]  # by latitude and by distance: sums of w |p - g| / g, and of w
    compared: Tensor = field(repr=False)  # [H, W], the prediction as it was compared, NaN where it was not


@dataclass(frozen=True)
class Protocol:
    """The definition, step by step; the fields are the keys of its YAML."""

    name: str
    origin: str  # where the convention comes from, in words
    align: Align = "none"
    median: Median = "middle"  # of align=median where two values are in the middle
    least: Annotated[float, Range(0)] = 0.0  # metres; truth counts above it
    most: Annotated[float, Range(1e-6)] | None = None  # metres; and up to it
    clip_first: Limits | None = None  # metres; predictions are clipped before they are aligned
    clip: Limits | None = None  # metres; and after
    clip_truth: Limits | None = None
    raise_truth: Annotated[float, Range(0)] | None = None  # truth counts as this where the prediction is beyond it
    missing: Literal["leave_out", "clip"] = "leave_out"  # pixels that the prediction does not know
    skip_black: bool = False  # pixels whose picture is black do not count
    farthest: Literal["endless", "truth"] = "endless"  # aligned disparities reach to here at least
    weight: Literal["pixel", "solid_angle"] = "solid_angle"  # in figures
    fit_weight: Literal["pixel", "solid_angle"] = "solid_angle"  # in the alignment
    fit_cells: Annotated[int, Range(1, 4096)] | None = None  # it sees one pixel of each of so many by so many cells
    mean: Literal["images", "pooled"] = "images"
    log: Literal["ln", "log10"] = "ln"
    log_least: Annotated[float, Range(1e-30)] = 1e-6  # metres; a prediction below it in logarithms
    log_below: Literal["clamp", "leave_out"] = "clamp"  # counts as that, or not at all
    boundary: Literal["none", "pano3d", "moge"] = "none"
    normals: bool = False  # of both surfaces, by the same differences
    seam: bool = False  # the seam and the poles
    likeness: bool = False  # PSNR and SSIM over 0..most

    def __post_init__(self) -> None:
        for name in ("clip_first", "clip", "clip_truth"):
            limits = getattr(self, name)
            if limits is not None and not limits[0] < limits[1]:
                raise ConfigError(f"protocol.{name}={list(limits)}: expected [low, high] with low below high")
        if self.missing == "clip" and self._ends is None:
            raise ConfigError(
                "protocol.missing=clip needs protocol.clip or clip_first, whose lower end such pixels get"
            )
        if self._ends is not None and math.inf in self._ends and self.most is None:
            raise ConfigError("protocol.most has no value: a clip without an upper end needs it for what is endless")
        if self.likeness and self.most is None:
            raise ConfigError("protocol.likeness needs protocol.most: PSNR and SSIM are of values from 0 to there")
        if self.farthest == "truth" and not self.align.startswith("affine_disparity"):
            raise ConfigError("protocol.farthest=truth is for alignments of disparity; set it to endless")

    @property
    def mark(self) -> str:
        """Twelve digits that differ whenever anything but the words on its origin differs."""
        settings = {k: v for k, v in asdict(self).items() if k != "origin"}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]

    def definition(self) -> list[str]:
        """The definition in words and formulas: p is the prediction, g the truth."""
        upper = "" if self.most is None else f" <= {self.most:g} m"
        steps = [f"Pixels count where {self.least:g} < g{upper} and g is finite."]
        if self.skip_black:
            steps.append("Pixels that are black in the picture do not count.")
        if self.missing == "clip" and self._ends is not None:
            top = min(self._ends[1], math.inf if self.most is None else self.most)
            steps.append(f"Pixels that p does not know count as {self._ends[0]:g} m, sky in p as {top:g} m.")
        else:
            sky = "of disparity 0" if self._in_disparity else "endless, clipped" if self._ends else "not known"
            steps.append(
                f"Pixels that p does not know do not count, their share is told as coverage; sky in p is {sky}."
            )
        for limits, what in ((self.clip_first, "p"), (self.clip_truth, "g")):
            if limits:
                steps.append(f"{what} is clipped to [{limits[0]:g}, {limits[1]:g}] m.")
        if self.raise_truth is not None:
            steps.append(f"g counts as {self.raise_truth:g} m where p is beyond it.")
        by = {"pixel": "every pixel alike", "solid_angle": "every pixel by its solid angle"}
        fit = "" if self.align == "none" else f", {by[self.fit_weight]}"
        lower = " (the lower of two middle values)" if self.align == "median" and self.median == "lower" else ""
        if self.fit_cells is not None and self.align != "none":
            fit += f", seen at the middle pixels of {self.fit_cells} x {self.fit_cells} cells"
        steps.append(f"Alignment, image by image: {ALIGNMENTS[self.align]}{lower}{fit}.")
        if self.farthest == "truth":
            steps.append("Aligned disparities below the least of the truth count as that.")
        if self.clip:
            steps.append(f"p is clipped to [{self.clip[0]:g}, {self.clip[1]:g}] m.")
        if self.log_below == "leave_out":
            steps.append(f"Figures with logarithms leave out p <= {self.log_least:g} m.")
        steps.append(f"E weighs {by[self.weight]}.")
        over = "the mean over images" if self.mean == "images" else "taken over all pixels of all images at once"
        steps.append(f"A figure of a set is {over}; boundary, normals, seam, poles and likeness: mean over images.")
        return steps + [f"{name} = {FORMULAS[name]}" for name in self.names()]

    def names(self) -> list[str]:
        """The figures that every protocol has, in the order of tables."""
        return list(figures(dict.fromkeys(_SUMS, 1.0), self.log))

    def judge(
        self,
        prediction: Tensor,
        target: Tensor,
        valid: Tensor,
        *,
        metric: bool = True,
        picture: Tensor | None = None,
        flat: bool = False,
    ) -> Verdict:  # [H, W] each, picture [3, H, W]
        """Compare metres; a prediction of 0 or NaN is unknown, infinity is sky. `flat`: of perspective pictures."""
        if prediction.shape != target.shape or target.shape != valid.shape or target.ndim != 2:
            shapes = [list(t.shape) for t in (prediction, target, valid)]
            raise ShapeError(f"Protocol.judge: expected three maps [H, W] of one size, got {shapes}")
        if flat and self._spherical:
            raise ConfigError(
                f"protocol={self.name} is for panoramas (solid angles, normals, the seam), and these are "
                "perspective pictures: choose e.g. protocol=moge_disparity"
            )
        if self.align == "none" and not metric:
            raise ConfigError(
                f"protocol={self.name} compares metres, but this result is known only up to a factor: choose a "
                "protocol with an alignment, e.g. protocol=sphere, or a predictor that knows metres"
            )
        p, g = prediction.double().nan_to_num(0.0, math.inf, 0.0), target.double()
        counts = self._counts(g, valid, picture)
        known = counts & (p > 0) & (p.isfinite() | torch.tensor(self._ends is not None or self._in_disparity))
        coverage = known
        if self.missing == "clip" and self.clip_first is not None:  # as a program that clips at once would see it
            p, known = torch.where(known, p, self.clip_first[0]), counts
        if not counts.any() or not (known & (p.isfinite() | torch.tensor(self._in_disparity))).any():
            raise InputError("no pixel is both measured and predicted, so nothing can be compared")
        area = sphere.solid_angles(*counts.shape).double().expand(counts.shape)
        weights = {"pixel": torch.ones_like(area), "solid_angle": area}
        w = weights[self.weight]
        used = counts if self.missing == "clip" else known
        p, g = self._brought(p, g, known, weights[self.fit_weight])
        sums = moments(p[used], g[used], w[used], self.log_least, self.log_below)
        found = {name: float(value) for name, value in figures(sums, self.log).items()}
        extras = {"coverage": float(w[coverage].sum() / w[counts].sum()), **self._extras(p, g, used, w)}
        relative = torch.where(used, w * (p - g).abs() / g, 0.0)
        w = torch.where(used, w, 0.0)
        latitude = [(0.0, 0.0)] * (len(LATITUDES) - 1) if flat else _by_latitude(relative, w)
        curves = {"latitude": latitude, "distance": _by_distance(relative, w, g)}
        return Verdict(sums, found, extras, curves, torch.where(used, p, math.nan))

    def _counts(self, g: Tensor, valid: Tensor, picture: Tensor | None) -> Tensor:
        counts = valid & g.isfinite() & (g > self.least)
        if self.most is not None:
            counts = counts & (g <= self.most)
        if self.skip_black:
            if picture is None:
                raise InputError(f"protocol={self.name} leaves out black pixels and needs the picture")
            counts = counts & (picture != 0).any(0)
        return counts

    def _brought(self, p: Tensor, g: Tensor, known: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Both clipped, the prediction aligned and clipped again; what is not known takes the lower end."""
        if self.clip_first is not None:
            p = p.clamp(*self.clip_first)
            if self.most is not None:
                p = torch.where(p.isinf(), self.most, p)
        if self.clip_truth is not None:
            g = g.clamp(*self.clip_truth)
        if self.raise_truth is not None:
            g = torch.where(p > self.raise_truth, self.raise_truth, g)
        fit_on = known & (p.isfinite() | torch.tensor(self._in_disparity))
        if self.fit_cells is not None:
            fit_on = nearest_of_cells(fit_on, self.fit_cells)
        sky = known & p.isinf()
        p = fitted(self.align, p[fit_on], g[fit_on], weight[fit_on], self.median)(p)
        if not self._in_disparity:
            p = torch.where(sky, math.inf, p)
        if self.farthest == "truth":
            far = float(g[known].max())
            p = torch.where((p < 0) | (p > far), far, p)
        if self.clip is not None:
            p = torch.where(known, p.clamp(*self.clip), self.clip[0])
        return p, g

    @property
    def _spherical(self) -> bool:
        return "solid_angle" in (self.weight, self.fit_weight) or self.normals or self.seam or self.boundary == "pano3d"

    @property
    def _in_disparity(self) -> bool:
        return self.align.startswith("affine_disparity")

    @property
    def _ends(self) -> Limits | None:
        """The clip that gives sky a distance."""
        return self.clip_first or self.clip

    def _extras(self, p: Tensor, g: Tensor, used: Tensor, w: Tensor) -> dict[str, float]:
        out: dict[str, float] = {}
        safe = torch.where(used, p, 1.0)
        if self.boundary == "pano3d":
            out |= boundary.pano3d(safe, torch.where(used, g, 0.0), used)
        if self.boundary == "moge":
            true = torch.where(used, g, 1.0)
            out |= {f"boundary_f_r{r}": boundary.moge(safe, true, used, r) for r in (1, 2, 3)}
        if self.normals:
            maps = [normals_from_distance(torch.where(used, v, 0.0).float()[None]) for v in (p, g)]
            out |= surfaces.normal_angles(maps[0], maps[1], used, w)
        if self.seam:
            out |= surfaces.seam_and_poles(p, g, used)
        if self.likeness:
            assert self.most is not None
            out |= surfaces.likeness(safe, g, used, self.most)
        return out


def of_images(protocol: Protocol, sums: list[dict[str, float]], extras: list[dict[str, float]]) -> dict[str, Any]:
    """Arrays over images: each sum, each figure of single images and each extra one, NaN where an image lacks it."""
    stacked = {name: np.array([s[name] for s in sums], np.float64) for name in _SUMS}
    names = sorted({name for e in extras for name in e}, key=list(dict.fromkeys(k for e in extras for k in e)).index)
    more = {name: np.array([e.get(name, math.nan) for e in extras], np.float64) for name in names}
    return {"sums": stacked, "figures": figures(stacked, protocol.log), "extras": more}


def _by_latitude(relative: Tensor, w: Tensor) -> list[tuple[float, float]]:
    latitude = sphere.latitudes(len(w)).rad2deg()
    band = torch.bucketize(latitude, torch.tensor(LATITUDES[1:-1], dtype=latitude.dtype))
    return [(float(relative[band == i].sum()), float(w[band == i].sum())) for i in range(len(LATITUDES) - 1)]


def _by_distance(relative: Tensor, w: Tensor, g: Tensor) -> list[tuple[float, float]]:
    band = torch.bucketize(g.nan_to_num(0.0), torch.tensor(DISTANCES[1:-1], dtype=g.dtype))
    return [(float(relative[band == i].sum()), float(w[band == i].sum())) for i in range(len(DISTANCES) - 1)]


_SUMS = tuple(moments(*(torch.ones(1, dtype=torch.float64),) * 3))
