"""Which samples make which step: a function of seed, epoch and step alone, whatever the number of processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info

from .. import memory
from ..checks import InputError, ResourceError
from ..data.samples import Samples
from .interrupts import STOPS

Key = tuple[int, int]  # the epoch that seeds a sample, and its index
_ERROR = "__error__"


class Keyed(Dataset[dict[str, Any]]):
    """Samples by (epoch, index), each with random numbers of its own."""

    def __init__(self, samples: Samples, seed: int) -> None:
        self.samples, self.seed = samples, seed

    def __getitem__(self, key: Key) -> dict[str, Any]:
        epoch, index = key
        try:
            return self.samples.sample(index, np.random.default_rng([self.seed, epoch, index]))
        except InputError as error:  # a worker's exception would come out with its whole traceback as its text
            return {_ERROR: str(error)}


@dataclass
class Steps(Sampler[list[Key]]):
    """The batches of one process: each step's share of the samples, in an order drawn anew for every epoch.

    A step takes the same samples however many processes and parts it is divided over.
    """

    samples: Samples
    seed: int
    epoch: int
    first: int  # optimiser steps of this epoch that are done
    steps: int  # optimiser steps of an epoch
    batch_size: int  # samples of an optimiser step, over all processes and parts
    parts: int = 1  # into which each process divides its share
    rank: int = 0
    world: int = 1
    frozen: bool = False  # the same samples with the same random numbers in every epoch

    def __iter__(self) -> Iterator[list[Key]]:
        epoch = 0 if self.frozen else self.epoch
        order = self._order(epoch)
        size = self.batch_size // (self.world * self.parts)
        for step in range(self.first, self.steps):
            for part in range(self.parts):
                start = step * self.batch_size + (part * self.world + self.rank) * size
                yield [(epoch, int(order[i % len(order)])) for i in range(start, start + size)]

    def __len__(self) -> int:
        return (self.steps - self.first) * self.parts

    def _order(self, epoch: int) -> np.ndarray[Any, np.dtype[Any]]:
        count = len(self.samples)
        if self.frozen:
            return np.arange(min(count, self.steps * self.batch_size))
        random = np.random.default_rng([self.seed, epoch])
        weights = getattr(self.samples, "weights", None)
        if weights is None:
            return random.permutation(count)
        chance = np.asarray(weights, dtype=np.float64)
        return random.choice(count, self.steps * self.batch_size, p=chance / chance.sum())


def loader(samples: Samples, keys: Any, seed: int, workers: int, device: torch.device) -> Iterator[dict[str, Any]]:
    """Batches of the given lists of keys, read by so many workers; a sample that cannot be read ends the run."""
    free = memory.shared_left() if workers else None
    if free is not None and free < workers * memory.SHARED_EACH:
        raise ResourceError(memory.no_worker(f"{workers} workers cannot start"))
    batches = DataLoader(
        Keyed(samples, seed),
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_quiet_worker,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # its own, so that opening a loader does not move torch's random numbers
    )
    for batch in batches:
        if _ERROR in batch:
            raise InputError(batch[_ERROR])
        yield {k: v.flatten(0, 1) for k, v in batch.items()} if getattr(samples, "several", False) else batch


def _collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    bad = next((s for s in samples if _ERROR in s), None)
    if bad is not None:
        return bad
    batch: dict[str, Any] = default_collate(samples)
    if get_worker_info() is not None:
        for value in batch.values():
            if isinstance(value, torch.Tensor):  # here, for if it fails when the batch is sent, the loop waits forever
                value.share_memory_()
    return batch


def _quiet_worker(_: int) -> None:
    """A worker ends when its loop does: a request to stop, which all of them may get, is for the loop, which saves."""
    for number in STOPS:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # else SIGTERM of anybody ends it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)


def _obey(loop: int) -> None:
    """SIGTERM of the loop's own process ends this one, whatever it does."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != loop:
        pass
    os._exit(0)
