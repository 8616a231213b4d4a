"""Figures as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..metrics.moments import rises
from ..metrics.protocol import Protocol
from .records import Figure

FIRST = "abs_rel"  # the figure that runs are ordered by, and whose differences are tested


@dataclass(frozen=True)
class Row:
    """One run in a table."""

    label: str
    figures: Mapping[str, Figure]
    seconds: float
    behind: Figure | None = None  # its FIRST minus that of the best run, over the same images; None for the best


def one_run(protocol: Protocol, figures: Mapping[str, Figure], images: int, failed: Mapping[str, str]) -> str:
    """What was measured, in words, and every figure with its interval."""
    lines = [f"# {protocol.name}", "", protocol.origin + ".", "", *(f"- {step}" for step in protocol.definition()), ""]
    lines += [f"{images} images, {len(failed)} left out. Intervals: 95 %, bootstrap over images.", ""]
    lines += ["| figure | value | from | to |", "|---|---|---|---|"]
    for name, figure in figures.items():
        lines.append(f"| {name} | {shown(figure.value)} | {shown(figure.low)} | {shown(figure.high)} |")
    return "\n".join([*lines, "", *(f"Left out: {wrong}" for wrong in failed.values()), ""])


def as_csv(rows: Sequence[Row]) -> str:
    """Every figure with its interval, at full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = names_of(rows)
    head = [column for name in names for column in (name, f"{name}_low", f"{name}_high")]
    behind = [f"{FIRST}_behind", f"{FIRST}_behind_low", f"{FIRST}_behind_high"]
    writer.writerow(["run", *head, *behind, "seconds"])
    for row in rows:
        cells = [cell for name in names for cell in _cells(row.figures.get(name))]
        writer.writerow([row.label, *cells, *_cells(row.behind), f"{row.seconds:.4g}"])
    return text.getvalue()


def as_markdown(rows: Sequence[Row], names: Sequence[str] | None = None) -> str:
    """A table whose best values are bold; the first figure has its interval and what a run is behind the best."""
    names = names_of(rows) if names is None else names
    ends = [f"{FIRST} behind the best", "s"] if FIRST in names else []
    lines = ["| " + " | ".join(["run", *(heading(n) for n in names), *ends]) + " |"]
    lines.append("|" + "---|" * (len(names) + 1 + len(ends)))
    for row in rows:
        cells = [_cell(rows, row, name, "**{}**") for name in names]
        cells += [_behind(row), f"{row.seconds:.3g}"] if ends else []
        lines.append("| " + " | ".join([_quiet(row.label), *cells]) + " |")
    return "\n".join(lines) + "\n"


def as_latex(rows: Sequence[Row], names: Sequence[str] | None = None) -> str:
    """A tabular for booktabs."""
    names = names_of(rows) if names is None else names
    head = " & ".join(_tex(heading(name).replace("↑", "").replace("↓", "").strip()) for name in names)
    lines = [r"\begin{tabular}{l" + "r" * len(names) + "}", r"\toprule", rf"run & {head} \\", r"\midrule"]
    for row in rows:
        cells = [_cell(rows, row, name, r"\textbf{{{}}}", interval=False) for name in names]
        lines.append(rf"{_tex(row.label)} & " + " & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def names_of(rows: Sequence[Row]) -> list[str]:
    """Every figure that some run has, in the order of the first that has it."""
    return list(dict.fromkeys(name for row in rows for name in row.figures))


def heading(name: str) -> str:
    """A figure's name with the way to better values."""
    return f"{name} {'↑' if rises(name) else '↓'}"


def best(rows: Sequence[Row], name: str) -> float:
    """The best value of a figure; NaN where no run has one."""
    values = [r.figures[name].value for r in rows if name in r.figures and math.isfinite(r.figures[name].value)]
    return (max(values) if rises(name) else min(values)) if values else math.nan


def shown(value: float | None) -> str:
    """Three digits, or a dash."""
    return "-" if value is None or math.isnan(value) else f"{value:.3g}"


def _cell(rows: Sequence[Row], row: Row, name: str, bold: str, interval: bool = True) -> str:
    figure = row.figures.get(name)
    if figure is None:
        return "-"
    text = shown(figure.value)
    text = bold.format(text) if text == shown(best(rows, name)) and len(rows) > 1 and text != "-" else text
    if interval and name == FIRST and figure.low is not None:
        text += f" [{shown(figure.low)}, {shown(figure.high)}]"
    return text


def _behind(row: Row) -> str:
    """A difference whose interval holds 0 is no difference that these images show."""
    if row.behind is None:
        return "-"
    unsure = row.behind.low is None or row.behind.low <= 0
    return f"{shown(row.behind.value)} {'(not sure)' if unsure else '(sure)'}"


def _cells(figure: Figure | None) -> list[str]:
    if figure is None:
        return ["", "", ""]
    return ["" if v is None or math.isnan(v) else f"{v:.9g}" for v in (figure.value, figure.low, figure.high)]


def _quiet(text: str) -> str:
    return text.replace("|", "\\|")


def _tex(text: str) -> str:
    for sign in "\\&%$#_{}":
        text = text.replace(sign, rf"\{sign}" if sign != "\\" else "/")
    return text
