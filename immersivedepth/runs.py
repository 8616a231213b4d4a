"""The folder of one run: made once the config is good, never shared, with all that is needed to run it again."""

from __future__ import annotations

import atexit
import errno
import importlib.metadata
import json
import logging
import os
import platform
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .checks import ConfigError, InputError, ResourceError
from .config import Run
from .files import new_folder, process_lives, sweep, write_text

log = logging.getLogger("immersivedepth")

# The packages whose versions decide the numbers of a run.
_VERSIONED = ("immersivedepth", "torch", "timm", "numpy", "scipy", "opencv-python-headless", "hydra-core", "OpenEXR")
_CIRCUMSTANCES = ("device", "exp_name", "is_continue", "debug", "evaluation", "runs")
_CONFIG, _FACTS, _LOG, _LOCK = "config.yaml", "run.json", "run.log", "run.lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # what file systems without locks say


@dataclass(frozen=True)
class RunFolder:
    """Where a run writes, and whether it goes on from an earlier one."""

    path: Path
    continued: bool = False

    @classmethod
    def open(cls, run: Run, config: dict[str, Any], job: str = "", alike: bool = False) -> RunFolder:
        """Make <base>/<exp_name>/<date-time>, or with is_continue=true take the newest one there is.

        With `alike` it must have done the same work: then every job of a multirun finds its own. One process at a
        time works in a folder: a second one is refused.
        """
        home = Path(run.device.base_exp_dir).expanduser() / run.exp_name
        sweep(home, deep=False)
        old = sorted(p.parent for p in home.glob(f"[!.]*/{_CONFIG}")) if run.is_continue else []
        if alike:
            old = [path for path in old if work_of(read_config(path)) == work_of(config)]
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        try:
            folder = cls(old[-1], continued=True) if old else cls(_fresh(home, job, text))
            hold(folder.path)
            sweep(folder.path)
            _log_to(folder.path / _LOG)
        except OSError as error:
            raise ResourceError(
                f"{home}: cannot make a run folder there: {error.strerror}. Set device.base_exp_dir to another place."
            ) from error
        if run.is_continue and not old:
            log.info("is_continue=true, but %s holds no earlier run: starting a new one", home)
        if old:
            write_text(folder.path / _CONFIG, text)
        write_text(folder.path / _FACTS, json.dumps(_facts(run), indent=2) + "\n")
        return folder


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a run."""
    try:
        found = yaml.safe_load((folder / _CONFIG).read_text("utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{folder / _CONFIG} cannot be read ({error}); name the folder of a run") from error
    return found if isinstance(found, dict) else {}


def work_of(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that decides what comes out; where, how fast and for how long are no part of it."""
    own = {key: value for key, value in config.items() if key not in _CIRCUMSTANCES}
    plain: dict[str, Any] = json.loads(json.dumps(own, default=str, sort_keys=True))  # tuples and lists are alike
    return plain


def _fresh(home: Path, job: str, config: str) -> Path:
    """A folder that nobody else has: two runs may start in the same second.

    It appears with its config in it: a run that is killed while it starts leaves no folder that none would continue.
    """
    stem = time.strftime("%Y%m%d-%H%M%S") + (f"-job{job}" if job else "")
    for attempt in range(1000):
        path = home / (f"{stem}-{attempt + 1}" if attempt else stem)
        if not path.exists() and new_folder(path, _CONFIG, config):
            return path
    raise FileExistsError(17, "a thousand runs were started within one second")


_held: list[tuple[int, int, Path]] = []  # of this process: its number, the open file, its path


def hold(folder: Path) -> None:
    """Keep other processes out of a folder until `release`, the next `hold` or the end of this process.

    The system's lock ends with the process, however that ends, also on another machine; its file names process and
    host. Where a file system knows no locks, the number of the process decides.
    """
    release()
    path = folder / _LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            holder = _holder(handle)
            if not _lock(handle, holder):
                holder = holder or _named_soon(handle)
                who = f"process {holder['process']} on {holder['host']}" if holder else "another process"
                raise ConfigError(
                    f"{folder}: {who} is at work there: wait for its end, or start anew with is_continue=false or "
                    "another exp_name"
                )
            if _is_named(handle, path):  # else its holder took it away in between
                break
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
    os.lseek(handle, 0, os.SEEK_SET)
    os.truncate(handle, 0)
    os.write(handle, json.dumps({"process": os.getpid(), "host": socket.gethostname()}).encode())
    _held.append((os.getpid(), handle, path))
    if holder:
        log.info("%s: takes over from process %s on %s, which is gone", folder, holder["process"], holder["host"])


@atexit.register
def release() -> None:
    """Let others work in the folder that this process holds."""
    while _held:
        process, handle, path = _held.pop()
        if process == os.getpid():  # a fork holds nothing
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):
            os.close(handle)


def _named_soon(handle: int) -> dict[str, Any] | None:
    """Who holds the lock, told by a holder that has got it this very moment and is about to write its name."""
    for _ in range(20):
        time.sleep(0.01)
        if holder := _holder(handle):
            return holder
    return None


def _holder(handle: int) -> dict[str, Any] | None:
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        found = json.loads(os.read(handle, 4096))
        return {"process": int(found["process"]), "host": str(found["host"])}
    except (ValueError, KeyError, TypeError):
        return None


def _lock(handle: int, holder: dict[str, Any] | None) -> bool:
    """Whether the lock is ours now; record locks, which no forked reader of samples inherits."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return True
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno not in _NO_LOCKS:
            raise
        here = holder is not None and holder["host"] == socket.gethostname() and holder["process"] != os.getpid()
        return not (holder and here and process_lives(holder["process"]))
    return True


def _is_named(handle: int, path: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False


def _facts(run: Run) -> dict[str, Any]:
    import torch

    versions = {}
    for name in _VERSIONED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed as a package"
    return {
        "seed": run.seed,
        "arguments": sys.argv[1:],
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": versions,
    }


class _Log(logging.FileHandler):
    """The log of a run; that the disk is full is told by whoever writes results, not by the log as well."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def _log_to(path: Path) -> None:
    """Everything goes to the log of the run, and to that of no earlier one."""
    for handler in list(log.handlers):
        if isinstance(handler, logging.FileHandler):
            log.removeHandler(handler)
            handler.close()
    to_file = _Log(path, encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log.addHandler(to_file)
