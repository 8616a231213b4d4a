"""How much memory there is, and what to say when it does not suffice."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from pathlib import Path

from .checks import ResourceError

HEADROOM = 400_000_000  # bytes of addresses that the smallest run takes once everything is loaded
ROOM = 100_000_000  # bytes of addresses that the libraries of networks take beside the numbers
BESIDE = 600_000_000  # that Python and all packages but torch take
_SIZE = r"([\d.]+) ?([KMGT]i?B|bytes)"
_ASKED = re.compile(rf"allocate {_SIZE}")
_FREE = re.compile(rf"of which {_SIZE} is free")  # of a device
_SIGNS = (  # what libraries say when memory ends; torch has an exception of its own for devices only
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "insufficient memory",
    "failed to map segment",
    "std::bad_alloc",
    "can't start new thread",
    "could not create a primitive",  # what oneDNN says
)

_OF_WORKERS = (  # of processes that read samples
    "dataloader worker (pid",
    "out of shared memory",
    "shared memory(shm)",
    "shared memory object",
    "file </torch_",
)
SHARED = Path("/dev/shm")  # where processes share memory; small in containers
SHARED_EACH = 100_000  # bytes of it that a worker takes before it reads anything, generously


def of_worker(error: BaseException) -> str | None:
    """What to say of a process that reads samples and has died, or has no shared memory left; else None.

    torch raises it wherever the loop happens to be, so it cannot be caught where samples are read.
    """
    lines = str(error).splitlines()
    if not isinstance(error, RuntimeError | OSError) or not lines:
        return None
    said = lines[-1].removeprefix("RuntimeError: ")  # the last line of a worker's traceback
    if not any(words in said.lower() for words in _OF_WORKERS):
        return None
    worker = re.search(r"DataLoader worker process \d+", lines[0])
    return no_worker(f"{worker[0]}: {said}" if worker else said)


def no_worker(reason: str) -> str:
    """A line for a worker that cannot go on."""
    return (
        f"{reason.rstrip(' .')}: {human(left())} of memory and {human(shared_left())} of shared memory are left; set "
        f"trainer.workers=0, or give more memory or shared memory ({SHARED}, docker --shm-size)"
    )


def shared_left() -> int | None:
    """Bytes of shared memory that are free, where the system tells."""
    try:
        return shutil.disk_usage(SHARED).free
    except OSError:
        return None


def lacking(error: BaseException) -> bool:
    """Whether an error says that memory has ended."""
    named = type(error).__name__ in ("MemoryError", "OutOfMemoryError", "_ArrayMemoryError")
    told = isinstance(error, RuntimeError | ImportError | OSError) or type(error).__module__ == "cv2"
    return named or (told and any(words in str(error).lower() for words in _SIGNS))


def shortage(error: BaseException, needed: int | None = None) -> str:
    """What was needed and what was left, as far as an error and the system tell: "80 MB needed, 12 MB left"."""
    asked = _size(_ASKED, error) or needed
    free = _size(_FREE, error)
    free = left() if free is None else free
    return f"{'more' if asked is None else human(asked)} needed, {human(free)} left"


def _size(pattern: re.Pattern[str], error: BaseException) -> int | None:
    match = pattern.search(str(error))
    return int(float(match[1]) * 1024 ** "bkmgt".index(match[2][0].lower())) if match else None


def left() -> int | None:
    """Bytes that this process may still take, where the system tells: of the machine, of its group, of its limit."""
    known = [value for value in (_of_machine(), _of_group(), _of_limit()) if value is not None]
    return max(0, min(known)) if known else None


def check_limit() -> None:
    """Refuse a limit on addresses (ulimit -v) that the libraries alone exceed: they would end without a word."""
    limit = _limit()
    if limit is None:
        return
    needed = max(_used(), _libraries() + BESIDE) + HEADROOM
    if limit < needed:
        raise ResourceError(
            f"memory is limited to {human(limit)} of addresses (ulimit -v), about {human(needed)} are needed, most of "
            "them for libraries: raise the limit, or limit memory by cgroups (systemd-run -p MemoryMax=, docker -m)"
        )


def check_room() -> None:
    """Ask for what libraries of networks take for themselves: some end the process where no addresses are left."""
    free = _of_limit()
    if free is not None and free < ROOM:
        raise MemoryError(f"cannot allocate {ROOM} bytes")


def human(size: int | None) -> str:
    """A size for a person: 1.34 GB."""
    if size is None:
        return "size unknown"
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def _libraries() -> int:
    """About what torch maps, seen from its files; those of cuDNN are loaded in parts, later."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return 0
    home = Path(found.origin).parent
    files = [*(home / "lib").glob("*.so*"), *(home.parent / "nvidia").glob("*/lib/*.so*")]
    return sum(path.stat().st_size for path in files if "cudnn" not in path.name)


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError, StopIteration):
        return None


def _of_group() -> int | None:
    for most, now in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            home = Path("/sys/fs/cgroup")
            return int((home / most).read_text()) - int((home / now).read_text())
        except (OSError, ValueError):  # no such group, or no limit
            continue
    return None


def _of_limit() -> int | None:
    limit = _limit()
    return None if limit is None else limit - _used()


def _limit() -> int | None:
    """The limit on this process's addresses."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _used() -> int:
    """Addresses that this process has taken."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0
