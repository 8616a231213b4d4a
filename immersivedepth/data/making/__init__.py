"""Miniature data sets in the real layouts, rendered from synthetic worlds: deterministic, parallel, resumable."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from tqdm import tqdm

from ...checks import ConfigError, Range, ResourceError
from ...files import sweep

log = logging.getLogger(__name__)

# The module of each kind beside this file, and its class.
KINDS = {
    "3d60": ("three_d60", "ThreeD60"),
    "stillbox": ("still_box", "StillBox"),
    "modest": ("modest", "Modest"),
    "diode": ("diode", "Diode"),
    "omnidata": ("omnidata", "Omnidata"),
    "matterport": ("panoramas", "Matterport"),
    "stanford": ("panoramas", "Stanford"),
    "replica": ("panoramas", "Replica"),
    "list": ("panoramas", "PlainList"),
}
Kind = Literal["3d60", "stillbox", "modest", "diode", "omnidata", "matterport", "stanford", "replica", "list"]


class Maker(Protocol):
    """Makes one kind of data set; tasks are plain data, and what a task writes depends on nothing else."""

    def __init__(self, settings: MakeData) -> None: ...

    def tasks(self) -> Sequence[Any]:
        """What is to be made, piece by piece."""
        ...

    def done(self, task: Any) -> bool:
        """Whether a piece is there, whole."""
        ...

    def make(self, task: Any) -> None:
        """Make one piece; its files are written at once, the one that `done` asks for last."""
        ...

    def finish(self) -> list[Path]:
        """Write the lists of the layout, once all pieces are there."""
        ...


@dataclass
class MakeData:
    """What is to be made; the fields are the keys of conf/data."""

    kind: Kind | None = None
    folder: str | None = None
    count: Annotated[int, Range(1)] = 20
    size: Annotated[int, Range(16, 8192)] = 256
    seed: Annotated[int, Range(0)] = 0
    workers: Annotated[int, Range(1)] = 2

    @property
    def root(self) -> Path:
        if self.folder is None:
            raise ConfigError("data.folder has no value: set it to the folder that is to hold the data set")
        return Path(self.folder).expanduser()

    def maker(self) -> Maker:
        """The maker of the chosen kind."""
        if self.kind is None:
            raise ConfigError(f"data.kind has no value: set it to one of {', '.join(KINDS)}")
        module, name = KINDS[self.kind]
        found: Maker = getattr(importlib.import_module(f"{__name__}.{module}"), name)(self)
        return found

    def __call__(self) -> list[Path]:
        """Make what is missing, and name the lists of the layout."""
        maker, root = self.maker(), self.root
        sweep(root)
        tasks = maker.tasks()
        missing = [task for task in tasks if not maker.done(task)]
        log.info("%s: %d of %d pieces are to be made", root, len(missing), len(tasks))
        with tqdm(total=len(tasks), initial=len(tasks) - len(missing), unit="piece", disable=len(tasks) < 2) as bar:
            if self.workers == 1 or len(missing) < 2:
                for task in missing:
                    maker.make(task)
                    bar.update()
            else:
                self._side_by_side(missing, bar)
        return maker.finish()

    def _side_by_side(self, tasks: Sequence[Any], bar: Any) -> None:
        # Started anew rather than forked: a forked child would inherit locks of torch's threads.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(self.workers, len(tasks)), context, initializer=_one_thread) as pool:
            waiting = [pool.submit(_make, self, task) for task in tasks]
            try:
                for future in as_completed(waiting):
                    future.result()
                    bar.update()
            except BrokenProcessPool as error:
                raise ResourceError(
                    f"{self.root}: a process that renders was ended, likely for lack of memory; lower data.workers or "
                    "data.size. The same command goes on with what is missing."
                ) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _make(settings: MakeData, task: Any) -> None:
    settings.maker().make(task)
