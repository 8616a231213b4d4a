"""CPU seconds per view of every network of `midas`, with its size and what its licence allows: the table of the README.

    python -m benchmarks.midas --models midas_tiny dpt_levit_224 --threads 1

Every network looks at one square view of 512 pixels, from its bytes to a map of its size, as the predictors run it.
One network at a time is in memory; each is timed in turn with midas_v21_small_256. Seconds are those of all threads
together, which a busy machine does not stretch; on one thread they are what a person waits. Weights are drawn, for
speed does not depend on them.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import midas
from benchmarks.measure import interleaved, machine, table, write_json
from immersivedepth.stages.predict.midas import runner
from immersivedepth.stages.predict.running import Running
from immersivedepth.weights import REGISTRY
from midas.network import Network

RESOLUTION = 512  # pixels along a side of a view
REFERENCE = "midas_v21_small_256"
HEADER = ["model", "parameters (M)", "input", "CPU s per view", "in bfloat16", "to small", "licence", "file"]


def looking(net: Network, precision: str, view: Tensor) -> Callable[[], Tensor]:
    """A call that looks at the view."""
    ready = runner(net, Running("cpu", precision))  # type: ignore[arg-type]
    return partial(ready, view, net.prepare, partial(net.restore, size=(RESOLUTION, RESOLUTION)))


def published(name: str) -> tuple[str, str]:
    """Licence and file of a model."""
    source = next((s for n, s in REGISTRY.items() if n == name or n.startswith(f"{name}_v")), None)
    return (source.licence, source.file) if source else ("MIT", "of your own training")


def measure(name: str, rounds: int, view: Tensor) -> dict[str, Any]:
    """One row of the table."""
    net = midas.create(name).eval()
    small = midas.create(REFERENCE).eval()
    cases = {precision: looking(net, precision, view) for precision in ("fp32", "bf16")}
    taken = interleaved({**cases, "reference": looking(small, "fp32", view)}, rounds, seconds=120)
    height, width = net.spec.network_size(RESOLUTION, RESOLUTION)
    licence, file = published(name)
    return {
        "model": name,
        "parameters": sum(p.numel() for p in net.parameters()),
        "input": f"{height}x{width}",
        "fp32": taken["fp32"].cpu,
        "bf16": taken["bf16"].cpu,
        "ratio": taken["fp32"].cpu / taken["reference"].cpu,
        "licence": licence,
        "file": file,
    }


def cells(row: dict[str, Any]) -> list[object]:
    """A row as the table shows it."""
    return [
        row["model"],
        f"{row['parameters'] / 1e6:.1f}",
        row["input"],
        row["fp32"],
        row["bf16"],
        row["ratio"],
        row["licence"],
        f"`{row['file']}`",
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(midas.MODELS), choices=midas.MODELS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(0)
    view = torch.randint(0, 256, (1, 3, RESOLUTION, RESOLUTION), generator=generator, dtype=torch.uint8)
    print(f"{machine()}, {arguments.threads} threads\n", flush=True)
    rows = []
    for name in arguments.models:
        rows.append(measure(name, arguments.rounds, view))
        print(
            f"{name}: {rows[-1]['fp32']:.2f} s, in bfloat16 {rows[-1]['bf16']:.2f} s, {rows[-1]['ratio']:.1f}",
            flush=True,
        )  # the large ones take minutes
        gc.collect()
    print("\n" + table(HEADER, [cells(row) for row in rows]))
    if arguments.json:
        write_json(arguments.json, "midas", rows)


if __name__ == "__main__":
    main()
