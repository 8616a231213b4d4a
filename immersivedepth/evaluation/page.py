"""One page with the table, the curves, and every run's best, median and worst image; it needs no network."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from importlib import resources

from ..data.images import read_image
from ..metrics.protocol import DISTANCES, LATITUDES
from ..visual.curves import Curve, chart
from ..visual.embedding import data_url
from ..visual.grids import rgb_picture
from .records import IMAGES, Result, curves_of
from .tables import FIRST, Row, best, heading, names_of, shown

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(rows: Sequence[Row], results: Sequence[Result], warned: Sequence[str] = ()) -> str:
    """The whole page; rows and results are of the same runs in the same order."""
    protocol = results[0].protocol
    steps = "".join(f"<li>{html.escape(step)}</li>" for step in protocol.definition())
    warnings = "".join(f"<p><b>{html.escape(warning)}</b></p>" for warning in warned)
    style = (resources.files("immersivedepth") / "assets" / "report.css").read_text("utf-8")
    title = f"Comparison by protocol {html.escape(protocol.name)}"
    images = "".join(_cases(i, *pair) for i, pair in enumerate(zip(rows, results, strict=True), start=1))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style} td, th {{ white-space: nowrap; }}</style>
</head>
<body>
<h1>{title}</h1>
<p class="faint">{html.escape(protocol.origin)}. {len(results[0].records)} images. In brackets: 95 % intervals by the
bootstrap over images. Sure: the interval of the difference to the best, image by image, does not hold 0.</p>
{warnings}
<details><summary>what exactly is measured</summary><ul>{steps}</ul></details>
<h2>Figures</h2>
<div class="scroll">{_table(rows)}</div>
<h2>Where the errors are</h2>
<p class="faint">All pixels of all images in a band, weighed as by the protocol; lines are numbered as in the table.</p>
{_curves(results)}
<h2>Best, median and worst image of every run</h2>
<p class="faint">Picture, truth, prediction as it was compared, and its log error: red sees too far, blue too near.</p>
{images}
</body>
</html>
"""


def cases(result: Result) -> list[tuple[str, int]]:
    """Which records are the best, the median and the worst."""
    values = [record["figures"][FIRST] for record in result.records]
    order = sorted(range(len(values)), key=lambda i: (math.isnan(values[i]), values[i]))
    chosen = {"best": order[0], "median": order[(len(order) - 1) // 2], "worst": order[-1]}
    return list(chosen.items())


def _table(rows: Sequence[Row]) -> str:
    names = names_of(rows)
    head = "".join(f"<th>{html.escape(heading(name))}</th>" for name in names)
    lines: list[str] = []
    for row in rows:
        cells = []
        for name in names:
            figure = row.figures.get(name)
            if figure is None:
                cells.append("<td>-</td>")
                continue
            text = shown(figure.value)
            text = f"<b>{text}</b>" if len(rows) > 1 and text == shown(best(rows, name)) else text
            between = "" if figure.low is None else f" [{shown(figure.low)}, {shown(figure.high)}]"
            cells.append(f'<td>{text}<span class="faint">{between}</span></td>')
        behind = row.behind
        sure = "-"
        if behind is not None:
            sure = f"{shown(behind.value)} ({'sure' if behind.low is not None and behind.low > 0 else 'not sure'})"
        label = f"{len(lines) + 1}. {html.escape(row.label)}"
        lines.append(f"<tr><th>{label}</th>{''.join(cells)}<td>{sure}</td><td>{row.seconds:.3g}</td></tr>")
    ends = f"<th>{FIRST} behind the best</th><th>seconds</th>"
    return f"<table><tr><th>run</th>{head}{ends}</tr>{''.join(lines)}</table>"


def _curves(results: Sequence[Result]) -> str:
    figures = []
    middles = {
        "latitude": [(a + b) / 2 for a, b in zip(LATITUDES, LATITUDES[1:], strict=False)],
        "distance": [(a + b) / 2 for a, b in zip(DISTANCES, DISTANCES[1:], strict=False)],
    }
    found = [curves_of(result.records) for result in results]
    for name, unit in (("latitude", "degrees, north is positive"), ("distance", "metres")):
        curves = []
        for number, curve in enumerate(found, start=1):
            points = [
                (x, y) for x, y in zip(middles[name], curve[name], strict=True) if y is not None and math.isfinite(x)
            ]
            curves.append(Curve(str(number), [x for x, _ in points], [y for _, y in points]))
        picture = chart(
            curves, title=f"{FIRST} by {name}", x_label=unit, log_x=name == "distance", log_y=True, size=(820, 460)
        )
        figures.append(f'<figure><img alt="{FIRST} by {name}" src="{data_url(picture)}"></figure>')
    return "".join(figures)


def _cases(number: int, row: Row, result: Result) -> str:
    parts = []
    for name, i in cases(result):
        record = result.records[i]
        path = result.path / IMAGES / f"{record['name']}.jpg"
        if not path.is_file():
            continue
        caption = f"{name}: {html.escape(record['name'])}, {FIRST} {shown(record['figures'][FIRST])}"
        picture = data_url(rgb_picture(read_image(path).image), "jpeg")
        parts.append(f'<figure><img alt="{name}" src="{picture}"><figcaption>{caption}</figcaption></figure>')
    return f"<h3>{number}. {html.escape(row.label)}</h3>{''.join(parts)}"
