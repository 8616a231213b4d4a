"""What the page shows of a run: frames to look around in, tables, pictures."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..data import images
from ..scene import Geometry, Panorama
from ..stages.export.report import viewer
from ..visual.colours import ColourMap, colour_distance, distance_scale
from ..visual.grids import rgb_picture, shrunk
from .work import SHOWN, Result

_HEIGHT = "min(70vh, 36rem)"
# What a visitor may take for the main things, in this order; the rest is in the list of files and in the archive.
_PICTURES = {
    "distance.png": "Distance: red is near, blue is far",
    "normal.png": "Normals: forward, left, up as red, green, blue",
    "mask.png": "White where the distance can be trusted",
    "sky.png": "Sky",
    "instances_overlay.png": "Things told apart",
    "overview.png": "All on one sheet",
}


def frame(
    panorama: Panorama, geometry: Geometry | None = None, colours: ColourMap = "turbo", script: str = "viewer.js"
) -> str:
    """The viewer in a frame that can neither reach the page around it nor any address."""
    inside = viewer(panorama.name, shrunk(rgb_picture(panorama.image), SHOWN), geometry, colours, script)
    return (
        f'<iframe title="Look around in {html.escape(panorama.name)}" sandbox="allow-scripts" '
        f'style="width:100%;height:{_HEIGHT};border:0;border-radius:8px" srcdoc="{html.escape(inside)}"></iframe>'
    )


def inside(panorama: Panorama, geometry: Geometry, colours: ColourMap) -> str:
    """The frame in which one stands inside the room."""
    return frame(panorama, geometry, colours, "inside.js")


def pair(panorama: Panorama, geometry: Geometry, folder: Path, colours: ColourMap, mark: str) -> tuple[str, str]:
    """The two pictures of the slider."""
    distance, mask = geometry.distance[0].cpu().numpy(), geometry.mask[0].cpu().numpy()
    shown = shrunk(colour_distance(distance, distance_scale(distance, mask, colours)), SHOWN)
    image = shrunk(rgb_picture(panorama.image), shown.shape[1])
    left, right = folder / "shown" / "panorama.jpg", folder / "shown" / f"distance-{mark}.png"
    images.write_jpeg(left, image)
    images.write_png(right, shown)
    return str(left), str(right)


def pictures(result: Result) -> str:
    """The main pictures with what they show; the address is relative, so that it holds behind any proxy."""
    by_name = {path.name: path for path in result.files}
    figures = [
        f'<figure><img loading="lazy" alt="" src="gradio_api/file={quote(str(by_name[name]))}">'
        f"<figcaption>{caption}</figcaption></figure>"
        for name, caption in _PICTURES.items()
        if name in by_name
    ]
    return f"<div class='pictures'>{''.join(figures)}</div>"


def table(result: Result) -> str:
    """The quality report for people."""
    q, unit = result.quality, " m" if result.geometry.metric else ""
    rows: dict[str, Any] = {
        "Computed in": f"{result.seconds:.1f} s",
        "Can be trusted": f"{100 * q['trusted']:.1f} % of the sphere",
        "Sky": f"{100 * q['sky']:.1f} % of the sphere",
        "Unit": "metres" if unit else "none: distances are right up to one factor",
    }
    if q["distance"]:
        near, middle, far = (q["distance"][k] for k in ("p5", "median", "p95"))
        rows["Distances"] = f"mostly {near:.3g}{unit} to {far:.3g}{unit}, median {middle:.3g}{unit}"
    if q["spread"]:
        rows["Disagreement of the views"] = f"{100 * q['spread']['median']:.2f} % (median)"
    if q["seam_score"] is not None:
        rows["Seam (1: cannot be seen)"] = f"{q['seam_score']:.2f}"
    if q["instances"] is not None:
        rows["Things told apart"] = str(q["instances"])
    lines = "".join(f"<tr><th scope='row'>{k}</th><td>{html.escape(v)}</td></tr>" for k, v in rows.items())
    notes = [*q["advice"], *result.panorama.about.get("notes", ())]
    advice = "".join(f"<li>{html.escape(str(note))}</li>" for note in notes)
    return f"<table class='facts'>{lines}</table>" + (f"<ul>{advice}</ul>" if advice else "")


def words(text: str, kind: str = "plain") -> str:
    """A line of the page; what it says may hold names that visitors gave."""
    role = "alert" if kind == "bad" else "status"
    return f"<p class='said {kind}' role='{role}'>{html.escape(text)}</p>"
