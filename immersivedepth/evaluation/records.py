"""What is kept of every image and of a run, as files that any program can read."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import InputError
from ..config import build
from ..files import write_text
from ..metrics import certainty
from ..metrics.moments import figures
from ..metrics.protocol import Protocol, of_images

SUMMARY, TABLE, IMAGES = "evaluation.json", "evaluation.csv", "images"
_PLAIN = (str, int, bool, type(None))


@dataclass(frozen=True)
class Figure:
    """One figure of a run with its confidence interval."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Result:
    """All that is known of one evaluated run."""

    path: Path
    protocol: Protocol
    records: list[dict[str, Any]]  # one for each image, in order of names
    summary: dict[str, Any]

    @property
    def names(self) -> list[str]:
        return [str(record["name"]) for record in self.records]

    def arrays(self) -> dict[str, Any]:
        """Sums, figures and extras as arrays over images."""
        return of_images(self.protocol, [r["moments"] for r in self.records], [r["extras"] for r in self.records])


def write_record(folder: Path, record: dict[str, Any]) -> Path:
    """One image's record; where it stands, the image is done."""
    return write_json(folder / IMAGES / f"{record['name']}.json", record)


def write_json(path: Path, content: Any) -> Path:
    """JSON as the standard has it: numbers that are not finite become null, but infinity stays as text."""
    return write_text(path, json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """A record with null turned back to NaN in its figures."""
    record: dict[str, Any] = read_json(path)
    for key in ("moments", "figures", "extras"):
        record[key] = {name: number(value) for name, value in record[key].items()}
    return record


def read_json(path: Path) -> Any:
    """JSON that this program wrote."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} not found: is this the folder of a finished mode=evaluate?") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); evaluate that run again") from error


def number(value: Any) -> float:
    """A number as it was before it was written."""
    return math.nan if value is None else float(value)


def read_result(path: Path) -> Result:
    """An evaluated run."""
    summary = read_json(path / SUMMARY)
    settings = {k: v for k, v in summary["protocol"].items() if k not in ("mark", "definition")}
    limits = ("clip_first", "clip", "clip_truth")
    settings |= {k: [number(v) for v in settings[k]] for k in limits if settings[k] is not None}
    protocol: Protocol = build({**settings, "_target_": f"{Protocol.__module__}.Protocol"}, "protocol")
    records = [read_record(path / IMAGES / f"{name}.json") for name in summary["images"]]
    return Result(path, protocol, records, summary)


def figures_of(result: Result, samples: int) -> dict[str, Figure]:
    """Every figure of a run by its protocol's way to take means, with 95 % intervals over images."""
    arrays, protocol = result.arrays(), result.protocol
    counts = certainty.draws(len(result.records), samples)
    out = {}
    if protocol.mean == "pooled":
        total = figures({name: values.sum() for name, values in arrays["sums"].items()}, protocol.log)
        drawn = certainty.pooled(arrays["sums"], counts, lambda sums: figures(sums, protocol.log))
        out = {name: _figure(float(total[name]), drawn[name], len(result.records)) for name in total}
        images = arrays["extras"]
    else:
        images = arrays["figures"] | arrays["extras"]
    for name, values in images.items():
        known = values[np.isfinite(values)]
        mean = float(known.mean()) if len(known) else math.nan
        out[name] = _figure(mean, certainty.mean_of_images(values, counts), len(known))
    return out


def curves_of(records: Sequence[dict[str, Any]]) -> dict[str, list[float | None]]:
    """E[|p - g| / g] within each band, pooled over all images; None where nothing was."""
    out: dict[str, list[float | None]] = {}
    for name in ("latitude", "distance"):
        total = np.array([record["curves"][name] for record in records], np.float64).sum(0)
        out[name] = [float(a / w) if w > 0 else None for a, w in total]
    return out


def write_images_table(folder: Path, result: Result) -> Path:
    """One line for each image."""
    arrays = result.arrays()
    columns = arrays["figures"] | arrays["extras"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", *columns])
    for i, name in enumerate(result.names):
        writer.writerow([name, *(f"{values[i]:.6g}" for values in columns.values())])
    return write_text(folder / TABLE, text.getvalue())


def _figure(value: float, samples: np.ndarray, images: int) -> Figure:
    between = certainty.interval(samples) if images > 1 else None
    return Figure(value, *(between or (None, None)))


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, float):
        return content if math.isfinite(content) else None if math.isnan(content) else str(content)
    return content if isinstance(content, _PLAIN) else str(content)
