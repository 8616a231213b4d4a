"""mode=train without a system: the geometry of a panorama becomes a radiance field that can be walked through."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .batch import placed
from .checks import ConfigError
from .config import build, run_of
from .dense import device_of, found
from .pipeline import assemble
from .render.field.pool import Known
from .render.protocol import Scene
from .runs import RunFolder
from .scene import Geometry, Panorama, unit_image
from .training import checkpoints
from .training.radiance import Fit, revived

log = logging.getLogger(__name__)

LOOKS = ("enhance", "project", "predict", "fuse", "align", "blend")  # what a predicted distance depends on
BOOKKEEPING = ("log_every", "save_minutes")  # may change while a field is trained


def train_field(config: dict[str, Any], open_folder: Callable[[], RunFolder]) -> tuple[RunFolder, list[Path]]:
    """A field for every panorama of the run; geometry that the run does not hold yet is estimated first."""
    if not isinstance(config.get("scene"), dict) or not isinstance(config.get("inpaint"), dict):
        raise ConfigError("a radiance field needs a scene and an inpainter: add scene=voxel and inpaint=none")
    facts = {name: config[name] for name in ("scene", "field", "inpaint", "seed")}
    facts["field"] = {key: value for key, value in facts["field"].items() if key not in BOOKKEEPING}
    settings, scene, inpaint = (build(config[name], name) for name in ("field", "scene", "inpaint"))
    device, look = device_of(config), None
    if settings.new_distances == "predicted":
        look = looking(config)
        facts |= {name: config[name] for name in LOOKS}
    folder, results = found(config, open_folder)
    written = []
    for place, panorama, geometry in results:
        fit = Fit(settings, scene, inpaint, known(panorama, geometry, device), place, run_of(config).seed, facts, look)
        fit(folder.continued)
        written += [place / checkpoints.FOLDER / checkpoints.LAST, place / "1.png", place / "1_distance.png"]
    return folder, written


def known(panorama: Panorama, geometry: Geometry, device: torch.device) -> Known:
    """The panorama as the first view of the pool."""
    normal = None if geometry.normal is None else geometry.normal.to(device)
    image, distance = unit_image(panorama.image).to(device), geometry.distance.to(device)
    return Known.of(torch.zeros(3, device=device), image, distance, geometry.mask.to(device), normal)


def looking(config: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """The networks of the run, as what gives the distances of a picture, up to scale."""
    pipeline, device = assemble(config), run_of(config).device
    pipeline.prepare()

    @torch.inference_mode()
    def look(image: Tensor) -> Tensor:  # [3, H, W] -> [1, H, W]
        return pipeline.estimate(placed(Panorama(image.cpu()), device)).distance.to(image.device)

    return look


def fields(config: dict[str, Any]) -> Callable[[Path], Scene | None]:
    """What gives the field that was trained in the folder of a panorama, None where there is none."""

    def load(place: Path) -> Scene | None:
        path = place / checkpoints.FOLDER / checkpoints.LAST
        if not path.is_file() or not isinstance(config.get("scene"), dict):
            return None
        content = checkpoints.load(path)
        if "sup_pool" not in content["training"]:
            return None
        trained, _ = revived(build(config["scene"], "scene"), content, device_of(config))
        trained.fill = build(config["render"], "render").fill
        trained.step = content["training"]["position"].step
        log.info("field of step %d: %s", trained.step, path)
        return trained

    return load
