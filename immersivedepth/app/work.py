"""Runs of visitors, one at a time, with one set of networks in memory; each step is told and can be the last."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..batch import placed
from ..checks import ConfigError, InputError, UserError
from ..command_line import one_line
from ..config import build, compose, run_of
from ..data import images
from ..data.panoramas import WORLD, Wild, safe_name
from ..dense import device_of, filmed, load_geometry, scene_of
from ..files import atomic, write_text
from ..geometry import pinhole
from ..pipeline import Pipeline, assemble
from ..render.paths import Orbit
from ..render.protocol import Camera, Frame, Pose, Scene
from ..render.settings import Film
from ..scene import Geometry, Kind, Panorama, Rig, Views
from ..stages import protocols as stage
from ..stages.export.quality import assess
from ..stages.sound import sound
from ..training import modes
from ..visual.colours import ColourMap, Picture, colour_distance, distance_scale
from ..visual.grids import rgb_picture, shrunk
from .choices import quoted
from .folders import Job
from .settings import App

log = logging.getLogger(__name__)

SHOWN = 2048  # columns of a picture in the page
LARGEST_VIEW = 1024  # pixels of a plain picture's longer side, for the networks
FRAMES = {"poses": 36, "height": 256, "fps": 12}

# How far a run is when a step begins.
STEPS = {
    "project": (0.04, "looking in all directions"),
    "predict": (0.08, "the networks look"),
    "fuse": (0.60, "joining the networks"),
    "align": (0.62, "bringing all views to one scale"),
    "blend": (0.68, "joining the views"),
    "refine": (0.72, "refining"),
    "segment": (0.78, "finding what can be trusted, and things"),
    "export": (0.82, "writing files"),
}


class Cancelled(UserError):
    """The visitor asked to stop, or is gone."""


@dataclass(frozen=True)
class News:
    """What a running job has to tell."""

    share: float
    words: str
    geometry: Geometry | None = None
    panorama: Panorama | None = None


Tell = Callable[[News], None]


@dataclass(frozen=True)
class Result:
    """What a run leaves."""

    panorama: Panorama
    geometry: Geometry
    files: tuple[Path, ...]
    archive: Path
    seconds: float
    quality: dict[str, Any]


class Worker:
    """The one that computes. Whoever comes while it works waits."""

    def __init__(self, config: dict[str, Any], app: App) -> None:
        self.app = app
        self.base = _base(config)
        self.device = device_of(config)
        self._lock = threading.Lock()
        self._looking: tuple[str, dict[str, stage.Predict]] = ("", {})
        self._composing = threading.Lock()

    def estimate(self, upload: Path, given: Sequence[str], job: Job, tell: Tell) -> Result:
        """A panorama to everything there is."""
        start = time.perf_counter()
        source = kept(upload, job)
        config = self._composed(given)
        config["dataset"] |= {"image_path": str(source), "max_size": list(self.app.max_size)}
        with self._lock, torch.inference_mode():
            _check(job)
            tell(News(0.01, "reading the picture"))
            dataset = build(config["dataset"], "dataset")
            panorama = dataset.load(source)
            pipeline = _watched(self._assembled(config), panorama, job, tell)
            geometry = pipeline(placed(panorama, run_of(config).device))
            files = pipeline.save(geometry, panorama, job.folder / "results")
            return _result(panorama, geometry, files, job, start)

    def stereo(self, left: Path, right: Path, given: Sequence[str], job: Job, tell: Tell) -> Result:
        """Two panoramas of one place to distances in metres."""
        start = time.perf_counter()
        pair = [kept(path, job, mark) for path, mark in ((left, "left"), (right, "right"))]
        config = self._composed(["mode=predict", "system=stereo_3d60", *given])
        side = "up" if config["dataset"]["side"] == "up" else "right"
        config["dataset"] |= {"left": str(pair[0]), side: str(pair[1])}
        config["system"]["weights"] = self.app.stereo_weights
        for path in pair:
            self.panorama(path)  # within the limits of this page
        with self._lock, torch.inference_mode():
            _check(job)
            tell(News(0.1, "reading the network"))
            system, _, dataset = modes.parts(config)
            net = modes.loaded(system, modes.weights_of(system, config)).eval()
            _check(job)
            tell(News(0.3, "matching the two pictures"))
            (found,) = system.predict(net, dataset, job.folder / "results", config)
            if found.error:
                raise InputError(found.error)
            panorama = self.panorama(pair[0])
            job.source, job.results = pair[0], str(found.files[0].parent.relative_to(job.folder))
            geometry = load_geometry(found.files[0].parent)
            return _result(panorama, geometry, list(found.files), job, start)

    def plain(
        self, upload: Path, given: Sequence[str], fov: float, colours: ColourMap, job: Job, tell: Tell
    ) -> tuple[Picture, Picture, list[Path], str]:
        """A picture that is no panorama, its map in colours, the files, and what the numbers mean."""
        source = kept(upload, job)
        picture = images.read_image(source, max_size=self.app.max_size).image
        config = self._composed(given)
        with self._lock, torch.inference_mode():
            _check(job)
            tell(News(0.1, "the network looks"))
            pipeline = self._assembled(config)
            if len(pipeline.predict) != 1:
                raise ConfigError("Plain pictures are looked at by one network: choose one.")
            values, kind = look_at(picture, next(iter(pipeline.predict.values())), fov)
        _check(job)
        shown, words = _coloured(values, kind, colours)
        results = job.folder / "results"
        files = [
            images.write_png(results / "map.png", shown),
            images.write_npy(results / "map.npy", values),
            images.write_exr(results / "map.exr", values, channel="Z"),
            write_text(results / "map.json", json.dumps({"kind": str(kind), "meaning": words}, indent=2) + "\n"),
        ]
        return shrunk(rgb_picture(picture), SHOWN), shrunk(shown, SHOWN), [*files, _zipped(files, job)], words

    def film(self, job: Job, tell: Tell) -> Path:
        """Once around in a result that is still kept, as a film."""
        film = Film(height=FRAMES["height"], width=2 * FRAMES["height"], fps=FRAMES["fps"])
        with self._lock, torch.inference_mode():
            _check(job)
            assert job.source is not None
            place, geometry = job.folder / "film", load_geometry(job.folder / job.results)
            height = geometry.distance.shape[-2]
            size = (2 * height, height)
            panorama = Wild(image_path=str(job.source), image_resize=size, max_size=self.app.max_size).load(job.source)
            scene = _Told(scene_of(film, place, panorama, geometry, None, self.device), FRAMES["poses"], job, tell)
            way = Orbit(poses=FRAMES["poses"])(geometry.distance)
            scale = distance_scale(geometry.distance[0].cpu().numpy(), geometry.mask[0].cpu().numpy())
            return filmed(scene, way, film, place, scale)[-1]

    def panorama(self, upload: Path) -> Panorama:
        """An upload as a panorama of its own size, or an InputError in one sentence."""
        return Wild(image_path=str(upload), max_size=self.app.max_size).load(upload)

    def _composed(self, given: Sequence[str]) -> dict[str, Any]:
        with self._composing:  # Hydra has one state for all threads
            return compose("config", [*self.base, *given])

    def _assembled(self, config: dict[str, Any]) -> Pipeline:
        """The stages, with the networks of the last run where they are the same."""
        key = json.dumps(config["predict"], sort_keys=True, default=str)
        pipeline = assemble(config)
        if key == self._looking[0]:
            pipeline = replace(pipeline, predict=self._looking[1])
        else:
            self._looking = ("", {})  # the old ones make room before the new ones are read
        pipeline.prepare()
        self._looking = (key, pipeline.predict)
        return pipeline


def look_at(picture: Tensor, predict: stage.Predict, fov: float) -> tuple[Tensor, Kind]:  # [3, H, W] -> [1, H, W]
    """What a network says of a plain picture; its mirrored borders fill the square that networks of views want."""
    height, width = picture.shape[-2:]
    scale = min(1.0, LARGEST_VIEW / max(height, width))
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    small = F.interpolate(picture[None].float(), (h, w), mode="bilinear", antialias=True, align_corners=False)
    small = small if picture.dtype != torch.uint8 else small.round().clamp(0, 255).byte()
    side = max(h, w)
    top, left = (side - h) // 2, (side - w) // 2
    rows, columns = _mirrored(h, side, top), _mirrored(w, side, left)
    square = small[:, :, rows][:, :, :, columns]
    tan = math.tan(math.radians(fov / 2))
    rig = Rig(pinhole.look_along(torch.tensor([[1.0, 0.0, 0.0]])), torch.tensor([tan]), side)
    seen = predict(Views(square, rig))
    found = sound({seen.models[0] if seen.models else "the network": seen})[0].popitem()[1]
    values = found.values[:, :, top : top + h, left : left + w].float().cpu()
    values = torch.where(values.isfinite(), values, 0.0)  # single pixels without a number
    return F.interpolate(values, (height, width), mode="bilinear", align_corners=False)[0], found.kinds[0]


def _mirrored(count: int, side: int, before: int) -> Tensor:
    """Indices that go to and fro over so many lines."""
    if count == 1:
        return torch.zeros(side, dtype=torch.long)
    period = 2 * count - 2
    index = (torch.arange(side) - before) % period
    return torch.where(index < count, index, period - index)


def _coloured(values: Tensor, kind: Kind, colours: ColourMap) -> tuple[Picture, str]:
    """A map as colours, near at the upper end, and what its numbers mean."""
    meaning = {
        Kind.AFFINE_DISPARITY: "Larger numbers are nearer: 1 / depth up to a scale and a shift, without a unit.",
        Kind.AFFINE_DEPTH: "Smaller numbers are nearer: depth up to a scale and a shift, without a unit.",
        Kind.SCALE_DISTANCE: "Distance up to one factor, without a unit.",
        Kind.METRIC_DISTANCE: "Distance in metres.",
    }[kind]
    if kind is Kind.AFFINE_DISPARITY:
        low, high = float(values.min()), float(values.max())
        share = (values - low) / max(high - low, 1e-9)
        distance = 1 / (0.05 + share)  # only the order and the evenness of the colours
    else:
        distance = values.clamp_min(1e-6)
    array = distance[0].numpy()
    return colour_distance(array, distance_scale(array, None, colours)), meaning


# --- Files


@cache
def samples() -> tuple[Path, ...]:
    """The panoramas that ship with the program, whose true shape is known."""
    assets = Path(str(resources.files("immersivedepth") / "assets"))
    return tuple(p for p in sorted(assets.glob("*.[jp][pn]g")) if p.with_suffix(WORLD).is_file())


def sample_of(upload: Path) -> Path | None:
    """The sample that an upload is a copy of."""
    size = upload.stat().st_size
    alike = [path for path in samples() if path.stat().st_size == size]
    if not alike:
        return None
    found = hashlib.sha256(upload.read_bytes()).digest()
    return next((path for path in alike if hashlib.sha256(path.read_bytes()).digest() == found), None)


def kept(upload: Path, job: Job, mark: str = "") -> Path:
    """The upload in the folder of its run, under a safe name; uploads themselves may go any time."""
    if not upload.is_file():
        raise InputError("The upload is no longer there: upload the picture again.")
    stem = safe_name(upload.stem) + (f"-{mark}" if mark else "")
    target = job.source = job.folder / f"{stem}{upload.suffix.lower()[:8]}"
    shutil.copyfile(upload, target)
    if sample := sample_of(upload):
        shutil.copyfile(sample.with_suffix(WORLD), target.with_suffix(WORLD))
    return target


def _zipped(files: Sequence[Path], job: Job) -> Path:
    path = job.folder / "results.zip"
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in files:
            archive.write(file, file.relative_to(job.folder / "results"))
    return path


def _result(panorama: Panorama, geometry: Geometry, files: list[Path], job: Job, start: float) -> Result:
    _check(job)
    quality = assess(geometry)
    return Result(panorama, geometry, tuple(files), _zipped(files, job), time.perf_counter() - start, quality)


def said(error: BaseException, folder: Path) -> str:
    """What went wrong in one sentence that names no folder of this machine."""
    if not isinstance(error, UserError) and not _known_words(error):
        log.error("a run failed", exc_info=error)
        return "The program failed on this picture; the log of the server says where."
    text = one_line(error)[0]
    words = [_plain_name(word, folder) for word in text.split(" ")]
    return " ".join(words).replace(" or raise dataset.max_size", "")


def _known_words(error: BaseException) -> bool:
    return "a fault of the program" not in one_line(error)[0]


def _plain_name(word: str, folder: Path) -> str:
    return word.rpartition("/")[2] if str(folder) in word else word


# --- Steps


def _check(job: Job) -> None:
    if job.cancelled.is_set():
        raise Cancelled("Stopped.")


def _watched(pipeline: Pipeline, panorama: Panorama, job: Job, tell: Tell) -> Pipeline:
    """The same stages; each one tells when it begins and what geometry it has found."""

    def step(name: str, call: Callable[..., Any], share: float = 0.0) -> Callable[..., Any]:
        begin, words = STEPS[name]

        def run(*arguments: Any) -> Any:
            _check(job)
            tell(News(begin + share, words))
            found = call(*arguments)
            if isinstance(found, Geometry):
                tell(News(begin + share, words, found, panorama))
            _check(job)
            return found

        return run

    room = STEPS["fuse"][0] - STEPS["predict"][0]
    looking = {
        name: step("predict", _piecewise(p, job, tell, i / len(pipeline.predict), room / len(pipeline.predict)))
        for i, (name, p) in enumerate(pipeline.predict.items())
    }
    count = len(pipeline.export)
    return replace(
        pipeline,
        project=step("project", pipeline.project),
        predict=looking,
        fuse=step("fuse", pipeline.fuse),
        align=step("align", pipeline.align),
        blend=step("blend", pipeline.blend),
        refine={name: step("refine", refine) for name, refine in pipeline.refine.items()},
        segment=step("segment", pipeline.segment),
        export={
            name: step("export", export, 0.16 * i / max(1, count))
            for i, (name, export) in enumerate(pipeline.export.items())
        },
    )


def _piecewise(predict: stage.Predict, job: Job, tell: Tell, begin: float, room: float) -> Callable[[Views], Any]:
    """A network looks at a few views at a time, so that it can be stopped and its progress be seen."""
    if not isinstance(predict, stage.Loading):
        return predict
    start, words = STEPS["predict"]
    pace = getattr(getattr(predict, "running", None), "batch_size", 4)

    def look(views: Views) -> Any:
        parts = []
        for first in range(0, len(views.rig), pace):
            _check(job)
            tell(
                News(
                    start + begin * room + room * first / len(views.rig),
                    f"{words}: view {first + 1} of {len(views.rig)}",
                )
            )
            parts.append(predict(_some(views, slice(first, first + pace))))
        return _joined(parts, views.rig)

    return look


def _some(views: Views, which: slice) -> Views:
    rig = Rig(views.rig.rotation[which], views.rig.tan_half_fov[which], views.rig.resolution)
    return Views(views.images[which], rig, None if views.mask is None else views.mask[which], views.truth)


def _joined(parts: list[Any], rig: Rig) -> Any:
    first = parts[0]
    whole: dict[str, Any] = {"rig": rig}
    for name in ("values", "confidence", "normal", "sky"):
        pieces = [getattr(part, name) for part in parts]
        whole[name] = None if pieces[0] is None else torch.cat(pieces)
    for name in ("kinds", "models"):
        whole[name] = tuple(value for part in parts for value in getattr(part, name))
    return replace(first, **whole)


class _Told:
    """A scene that tells of every frame."""

    def __init__(self, scene: Scene, frames: int, job: Job, tell: Tell) -> None:
        self.scene, self.frames, self.job, self.tell, self.done = scene, frames, job, tell, 0

    def render(self, pose: Pose, camera: Camera) -> Frame:
        _check(self.job)
        self.tell(News(self.done / self.frames, f"frame {self.done + 1} of {self.frames}"))
        self.done += 1
        return self.scene.render(pose, camera)


def _base(config: dict[str, Any]) -> list[str]:
    """What the operator has chosen for all runs: the device, and where weights lie."""
    device, weights = config["device"], config["weights"]
    given = [f"device.{key}={device[key]}" for key in ("kind", "precision", "backend", "compile", "geometry")]
    given.append(f"weights.offline={weights['offline']}")
    if weights["folder"]:
        given.append(f"weights.folder={quoted(str(weights['folder']))}")
    return given


def facts(result: Result) -> dict[str, Any]:
    """The figures of the quality report for programs."""
    return {**result.quality, "seconds": round(result.seconds, 2), "metric": result.geometry.metric}
