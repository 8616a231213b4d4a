"""One page with all of a result on it, and a viewer to look around in. Everything is inside: it needs no network."""

from __future__ import annotations

import html
import json
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch

from ...checks import Range
from ...files import write_text
from ...geometry import sphere
from ...scene import Geometry, Panorama
from ...visual.colours import (
    ColourMap,
    Picture,
    colour_distance,
    colour_labels,
    colour_mask,
    colour_normal,
    distance_scale,
)
from ...visual.embedding import data_url
from ...visual.grids import rgb_picture, shrunk
from ...visual.lettering import colour_bar, overlay
from .contact_sheet import ContactSheet
from .labels import table
from .quality import assess

_READOUT = 512  # rows of the distances that the viewer reads
_SKY = 65535
_CONFIG = "config.yaml"
_PLACES = ("base_exp_dir:", "exp_name:")
_BAR = 36  # pixels
# Nothing may be fetched, from anywhere: the page says so to the browser.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass
class Report:
    """report.html: image, distance, normals, masks, instances, views, quality, config."""

    max_width: Annotated[int, Range(256, 8192)] = 2048

    def __call__(self, geometry: Geometry, panorama: Panorama, folder: Path) -> list[Path]:
        """Write the page."""
        quality = assess(geometry)
        layers, unit = self._layers(geometry, panorama), " m" if geometry.metric else ""
        codes, about = distance_codes(geometry)
        pictures = {name: data_url(picture, "jpeg" if name == "image" else "png") for name, picture in layers.items()}
        scene = {"pictures": pictures, "codes": data_url(codes), "about": {**about, "unit": unit}}
        scale = distance_scale(geometry.distance[0].cpu().numpy(), geometry.mask[0].cpu().numpy())
        captions = {
            "distance": f"Distance from {scale.low:.3g}{unit} (red) to {scale.high:.3g}{unit} (blue); "
            "black: unknown, white: sky",
            "normals": "Normals: x forward, y left, z up as red, green, blue",
            "trusted": "White where the distance can be trusted",
            "instances": "Things told apart",
        }
        bar = data_url(colour_bar(min(self.max_width, panorama.size[1]), _BAR, scale, unit))
        figures = [
            f'<figure><img alt="{name}" src="{pictures[name]}">'
            + (f'<img alt="colours" src="{bar}">' if name == "distance" else "")
            + f"<figcaption>{html.escape(captions[name])}</figcaption></figure>"
            for name in layers
            if name in captions
        ]
        sections = [
            ("Result", "".join(figures)),
            ("Quality", _quality(quality)),
            ("Instances", _instances(geometry)),
            ("Views", _views(geometry, panorama)),
            ("Stages", _folded("what the stages report", json.dumps(quality["stages"], indent=1, default=str))),
            ("Config", _config(folder)),
        ]
        body = "".join(f"<h2>{title}</h2>{content}" for title, content in sections if content)
        return [write_text(folder / "report.html", page(panorama.name, body, scene))]

    def _layers(self, geometry: Geometry, panorama: Panorama) -> dict[str, Picture]:
        image = rgb_picture(panorama.image)
        distance = geometry.distance[0].cpu().numpy()
        mask = geometry.mask[0].cpu().numpy()
        layers = {"image": image, "distance": colour_distance(distance, distance_scale(distance, mask))}
        if geometry.normal is not None:
            layers["normals"] = colour_normal(geometry.normal.permute(1, 2, 0).cpu().numpy())
        layers["trusted"] = colour_mask(mask)
        if geometry.instances is not None:
            labels = geometry.instances.labels[0].cpu().numpy()
            plain = not geometry.instances.classes
            layers["instances"] = colour_labels(labels) if plain else overlay(image, labels, alpha=0.6)
        return {name: shrunk(picture, self.max_width) for name, picture in layers.items()}


def distance_codes(geometry: Geometry) -> tuple[Picture, dict[str, float]]:
    """Log distance in the 16 bits of red and green, trust in blue, and how to read it."""
    height = min(geometry.distance.shape[-2], _READOUT)
    small = sphere.resize_erp(geometry.distance, height, 2 * height, "nearest")[0].cpu().double()
    mask = sphere.resize_erp(geometry.mask, height, 2 * height, "nearest")[0].cpu()
    good = small.isfinite() & (small > 0)
    near, far = (float(small[good].min()), float(small[good].max())) if good.any() else (1.0, 1.0)
    step = max(math.log(far / near), 1e-6) / (_SKY - 2)
    codes = torch.where(good, ((small.clamp_min(near) / near).log() / step).round().clamp(0, _SKY - 2) + 1, 0)
    bits = torch.where(small.isinf(), _SKY, codes).long().numpy()
    picture = np.stack([bits >> 8, bits & 255, mask.numpy() * 255], axis=-1).astype(np.uint8)
    return picture, {"nearest": near, "step": step}


def viewer(
    name: str, image: Picture, geometry: Geometry | None = None, colours: ColourMap = "turbo", script: str = "viewer.js"
) -> str:
    """A page with nothing but the picture to look around in, and the distance if there is one."""
    scene: dict[str, Any] = {"pictures": {"image": data_url(image, "jpeg")}}
    if geometry is not None:
        distance, mask = geometry.distance[0].cpu().numpy(), geometry.mask[0].cpu().numpy()
        shown = colour_distance(distance, distance_scale(distance, mask, colours))
        scene["pictures"]["distance"] = data_url(shrunk(shown, image.shape[1]), "jpeg")
        codes, about = distance_codes(geometry)
        scene |= {"codes": data_url(codes), "about": {**about, "unit": " m" if geometry.metric else ""}}
    return page(name, "", scene, "embedded", script)


def page(name: str, body: str, scene: dict[str, Any], kind: str = "report", script: str = "viewer.js") -> str:
    """A page around a viewer; an embedded one has no margin and no heading."""
    assets = resources.files("immersivedepth") / "assets"
    style, code = ((assets / file).read_text("utf-8") for file in ("report.css", script))
    embedded = json.dumps(scene).replace("<", "\\u003c")  # no name can end the script
    title = html.escape(name)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body class="{kind}">
<h1>{title}</h1>
<div id="layers"></div>
<div id="stage"><canvas id="view" tabindex="0" role="application"
aria-label="Panorama: arrow keys turn, plus and minus zoom"></canvas>
<div id="readout">move the pointer over the picture</div></div>
<p class="faint">Drag or arrow keys: look around. Wheel, + and -: zoom.</p>
{body}
<script type="application/json" id="scene">{embedded}</script>
<script>{code}</script>
</body>
</html>
"""


def _rows(pairs: dict[str, Any]) -> str:
    lines = (f"<tr><th>{html.escape(str(k))}</th><td>{html.escape(str(v))}</td></tr>" for k, v in pairs.items())
    return f"<table>{''.join(lines)}</table>"


def _quality(quality: dict[str, Any]) -> str:
    percent = {k: f"{100 * quality[k]:.1f} % of the sphere" for k in ("trusted", "known", "sky")}
    shown: dict[str, Any] = {"unit": quality["unit"], **percent}
    for key in ("distance", "spread"):
        if quality[key]:
            shown[key] = ", ".join(f"{name} {value:.4g}" for name, value in quality[key].items())
    shown["seam score (1: invisible)"] = quality["seam_score"]
    shown["unevenness of the poles"] = quality["pole_scores"]
    advice = "".join(f"<li>{html.escape(line)}</li>" for line in quality["advice"])
    return _rows(shown) + (f"<ul>{advice}</ul>" if advice else "")


def _instances(geometry: Geometry) -> str:
    if geometry.instances is None or not geometry.instances.classes:
        return ""
    rows = sorted(table(geometry.instances), key=lambda row: -float(row["share_of_sphere"]))
    head = "".join(f"<th>{html.escape(key)}</th>" for key in rows[0])
    lines = ("".join(f"<td>{html.escape(str(value))}</td>" for value in row.values()) for row in rows)
    return (
        f"<details><summary>{len(rows)} things</summary><table><tr>{head}</tr>"
        + "".join(f"<tr>{line}</tr>" for line in lines)
        + "</table></details>"
    )


def _views(geometry: Geometry, panorama: Panorama) -> str:
    if geometry.aligned is None:
        return ""
    sheet = ContactSheet(side=128).sheet(geometry, geometry.aligned, panorama)
    caption = "Each view with its median difference to the result; red: the view sees farther, blue: nearer"
    return (
        f'<figure><div class="scroll"><img alt="views" src="{data_url(sheet, "jpeg")}"></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _config(folder: Path) -> str:
    path = folder.parent / _CONFIG
    if not path.is_file():
        return ""
    # Where it was written is no part of the result, so that the same run gives the same page anywhere.
    lines = (line for line in path.read_text("utf-8").splitlines() if not line.strip().startswith(_PLACES))
    return _folded(_CONFIG, "\n".join(lines))


def _folded(summary: str, text: str) -> str:
    return f"<details><summary>{summary}</summary><pre>{html.escape(text)}</pre></details>"
