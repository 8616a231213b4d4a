"""mode=depth: panoramas in, geometry and files out, one after another; a bad picture does not stop the others."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from .checks import InputError
from .config import Device, build, compose, run_of
from .files import write_text
from .metrics import abs_rel
from .pipeline import Pipeline, assemble
from .runs import RunFolder
from .scene import Geometry, Panorama
from .stages.predict.running import Running

log = logging.getLogger(__name__)

_RECORD = "result.json"  # written last: where it stands, the result is whole


@dataclass(frozen=True)
class Outcome:
    """What became of one input."""

    source: str
    files: tuple[Path, ...] = ()
    seconds: float = 0.0
    error: str | None = None
    skipped: bool = False


def estimate(image: str | Path | None = None, overrides: Sequence[str] = (), config: str = "config") -> Geometry:
    """The geometry of one panorama, without files: the library's front door. None takes the sample panorama."""
    plain = compose(config, overrides)
    if image is not None:
        plain["dataset"]["image_path"] = str(image)
    dataset, pipeline = build(plain["dataset"], "dataset"), assemble(plain)
    with torch.inference_mode():
        return pipeline(placed(dataset.load(dataset.sources()[0]), run_of(plain).device))


def placed(panorama: Panorama, device: Device) -> Panorama:
    """The panorama in the memory where its geometry is to be computed."""
    if device.geometry == "cpu":
        return panorama
    where = Running(kind=device.kind, backend=device.backend).device()
    mask = None if panorama.mask is None else panorama.mask.to(where)
    return replace(panorama, image=panorama.image.to(where), mask=mask)


def depth(config: dict[str, Any], open_folder: Callable[[], RunFolder]) -> tuple[RunFolder, list[Outcome]]:
    """Every panorama of the data set through the pipeline; each gets its own folder inside the run's.

    The run's folder is opened only once the inputs are found and every network has its weights.
    """
    dataset, pipeline = build(config["dataset"], "dataset"), assemble(config)
    device = run_of(config).device
    sources = dataset.sources()
    pipeline.prepare()
    folder = open_folder()
    outcomes = []
    for source in tqdm(sources, unit="panorama", disable=len(sources) < 2):
        try:
            outcomes.append(_one(dataset, source, pipeline, folder, device))
        except InputError as error:
            log.debug("%s failed", source, exc_info=True)
            outcomes.append(Outcome(str(source), error=str(error)))
    return folder, outcomes


def _one(dataset: Any, source: Any, pipeline: Pipeline, folder: RunFolder, device: Device) -> Outcome:
    start = time.perf_counter()
    place = folder.path / dataset.name(source)
    if folder.continued and (place / _RECORD).is_file():
        return Outcome(str(source), skipped=True)
    panorama: Panorama = dataset.load(source)
    log.info("%s: %d x %d pixels", panorama.name, panorama.size[1], panorama.size[0])
    with torch.inference_mode():
        geometry = pipeline(placed(panorama, device))
        files = pipeline.save(geometry, panorama, place)
        facts = _facts(panorama, geometry)
    seconds = time.perf_counter() - start
    record = {**facts, "seconds": round(seconds, 3), "files": [p.name for p in files]}
    write_text(place / _RECORD, json.dumps(record, indent=2, default=str) + "\n")
    return Outcome(str(source), (*files, place / _RECORD), seconds)


def _facts(panorama: Panorama, geometry: Geometry) -> dict[str, Any]:
    """What the result is worth, and how wrong it is where the truth is known."""
    facts: dict[str, Any] = {"name": panorama.name, "source": panorama.about, "metric": geometry.metric}
    if panorama.about.get("input_damaged"):
        facts["input_damaged"] = True
    facts["trusted_share"] = round(float(geometry.mask.float().mean()), 4)
    if panorama.truth is not None:
        facts["abs_rel"] = round(abs_rel(geometry, panorama.truth), 6)
        log.info("%s: mean relative error against the known truth %.3f %%", panorama.name, 100 * facts["abs_rel"])
    facts["report"] = geometry.report
    return facts
