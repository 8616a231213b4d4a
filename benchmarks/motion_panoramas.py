"""Depth from motion between two panoramas: every view, by where it looks and how wide, against the best constant.

    python -m benchmarks.motion_panoramas --weights best.ckpt [--worlds 8] [--json FILE]

The worlds are made as for mode=make_data data.kind=stillbox, from numbers that no data set of up to a million films
reaches. The way between the panoramas is 0.3 m in a random direction. Errors are medians, relative to the true
distance.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import measure
from immersivedepth.data.images import write_png
from immersivedepth.data.making import MakeData
from immersivedepth.data.making.still_box import StillBox as Maker
from immersivedepth.data.synthetic import World, render_erp
from immersivedepth.files import sweep
from immersivedepth.geometry import directions, pinhole, warp
from immersivedepth.nets.depthnet import NOMINAL
from immersivedepth.scene import Rig, Views
from immersivedepth.stages.predict.motion import Motion

FIRST = 1_000_001  # number of the first world
ROWS = 512  # of the panoramas
SIDE = 64  # pixels of a view, as in training
ANGLES = (74.0, 90.0, 110.0)  # degrees of the views
CONES = ((0, 30), (30, 60), (60, 90))  # degrees between a ray and the motion, either way


def world_of(number: int) -> tuple[World, Tensor]:
    """A world with the camera at the start, and the way to the second panorama in world axes."""
    world, rotation, velocity = Maker(MakeData("stillbox", ".", size=SIDE)).way(number)
    way = rotation @ (velocity * torch.tensor([1.0, -1.0, 1.0]))
    return world, way / way.norm() * NOMINAL


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--worlds", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path("outputs/motion_panoramas"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    seen: dict[float, list[tuple[Tensor, Tensor, Tensor]]] = {angle: [] for angle in ANGLES}
    for number in range(given.worlds):
        world, way = world_of(FIRST + number)
        first = render_erp(world, ROWS, 2 * ROWS)
        second = render_erp(world.at(world.position + way, torch.eye(3)), ROWS, 2 * ROWS)
        before = write_png(given.folder / f"before_{number}.png", first.image)
        motion = Motion(str(before), tuple(way.tolist()), size=SIDE, weights=given.weights)
        for angle in ANGLES:
            tan = torch.full((6,), math.tan(math.radians(angle) / 2))
            rig = Rig(pinhole.look_along(directions.cube_faces()), tan, SIDE)
            found = motion(Views(warp.erp_to_views(second.image.float(), rig), rig)).values[:, 0]
            rays = torch.nn.functional.normalize(pinhole.view_rays(rig.rotation, tan, SIDE), dim=-1)
            assert second.truth is not None
            true = second.truth.trace(rays).distance
            off = torch.rad2deg((rays @ (way / way.norm())).abs().clamp(max=1).acos())
            seen[angle].append((found, true, off))
    sweep(given.folder)
    constant = torch.cat([true.flatten() for _, true, _ in seen[90.0]]).median()
    results: dict[str, Any] = {}
    for angle, rows in seen.items():
        found, true, off = (torch.stack(part) for part in zip(*rows, strict=True))
        error, blind = (found / true - 1).abs(), (constant / true - 1).abs()
        cells = {f"{a} to {b} deg": float(error[(off >= a) & (off < b)].median()) for a, b in CONES}
        scale = (found / true).flatten(1).median(1).values.median()
        results[f"{angle:g} deg"] = {
            "constant": float(blind.median()),
            "all": float(error.median()),
            **cells,
            "found / true": float(scale),
        }
    names = list(next(iter(results.values())))
    print(f"# Two panoramas of {given.worlds} worlds, views of {SIDE} pixels\n\n{measure.machine()}\n")
    print(measure.table(["view", *names], [[name, *row.values()] for name, row in results.items()]))
    if given.json:
        measure.write_json(given.json, "motion_panoramas", results)


if __name__ == "__main__":
    main()
