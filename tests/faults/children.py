"""Command lines in processes of their own that are forked from one that has imported everything: 0.1 s each, not 4."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.faults.imports"])


def start(work: Callable[..., Any], *given: Any, **environment: str) -> BaseProcess:
    """`work(*given)` in a child whose exit code tells how it ended; negative ones are signals."""
    process = _context.Process(target=_begin, args=(environment, work, given))
    process.start()
    return process


def command(said: Path, *arguments: str, before: Callable[[], Any] | None = None, **environment: str) -> BaseProcess:
    """The command line in a child; what it says on stdout and stderr goes into files in the folder `said`."""
    said.mkdir(parents=True, exist_ok=True)
    return start(run, said, arguments, before, **environment)


def ended(process: BaseProcess, seconds: float = 240) -> int:
    """Wait for the end of a child; its exit code."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"a child did not end within {seconds} s")
    return process.exitcode


def errors(said: Path) -> str:
    """What a child said on stderr, without progress bars."""
    lines = (said / "stderr").read_text().replace("\r", "\n").splitlines()
    return "\n".join(line for line in lines if line.strip() and "it/s" not in line and "/step" not in line)


NO_MOUNTS = 77  # how a child ends where mounting is not permitted


def mount(disk: Path, kilobytes: int, *more: str) -> None:
    """An empty disk for this process alone, with which it vanishes; `more` are commands that come after."""
    commands = ("mount --make-rprivate /", f"mount -t tmpfs -o size={kilobytes}k tmpfs '{disk}'", *more)
    if (
        ctypes.CDLL(None).unshare(0x20000)  # CLONE_NEWNS
        or subprocess.run(" && ".join(commands), shell=True, check=False).returncode
    ):
        os._exit(NO_MOUNTS)


def _begin(environment: Mapping[str, str], work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # as outside; a child would ask the server, too
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server that forks ignores it
    work(*given)


def run(said: Path, arguments: tuple[str, ...], before: Callable[[], Any] | None = None) -> None:
    """The command line in this process, whose output goes into files."""
    import core_exp_runner

    for number, name in ((1, "stdout"), (2, "stderr")):
        handle = os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    sys.argv = ["core_exp_runner.py", *arguments]
    if before is not None:
        before()
    core_exp_runner.main()
