"""mode=evaluate: every image of a data set through the pipeline, each with a record of its own; resumable, parallel."""

from __future__ import annotations

import logging
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor
from tqdm import tqdm

from ..batch import placed
from ..checks import ConfigError, InputError, ResourceError
from ..config import CONF, build, run_of
from ..data import images
from ..data.measured import measured_of
from ..files import write_text
from ..geometry import pinhole
from ..metrics.protocol import DISTANCES, LATITUDES, Protocol, Verdict
from ..pipeline import Pipeline, assemble
from ..runs import RunFolder
from ..scene import Kind, Prediction
from ..visual.colours import Picture, colour_difference, colour_distance, distance_scale
from ..visual.grids import grid, rgb_picture
from . import compare, records
from .settings import Settings
from .tables import one_run

log = logging.getLogger(__name__)

_FULL_ERROR = 0.3  # of ln(p / g) that is painted as bad as it gets
_SHOWN = 512  # columns of the maps that small pictures are made of


@dataclass(frozen=True)
class Evaluation:
    """What became of a run."""

    folder: RunFolder
    files: tuple[Path, ...]
    figures: dict[str, records.Figure]
    failed: dict[str, str]  # what could not be used, and why
    skipped: int = 0  # images that were done before


@dataclass(frozen=True)
class Seen:
    """One image, its truth, and what the protocol says."""

    picture: Tensor  # [3, H, W]
    truth: Tensor  # [H, W]
    valid: Tensor  # [H, W]
    verdict: Verdict
    seconds: float


@dataclass
class Work:
    """What every process needs: built once in each, from the plain config."""

    config: dict[str, Any]
    folder: Path

    @cached_property
    def protocol(self) -> Protocol:
        return protocol_of(self.config)

    @cached_property
    def dataset(self) -> Any:
        return build(self.config["dataset"], "dataset")

    @cached_property
    def pipeline(self) -> Pipeline:
        return assemble(self.config)

    @cached_property
    def settings(self) -> Settings:
        found: Settings = build(self.config["evaluation"], "evaluation")
        return found

    def record(self, name: str) -> Path:
        """Where the record of an image is."""
        return self.folder / records.IMAGES / f"{name}.json"

    def one(self, source: Path) -> str | None:
        """Look at one image and write its record; what is wrong with it, if it cannot be used."""
        try:
            seen = self._view(source) if hasattr(self.dataset, "view") else self._panorama(source)
        except InputError as error:
            log.debug("%s failed", source, exc_info=True)
            return str(error)
        name = self.dataset.name(source)
        images.write_jpeg(self.folder / records.IMAGES / f"{name}.jpg", strip(seen, self.settings.strip))
        records.write_record(self.folder, record_of(name, source, self.protocol, seen))
        return None

    def _panorama(self, source: Path) -> Seen:
        """Through the whole pipeline."""
        start = time.perf_counter()
        measured = measured_of(self.dataset, source)
        with torch.inference_mode():
            geometry = self.pipeline(placed(measured.panorama, run_of(self.config).device))
            distance = geometry.distance[0].cpu()
        seconds, picture = time.perf_counter() - start, measured.panorama.image
        truth, valid = measured.distance[0], measured.valid[0]
        verdict = self.protocol.judge(distance, truth, valid, metric=geometry.metric, picture=picture)
        return Seen(picture, truth, valid, verdict, seconds)

    def _view(self, source: Path) -> Seen:
        """A perspective picture is a view already: only the predictor is measured, on depth along the axis."""
        start = time.perf_counter()
        measured = self.dataset.view(source)
        if len(self.pipeline.predict) != 1:
            raise ConfigError("perspective pictures are measured with one predictor: choose it, e.g. predict=[midas]")
        with torch.inference_mode():
            prediction = next(iter(self.pipeline.predict.values()))(measured.views)
            depth, metric = depth_of(prediction, self.protocol)
        seconds, picture = time.perf_counter() - start, measured.views.images[0]
        truth, valid = measured.depth[0], measured.valid[0]
        verdict = self.protocol.judge(depth, truth, valid, metric=metric, picture=picture, flat=True)
        return Seen(picture, truth, valid, verdict, seconds)


def evaluate(config: dict[str, Any], open_folder: Callable[[], RunFolder], job: str = "") -> Evaluation:
    """Measure the pipeline on a data set; in a multirun also keep the table of all its jobs up to date."""
    work = Work(config, Path())
    protocol, dataset, settings = work.protocol, work.dataset, work.settings
    sources = dataset.sources()
    work.pipeline.prepare()
    folder = open_folder()
    work.folder = folder.path
    marked = [s for s in sources if folder.continued and _is_done(work, s)]
    waiting = [s for s in sources if s not in set(marked)]
    failed = {}
    with tqdm(total=len(sources), initial=len(marked), unit="image", disable=len(sources) < 2) as bar:
        for source, wrong in _looked_at(work, waiting):
            if wrong:
                failed[str(source)] = wrong
            bar.update()
    done = [dataset.name(s) for s in sources if str(s) not in failed]
    if not done:
        raise InputError(f"none of {len(sources)} images could be used; the first: {next(iter(failed.values()))}")
    summary = {
        "protocol": {**asdict(protocol), "mark": protocol.mark, "definition": protocol.definition()},
        "dataset": config["dataset"]["_target_"].rpartition(".")[2],
        "images": sorted(done),
        "failed": failed,
        "bands": {"latitude": list(LATITUDES), "distance": list(DISTANCES)},
    }
    found = [records.read_record(work.record(name)) for name in summary["images"]]
    result = records.Result(folder.path, protocol, found, summary)
    figures = records.figures_of(result, settings.samples)
    summary |= {"figures": {name: asdict(figure) for name, figure in figures.items()}}
    summary |= {"curves": records.curves_of(found), "seconds": sum(r["seconds"] for r in found) / len(found)}
    files = [
        records.write_images_table(folder.path, result),
        write_text(folder.path / "evaluation.md", one_run(protocol, figures, len(found), failed)),
        records.write_json(folder.path / records.SUMMARY, summary),  # last: where it stands, the run is whole
    ]
    if job:
        files += compare.grid_of(folder.path, settings)
    return Evaluation(folder, tuple(files), figures, failed, len(marked))


def protocol_of(config: dict[str, Any]) -> Protocol:
    """The protocol; one that was changed must not go by the name of a preset."""
    if not isinstance(config.get("protocol"), dict):
        raise ConfigError("mode=evaluate of panoramas needs a protocol: add protocol=<name>; --help lists them")
    protocol: Protocol = build(config["protocol"], "protocol")
    preset = CONF / "protocol" / f"{protocol.name}.yaml"
    if preset.is_file():
        own = OmegaConf.to_container(OmegaConf.load(preset), resolve=True)
        assert isinstance(own, dict)
        changed = [str(key) for key, value in own.items() if config["protocol"].get(key) != value]
        if changed:
            raise ConfigError(
                f"protocol.{changed[0]}={config['protocol'].get(changed[0])} is not what {protocol.name} says "
                f"({own[changed[0]]!s}): give the changed protocol a name of its own, protocol.name=..."
            )
    return protocol


def depth_of(prediction: Prediction, protocol: Protocol) -> tuple[Tensor, bool]:  # [h, w]
    """Depth along the axis of a single view, and whether it is in metres; refused where the protocol cannot mend it."""
    values, kind = prediction.values[0, 0].cpu(), prediction.kinds[0]
    wanted = {Kind.AFFINE_DISPARITY: "affine_disparity", Kind.AFFINE_DEPTH: "affine_depth"}.get(kind, "")
    if not protocol.align.startswith(wanted):
        raise ConfigError(
            f"protocol={protocol.name} does not free the shift of this predictor's output ({kind}): choose one with "
            f"align={wanted}, e.g. protocol=moge_{'disparity' if kind is Kind.AFFINE_DISPARITY else 'affine'}"
        )
    if kind is Kind.AFFINE_DISPARITY:
        return torch.where(values > 0, 1 / values, math.inf), False
    if kind is Kind.AFFINE_DEPTH:
        return values, False
    rig = prediction.rig
    length = pinhole.view_rays(rig.rotation, rig.tan_half_fov, values.shape[-1])[0].norm(dim=-1).cpu()
    return values / length, kind is Kind.METRIC_DISTANCE


def record_of(name: str, source: Path, protocol: Protocol, seen: Seen) -> dict[str, Any]:
    """All that later tables need of one image."""
    verdict = seen.verdict
    return {
        "name": name,
        "source": str(source),
        "mark": protocol.mark,
        "truth": {
            "pixels": int(seen.valid.sum()),
            "mean": round(float(seen.truth[seen.valid].double().mean()), 9),
        },
        "figures": verdict.figures,
        "extras": verdict.extras,
        "moments": verdict.moments,
        "curves": verdict.curves,
        "seconds": round(seen.seconds, 3),
    }


def strip(seen: Seen, side: int) -> Picture:
    """Picture, truth, prediction as it was compared, and its error, side by side."""
    compared = seen.verdict.compared
    every = max(1, compared.shape[1] // _SHOWN)
    truth, mask, found = (v[::every, ::every] for v in (seen.truth, seen.valid, compared))
    far = torch.where(mask, truth, 0.0).numpy()
    scale = distance_scale(far)
    error = (found / truth.double()).log().numpy()
    row = [
        rgb_picture(seen.picture[:, ::every, ::every]),
        colour_distance(far, scale),
        colour_distance(found.nan_to_num(0.0).numpy(), scale),
        colour_difference(error, _FULL_ERROR),
    ]
    return grid({"": row}, side=side)


def _is_done(work: Work, source: Path) -> bool:
    path = work.record(work.dataset.name(source))
    try:
        return bool(records.read_json(path)["mark"] == work.protocol.mark)
    except (InputError, KeyError, TypeError):
        return False


def _looked_at(work: Work, sources: list[Path]) -> Iterator[tuple[Path, str | None]]:
    """Every image as it is done, in this process or in several."""
    if work.settings.workers == 1 or len(sources) < 2:
        for source in sources:
            yield source, work.one(source)
        return
    # Started anew rather than forked: a forked child would inherit locks of torch's threads.
    context = multiprocessing.get_context("spawn")
    count = min(work.settings.workers, len(sources))
    threads = max(1, torch.get_num_threads() // count)
    arguments = (work.config, work.folder, threads)
    with ProcessPoolExecutor(count, context, initializer=_start, initargs=arguments) as pool:
        waiting = {pool.submit(_one, source): source for source in sources}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BrokenProcessPool as error:
            raise ResourceError(
                "a process that looks at images was ended, likely for lack of memory: lower evaluation.workers; "
                "is_continue=true goes on with what is missing"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_process: list[Work] = []  # what this process works with, where it is one of several


def _start(config: dict[str, Any], folder: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(config["seed"])
    _process.append(Work(config, folder))


def _one(source: Path) -> str | None:
    return _process[-1].one(source)
