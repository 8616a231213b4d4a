"""mode=render_dense and mode=view: walk through what a run has found, into pictures and a film or in a browser."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from . import hardware
from .batch import depth
from .checks import ConfigError, InputError
from .config import build, run_of
from .data import images
from .files import write_text
from .geometry.normals import normals_from_distance
from .render.mesh import MeshScene
from .render.paths import Path as Way
from .render.protocol import PANORAMA, Frame, Pose, Scene
from .render.settings import Film
from .render.splats import SplatScene
from .render.video import write_video
from .runs import RunFolder
from .scene import Geometry, Panorama, unit_image
from .visual.colours import Scale, colour_distance, distance_scale

log = logging.getLogger(__name__)

RECORD = "path.json"  # what the frames were made with; frames of other settings are made again
Fields = Callable[[Path], Scene | None]  # the radiance field in the folder of a panorama, if it holds one


def render_dense(
    config: dict[str, Any], open_folder: Callable[[], RunFolder], fields: Fields | None = None
) -> tuple[RunFolder, list[Path]]:
    """A film for every panorama of the run; geometry that the run does not hold yet is estimated first."""
    film, sampler = build(config["render"], "render"), build(config["pose_sampler"], "pose_sampler")
    device = device_of(config)
    written = []
    folder, results = found(config, open_folder)
    for place, panorama, geometry in results:
        with torch.inference_mode():
            scene = scene_of(film, place, panorama, geometry, fields, device)
            way = sampler(geometry.distance)
            scale = distance_scale(geometry.distance[0].numpy(), geometry.mask[0].numpy())  # one for all frames
            written += filmed(scene, way, film, place / f"dense_images_{film.kind}", scale)
    return folder, written


def found(
    config: dict[str, Any], open_folder: Callable[[], RunFolder]
) -> tuple[RunFolder, Iterator[tuple[Path, Panorama, Geometry]]]:
    """The run's folder, and for each of its panoramas the folder, the picture and the geometry that lies there."""
    dataset = build(config["dataset"], "dataset")
    folder = open_folder()
    sources = dataset.sources()
    places = {source: folder.path / dataset.name(source) for source in sources}
    # result.json is written last: without it a killed run has left a part only
    if not all((place / name).is_file() for place in places.values() for name in ("distance.npy", "result.json")):
        log.info("no distance in %s yet: it is estimated first", folder.path)
        export = {**config["export"], "arrays": _ARRAYS}
        _, outcomes = depth({**config, "export": export}, lambda: RunFolder(folder.path, False))
        if bad := [outcome.error for outcome in outcomes if outcome.error]:
            raise InputError(bad[0])
    return folder, ((place, dataset.load(source), load_geometry(place)) for source, place in places.items())


_ARRAYS = {"_target_": "immersivedepth.stages.export.arrays.Arrays", "formats": ["exr", "npy"]}


def load_geometry(place: Path) -> Geometry:
    """What export=arrays wrote."""
    distance = images.read_map(place / "distance.npy")
    mask = images.read_image(place / "mask.png").image[:1] > 127
    metric = bool(json.loads((place / "distance.json").read_text(encoding="utf-8"))["metric"])
    found = place / "normal.npy"
    normal = images.read_vectors(found) if found.is_file() else normals_from_distance(distance)
    return Geometry(distance, mask, metric=metric, normal=normal)


def device_of(config: dict[str, Any]) -> torch.device:
    """Where fields are computed, and meshes and splats drawn."""
    return hardware.device(run_of(config).device.kind)


def scene_of(
    film: Film, place: Path, panorama: Panorama, geometry: Geometry, fields: Fields | None, device: torch.device
) -> Scene:
    """What is filmed: the run's field, or the panorama's mesh or splats."""
    field = fields(place) if fields is not None and film.source in ("auto", "field") else None
    if film.source == "field" and field is None:
        raise ConfigError(
            f"render.source=field: {place} holds no radiance field; choose render.source=mesh or splats, "
            "or train one first"
        )
    if film.backend == "gl" and (field is not None or film.source == "splats"):
        raise ConfigError("render.backend=gl draws meshes: choose render.source=mesh, or render.backend=auto")
    if field is not None:
        if film.fill == "navier_stokes":
            raise ConfigError("render.fill=navier_stokes: a field has its own hidden parts; choose harmonic or mark")
        return field
    device = torch.device("cpu") if device.type == "mps" else device  # drawing was never tried there
    image, distance = unit_image(panorama.image).to(device), geometry.distance.to(device)
    if film.source == "splats":
        normal = None if geometry.normal is None else geometry.normal.to(device)
        return SplatScene(image, distance, normal, film.fill)
    return MeshScene(image, distance, film.fill, film.backend)


def filmed(scene: Scene, way: Way, film: Film, place: Path, scale: Scale) -> list[Path]:
    """image_i.png, distance_i.png, distance_i.exr, seen_i.png for every pose, and video.mp4.

    What a killed run left is kept if it was made of the same scene with the same settings and poses.
    """
    poses = way.poses(film.kind)
    of = {"kind": type(scene).__name__, "step": getattr(scene, "step", None)}
    facts = {"render": asdict(film), "scene": of, "poses": [_facts(pose) for pose in poses]}
    record = json.dumps(facts, indent=1) + "\n"
    if not ((place / RECORD).is_file() and (place / RECORD).read_text(encoding="utf-8") == record):
        for old in place.glob("distance_*.exr"):  # written last: while it is not there, the frame is not done
            old.unlink()
    write_text(place / RECORD, record)
    paths = [place / RECORD]
    for i, pose in enumerate(tqdm(poses, unit="frame", desc=film.kind)):
        names = [place / name for name in (f"image_{i}.png", f"distance_{i}.png", f"seen_{i}.png", f"distance_{i}.exr")]
        if not all(name.is_file() for name in names):
            _save(scene.render(pose, film.camera), names, scale)
        paths += names
    if film.video:
        frames = (_picture(place / f"image_{i}.png") for i in range(len(poses)))
        paths.append(write_video(place / "video.mp4", frames, film.fps, film.kind == PANORAMA))
    return paths


def _save(frame: Frame, names: list[Path], scale: Scale) -> None:
    image, shown, seen, exact = names
    images.write_png(image, frame.image.clamp(0, 1))
    images.write_png(shown, colour_distance(frame.distance[0].cpu().numpy(), scale))
    images.write_png(seen, frame.seen)
    images.write_exr(exact, frame.distance)


def _picture(path: Path) -> Tensor:
    return unit_image(images.read_image(path).image)


def _facts(pose: Pose) -> dict[str, Any]:
    return {"position": pose.position.tolist(), "rotation": pose.rotation.tolist()}
