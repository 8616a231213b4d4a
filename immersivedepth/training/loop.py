"""The one training loop: any system, any number of processes, stopped and continued at any step."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..checks import ConfigError
from ..data.samples import Samples, Stream
from . import broken, checkpoints, sampling
from .checkpoints import Position
from .interrupts import Interrupts
from .judging import evaluation_batches, judged
from .records import Records
from .system import Share, Split, System, to_device
from .tally import Tally
from .trainer import Trainer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """What a training run came to."""

    net: nn.Module  # with the weights to use
    position: Position
    files: tuple[Path, ...] = ()


@dataclass
class Loop:
    """One run of the loop: what `fit` was given, and what it makes of it."""

    trainer: Trainer
    system: System
    dataset: Any
    folder: Path
    seed: int
    fabric: Any
    config: str
    phase: str
    carry: dict[str, Any]
    position: Position = field(default_factory=Position)
    tally: Tally = field(default_factory=Tally)
    saved_at: float = field(default_factory=time.monotonic)

    def __call__(self, continued: bool) -> Fitted:
        self._set_up()
        if continued and self.last.is_file():
            self._continue()
        records = Records(self.folder, self.position) if self.fabric.is_global_zero else None
        self.records = records
        steps = self.steps * self.trainer.epochs
        self.total = min(steps, self.trainer.steps or steps)
        try:
            with Interrupts() as self.interrupts, self._bar() as self.bar:
                while not self._finished():
                    self._epoch()
                self.fabric.barrier()
        finally:
            if records:
                records.close()
        files = [self.folder / checkpoints.FOLDER / name for name in (checkpoints.BEST, checkpoints.LAST)]
        files += [self.folder / "metrics.csv", self.folder / "metrics.jsonl"]
        return Fitted(self.used, self.position, tuple(path for path in files if path.is_file()))

    def prepare(self) -> None:
        """Make everything ready for `one_step`, for tests of the loop's own parts."""
        self._set_up()
        self.net.train()
        self._endless = self._repeated()

    def one_step(self) -> float:
        """Take one optimiser step and give its loss."""
        self._step(next(self._endless))
        self.position.step += 1
        return float(self.loss)

    def _repeated(self) -> Iterator[list[dict[str, Any]]]:
        while True:
            yield from self._batches()
            self.position.epoch += 1

    @property
    def last(self) -> Path:
        return self.folder / checkpoints.FOLDER / checkpoints.LAST

    @property
    def used(self) -> nn.Module:
        """The network with the weights to use: the running mean where one is kept."""
        if self.ema is None:
            return self.inner
        found: nn.Module = self.ema.module
        return found

    def _set_up(self) -> None:
        trainer, system, fabric = self.trainer, self.system, self.fabric
        torch.manual_seed(self.seed)
        self.inner = system.net()
        if trainer.init_from:
            system.read_weights(self.inner, trainer.init_from)
        if trainer.sync_batchnorm and fabric.device.type == "cuda":
            self.inner = nn.SyncBatchNorm.convert_sync_batchnorm(self.inner)
        self.train_data = self._need(system.data(self.dataset, "train"), "train")
        self.steps = trainer.steps_of(self.train_data)
        self.val_data = None if trainer.overfit_batches else system.data(self.dataset, "val")
        optimiser = trainer.optimiser(system.parameters(self.inner))
        self.scheduler = trainer.scheduler(optimiser) if trainer.scheduler else None
        self.ema: torch.optim.swa_utils.AveragedModel | None = None
        self.net, self.optimiser = fabric.setup(self.inner, optimiser)
        if trainer.ema is not None:
            from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

            self.ema = AveragedModel(self.inner, multi_avg_fn=get_ema_multi_avg_fn(trainer.ema))

    def _need(self, samples: Samples | Stream | None, split: Split) -> Samples | Stream:
        if samples is None or (isinstance(samples, Samples) and not len(samples)):
            raise ConfigError(f"{self.system.name}: the data set holds no samples of its {split} part")
        return samples

    # ---- one epoch ---------------------------------------------------------------------------------------------------

    def _epoch(self) -> None:
        self.net.train()
        if not self.position.step_in_epoch:
            self.tally = Tally()
        if self.position.step < self.total:
            for parts in self._batches():
                self._step(parts)
                self._after_step()
                if self.position.step >= self.total:
                    break
        figures = self._figures(self.tally)
        self._note("train", figures)
        if (self.position.epoch + 1) % self.trainer.validate_every == 0 or self.position.step >= self.total:
            self._validate(figures)
        if self.scheduler is not None and self.trainer.schedule == "epoch":
            self.scheduler.step()
        self.position.epoch += 1
        self.position.step_in_epoch = 0
        if self.records:
            self.records.table()
        self._save()

    def _batches(self) -> Iterator[list[dict[str, Any]]]:
        """The rest of this epoch: for each optimiser step the parts of this process."""
        trainer, fabric, first = self.trainer, self.fabric, self.position.step_in_epoch
        source = self.train_data
        if isinstance(source, Stream):
            size = trainer.batch_size // (fabric.world_size * trainer.accumulate)
            for step in range(first, self.steps):
                done = step if trainer.overfit_batches else self.position.epoch * self.steps + step
                numbers = [(done * trainer.accumulate + p) * fabric.world_size for p in range(trainer.accumulate)]
                yield [source.batch(n + fabric.global_rank, size, fabric.device) for n in numbers]
            return
        keys = sampling.Steps(
            source,
            self.seed,
            self.position.epoch,
            first,
            self.steps,
            trainer.batch_size,
            trainer.accumulate,
            fabric.global_rank,
            fabric.world_size,
            frozen=trainer.overfit_batches > 0,
        )
        parts = []
        for batch in sampling.loader(source, keys, self.seed, trainer.workers, fabric.device):
            parts.append(to_device(batch, fabric.device))
            if len(parts) == trainer.accumulate:
                yield parts
                parts = []

    def _step(self, parts: list[dict[str, Any]]) -> None:
        # Random numbers of a step depend on its number alone, so that a continued run draws the same ones.
        state = np.random.SeedSequence([self.seed, self.position.step, self.fabric.global_rank]).generate_state(1)
        torch.manual_seed(int(state[0]))
        self.optimiser.zero_grad(set_to_none=True)
        buffers = [(buffer, buffer.clone()) for buffer in self.inner.buffers()]  # statistics of batches
        counted: list[dict[str, Share]] = []
        for number, given in enumerate(parts):
            batch, more = self.system.varied(given), number + 1 < len(parts)
            with self.fabric.no_backward_sync(self.net, enabled=more) if more else nullcontext():
                outputs = self.system.forward(self.net, batch)
                losses = self.system.losses(outputs, batch)
                loss = torch.stack(list(losses.values())).sum()
                self.fabric.backward(loss / len(parts))
            self.measured = self._measured(outputs, batch)
            counted.append({**self._shares(batch, losses, loss), **self.measured})
        self.loss = loss.detach()
        self.losses = {name: value.detach() for name, value in losses.items()}
        sound = self._sound_gradients()
        if sound or _scaler(self.fabric):  # which leaves out the step by itself, and must learn of it
            self.optimiser.step()
        broken.count(self.position, sound)
        for shares in counted:
            self.tally.add(shares if sound else dict.fromkeys(shares, (torch.zeros(()), torch.zeros(()))))
        if sound and self.ema is not None:
            self.ema.update_parameters(self.inner)
        if not sound:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
        if self.scheduler is not None and self.trainer.schedule == "step":
            self.scheduler.step()

    def _sound_gradients(self) -> bool:
        """Whether the step may be taken; the gradients, which all processes share, are clipped on the way."""
        if self.trainer.clip_norm is not None:
            norm = self.fabric.clip_gradients(
                self.net, self.optimiser, max_norm=self.trainer.clip_norm, error_if_nonfinite=False
            )
        else:
            norm = broken.norm_of(self.inner.parameters())
        if self.fabric.world_size == 1:
            norm = norm + self.loss
        return math.isfinite(float(norm))

    def _shares(self, batch: dict[str, Any], losses: dict[str, Tensor], loss: Tensor) -> dict[str, Share]:
        size = next(len(v) for v in batch.values() if isinstance(v, Tensor))
        count = torch.tensor(float(size))
        with torch.no_grad():
            shares = {f"loss/{k}": (v * size, count) for k, v in losses.items()} if len(losses) > 1 else {}
            return {"loss": (loss * size, count), **shares}

    def _measured(self, outputs: Any, batch: dict[str, Any]) -> dict[str, Share]:
        with torch.no_grad():
            return self.system.metrics(outputs, batch)

    def _after_step(self) -> None:
        position, trainer = self.position, self.trainer
        position.step += 1
        position.step_in_epoch += 1
        self.bar.update()
        remedy = "lower trainer.optimiser.lr or set trainer.clip_norm"
        broken.heed(position, trainer.broken_steps, remedy, self.last)
        if position.step % trainer.log_every == 0 or position.step == self.total:
            value = float(self.loss)
            rate = self.optimiser.param_groups[0]["lr"]
            self.bar.set_postfix(loss=f"{value:.4g}", refresh=False)
            if self.records:
                terms = {f"loss/{k}": float(v) for k, v in self.losses.items()} if len(self.losses) > 1 else {}
                now = Tally()
                now.add(self.measured)
                figures = {"loss": value, **terms, **self.system.summary(now.means()), "lr": float(rate)}
                if position.broken:
                    figures["broken_steps"] = position.broken
                row = self.records.note("train", position, figures, whole_epoch=False)
                self.system.recorded(self.folder, row)
        code = self.interrupts.agree(self.fabric)
        due = trainer.save_every and position.step % trainer.save_every == 0
        if self.fabric.world_size == 1:  # clocks of several processes do not agree
            due = due or time.monotonic() - self.saved_at > 60 * trainer.save_minutes
        if code or due:
            self._save()
        if code:
            log.info("stopped at step %d; is_continue=true goes on from there", position.step)
            raise SystemExit(code)

    # ---- validation --------------------------------------------------------------------------------------------------

    def _validate(self, train_figures: dict[str, float]) -> None:
        """Figures of the validation part (or of training where there is none), the best checkpoint, the schedule."""
        figures = train_figures
        if self.val_data is not None or self.trainer.overfit_batches:
            tally = Tally()
            for outputs, batch, losses, loss in self._judged(self._validation_batches()):
                tally.add({**self._shares(batch, losses, loss), **self._measured(outputs, batch)})
            figures = self._figures(tally)
            self._note("val", figures)
        if self.trainer.monitor not in figures:
            raise ConfigError(
                f"trainer.monitor={self.trainer.monitor}: {self.system.name} measures {', '.join(sorted(figures))}"
            )
        value = figures[self.trainer.monitor]
        sign = 1 if self.trainer.better == "lower" else -1
        best = self.position.best
        if math.isfinite(value) and (best is None or sign * value < sign * best):
            self.position.best, self.position.best_epoch, self.position.waited = value, self.position.epoch + 1, 0
            self._save(checkpoints.BEST)
        else:
            self.position.waited += 1
        if self.scheduler is not None and self.trainer.schedule == "monitor":
            self.scheduler.step(value)
        if self.records and self.trainer.pictures:
            self._draw()

    def _validation_batches(self) -> Iterator[dict[str, Any]]:
        if self.trainer.overfit_batches:
            was, self.position.step_in_epoch = self.position.step_in_epoch, 0
            yield from (part for parts in self._batches() for part in parts)
            self.position.step_in_epoch = was
        elif self.val_data is not None:
            yield from evaluation_batches(self.val_data, self.trainer, self.fabric, self.seed)

    def _judged(
        self, batches: Iterator[dict[str, Any]]
    ) -> Iterator[tuple[Any, dict[str, Any], dict[str, Tensor], Tensor]]:
        return judged(self.system, self.used, batches, self.fabric)

    def _draw(self) -> None:
        data = self.val_data if self.val_data is not None else self.train_data
        if isinstance(data, Samples) and len(data):
            count = min(self.trainer.pictures, len(data))
            keys = [[(0, i * len(data) // count) for i in range(count)]]
            batches = sampling.loader(data, keys, self.seed, 0, self.fabric.device)
        elif isinstance(data, Stream):
            batches = iter([data.batch(0, self.trainer.pictures, self.fabric.device)])
        else:
            return
        moved = (to_device(batch, self.fabric.device) for batch in batches)
        for outputs, batch, _, _ in self._judged(moved):
            panels = self.system.panels(outputs, batch)
            if self.records:
                self.records.pictures(self.position, panels)

    def _figures(self, tally: Tally) -> dict[str, float]:
        return self.system.summary(tally.means(self.fabric))

    def _note(self, split: str, figures: dict[str, float]) -> None:
        if self.records:
            row = self.records.note(split, self.position, figures, whole_epoch=True)
            self.system.recorded(self.folder, row)
            text = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            log.info("epoch %d, %s: %s", self.position.epoch + 1, split, text)

    def _finished(self) -> bool:
        position, patience = self.position, self.trainer.patience
        worn_out = patience is not None and position.waited >= patience
        # A run that was killed between its last step and what follows an epoch has that still to do.
        all_done = position.step >= self.total and not position.step_in_epoch
        return position.epoch >= self.trainer.epochs or all_done or worn_out

    # ---- stopping and going on ---------------------------------------------------------------------------------------

    def _save(self, name: str = checkpoints.LAST) -> None:
        self.saved_at = time.monotonic()
        self.position.sums = self.tally.plain() if self.position.step_in_epoch else {}
        sums = self.position.sums
        if self.fabric.world_size > 1:
            sums = self._all_sums()
        if not self.fabric.is_global_zero:
            return
        position = replace(self.position, sums=sums)
        checkpoints.save(
            self.folder / checkpoints.FOLDER / name,
            _state(self.used),
            position,
            net=None if self.ema is None else _state(self.inner),
            ema_steps=None if self.ema is None else int(self.ema.n_averaged),
            optimiser=self.optimiser.state_dict(),
            scheduler=None if self.scheduler is None else _plain(self.scheduler.state_dict()),
            scaler=_scaler(self.fabric),
            system=self.system.name,
            config=self.config,
            seed=self.seed,
            phase=self.phase,
            carry=self.carry,
        )

    def _all_sums(self) -> dict[str, tuple[float, float]]:
        """Sums over all processes; a continued run gives them to the first."""
        names = sorted(self.position.sums)
        table = torch.tensor([self.position.sums[n] for n in names], dtype=torch.float64).reshape(-1, 2)
        if not names:
            return {}
        table = self.fabric.all_reduce(table, reduce_op="sum").cpu()
        return {name: (float(a), float(b)) for name, (a, b) in zip(names, table, strict=True)}

    def _continue(self) -> None:
        content = checkpoints.load(self.last)
        found = content["training"]
        if found["system"] != self.system.name or found["phase"] != self.phase:
            if found["system"] == self.system.name:
                return  # of an earlier phase: this one starts fresh
            raise ConfigError(f"{self.last} is of {found['system']}, not of {self.system.name}; set another exp_name")
        try:
            self.inner.load_state_dict(content["state_dict"] if found["net"] is None else found["net"])
            if self.ema is not None:
                self.ema.module.load_state_dict(content["state_dict"])
                self.ema.n_averaged.fill_(found["ema_steps"] or 0)
            self.optimiser.load_state_dict(found["optimiser"])
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"{self.last} does not fit this config ({str(error).splitlines()[0]}): continue with the config it was "
                "saved with, or start anew with another exp_name"
            ) from error
        if self.scheduler is not None and found["scheduler"] is not None:
            self.scheduler.load_state_dict(found["scheduler"])
        if found["scaler"] is not None and hasattr(self.fabric.strategy.precision, "load_state_dict"):
            self.fabric.strategy.precision.load_state_dict(found["scaler"])
        self.position = found["position"]
        self.carry.update(found["carry"])
        self.tally = Tally(self.position.sums if self.fabric.is_global_zero else None)
        log.info("goes on after step %d of epoch %d", self.position.step, self.position.epoch + 1)

    def _bar(self) -> Any:
        return tqdm(
            total=self.total,
            initial=self.position.step,
            unit="step",
            desc=self.phase or "training",
            disable=not self.fabric.is_global_zero,
            dynamic_ncols=True,
        )


def _state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu() for name, value in net.state_dict().items()}


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a scheduler without what is no plain data; the object has that already."""
    return {k: dict(v) if isinstance(v, dict) else v for k, v in state.items() if not callable(v)}


def _scaler(fabric: Any) -> dict[str, Any] | None:
    """The scale of half-precision gradients."""
    state: dict[str, Any] = getattr(fabric.strategy.precision, "state_dict", dict)()
    return dict(state) or None
