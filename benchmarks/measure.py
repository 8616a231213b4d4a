"""Fair timing: rivals interleaved in one run, the minimum of the rounds, peak memory of a fresh process.

Figures of two machines, or of two runs, are not compared; ratios within one run are. The machine unit U makes
times of different benchmarks comparable: one warm cv2.remap of a 2048x1024 panorama to twenty 512x512 views.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from immersivedepth import files

MEGABYTE = 1e6


@dataclass(frozen=True)
class Timing:
    """The best round of one case, in seconds, and how many rounds there were."""

    wall: float
    cpu: float
    rounds: int

    @property
    def milliseconds(self) -> float:
        """Wall time."""
        return self.wall * 1e3


def once(call: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds (of all threads) of one call; the result is dropped outside the clock."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    del result
    return wall, cpu


def interleaved(
    cases: Mapping[str, Callable[[], object]],
    rounds: int = 7,
    before: Mapping[str, Callable[[], object]] | None = None,
    warm_up: int = 1,
    seconds: float = 60.0,
) -> dict[str, Timing]:
    """Time every case once per round, in turn, and keep each one's minimum.

    `before[name]` runs ahead of every call of a case, outside the clock: clear a cache there to time a cold start.
    A case that has used up `seconds` on its own sits out the remaining rounds.
    """
    before = before or {}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for turn in range(-warm_up, rounds):
        for name, call in cases.items():
            if turn > 0 and sum(wall for wall, _ in taken[name]) > seconds:
                continue
            before.get(name, _nothing)()
            measured = once(call)
            if turn >= 0:
                taken[name].append(measured)
    return {
        name: Timing(min(wall for wall, _ in all_), min(cpu for _, cpu in all_), len(all_))
        for name, all_ in taken.items()
    }


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Memory:
    """Peak resident memory of one call in a fresh process, in bytes."""

    peak: int  # of the whole process while the call ran
    before: int  # resident when the call began: interpreter, libraries and inputs

    @property
    def added(self) -> float:
        """What the call itself added at its worst moment, in MB."""
        return (self.peak - self.before) / MEGABYTE


def peak_memory(setup: str, *arguments: object, timeout: float = 600.0) -> Memory:
    """Run `setup` ("module:function") with plain arguments in a new process, then measure the call it returns.

    What the setup allocates counts as `before`. A process that dies (killed for memory, say) raises RuntimeError.
    """
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.measure", setup, json.dumps(arguments)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if child.returncode != 0:
        last = child.stderr.strip().splitlines()[-1:] or ["no message"]
        raise RuntimeError(f"{setup}{arguments}: the process ended with {child.returncode}: {last[0]}")
    return Memory(*json.loads(child.stdout.splitlines()[-1]))


def _child(setup: str, arguments: str) -> None:
    module, function = setup.split(":")
    call = getattr(importlib.import_module(module), function)(*json.loads(arguments))
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # or the call would find room that the setup has given up
    before = _reset_peak()
    result = call()
    peak = _peak()
    del result
    print(json.dumps([peak, before]))


def _status(key: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":")), None)


def _reset_peak() -> int:
    """Start a new high-water mark where the system allows it; returns the bytes resident now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _status("VmRSS") or _peak()  # the mark so far stands: a peak below it reads as nothing added
    return _status("VmRSS") or _peak()


def _peak() -> int:
    mark = _status("VmHWM")
    if mark is not None:
        return mark
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def unit_call() -> Callable[[], object]:
    """The machine unit as a call, to be timed among the cases: cv2.remap alone, with ready fixed-point maps."""
    panorama = np.random.default_rng(0).integers(0, 256, (1024, 2048, 3), dtype=np.uint8)
    t = (np.arange(512) + 0.5) / 256 - 1
    right, down = np.meshgrid(t, t)
    maps = []
    for yaw in np.arange(20) * (2 * np.pi / 20):
        pitch = np.radians(52.6 if yaw < np.pi else 10.8)
        ahead, up = np.cos(pitch) + down * -np.sin(pitch), np.sin(pitch) + down * np.cos(pitch)
        u = (np.arctan2(right, ahead) + yaw) / (2 * np.pi) % 1 * 2048 - 0.5
        v = (0.5 - np.arctan2(up, np.hypot(ahead, right)) / np.pi) * 1024 - 0.5
        maps.append(cv2.convertMaps(u.astype(np.float32), v.astype(np.float32), cv2.CV_16SC2))
    views = np.empty((20, 512, 512, 3), np.uint8)

    def call() -> np.ndarray:
        for view, (whole, part) in zip(views, maps, strict=True):
            cv2.remap(panorama, whole, part, cv2.INTER_LINEAR, dst=view, borderMode=cv2.BORDER_WRAP)
        return views

    return call


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    import torch

    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "threads": {"torch": torch.get_num_threads(), "cv2": cv2.getNumThreads()},
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cv2": cv2.__version__,
            "numpy": np.__version__,
        },
    }


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; floats are given three digits."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        cells = (f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def timing_table(timings: Mapping[str, Timing], reference: str, unit: float | None = None) -> str:
    """Times of the cases, each also as a ratio to the reference (above 1: slower) and in machine units."""
    header = ["case", "wall ms", "cpu ms", f"x {reference}"] + (["U"] if unit else [])
    base = timings[reference].wall
    rows: list[list[object]] = []
    for name, t in timings.items():
        rows.append([name, t.wall * 1e3, t.cpu * 1e3, t.wall / base] + ([t.wall / unit] if unit else []))
    return table(header, rows)


def goal_line(name: str, value: float, bound: float, at_least: bool, what: str) -> str:
    """One figure of merit against its goal, in words."""
    met = value >= bound if at_least else value <= bound
    return f"{name}: {value:.3g} (goal {'>=' if at_least else '<='} {bound:g}, {'met' if met else 'MISSED'}): {what}"


def write_json(path: Path, name: str, results: Any) -> Path:
    """The results with the machine they were taken on."""
    text = json.dumps({"benchmark": name, "machine": machine(), "results": results}, indent=1, default=_plain)
    return files.write_text(path, text + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Timing | Memory):
        return asdict(value)
    return value.item() if hasattr(value, "item") else str(value)


if __name__ == "__main__":
    _child(*sys.argv[1:])
