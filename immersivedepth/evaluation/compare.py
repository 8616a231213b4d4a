"""Evaluated runs side by side; what was not measured by one protocol on one set of images is refused."""

from __future__ import annotations

import csv
import glob
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import ConfigError, InputError
from ..config import build, run_of
from ..files import write_text
from ..metrics import certainty
from ..metrics.protocol import DISTANCES, LATITUDES
from ..runs import RunFolder, read_config, work_of
from . import records
from .page import page
from .records import SUMMARY, Figure, Result, read_result
from .settings import Settings
from .tables import FIRST, Row, as_csv, as_latex, as_markdown, names_of

log = logging.getLogger(__name__)

_STAGES = ("dataset", "enhance", "project", "predict", "fuse", "align", "blend", "refine", "segment")
_SEVERAL = ("enhance", "predict", "refine")
NAME = "comparison"
_UNEVEN = 0.01  # of the measured sphere: a difference in coverage that is told of


def compare(config: dict[str, Any], open_folder: Callable[[], RunFolder]) -> list[Path]:
    """mode=compare: the runs that `runs` names."""
    named = run_of(config).runs
    if not named:
        raise ConfigError("runs=[] names nothing: give folders of runs of mode=evaluate, e.g. runs=[outputs/a/*]")
    found = list(dict.fromkeys(path for text in named for path in _folders(text)))
    settings: Settings = build(config["evaluation"], "evaluation")
    results = [read_result(path) for path in found]
    check_alike(results)
    return write(results, open_folder().path, settings)


def grid_of(path: Path, settings: Settings) -> list[Path]:
    """The table of an experiment's folder: its newest run of every kind that fits the run at `path`."""
    newest: dict[str, Result] = {}
    mine = read_result(path)
    for folder in sorted(p.parent for p in path.parent.glob(f"*/{SUMMARY}")):
        result = mine if folder == path else read_result(folder)
        if _same(mine, result) is None:
            newest[str(sorted(work_of(read_config(folder)).items()))] = result
    return write(list(newest.values()), path.parent, settings)


def write(results: Sequence[Result], folder: Path, settings: Settings) -> list[Path]:
    """CSV, Markdown, LaTeX, the curves and the page."""
    configs = [read_config(result.path) for result in results]
    rows = rows_of(results, labels(configs), settings.samples)
    warned = warnings_of(rows, configs)
    ordered = sorted(zip(rows, results, strict=True), key=lambda pair: pair[0].figures[FIRST].value)
    rows = [row for row, _ in ordered]
    protocol = results[0].protocol
    shown = [n for n in names_of(rows) if n in protocol.names()]
    more = [n for n in names_of(rows) if n not in shown]
    text = [
        f"# Comparison by protocol {protocol.name}",
        "",
        f"{len(results[0].records)} images. {protocol.origin}.",
        "",
    ]
    text += [*(f"**{warning}**\n" for warning in warned)]
    text += [*(f"- {step}" for step in protocol.definition()), "", as_markdown(rows, shown)]
    text += [as_markdown(rows, more)] if more else []
    return [
        write_text(folder / f"{NAME}.csv", as_csv(rows)),
        write_text(folder / f"{NAME}.md", "\n".join(text)),
        write_text(folder / f"{NAME}.tex", as_latex(rows, shown)),
        write_text(folder / f"{NAME}_curves.csv", curves_csv(rows, [result for _, result in ordered])),
        write_text(folder / f"{NAME}.html", page(rows, [result for _, result in ordered], warned)),
    ]


def warnings_of(rows: Sequence[Row], configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader must know before the figures are believed."""
    out = []
    targets = [node.get("_target_", "") for c in configs for node in (c.get("predict") or {}).values()]
    if any(str(target).endswith(".Oracle") for target in targets):
        out.append(
            "The oracle reads the truth: its figures say how well views are joined, not how well a network sees."
        )
    covered = [row.figures["coverage"].value for row in rows if "coverage" in row.figures]
    if covered and max(covered) - min(covered) > _UNEVEN:
        out.append(
            f"The runs know from {100 * min(covered):.1f} to {100 * max(covered):.1f} % of what is measured: where a "
            "protocol leaves out what is not known, their errors are of different pixels."
        )
    return out


def curves_csv(rows: Sequence[Row], results: Sequence[Result]) -> str:
    """Both curves of every run, a line for each band that holds anything."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "over", "from", "to", FIRST])
    for row, result in zip(rows, results, strict=True):
        found = records.curves_of(result.records)
        for over, edges in (("latitude", LATITUDES), ("distance", DISTANCES)):
            for low, high, value in zip(edges, edges[1:], found[over], strict=False):
                if value is not None:
                    writer.writerow([row.label, over, f"{low:g}", f"{high:g}", f"{value:.6g}"])
    return text.getvalue()


def rows_of(results: Sequence[Result], names: Sequence[str], samples: int) -> list[Row]:
    """Figures of every run, and how far each is behind the best over the same images, with the interval of that."""
    counts = certainty.draws(len(results[0].records), samples)
    figures = [records.figures_of(result, samples) for result in results]
    errors = [result.arrays()["figures"][FIRST] for result in results]
    leader = int(np.argmin([values[FIRST].value for values in figures]))
    rows = []
    for i, result in enumerate(results):
        behind = None
        if i != leader:
            difference = errors[i] - errors[leader]
            between = certainty.interval(certainty.mean_of_images(difference, counts)) if len(difference) > 1 else None
            behind = Figure(float(np.nanmean(difference)), *(between or (None, None)))
        rows.append(Row(names[i], figures[i], float(result.summary["seconds"]), behind))
    return rows


def check_alike(results: Sequence[Result]) -> None:
    """Refuse to set side by side what was not measured alike."""
    for other in results[1:]:
        if wrong := _same(results[0], other):
            raise ConfigError(f"{other.path} cannot be compared with {results[0].path}: {wrong}")


def labels(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What tells runs apart: the stages that differ, or else the keys."""
    works = [work_of(dict(config)) for config in configs]
    chosen = [{stage: _choice(stage, work.get(stage)) for stage in _STAGES} for work in works]
    keys = [_leaves(work) for work in works]
    differ = [s for s in _STAGES if len({c[s] for c in chosen}) > 1]
    inside = [
        key
        for key in dict.fromkeys(key for leaves in keys for key in leaves)
        if len({leaves.get(key, "") for leaves in keys}) > 1 and key.split(".")[0] not in (*differ, "runs")
    ]
    out = []
    for choice, leaves in zip(chosen, keys, strict=True):
        parts = [f"{stage}={choice[stage]}" for stage in differ]
        parts += [f"{key}={leaves[key]}" for key in inside if key in leaves]
        out.append(" ".join(parts) or "run")
    twice = {label for label in out if out.count(label) > 1}
    return [f"{label} #{i + 1}" if label in twice else label for i, label in enumerate(out)]


def _same(first: Result, other: Result) -> str | None:
    """Why two runs are not alike; None if they are."""
    a, b = first.protocol, other.protocol
    if a.mark != b.mark:
        keys = [k for k, v in first.summary["protocol"].items() if other.summary["protocol"].get(k) != v]
        keys = [k for k in keys if k not in ("mark", "origin", "definition")]
        return f"protocol {b.name} is not protocol {a.name} (they differ in {', '.join(keys)}); evaluate both by one"
    if lacking := sorted(set(first.names) ^ set(other.names)):
        return f"{len(lacking)} images are in one of them only, the first is {lacking[0]}; evaluate both on the same"
    for mine, its in zip(first.records, other.records, strict=True):
        if mine["truth"] != its["truth"]:
            return f"the truth of {mine['name']} is not the same in both; use one size, unit and data set"
    return None


def _folders(text: str) -> list[Path]:
    path = Path(text).expanduser()
    found = [path] if path.is_dir() else [Path(p) for p in sorted(glob.glob(str(path)))]  # noqa: PTH207 - absolute too
    found = [p for p in found if (p / SUMMARY).is_file()]
    if not found:
        raise InputError(f"runs: {text} is no folder of a finished mode=evaluate (it holds no {SUMMARY})")
    return found


def _choice(stage: str, node: Any) -> str:
    """A stage's option in a word."""
    if not isinstance(node, dict):
        return str(node)
    if stage in _SEVERAL:
        return "[" + ",".join(node) + "]"
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in str(node.get("_target_")).rpartition(".")[2]).strip(
        "_"
    )


def _leaves(node: Any, path: str = "") -> dict[str, str]:
    if isinstance(node, dict):
        return {k: v for key, value in node.items() for k, v in _leaves(value, f"{path}.{key}".lstrip(".")).items()}
    return {path: str(node)}
