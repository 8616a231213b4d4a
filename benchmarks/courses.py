"""The course of a training run as a chart: figures of the validation part after each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from immersivedepth.training.records import read_rows
from immersivedepth.visual.colours import Picture
from immersivedepth.visual.curves import Curve, chart


def course(weights: str | Path, named: Mapping[str, str], title: str, levels: Mapping[str, float]) -> Picture:
    """Of the run whose checkpoint is given: metrics by the names they shall have, beside constant levels."""
    rows = [r for r in read_rows(Path(weights).parents[1] / "metrics.jsonl") if r["whole"] and r["split"] == "val"]
    epochs = [float(row["epoch"]) for row in rows]
    curves = [Curve(name, epochs, [row[key] for row in rows]) for name, key in named.items()]
    curves += [Curve(name, epochs, [value] * len(epochs)) for name, value in levels.items()]
    return chart(curves, title=title, x_label="epoch")
