"""Two sizes of every fault, and a record of what was seen."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RESULTS = Path("outputs") / "faults"


@pytest.fixture
def size(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """`size(quick, full)`: how many; the second with --full."""
    full = bool(request.config.getoption("--full"))
    return lambda quick, many: many if full else quick


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`record(row, **figures)` keeps what a test saw, for the table of docs/reliability.md."""
    begun = time.monotonic()

    def keep(row: str, **figures: Any) -> None:
        where = request.config.rootpath / RESULTS
        where.mkdir(parents=True, exist_ok=True)
        full = bool(request.config.getoption("--full"))
        found = {"row": row, "full": full, "seconds": round(time.monotonic() - begun, 1), **figures}
        name = "".join(c if c.isalnum() else "_" for c in row)
        part = where / f"{name}.{os.getpid()}"
        part.write_text(json.dumps(found, indent=1))
        part.replace(where / f"{name}.json")

    return keep
