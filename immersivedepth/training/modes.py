"""mode=train, evaluate, predict and lr_range: a system, its data and the loop, from a checked config."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checks import ConfigError, InputError, WeightsError
from ..config import build, run_of
from ..files import write_text
from ..runs import RunFolder
from . import checkpoints
from .judging import evaluation_batches, judged
from .lr_range import RateRange, lr_range
from .system import Predicted, System
from .tally import Tally
from .trainer import Trainer

log = logging.getLogger(__name__)

Open = Callable[[], RunFolder]


@dataclass(frozen=True)
class Result:
    """What a mode leaves: files, and figures by name."""

    folder: Path
    files: tuple[Path, ...] = ()
    figures: dict[str, float] | None = None
    main: bool = True  # False in the further processes of a training run


def parts(config: dict[str, Any]) -> tuple[System, Trainer, Any]:
    """The system, the trainer and the data set of a config."""
    if not isinstance(config.get("system"), dict):
        raise ConfigError(f"mode={config['mode']} needs a system: add system=<name>; --help lists them")
    system: System = build(config["system"], "system")
    return system, build(config["trainer"], "trainer"), build(config["dataset"], "dataset")


def train(config: dict[str, Any], open_folder: Open) -> Result:
    """Train the system, or go on with it."""
    system, trainer, dataset = parts(config)
    fabric = trainer.launch()
    folder = _shared(open_folder, fabric)
    fitted = trainer.fit(
        system,
        dataset,
        folder.path,
        seed=run_of(config).seed,
        fabric=fabric,
        continued=folder.continued,
        config=json.dumps(config, default=str),
    )
    return Result(folder.path, fitted.files, main=fabric.is_global_zero)


def evaluate(config: dict[str, Any], open_folder: Open) -> Result:
    """Measure the trained system on the test part of its data, or on its validation part where there is no other."""
    system, trainer, dataset = parts(config)
    path = weights_of(system, config)
    fabric = trainer.launch()
    net = fabric.to_device(loaded(system, path))
    split, samples = "test", system.data(dataset, "test")
    if samples is None:
        split, samples = "val", system.data(dataset, "val")
    if samples is None:
        raise ConfigError(f"{system.name}: the data set has neither a test nor a validation part")
    folder = _shared(open_folder, fabric)
    tally = Tally()
    batches = evaluation_batches(samples, trainer, fabric, run_of(config).seed)
    for outputs, batch, _, loss in judged(system, net, batches, fabric):
        size = torch.tensor(float(next(len(v) for v in batch.values() if isinstance(v, torch.Tensor))))
        tally.add({"loss": (loss * size, size), **system.metrics(outputs, batch)})
    figures = system.summary(tally.means(fabric))
    files: tuple[Path, ...] = ()
    if fabric.is_global_zero:
        record = {"system": system.name, "weights": str(path), "split": split, "samples": _count(samples)} | figures
        files = (write_text(folder.path / "evaluation.json", json.dumps(record, indent=2) + "\n"),)
    return Result(folder.path, files, figures, main=fabric.is_global_zero)


def predict(config: dict[str, Any], open_folder: Open) -> tuple[Result, list[Predicted]]:
    """Let the trained system work on a user's own inputs."""
    system, _, dataset = parts(config)
    net = loaded(system, weights_of(system, config)).eval()
    folder: RunFolder = open_folder()
    with torch.inference_mode():
        outcomes = list(system.predict(net, dataset, folder.path, config))
    if not outcomes:
        raise InputError("mode=predict: there is no input; name it under dataset")
    files = tuple(path for outcome in outcomes for path in outcome.files)
    return Result(folder.path, files), outcomes


def rates(config: dict[str, Any], open_folder: Open) -> Result:
    """The learning-rate range test."""
    system, trainer, dataset = parts(config)
    ask: RateRange = build(config["lr_range"], "lr_range")
    fabric = trainer.launch()
    folder = _shared(open_folder, fabric)
    found, files = lr_range(trainer, system, dataset, folder.path, ask, seed=run_of(config).seed, fabric=fabric)
    figures = {} if found.steepest is None else {"steepest": found.steepest}
    return Result(folder.path, tuple(files), figures, main=fabric.is_global_zero)


def weights_of(system: System, config: dict[str, Any]) -> Path:
    """The file that evaluate and predict use."""
    if system.weights:
        path = Path(system.weights).expanduser()
        if not path.is_file():
            raise WeightsError(f"{path}: not found. Set system.weights to a checkpoint.")
        return path
    run = run_of(config)
    home = Path(run.device.base_exp_dir).expanduser() / run.exp_name
    found = checkpoints.newest(home)
    if found is None:
        raise WeightsError(f"{home} holds no trained run: run mode=train first, or set system.weights to a checkpoint.")
    log.info("weights: %s", found)
    return found


def loaded(system: System, path: Path) -> nn.Module:
    """The system's network with the weights of a file."""
    net = system.net()
    system.read_weights(net, path)
    return net


def _shared(open_folder: Open, fabric: Any) -> RunFolder:
    """The run's folder: the first process opens it, the others are told."""
    folder = open_folder() if fabric.is_global_zero else None
    if fabric.world_size == 1:
        assert folder is not None
        return folder
    told = fabric.broadcast((str(folder.path), folder.continued) if folder else None)
    return folder or RunFolder(Path(told[0]), told[1])


def _count(samples: Any) -> int:
    return len(samples)
