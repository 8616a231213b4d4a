"""Panorama to twenty views of 512x512 and back: time, memory and error against py360convert, equilib, cv2 and torch.

    python -m benchmarks.projection [--quick] [--json FILE]

Rivals run interleaved in one process; memory is taken in a fresh process for each. "cold" starts without any cached
map, "warm" has met the same sizes before. py360convert and pyequilib come with the extra `bench`.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import measure
from immersivedepth.geometry import backproject, footprint, icosahedron, pinhole, sphere, warp
from immersivedepth.scene import Rig

SIDE, FOV, MARGIN = 512, 90.0, 0.35
Call = Callable[[], Any]


@functools.cache
def rig() -> Rig:
    """Twenty views of 90 degrees, which both peers can make too."""
    rotation = pinhole.look_along(icosahedron.face_centres())
    return Rig(rotation, torch.full((20,), math.tan(math.radians(FOV / 2))), SIDE)


@functools.cache
def angles() -> list[tuple[float, float]]:
    """Yaw to the left and pitch upwards of every view, in radians."""
    r = rig().rotation.double()
    yaw, pitch = torch.atan2(r[:, 0, 0], -r[:, 1, 0]), torch.atan2(r[:, 2, 2], -r[:, 2, 1])
    return list(zip(yaw.tolist(), pitch.tolist(), strict=True))


def smooth(rays: Tensor) -> Tensor:  # [..., 3] -> [3, ...]
    """A colour for every unit ray, smooth enough that reading between pixels of 2048x1024 errs below 1e-5."""
    x, y, z = rays.unbind(-1)
    red = 0.5 + 0.2 * torch.sin(3 * x + 2 * y) + 0.1 * torch.cos(4 * z * x)
    return torch.stack([red, 0.5 + 0.3 * torch.sin(5 * y * z + x), 0.5 + 0.4 * torch.cos(3 * z + 2 * x)])


def plate(rays: Tensor) -> Tensor:  # [..., 3] -> [1, ...]
    """A zone plate around three axes: finer than the middle of the views can hold, not than 4096x2048 can."""
    axes = torch.tensor([[0.36, 0.48, 0.8], [-0.8, 0.6, 0.0], [0.6, 0.0, -0.8]])
    return (0.5 + torch.cos(1400 * (rays @ axes.T).square()).mean(-1) / 2)[None]


def panorama(height: int, kind: str) -> Tensor:  # [3, H, 2 H]
    """The smooth panorama in one of the two types."""
    image = smooth(sphere.erp_rays(height, 2 * height))
    return (image * 255).round().to(torch.uint8) if kind == "uint8" else image


# ---- outwards: one function for each rival, which makes the call to be timed -----------------------------------------


def plain_maps(height: int) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """What most programs do: numpy trigonometry for every pixel of every view; for an image padded by one pixel."""
    t = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE * 2 - 1
    right, down = np.meshgrid(t, t)
    rays = np.stack([right, down, np.ones_like(right)], axis=-1)
    maps = []
    for turn in rig().rotation.numpy():
        x, y, z = np.moveaxis(rays @ turn.T, -1, 0)
        u = (0.5 - np.arctan2(y, x) / (2 * np.pi)) * (2 * height) + 0.5
        v = (0.5 - np.arctan2(z, np.hypot(x, y)) / np.pi) * height + 0.5
        maps.append((u.astype(np.float32), v.astype(np.float32)))
    return maps


def out_ours(height: int, kind: str) -> Call:
    """Ours, without averaging of samples, as the others."""
    image = panorama(height, kind)
    warp.erp_to_views(image, rig(), antialias=False)
    return lambda: warp.erp_to_views(image, rig(), antialias=False)


def out_ours_cold(height: int, kind: str) -> Call:
    """The same with no map in the cache."""
    image = panorama(height, kind)

    def call() -> Tensor:
        warp._all_maps.clear()  # type: ignore[attr-defined]
        return warp.erp_to_views(image, rig(), antialias=False)

    return call


def out_cv2(height: int, kind: str, cold: bool = False) -> Call:
    """cv2.remap with maps of numpy: fixed-point for uint8, float for float32."""
    image = np.ascontiguousarray(sphere.pad_erp(panorama(height, kind), 1).permute(1, 2, 0).numpy())

    def made() -> list[Any]:
        maps = plain_maps(height)
        return [cv2.convertMaps(u, v, cv2.CV_16SC2) for u, v in maps] if kind == "uint8" else maps

    ready = None if cold else made()
    return lambda: np.stack([cv2.remap(image, u, v, cv2.INTER_LINEAR) for u, v in (ready or made())])


def out_cv2_cold(height: int, kind: str) -> Call:
    """The same, maps included."""
    return out_cv2(height, kind, cold=True)


def out_torch(height: int, kind: str) -> Call:
    """Torch: grid_sample with cached grids."""
    image = panorama(height, kind)
    rays = pinhole.view_rays(rig().rotation, rig().tan_half_fov, SIDE)
    uv = sphere.rays_to_erp(rays)
    size = torch.tensor([2 * height, height])
    grids = (uv * size + 1) / (size + 2) * 2 - 1

    def call() -> Tensor:
        padded = sphere.pad_erp(image, 1).float()[None]
        views = [F.grid_sample(padded, grid[None], align_corners=False)[0] for grid in grids]
        out = torch.stack(views)
        return out.round().to(torch.uint8) if kind == "uint8" else out

    return call


def out_py360convert(height: int, kind: str) -> Call:
    """py360convert.e2p for each view."""
    import py360convert

    image = np.ascontiguousarray(panorama(height, kind).permute(1, 2, 0).numpy())
    places = [(-math.degrees(yaw), math.degrees(pitch)) for yaw, pitch in angles()]
    return lambda: np.stack([py360convert.e2p(image, FOV, u, v, (SIDE, SIDE)) for u, v in places])


def out_equilib(height: int, kind: str) -> Call:
    """equilib.equi2pers with torch for each view, which it does faster than all in one batch."""
    import equilib

    image = panorama(height, kind)
    turns = [{"roll": 0.0, "pitch": -pitch, "yaw": yaw} for yaw, pitch in angles()]
    return lambda: torch.stack(
        [equilib.equi2pers(image, rots=turn, height=SIDE, width=SIDE, fov_x=FOV, mode="bilinear") for turn in turns]
    )


OUT = {
    "ours warm": out_ours,
    "cv2 warm": out_cv2,
    "torch warm": out_torch,
    "ours cold": out_ours_cold,
    "cv2 cold": out_cv2_cold,
    "py360convert": out_py360convert,
    "equilib": out_equilib,
}


# ---- back ---------------------------------------------------------------------------------------------------------


@functools.cache
def depths() -> Tensor:  # [20, 1, 512, 512]
    """Twenty smooth maps."""
    rays = pinhole.view_rays(rig().rotation, rig().tan_half_fov, SIDE)
    return smooth(F.normalize(rays, dim=-1))[:1].transpose(0, 1).contiguous()


def fade() -> Tensor:  # [512, 512]
    """The weights that the views have for every rival."""
    t = ((torch.arange(SIDE) + 0.5) / SIDE * 2 - 1).abs()
    return ((1 - torch.maximum(t[:, None], t)) / MARGIN).clamp(0, 1)


def back_ours(height: int) -> Call:
    """Ours, in the state that repeated use brings about."""
    maps = depths()
    call = functools.partial(backproject.views_to_erp, maps, rig(), height, 2 * height, MARGIN)
    for _ in range(backproject.MATRIX_PAYS + 1):
        call()
    return call


def back_ours_cold(height: int) -> Call:
    """The first call, which walks the footprints."""
    maps = depths()

    def call() -> Any:
        footprint._bands.cache_clear()
        return backproject._by_bands(maps, rig(), height, 2 * height, MARGIN, None)

    return call


def back_ours_building(height: int) -> Call:
    """The call that builds the matrix, if one of this size is built."""
    maps = depths()

    def call() -> Any:
        backproject._matrix.clear()  # type: ignore[attr-defined]
        return backproject.views_to_erp(maps, rig(), height, 2 * height, MARGIN)

    for _ in range(backproject.MATRIX_PAYS):
        call()
    return call


def full_maps(height: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each view, where every pixel of the panorama lies in it, and the weight it has there."""
    rays = sphere.erp_rays(height, 2 * height)
    maps = []
    for turn, tan in zip(rig().rotation, rig().tan_half_fov, strict=True):
        xy, seen = pinhole.project_rays(rays, turn, tan)
        weight = ((1 - xy.abs().amax(-1)) / MARGIN).clamp(0, 1) * seen
        u, v = ((xy.clamp(-2, 2) + 1) * (SIDE / 2) - 0.5).unbind(-1)
        maps.append((u.contiguous(), v.contiguous(), weight))
    return maps


def back_cv2(height: int) -> Call:
    """cv2.remap of every view onto the whole panorama, maps and weights cached."""
    maps, total = [], np.zeros((height, 2 * height), np.float32)
    for u, v, weight in full_maps(height):
        maps.append((u.numpy(), v.numpy(), weight.numpy()))
        total += weight.numpy()
    views = depths().numpy()[:, 0]

    def call() -> NDArray[np.float32]:
        mean = np.zeros_like(total)
        for view, (u, v, weight) in zip(views, maps, strict=True):
            mean += cv2.remap(view, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) * weight
        return mean / total

    return call


def back_torch(height: int) -> Call:
    """Torch: grid_sample of every view onto the whole panorama, grids and weights cached."""
    grids = [
        (torch.stack([(u + 0.5) / SIDE * 2 - 1, (v + 0.5) / SIDE * 2 - 1], dim=-1)[None], weight)
        for u, v, weight in full_maps(height)
    ]
    total = torch.stack([weight for _, weight in grids]).sum(0)
    views = depths()

    def call() -> Tensor:
        mean = torch.zeros_like(total)
        for view, (grid, weight) in zip(views, grids, strict=True):
            mean += F.grid_sample(view[None], grid, padding_mode="border", align_corners=False)[0, 0] * weight
        return mean / total

    return call


def back_equilib(height: int) -> Call:
    """equilib.pers2equi with torch of every view and its weights."""
    import equilib

    weight = fade()[None]
    pairs = torch.cat([depths() * weight, weight.expand_as(depths())], dim=1)
    turns = [{"roll": 0.0, "pitch": -pitch, "yaw": yaw} for yaw, pitch in angles()]

    def call() -> Tensor:
        total = torch.zeros(2, height, 2 * height)
        for pair, turn in zip(pairs, turns, strict=True):
            total += equilib.pers2equi(
                pair, rots=turn, height=height, width=2 * height, fov_x=FOV, mode="bilinear", clip_output=False
            )
        return total[0] / total[1].clamp_min(1e-6)

    return call


BACK = {
    "ours warm": back_ours,
    "ours cold": back_ours_cold,
    "ours, building": back_ours_building,
    "cv2 warm": back_cv2,
    "torch warm": back_torch,
    "equilib": back_equilib,
}


# ---- what is measured -----------------------------------------------------------------------------------------------


def _available(name: str) -> bool:
    return name not in ("py360convert", "equilib") or importlib.util.find_spec(name) is not None


def compare(title: str, makers: dict[str, Any], arguments: tuple[Any, ...], rounds: int) -> dict[str, Any]:
    """Times and memory of all rivals at one size."""
    cases = {name: make(*arguments) for name, make in makers.items() if _available(name)}
    # What clears a cache is timed apart, or it would clear its neighbour's.
    apart = {name: case for name, case in cases.items() if name in ("ours cold", "ours, building", "cv2 cold")}
    together = {name: case for name, case in cases.items() if name not in apart}
    timings = measure.interleaved({"U": measure.unit_call(), **together}, rounds, seconds=20)
    timings |= measure.interleaved(apart, rounds, seconds=20)
    rows, unit = [], timings["U"].wall
    memory = {}
    for name in cases:
        memory[name] = measure.peak_memory(f"benchmarks.projection:{makers[name].__name__}", *arguments).added
        t = timings[name]
        rows.append([name, t.wall * 1e3, t.cpu * 1e3, t.wall / timings["ours warm"].wall, t.wall / unit, memory[name]])
    print(f"\n### {title}\n")
    print(measure.table(["way", "wall ms", "cpu ms", "x ours warm", "U", "added MB"], rows), flush=True)
    return {"title": title, "timings": timings, "memory_mb": memory}


def errors() -> dict[str, float]:
    """P3: rms error of the views against the exact colour of each of their rays; and exactness on a constant."""
    rays = F.normalize(pinhole.view_rays(rig().rotation, rig().tan_half_fov, SIDE), dim=-1)
    truth = smooth(rays).transpose(0, 1)
    image = panorama(1024, "float32")
    found = {"ours float": out_ours(1024, "float32")()}
    found["ours uint8"] = out_ours(1024, "uint8")().float() / 255
    for name in ("py360convert", "equilib"):
        if _available(name):
            views = torch.as_tensor(OUT[name](1024, "float32")())
            found[name] = views.permute(0, 3, 1, 2) if views.shape[-1] == 3 else views
    result = {name: float((views - truth).square().mean().sqrt()) for name, views in found.items()}
    # The fixed-point maps alone, without the rounding of colours to bytes.
    padded = warp._interleaved(image)
    maps = warp._all_maps(*warp.rig_key(rig()), (1,) * 20, 1024, 2048, True)
    views = torch.stack([torch.from_numpy(cv2.remap(padded, x, y, cv2.INTER_LINEAR)).permute(2, 0, 1) for x, y in maps])
    result["ours fixed-point maps"] = float((views - truth).square().mean().sqrt())
    for kind, value in (("uint8", 200), ("float32", 1 / 3)):
        constant = torch.full((3, 1024, 2048), value, dtype=getattr(torch, kind))
        result[f"constant {kind}, largest change"] = float(
            (warp.erp_to_views(constant, rig(), antialias=False).double() - constant[0, 0, 0].double()).abs().max()
        )
    return result


def decimation(rounds: int) -> dict[str, float]:
    """P5: 4096x2048 to 512x512 views of a zone plate, against the average of 8x8 exact rays for each pixel."""
    image = plate(sphere.erp_rays(2048, 4096))
    fine = Rig(rig().rotation, rig().tan_half_fov, 8 * SIDE)
    views = {name: warp.erp_to_views(image, rig(), antialias=on) for name, on in (("plain", False), ("ours", True))}
    square = dict.fromkeys(views, 0.0)
    for v in range(20):
        rays = pinhole.view_rays(fine.rotation[v : v + 1], fine.tan_half_fov[v : v + 1], fine.resolution)[0]
        truth = F.avg_pool2d(plate(F.normalize(rays, dim=-1)), 8)
        for name, seen in views.items():
            square[name] += float((seen[v] - truth).square().mean()) / 20
    colour = panorama(2048, "uint8")
    timings = measure.interleaved(
        {
            name: functools.partial(warp.erp_to_views, colour, rig(), on)
            for name, on in (("plain", False), ("ours", True))
        },
        rounds,
    )
    return {
        "rms plain": math.sqrt(square["plain"]),
        "rms ours": math.sqrt(square["ours"]),
        "rms ratio": math.sqrt(square["ours"] / square["plain"]),
        "time ratio": timings["ours"].wall / timings["plain"].wall,
    }


def agreement(height: int) -> float:
    """P4: largest difference between the matrix and plain float bilinear reading."""
    ours, _ = back_ours(height)()
    return float((ours[0] - torch.as_tensor(back_torch(height)())).abs().max())


def main() -> None:
    """Print all tables and figures of merit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2048x1024 only, three rounds")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--threads", type=int, help="of torch and OpenCV; 1 makes CPU times comparable under load")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
        cv2.setNumThreads(options.threads)
    warnings.filterwarnings("ignore", category=UserWarning, module="equilib")
    rounds = 3 if options.quick else 9
    print(f"# Projection: twenty views of {SIDE}x{SIDE}, {FOV:g} degrees\n\n{measure.machine()}")
    results: dict[str, Any] = {}
    for height in (1024,) if options.quick else (1024, 2048):
        for kind in ("uint8", "float32"):
            title = f"{2 * height}x{height} {kind} to views"
            results[f"out {height} {kind}"] = compare(title, OUT, (height, kind), rounds)
            warp._all_maps.clear()  # type: ignore[attr-defined]
    for height in (1024,) if options.quick else (512, 1024, 2048):
        results[f"back {height}"] = compare(f"views to {2 * height}x{height} float32", BACK, (height,), rounds)
        backproject._matrix.clear()  # type: ignore[attr-defined]
    results["P3"], results["P5"] = errors(), decimation(rounds)
    results["P4 difference"] = agreement(1024)
    print("\n### Error of the views against the exact panorama\n")
    print(measure.table(["what", "value"], [[k, f"{v:.2g}"] for k, v in (results["P3"] | results["P5"]).items()]))
    print("\n### Figures of merit\n")
    for line in _figures(results):
        print("-", line)
    if options.json:
        measure.write_json(options.json, "projection", results)


def _figures(results: dict[str, Any]) -> list[str]:
    def ratio(of: str, to: str, key: str = "out 1024 uint8") -> float:
        timings = results[key]["timings"]
        return timings[of].wall / timings[to].wall if of in timings else math.nan

    peers = min(ratio("py360convert", "ours warm"), ratio("equilib", "ours warm"))
    best = min(ratio(name, "ours warm") for name in ("cv2 warm", "torch warm"))
    back = "back 1024"
    best_back = min(ratio(name, "ours warm", back) for name in ("cv2 warm", "torch warm"))
    error, plate_ = results["P3"], results["P5"]
    return [
        measure.goal_line("P1", ratio("cv2 cold", "ours cold"), 2.0, True, "cold, cv2 with maps of numpy / ours"),
        measure.goal_line("P2", ratio("cv2 warm", "ours warm"), 0.95, True, "warm, cv2.remap / ours"),
        measure.goal_line("P2", ratio("py360convert", "ours warm"), 20, True, "warm, py360convert / ours"),
        measure.goal_line("P2", ratio("equilib", "ours warm"), 8, True, "warm, equilib / ours"),
        measure.goal_line("out", peers, 8, True, "warm, faster peer / ours"),
        measure.goal_line("out", 1 / best, 1.2, False, "warm, ours / best plain way"),
        measure.goal_line("P3", error["ours float"], 1e-4, False, "rms error, float"),
        measure.goal_line("P3", error["ours fixed-point maps"], 3e-4, False, "rms error, fixed-point maps"),
        measure.goal_line("P3", error["constant uint8, largest change"], 0, False, "constant image, uint8"),
        measure.goal_line("P3", error["constant float32, largest change"], 0, False, "constant image, float32"),
        measure.goal_line("P4", ratio("cv2 warm", "ours warm", back), 3.5, True, "back warm, cv2 full maps / ours"),
        measure.goal_line("P4", results["P4 difference"], 1e-5, False, "largest difference to float bilinear"),
        measure.goal_line("back", ratio("equilib", "ours warm", back), 40, True, "back warm, equilib / ours"),
        measure.goal_line("back", 1 / best_back, 1.2, False, "back warm, ours / best plain way"),
        measure.goal_line("P5", plate_["rms ratio"], 0.5, False, "zone plate, rms with / without antialias"),
        measure.goal_line("P5", plate_["time ratio"], 4.5, False, "time with / without antialias"),
    ]


if __name__ == "__main__":
    main()
