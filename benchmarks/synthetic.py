"""How fast synthetic worlds are traced, and how the shipped sample is made.

    python -m benchmarks.synthetic [--rounds N] [--threads N] [--device cuda] [--json FILE]
    python -m benchmarks.synthetic --sample immersivedepth/assets/room.png

A panorama of 1024x512 with all its maps, and one with distance alone; 256x256 views of many worlds in one batch.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import torch

from benchmarks import measure
from immersivedepth import files
from immersivedepth.data.synthetic import World, erp_maps, load_world, make_world, render_batch, render_erp, trace_batch
from immersivedepth.geometry.pinhole import look_along
from immersivedepth.geometry.sphere import erp_rays

SAMPLE_HEIGHT, SAMPLE_SUPERSAMPLE = 1024, 4


def smallish(seed: int) -> World:
    """The furnished room with the number of solids nearest to forty, of some seeds."""
    worlds = [make_world("room", s) for s in range(seed, seed + 300)]
    return min(worlds, key=lambda w: abs(sum(w.tables.counts) - 40))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=0, help="views at once; default 4 on a CPU, 64 on a GPU")
    parser.add_argument("--sample", type=Path, help="render this panorama again from the recipe beside it")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.sample:
        return make_sample(given.sample)
    device = torch.device(given.device)
    batch = given.batch or (4 if device.type == "cpu" else 64)
    rays = erp_rays(512, 1024, device)
    cases: dict[str, Callable[[], object]] = {}
    picks = {
        "small room": smallish(0),
        "b1_hall": make_world("b1_hall"),
        "room": make_world("room"),
        "outdoor": make_world("outdoor"),
    }
    for name, world in picks.items():
        there = world.to(device)
        label = f"{name} ({sum(world.tables.counts)} solids, {world.tables.lights.shape[1]} lights)"
        cases[f"{label}: 1024x512, distance, normal, instance"] = lambda w=there: done(w.trace(rays), device)  # type: ignore[misc]
        cases[f"{label}: 1024x512, colour and all maps"] = lambda w=there: done(erp_maps(w, 512, 1024), device)  # type: ignore[misc]
    worlds = [make_world(("room", "interior", "outdoor")[i % 3], i).to(device) for i in range(batch)]
    generator = torch.Generator().manual_seed(0)
    turn = look_along(torch.randn(batch, 3, generator=generator) * torch.tensor([1.0, 1.0, 0.3]))
    views = torch.full((batch,), 0.8)
    square = torch.randn(batch, 256, 256, 3, generator=generator).to(device)
    cases[f"{batch} views of 256x256, one world each, colour and all maps"] = lambda: done(
        render_batch(worlds, turn, views, 256), device
    )
    cases[f"{batch} x 65536 scattered rays, one world each"] = lambda: done(trace_batch(worlds, square), device)
    cases["build one room"] = lambda: make_world("room", 5)
    cases["build one outdoor scene"] = lambda: make_world("outdoor", 5)
    found = measure.interleaved(cases, rounds=given.rounds)
    for name, timing in found.items():
        rate = f", {batch / timing.wall:.1f} views/s" if "views" in name else ""
        print(f"{timing.wall * 1e3:9.1f} ms wall {timing.cpu * 1e3:9.1f} ms cpu  {name}{rate}")
    if given.json:
        table: dict[str, Any] = {name: {"wall": t.wall, "cpu": t.cpu, "rounds": t.rounds} for name, t in found.items()}
        files.write_text(given.json, json.dumps(table, indent=2))
    return None


def done(result: object, device: torch.device) -> object:
    """The result, once the device has it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return result


def make_sample(path: Path) -> None:
    """Picture and truth of the sample: `<stem>.world.json` is read, and written again in full."""
    recipe = path.with_name(f"{path.stem}.world.json")
    world = load_world(json.loads(recipe.read_text()))
    picture = render_erp(world, SAMPLE_HEIGHT, 2 * SAMPLE_HEIGHT, SAMPLE_SUPERSAMPLE)
    pixels = (picture.image * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).flip(-1).contiguous().numpy()
    good, data = cv2.imencode(path.suffix, pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not good:
        raise RuntimeError(f"{path}: cannot be encoded. Choose a name that ends in .png.")
    files.write_bytes(path, data.tobytes())
    files.write_text(recipe, json.dumps(world.recipe, indent=2) + "\n")


if __name__ == "__main__":
    main()
