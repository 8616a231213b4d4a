"""The small networks of the package on worlds of styles that no training saw, and on pictures of one's own.

python -m benchmarks.bundled                                        the table of docs/bundled.md
python -m benchmarks.bundled --pack RUN/checkpoints/last.ckpt NAME  weights of a run as float16 into the package
python -m benchmarks.bundled --sheet OUT.jpg --pictures FOLDER      every panorama of a folder and its distance
"""

import argparse
import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import measure
from immersivedepth.config import build, compose
from immersivedepth.data.images import write_jpeg
from immersivedepth.data.rendered_views import KEPT_OUT
from immersivedepth.data.synthetic import erp_maps, make_world, standing_places
from immersivedepth.files import write_bytes
from immersivedepth.geometry import sphere
from immersivedepth.metrics.protocol import Protocol
from immersivedepth.pipeline import assemble
from immersivedepth.scene import Geometry, Panorama
from immersivedepth.visual import colours, grids
from immersivedepth.weights import read
from immersivedepth.weights.finding import BUNDLED

NETWORKS = ("bundled_dav2", "bundled_midas")
GOALS = {"room": 0.08, "outdoor": 0.12}
LIMITS = {"room": 10.0, "outdoor": 80.0}  # metres: as benchmarks of real rooms and streets are cut off
DELTA, GAIN = 0.93, 3.0
# The rows of the table: who looks, who brings the views onto one scale, and whether the whole is mended then.
ROWS: dict[str, tuple[str, ...]] = {
    "dav2 alone": ("predict=[bundled_dav2]",),
    "midas alone": ("predict=[bundled_midas]",),
    "both": ("predict=[bundled_dav2,bundled_midas]",),
    "both, grid_affine": ("predict=[bundled_dav2,bundled_midas]", "align=grid_affine"),
    "both, not aligned": ("predict=[bundled_dav2,bundled_midas]", "align=identity"),
    "views of dav2 alone": ("predict=[bundled_dav2]", "refine=[normals]"),
    "views of midas alone": ("predict=[bundled_midas]", "refine=[normals]"),
    "views of both": ("predict=[bundled_dav2,bundled_midas]", "refine=[normals]"),
    "views of both, not aligned": ("predict=[bundled_dav2,bundled_midas]", "refine=[normals]", "align=identity"),
}


def worlds(kind: str, count: int, height: int) -> Iterator[Panorama]:
    """Panoramas of kept-out styles, with their exact distance in `about`."""
    for number in range(count):
        style = KEPT_OUT[kind][number % len(KEPT_OUT[kind])]
        world = make_world(kind, 7000 + number, style)
        if world.free:
            world = world.at(standing_places(world, number, 1)[0])
        maps = erp_maps(world, height, 2 * height)
        assert maps.image is not None
        yield Panorama(maps.image, f"{kind} {number}, {style}", about={"distance": maps.distance[0]})


@lru_cache
def protocol(name: str = "sphere_affine") -> Protocol:
    """The plain figures of a protocol; as it stands, one scale and shift of the disparity for the whole sphere."""
    found: Protocol = build(compose("config", [f"protocol={name}"])["protocol"], "protocol")
    return replace(found, normals=False, seam=False)


def judged(geometry: Geometry, truth: Tensor, rule: Protocol, limit: float) -> dict[str, float]:
    """AbsRel, delta1 and the middle relative error of all pixels where the truth is no sky; AbsRel and delta1 of
    truth up to the limit, with results cut off there; AbsRel after a mere factor of what is taken for no sky; shares of
    the sky that is found and of the rest that is taken for it.
    """
    valid = truth.isfinite()
    distance = geometry.distance[0]
    verdict = rule.judge(distance, truth, valid, metric=geometry.metric)
    near = replace(rule, most=limit, clip=(0.0, limit)).judge(distance, truth, valid, metric=geometry.metric)
    relative = ((verdict.compared - truth).abs() / truth)[valid & verdict.compared.isfinite()]
    area = sphere.solid_angles(*truth.shape).double().expand(truth.shape)
    up = distance.isinf()
    return {
        **{name: verdict.figures[name] for name in ("abs_rel", "delta1")},
        "median": float(relative.median()),
        "near_abs_rel": near.figures["abs_rel"],
        "near_delta1": near.figures["delta1"],
        "scaled": protocol("sphere").judge(distance, truth, valid, metric=geometry.metric).figures["abs_rel"],
        "sky": float((area * (up & ~valid)).sum() / (area * ~valid).sum()) if not valid.all() else 1.0,
        "false_sky": float((area * (up & valid)).sum() / (area * valid).sum()),
    }


def tabulate(count: int, height: int, more: list[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean figures of every row for both kinds of worlds."""
    rule, found = protocol(), {}
    lines = {name: assemble(compose("config", [*row, "export=[]", *more])) for name, row in ROWS.items()}
    for kind in GOALS:
        sums: dict[str, list[dict[str, float]]] = {name: [] for name in ROWS}
        for panorama in worlds(kind, count, height):
            for name, pipeline in lines.items():
                begun = time.monotonic()
                with torch.inference_mode():
                    geometry = pipeline(panorama)
                figures = judged(geometry, panorama.about["distance"], rule, LIMITS[kind])
                sums[name].append({**figures, "seconds": time.monotonic() - begun})
        found[kind] = {
            name: {key: float(np.mean([f[key] for f in rows])) for key in rows[0]} for name, rows in sums.items()
        }
    return found


def report(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """The table and the goals."""
    keys = ("abs_rel", "median", "delta1", "near_abs_rel", "near_delta1", "scaled", "sky", "false_sky", "seconds")
    header = ["", *(f"{kind} {key}" for kind in found for key in keys)]
    rows = [[name, *(f"{found[kind][name][key]:.3f}" for kind in found for key in keys)] for name in ROWS]
    lines = [measure.table(header, rows), ""]
    for kind, goal in GOALS.items():
        of = found[kind]
        both = of["both"]
        alone = min(of["dav2 alone"]["abs_rel"], of["midas alone"]["abs_rel"])
        lines += [
            "- " + measure.goal_line(f"{kind} AbsRel", both["abs_rel"], goal, False, "both, global_affine"),
            "- " + measure.goal_line(f"{kind} delta1", both["delta1"], DELTA, True, "both, global_affine"),
            "- "
            + measure.goal_line(f"{kind} against the better one alone", both["abs_rel"] / alone, 1, False, "ratio"),
            "- "
            + measure.goal_line(
                f"{kind} gain of aligning", of["both, not aligned"]["abs_rel"] / both["abs_rel"], GAIN, True, "ratio"
            ),
        ]
    return "\n".join(lines)


def evened(weights: Tensor, bits: int = 8) -> Tensor:
    """Every row of a matrix or of filters on an even grid of so many bits; packages then compress to little more than
    half; docs/bundled.md says what it costs.
    """
    rows = weights.flatten(1)
    largest = rows.abs().amax(1, keepdim=True).clamp_min(2.0**-14)
    step = torch.exp2(torch.ceil(torch.log2(largest / 2 ** (bits - 1))))
    return ((rows / step).round() * step).view_as(weights)


def pack(checkpoint: Path, name: str) -> tuple[Path, int, str]:
    """The weights of a run as float16; gives the file, its bytes and its SHA-256 for the registry."""
    from safetensors.torch import save

    halves = {}
    for key, value in read(checkpoint).items():
        if value.is_floating_point():
            value = (evened(value.float()) if value.ndim in (2, 4) else value).half()
        halves[key] = value.contiguous()
    data = save(halves)
    BUNDLED.mkdir(parents=True, exist_ok=True)
    path = write_bytes(BUNDLED / f"{name}.safetensors", data)
    return path, len(data), hashlib.sha256(data).hexdigest()


def sheet(folder: Path, out: Path, more: list[str]) -> None:
    """Picture, distance and normals of every panorama of a folder."""
    dataset = build(
        compose("config", [f"dataset.image_path={folder}", "dataset.image_resize=[1024,512]"])["dataset"], "dataset"
    )
    pipeline = assemble(compose("config", ["predict=[bundled_dav2,bundled_midas]", "export=[]", *more]))
    rows: dict[str, Any] = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".hdr", ".exr")):
        panorama = dataset.load(path)
        with torch.inference_mode():
            geometry = pipeline(panorama)
        distance = geometry.distance[0].numpy()
        scale = colours.distance_scale(distance, geometry.mask[0].numpy())
        assert geometry.normal is not None
        shown = [
            grids.rgb_picture(panorama.image),
            colours.colour_distance(distance, scale),
            colours.colour_normal(geometry.normal.movedim(0, -1).numpy()),
        ]
        rows[path.stem] = [grids.shrunk(p, 320) for p in shown]
    write_jpeg(out, grids.grid(rows, ["picture", "distance", "normals"], side=320), quality=82)


def main() -> None:
    """Run what the command line asks for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=8, help="panoramas of each kind")
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--pack", nargs=2, metavar=("CHECKPOINT", "NAME"))
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument(
        "--with", nargs="*", default=["project.resolution=256"], dest="more", help="overrides of the pipeline"
    )
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.pack:
        path, size, digest = pack(Path(given.pack[0]), given.pack[1])
        print(f"{path}\nsize {size}\nsha256 {digest}")
        return
    if given.sheet:
        sheet(given.pictures, given.sheet, given.more)
        return
    found = tabulate(given.count, given.height, given.more)
    print(f"# The networks of the package on {given.count} rooms and {given.count} outdoor scenes of kept-out styles\n")
    print(f"{measure.machine()}\n")
    print(report(found))
    if given.json:
        measure.write_json(given.json, "bundled", found)


if __name__ == "__main__":
    main()
