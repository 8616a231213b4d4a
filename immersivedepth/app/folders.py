"""A folder for each run that nobody can guess, gone when its page is closed or its time is over."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..checks import ResourceError
from ..files import process_lives

_OURS = re.compile(r"immersivedepth-demo-(\d+)-\w+")


@dataclass
class Job:
    """One run of one visitor."""

    folder: Path
    session: str
    started: float = field(default_factory=time.monotonic)
    cancelled: threading.Event = field(default_factory=threading.Event)
    running: bool = True
    source: Path | None = None  # the picture
    results: str = "results"


class Keeper:
    """All runs that are kept, below one folder of this process."""

    def __init__(self, home: str | None, keep_minutes: float, grace: float = 10.0) -> None:
        self.keep, self.grace = 60 * keep_minutes, grace
        parent = Path(home).expanduser() if home else Path(tempfile.gettempdir())
        try:
            parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(parent)
            self.folder = Path(tempfile.mkdtemp(prefix=f"immersivedepth-demo-{os.getpid()}-", dir=parent)).resolve()
        except OSError as error:
            raise ResourceError(f"{parent}: cannot be written: {error.strerror}. Set app.folder to another.") from error
        self.jobs: list[Job] = []
        self._lock = threading.Lock()

    def open(self, session: str) -> Job:
        """A new run in a folder of its own."""
        folder = self.folder / "jobs" / secrets.token_urlsafe(24)
        folder.mkdir(parents=True, mode=0o700)
        job = Job(folder, session)
        with self._lock:
            self.jobs.append(job)
        return job

    def cancel(self, session: str) -> bool:
        """Stop what a visitor has running; whether there was anything."""
        with self._lock:
            running = [job for job in self.jobs if job.session == session and job.running]
        for job in running:
            job.cancelled.set()
        return bool(running)

    def leave(self, session: str) -> None:
        """The visitor is gone: stop the runs and take everything away."""
        self.cancel(session)
        # A file may just be on its way to a visitor whose connection broke for a moment.
        soon = time.monotonic() - self.keep + self.grace
        with self._lock:
            for job in self.jobs:
                if job.session == session:
                    job.started = min(job.started, soon)
        self.sweep()

    def sweep(self) -> None:
        """Take away what is older than it is kept."""
        now = time.monotonic()
        self._drop(lambda job: now - job.started >= self.keep)

    def of(self, session: str, name: str) -> Job | None:
        """A visitor's own run by the name of its folder, if it is still kept."""
        with self._lock:
            return next((job for job in self.jobs if job.session == session and job.folder.name == name), None)

    def close(self) -> None:
        """Everything goes."""
        for job in self.jobs:
            job.cancelled.set()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _drop(self, goes: Callable[[Job], bool]) -> None:
        with self._lock:
            gone = [job for job in self.jobs if goes(job) and not job.running]
            self.jobs = [job for job in self.jobs if job not in gone]
        for job in gone:
            shutil.rmtree(job.folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """What killed servers left."""
    for path in parent.glob("immersivedepth-demo-*"):
        match = _OURS.fullmatch(path.name)
        if match and os.name == "posix" and not process_lives(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)
