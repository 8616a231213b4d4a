"""The learning-rate range test: the rate grows step by step, and the loss tells where it learns and where it breaks."""

from __future__ import annotations

import csv
import io
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tqdm import tqdm

from ..checks import Range
from ..data.images import write_png
from ..files import write_text
from ..visual.curves import Curve, chart
from .loop import Loop
from .trainer import Trainer

_SMOOTHING = 0.9  # decay of the running mean of the loss
_BROKEN = 4.0  # times the best smoothed loss: it has diverged


@dataclass
class RateRange:
    """From which rate to which, in how many steps."""

    low: Annotated[float, Range(1e-12)] = 1e-7
    high: Annotated[float, Range(1e-12)] = 1.0
    steps: Annotated[int, Range(5)] = 100


@dataclass(frozen=True)
class Found:
    """The course of the test, and the rate where the loss falls most steeply; None if it never falls."""

    rates: list[float]
    losses: list[float]  # smoothed
    steepest: float | None


def lr_range(
    trainer: Trainer, system: Any, dataset: Any, folder: Path, ask: RateRange, *, seed: int, fabric: Any
) -> tuple[Found, list[Path]]:
    """Run the test and write lr_range.csv and lr_range.png; the network is thrown away."""
    loop = Loop(trainer, system, dataset, folder, seed, fabric, "", "", {})
    found = measure(loop, ask)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["lr", "loss"])
    writer.writerows(zip(found.rates, found.losses, strict=True))
    table = write_text(folder / "lr_range.csv", text.getvalue())
    curve = Curve("smoothed loss", found.rates, found.losses)
    picture = chart([curve], title="loss against learning rate", x_label="learning rate", y_label="loss", log_x=True)
    return found, [table, write_png(folder / "lr_range.png", picture)]


def measure(loop: Loop, ask: RateRange) -> Found:
    """Train with growing rates until the loss breaks."""
    loop.prepare()
    rates, losses, mean, best = [], [], 0.0, math.inf
    for step in tqdm(range(ask.steps), unit="step", desc="learning rates", disable=not loop.fabric.is_global_zero):
        rate = ask.low * (ask.high / ask.low) ** (step / (ask.steps - 1))
        for group in loop.optimiser.param_groups:
            group["lr"] = rate
        loss = loop.one_step()
        if not math.isfinite(loss):
            break
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        smooth = mean / (1 - _SMOOTHING ** (step + 1))
        rates.append(rate)
        losses.append(smooth)
        best = min(best, smooth)
        if smooth > _BROKEN * best and step > ask.steps // 10:
            break
    return Found(rates, losses, steepest(rates, losses))


def steepest(rates: list[float], losses: list[float]) -> float | None:
    """The rate where the loss falls fastest for a growing logarithm of the rate, before its lowest point."""
    if len(losses) < 3:
        return None
    lowest = losses.index(min(losses))
    slopes = [
        (b - a, (r * s) ** 0.5)
        for (a, b), (r, s) in zip(itertools.pairwise(losses), itertools.pairwise(rates), strict=True)
    ]
    falling = [pair for pair in slopes[: max(lowest, 1)] if pair[0] < 0]
    return min(falling)[1] if falling else None
