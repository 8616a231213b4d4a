"""Forked children with limits: whatever becomes of one, the test goes on."""

import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANY = 50  # pieces of work for one child: a fork of a process with torch in it costs 20 ms


@dataclass(frozen=True)
class Ended:
    """How a piece of work ended."""

    found: Any = None  # what it returned, by way of JSON
    fault: str = ""  # the signal, exit code or exception that ended it otherwise
    said: str = ""  # on stdout and stderr
    seconds: float = 0.0  # of processor time
    memory: int = 0  # bytes, at most, beyond what there was before


def each_forked(
    work: Callable[[Any], Any], items: Sequence[Any], seconds: float = 2, memory: int = 2**30
) -> Iterator[Ended]:
    """Every item in a child, with so much processor time and so much more memory each; one that dies is replaced."""
    done = 0
    while done < len(items):
        mine = items[done : done + MANY]
        before = done
        for ended in _in_one_child(work, mine, seconds, memory):
            done += 1
            yield ended
        if done == before:
            raise RuntimeError("a child did not begin")


def forked(work: Callable[[], Any], seconds: float = 2, memory: int = 2**30) -> Ended:
    """One piece of work in a child of its own."""
    return next(each_forked(lambda _: work(), [None], seconds, memory))


def _in_one_child(work: Callable[[Any], Any], items: Sequence[Any], seconds: float, memory: int) -> Iterator[Ended]:
    back, forth = os.pipe()
    said = os.memfd_create("said")
    child = os.fork()
    if child == 0:
        try:
            os.close(back)
            _child(work, items, seconds, memory, forth, said)
        finally:
            os._exit(1)
    os.close(forth)
    ended = 0
    with os.fdopen(back, "rb") as pipe:
        for line in pipe:
            ended += 1
            yield Ended(**json.loads(line))
    _, status, _ = os.wait4(child, 0)
    words = _since(said, 0)
    os.close(said)
    if ended < len(items):
        died = os.WIFSIGNALED(status)
        fault = signal.Signals(os.WTERMSIG(status)).name if died else f"exit code {os.WEXITSTATUS(status)}"
        yield Ended(fault=fault, said=words)


def _child(
    work: Callable[[Any], Any], items: Sequence[Any], seconds: float, memory: int, forth: int, said: int
) -> None:
    os.dup2(said, 1)
    os.dup2(said, 2)
    limit = _memory("VmSize") + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for item in items:
        Path("/proc/self/clear_refs").write_text("5")  # the highest memory so far is forgotten
        before, begun, start = _memory("VmRSS"), time.process_time(), os.lseek(said, 0, os.SEEK_END)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # of processor time: ends in SIGPROF
        signal.alarm(round(30 * seconds))  # for what waits without working
        answer: dict[str, Any] = {}
        try:
            answer["found"] = work(item)
        except BaseException as error:
            answer["fault"] = f"{type(error).__name__}: {error}"
        answer |= {"seconds": time.process_time() - begun, "memory": max(0, _memory("VmHWM") - before)}
        answer["said"] = _since(said, start)
        os.write(forth, json.dumps(answer).encode() + b"\n")
    os._exit(0)


def _since(file: int, start: int) -> str:
    return os.pread(file, 100_000, start).decode(errors="replace")


def _memory(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])
