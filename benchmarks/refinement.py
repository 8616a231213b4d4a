"""By how much each refinement lowers the error of noisy synthetic panoramas, and what it costs; then instances and sky.

    python -m benchmarks.refinement [--rows 256] [--field] [--json results.json]

Distances are spoiled in three ways: `noise` (3 % white), `smooth noise` (3 %, correlated over two pixels), `soft edges`
(inverse distance blurred by two pixels, 0.5 % noise). Predicted normals are the true ones with 5 degrees of noise.
Errors are mean relative errors in percent, by area, after one common factor: over all, and within three pixels of depth
edges.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from immersivedepth.config import build, compose
from immersivedepth.data.synthetic import erp_maps, make_world, render_erp
from immersivedepth.geometry import filters, sphere
from immersivedepth.pipeline import assemble
from immersivedepth.scene import Geometry, Panorama, unit_image
from immersivedepth.stages.refine.guided import Guided
from immersivedepth.stages.refine.normal_integration import NormalIntegration
from immersivedepth.stages.refine.planes import Planes
from immersivedepth.stages.refine.sphere_field import SphereField
from immersivedepth.stages.segment.convex_parts import ConvexParts
from immersivedepth.stages.segment.sky import find_sky

from .measure import once, table, write_json

WORLDS = (("room", 3), ("interior", 1), ("outdoor", 2))
EDGE = 1.1  # ratio of neighbouring distances within three pixels


@dataclass
class Scene:
    """A world with everything known."""

    name: str
    panorama: Panorama
    distance: Tensor
    normal: Tensor
    instance: Tensor
    edges: Tensor


def scene(kind: str, seed: int, rows: int) -> Scene:
    maps = erp_maps(make_world(kind, seed), rows, 2 * rows)
    log = sphere.pad_erp(maps.distance.clamp(1e-6, 1e6).log(), 3)[None]
    edges = (F.max_pool2d(log, 7, 1) + F.max_pool2d(-log, 7, 1))[0] > math.log(EDGE)
    image = unit_image(maps.image)
    return Scene(f"{kind} {seed}", Panorama(image), maps.distance, maps.normal, maps.instance, edges)


def error(found: Tensor, true: Tensor, where: Tensor) -> float:
    good = true.isfinite() & found.isfinite() & (found > 0) & where
    area = sphere.solid_angles(*true.shape[-2:]).expand(true.shape[-2:])[None][good]
    ratio = (found / true)[good]
    ratio = ratio / ratio.median()
    return 100 * float(((ratio - 1).abs() * area).sum() / area.sum())


def spoiled(distance: Tensor, how: str, seed: int = 0) -> Tensor:
    noise = torch.randn(distance.shape, generator=torch.Generator().manual_seed(seed))
    known, pixel = distance.isfinite(), math.pi / distance.shape[-2]
    if how == "smooth noise":
        noise = filters.blur(noise, 2 * pixel)
        noise = noise / noise.std()
    if how == "soft edges":
        inverse = filters.known_blur(torch.where(known, 1 / distance, 0.0), known, 2 * pixel)
        return torch.where(known, (0.005 * noise).exp() / inverse.clamp_min(1e-9), torch.inf)
    return torch.where(known, distance * (0.03 * noise).exp(), torch.inf)


def seen_normals(normal: Tensor, degrees: float = 5.0) -> Tensor:
    noise = torch.randn(normal.shape, generator=torch.Generator().manual_seed(1))
    return F.normalize(normal + math.radians(degrees) / math.sqrt(2) * noise, dim=0) * (normal.abs().sum(0) > 0)


def timed(call: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    kept: list[Any] = []
    seconds, _ = once(lambda: kept.append(call(*arguments)))
    return kept[0], seconds


def stages(field: bool) -> dict[str, Callable[[Geometry, Panorama], Geometry]]:
    original = build(compose("config", ["experiment=seed_original"])["refine"])["picture_filters"]
    guided, planes = Guided(), Planes()
    cases: dict[str, Any] = {
        "normal_integration": NormalIntegration(),
        "guided": guided,
        "guided, sharpen": Guided(sharpen=True),
        "planes": planes,
        "guided, then planes": lambda g, p: planes(guided(g, p), p),
        "picture_filters (original)": original,
    }
    if field:
        cases["sphere_field"] = SphereField()
    return cases


def refinement(rows: int, field: bool) -> list[list[object]]:
    lines: list[list[object]] = []
    for kind, seed in WORLDS:
        s = scene(kind, seed, rows)
        for how in ("noise", "smooth noise", "soft edges"):
            distance = spoiled(s.distance, how)
            given = Geometry(distance, distance.isfinite(), normal=seen_normals(s.normal))
            everywhere = torch.ones_like(s.edges)
            before = error(distance, s.distance, everywhere), error(distance, s.distance, s.edges)
            lines.append([s.name, how, "before", *before, "", ""])
            for name, stage in stages(field).items():
                found, seconds = timed(stage, given, s.panorama)
                after_all, after_edges = (error(found.distance, s.distance, w) for w in (everywhere, s.edges))
                lines.append([s.name, how, name, after_all, after_edges, before[0] / after_all, seconds])
    return lines


def detail(rows: int) -> list[list[object]]:
    """Wide views too coarse for the panorama, and the second look."""
    lines: list[list[object]] = []
    oracle = ["project.resolution=96", "predict.oracle.bend=0.05", "predict.oracle.noise=0.005"]
    for kind, seed in WORLDS:
        panorama = render_erp(make_world(kind, seed), 2 * rows, 4 * rows)
        s = scene(kind, seed, 2 * rows)
        first = assemble(compose("config", [*oracle, "refine=[none]"]))(panorama)
        stage = assemble(compose("config", [*oracle, "refine=[detail]"])).refine["detail"]
        second, seconds = timed(stage, first, panorama)
        everywhere = torch.ones_like(s.edges)
        before, after = ([error(g.distance, s.distance, w) for w in (everywhere, s.edges)] for g in (first, second))
        lines.append([s.name, *before, *after, seconds])
    return lines


def things(rows: int) -> list[list[object]]:
    """Mean best IoU of the things that cover more than 0.2 % of the sphere, and IoU of the guessed sky."""
    lines: list[list[object]] = []
    area = sphere.solid_angles(rows, 2 * rows).expand(rows, 2 * rows)

    def overlap(a: Tensor, b: Tensor) -> float:
        return float(area[a & b].sum() / area[a | b].sum().clamp_min(1e-9))

    for kind, seed in WORLDS:
        s = scene(kind, seed, rows)
        sky = ~s.distance.isfinite()
        for noise in (0.0, 0.01, 0.03):
            generator = torch.Generator().manual_seed(0)
            distance = s.distance * (noise * torch.randn(s.distance.shape, generator=generator)).exp()
            given = Geometry(torch.where(sky, torch.inf, distance), ~sky)
            labels, seconds = timed(ConvexParts().labels, given, s.panorama)
            scores = []
            for thing in s.instance.unique().tolist():
                true = s.instance[0] == thing
                if thing and area[true].sum() > 0.002 * 4 * math.pi:
                    scores.append(max(overlap(labels[0] == n, true) for n in labels[0][true].unique().tolist()))
            far = distance[~sky].quantile(0.995) if rows <= 256 else distance[~sky].max()
            seen = torch.where(sky, 1.5 * far, distance)
            found = find_sky(Geometry(seen, torch.ones_like(sky)), s.panorama)
            mean = sum(scores) / len(scores)
            half = sum(score > 0.5 for score in scores) / len(scores)
            sky_score: object = overlap(found[0], sky[0]) if sky.any() else "none"
            lines.append([s.name, noise, len(scores), mean, half, seconds, sky_score])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--field", action="store_true", help="also the sphere field, minutes on a CPU")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = {
        "refinement": refinement(arguments.rows, arguments.field),
        "detail": detail(arguments.rows),
        "instances": things(arguments.rows),
    }
    heads = {
        "refinement": ["world", "spoiled by", "stage", "error %", "at edges %", "times less", "seconds"],
        "detail": ["world", "first %", "at edges %", "second %", "at edges %", "seconds"],
        "instances": ["world", "noise", "things", "mean IoU", "above 0.5", "seconds", "sky IoU"],
    }
    for name, lines in results.items():
        print(f"\n{name}\n\n{table(heads[name], lines)}")
    if arguments.json:
        write_json(arguments.json, "refinement", results)


if __name__ == "__main__":
    main()
