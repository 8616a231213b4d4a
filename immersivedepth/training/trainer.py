"""How a system is trained: the settings, and the door to the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch

from .. import hardware
from ..checks import ConfigError, Range
from ..data.samples import Samples, Stream
from .system import System

if TYPE_CHECKING:  # the loop itself imports this file
    from .loop import Fitted

_PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
FAST_STEPS = 2  # optimiser steps and batches of validation of a smoke run


@dataclass(kw_only=True)
class Trainer:
    """How a system is trained; the fields are the keys of conf/trainer."""

    optimiser: Callable[..., torch.optim.Optimizer]
    scheduler: Callable[..., Any] | None = None
    schedule: Literal["step", "epoch", "monitor"] = (
        "epoch"  # when the scheduler moves; monitor: told the monitored value
    )
    epochs: Annotated[int, Range(1)] = 10
    steps: Annotated[int, Range(1)] | None = None  # optimiser steps in all, if that is less
    epoch_samples: Annotated[int, Range(0)] = 0  # samples of an epoch; 0: all there are
    batch_size: Annotated[int, Range(1)] = 8  # samples of an optimiser step, over all processes and parts
    accumulate: Annotated[int, Range(1)] = 1  # parts of a step that are in memory one after another
    kind: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"  # auto: bf16 where that is faster
    devices: Annotated[int, Range(1)] = 1  # processes on each node
    nodes: Annotated[int, Range(1)] = 1
    sync_batchnorm: bool = False  # statistics over all processes (CUDA)
    clip_norm: Annotated[float, Range(0)] | None = None
    broken_steps: Annotated[int, Range(1)] = 10  # in a row without finite loss and gradients before it ends
    ema: Annotated[float, Range(0, 1)] | None = None  # decay of the running mean of the weights
    monitor: str = "loss"  # the validation figure that decides which epoch is best
    better: Literal["lower", "higher"] = "lower"
    patience: Annotated[int, Range(1)] | None = None  # validations without improvement before it ends
    validate_every: Annotated[int, Range(1)] = 1  # epochs
    validation_size: Annotated[int, Range(1)] | None = None  # samples of a batch of validation; null: as in training
    log_every: Annotated[int, Range(1)] = 10  # steps
    save_every: Annotated[int, Range(1)] | None = None  # steps; null: by time and after each epoch
    save_minutes: Annotated[float, Range(0)] = 5.0
    workers: Annotated[int, Range(0)] = 2  # processes that read samples
    pictures: Annotated[int, Range(0)] = 4  # fixed samples that are drawn after each validation
    init_from: str | None = None  # weights to start from
    overfit_batches: Annotated[int, Range(0)] = 0  # train on so many batches over and over, and validate on them
    fast: bool = False  # a smoke run: two steps and one validation of two batches

    def __post_init__(self) -> None:
        if self.fast:
            self.epochs, self.workers, self.validate_every = 1, 0, 1

    def launch(self) -> Any:
        """Start all processes and give the handle that joins them."""
        from lightning_fabric import Fabric  # slow to import, and not needed for anything but training

        if self.batch_size % (self.devices * self.nodes * self.accumulate):
            raise ConfigError(
                f"trainer.batch_size={self.batch_size}: expected a multiple of devices * nodes * accumulate = "
                f"{self.devices * self.nodes * self.accumulate}"
            )
        several = self.devices * self.nodes > 1
        device = hardware.device(self.kind)
        if device.type == "cuda" and self.devices > torch.cuda.device_count():
            raise ConfigError(f"trainer.devices={self.devices}: this machine has {torch.cuda.device_count()}")
        precision = self.precision
        if precision == "auto":
            precision = "bf16" if hardware.fast_bfloat16(device) else "fp32"
        fabric = Fabric(
            accelerator=device.type,
            devices=self.devices,
            num_nodes=self.nodes,
            strategy="ddp" if several else "auto",
            precision=_PRECISION[precision],
        )
        fabric.launch()
        return fabric

    def fit(
        self,
        system: System,
        dataset: Any,
        folder: Path,
        *,
        seed: int = 0,
        fabric: Any = None,
        continued: bool = False,
        config: str = "",
        phase: str = "",
        carry: dict[str, Any] | None = None,
    ) -> Fitted:
        """Train, validate, record and save; with `continued`, go on from the folder's last checkpoint.

        Training in several phases calls this once for each; `carry` is plain data and tensors that every checkpoint of
        the phase holds for it.
        """
        from .loop import Loop

        run = Loop(self, system, dataset, folder, seed, fabric or self.launch(), config, phase, carry or {})
        return run(continued)

    def steps_of(self, samples: Samples | Stream) -> int:
        """Optimiser steps of an epoch."""
        if self.fast:
            return FAST_STEPS
        if self.overfit_batches:
            return self.overfit_batches
        if self.epoch_samples:
            return max(1, self.epoch_samples // self.batch_size)
        if isinstance(samples, Stream):
            raise ConfigError("trainer.epoch_samples has no value: endless data needs the size of an epoch")
        return max(1, len(samples) // self.batch_size)
