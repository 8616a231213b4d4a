"""Checkpoints: plain containers that load without running code, whole under their name or not there.

`state_dict` holds the weights to use (the running mean where one is kept), so that every reader of weights finds them;
`training` holds what the loop needs to go on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checks import WeightsError
from ..files import atomic
from ..memory import of_worker
from ..weights import read_checkpoint

FOLDER, LAST, BEST = "checkpoints", "last.ckpt", "best.ckpt"
FORMAT = 1


@dataclass
class Position:
    """Where a run stands; random numbers are a function of seed and step, so this is their state as well."""

    epoch: int = 0  # finished epochs
    step_in_epoch: int = 0  # optimiser steps done in the next one
    step: int = 0  # optimiser steps in all
    best: float | None = None  # of the monitored value
    best_epoch: int = 0
    waited: int = 0  # validations since then
    broken: int = 0  # steps that were left out, because loss or gradients were not finite
    broken_in_a_row: int = 0
    sums: dict[str, tuple[float, float]] = field(default_factory=dict)  # of the epoch that is not finished


def save(path: Path, state_dict: dict[str, Tensor], position: Position, **training: Any) -> Path:
    """Write a checkpoint at once."""
    content = {
        "immersivedepth": FORMAT,
        "state_dict": dict(state_dict),
        "training": {"position": asdict(position), **training},
    }
    with atomic(path) as temporary, temporary.open("wb") as handle:  # by handle: a name would enter the bytes
        try:
            torch.save(content, handle)
        except RuntimeError as error:  # how torch reports a full disk
            if of_worker(error):  # a process that reads samples died meanwhile
                raise
            raise OSError(" ".join(str(error).split())[:200]) from error
    return path


def load(path: Path) -> dict[str, Any]:
    """A checkpoint of this loop; `position` is made whole again."""
    content = read_checkpoint(path)
    if content.get("immersivedepth") != FORMAT or "training" not in content:
        raise WeightsError(
            f"{path}: is no checkpoint of this training loop (format {FORMAT}); to start from its weights set "
            "trainer.init_from"
        )
    training = content["training"]
    position = training["position"]
    sums = {k: (v[0], v[1]) for k, v in position.pop("sums").items()}
    return {**content, "training": {**training, "position": Position(**position, sums=sums)}}


def newest(home: Path) -> Path | None:
    """The best checkpoint of the newest run below a folder, else its last."""
    for folder in sorted((p for p in home.glob(f"*/{FOLDER}") if p.is_dir()), reverse=True):
        for name in (BEST, LAST):
            if (folder / name).is_file():
                return folder / name
    return None
