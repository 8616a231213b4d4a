"""A request to stop is heard between two steps: the first saves and ends cleanly, the second ends at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

# What clusters and people send; SIGUSR1 is how Slurm announces that the time is nearly over (not on Windows).
STOPS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))


class Interrupts:
    """While this block runs, requests to stop only set `code`, the exit code to end with."""

    def __init__(self) -> None:
        self.code = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # elsewhere signals cannot be caught
            for number in STOPS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        code = 128 + number
        if self.code:
            raise SystemExit(code)
        self.code = code

    def agree(self, fabric: Any) -> int:
        """The exit code if any process was asked to stop, so that all end after the same step."""
        if fabric.world_size == 1:
            return self.code
        import torch

        return int(fabric.all_reduce(torch.tensor(float(self.code), device=fabric.device), reduce_op="max"))
