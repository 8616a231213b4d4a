"""Aligning and blending spoiled views of known scenes, against restated rivals: errors, seams, time, memory.

python -m benchmarks.fusion                       everything (about ten minutes on one core)
python -m benchmarks.fusion --quick               one scene, a subset of the rows: a check for CI
python -m benchmarks.fusion --peer module:merge   also merge(Prediction, (height, width)) -> distance [H, W]
"""

import argparse
import importlib
import itertools
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import fusion_baselines, fusion_data, fusion_metrics, measure
from immersivedepth.data.images import write_jpeg, write_png
from immersivedepth.geometry import sphere
from immersivedepth.scene import Prediction, Rig
from immersivedepth.stages.align.global_affine import GlobalAffine
from immersivedepth.stages.align.grid_affine import GridAffine
from immersivedepth.stages.align.identity import Identity
from immersivedepth.stages.blend.feather import Feather
from immersivedepth.stages.blend.poisson import Poisson
from immersivedepth.stages.blend.robust import Robust
from immersivedepth.visual import lettering
from immersivedepth.visual.colours import colour_difference

Size = tuple[int, int]
Merge = Callable[[Prediction, Size], Tensor]

ALIGN = {"global": GlobalAffine(), "grid": GridAffine()}
BLEND = {"feather": Feather(), "robust": Robust(), "poisson": Poisson()}
CHOSEN = "grid+poisson"  # the pair that the figures of merit are taken of, fixed for every row


def ours(align: str, blend: str) -> Merge:
    """One of our aligners with one of our blenders."""
    return lambda prediction, size: BLEND[blend](ALIGN[align](prediction), size).distance[0]


def methods(names: Iterable[str], peers: dict[str, Merge]) -> dict[str, Merge]:
    """Our pairs by name, the restated rivals, and any peers."""
    chosen = {name: ours(*name.split("+")) for name in names}
    rivals: dict[str, Merge] = {"naive": fusion_baselines.naive_chain, "lsmr": fusion_baselines.log_gradients}
    return chosen | rivals | peers


def mean_ratio(values: Iterable[float]) -> float:
    """Geometric mean."""
    logs = [math.log(v) for v in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


# ---- three families of bending, three scenes, levels 0 to 3 ----------------------------------------------------------


def families(
    quick: bool, peers: dict[str, Merge], size: Size, seeds: Iterable[int]
) -> dict[str, dict[str, dict[str, float]]]:
    """Errors of every method in every cell, a cell being "scene/seed family level mode"."""
    scenes = ["room"] if quick else list(fusion_data.SCENES)
    bends = ["dct", "grf"] if quick else list(fusion_data.FAMILIES)
    pairs = [CHOSEN] if quick else ["global+feather", "grid+feather", "grid+robust", "grid+poisson"]
    crossing, _ = fusion_metrics.borders(size, fusion_data.faces())
    out: dict[str, dict[str, dict[str, float]]] = {}
    levels = (0, 2) if quick else range(4)
    for seed, scene, family, level, mode in itertools.product(seeds, scenes, bends, levels, ("dist", "disp")):
        if level == 0 and family != "dct":
            continue  # without bending the families are one
        prediction = fusion_data.make(scene, family, level, mode, seed)
        truth = fusion_data.truth(scene, seed)(sphere.erp_rays(*size))
        out[f"{scene}/{seed} {family} {level} {mode}"] = {
            name: fusion_metrics.errors(merge(prediction, size), truth, crossing)
            for name, merge in methods(pairs, peers).items()
        }
    return out


def family_table(cells: dict[str, dict[str, dict[str, float]]]) -> str:
    """Mean errors by level and mode."""
    names = list(next(iter(cells.values())))
    header = ["method"] + [f"{m} L{level}" for m in ("dist S", "disp A", "disp S") for level in range(4)]
    header += ["seam ratio L2 dist", "d05 L3 dist / disp"]
    rows = []
    for name in names:

        def mean(mode: str, level: int, key: str, name: str = name) -> float:
            found = [c[name][key] for k, c in cells.items() if k.split()[2:] == [str(level), mode]]
            return sum(found) / len(found) if found else math.nan

        row: list[object] = [name]
        for mode, key in (("dist", "S"), ("disp", "A"), ("disp", "S")):
            row += [f"{100 * mean(mode, level, key):.2f}" for level in range(4)]
        row += [f"{mean('dist', 2, 'seam_ratio'):.2f}"]
        row += [f"{mean('dist', 3, 'd05'):.2f} / {mean('disp', 3, 'd05'):.2f}"]
        rows.append(row)
    return measure.table(header, rows)


def merit(cells: dict[str, dict[str, dict[str, float]]]) -> dict[str, float]:
    """Figures M0 to M3 of the chosen pair."""
    spoiled = {k: c for k, c in cells.items() if k.split()[2] != "0"}

    def ratios(mode: str, key: str, to: str) -> list[float]:
        return [c[CHOSEN][key] / c[to][key] for k, c in spoiled.items() if k.endswith(mode)]

    def mean(level: str, mode: str, key: str, name: str = CHOSEN) -> float:
        found = [c[name][key] for k, c in cells.items() if k.split()[2:] == [level, mode]]
        return sum(found) / len(found) if found else math.nan

    out = {
        "M0 dist": max(c[CHOSEN]["S_flat"] for k, c in cells.items() if k.endswith("0 dist")),
        "M0 disp": max(c[CHOSEN]["S_flat"] for k, c in cells.items() if k.endswith("0 disp")),
    }
    for mode, key in (("dist", "S"), ("disp", "A")):
        out[f"M1 {mode}"] = mean_ratio(ratios(mode, key, "lsmr"))
        out[f"M1 {mode} worst"] = max(ratios(mode, key, "lsmr"))
        out[f"M2 {mode}"] = mean_ratio(ratios(mode, key, "naive"))
        out[f"M3 d05 gain {mode}"] = mean("3", mode, "d05") - mean("3", mode, "d05", "lsmr")
        out[f"M3 seam ratio L2 {mode}"] = mean("2", mode, "seam_ratio")
        out[f"M3 seam ratio L3 {mode}"] = mean("3", mode, "seam_ratio")
    return out


GOALS = {  # bound, and whether more is better
    "M0 dist": (2e-4, False),
    "M0 disp": (5e-4, False),
    "M1 dist": (0.80, False),
    "M1 dist worst": (1.15, False),
    "M1 disp": (0.72, False),
    "M1 disp worst": (1.15, False),
    "M2 dist": (0.65, False),
    "M2 disp": (0.52, False),
    "M3 d05 gain dist": (0.15, True),
    "M3 d05 gain disp": (0.15, True),
    "M3 seam ratio L2 dist": (1.10, False),
    "M3 seam ratio L2 disp": (1.10, False),
    "M3 seam ratio L3 dist": (1.35, False),
    "M3 seam ratio L3 disp": (1.35, False),
}


# ---- single faults, 12 and 20 views ---------------------------------------------------------------------------------

Level = fusion_data.Level
FAULTS: dict[str, tuple[Level, str]] = {
    "exact": (Level(0, 0, 0, 0, 0, 0), "dist"),
    "scale": (Level(0.3, 0, 0, 0, 0, 0), "dist"),
    "affine": (Level(0.3, 0.3, 0, 0, 0, 0), "disp"),
    "affine + 3 % + 1 %": (Level(0.3, 0.3, 0.03, 0, 0.01, 0), "disp"),
    "affine + 8 % + 2 %": (Level(0.3, 0.3, 0.08, 0, 0.02, 0), "disp"),
    "scale + 8 %": (Level(0.3, 0, 0.08, 0, 0, 0), "dist"),
    "outlier view": (Level(0, 0, 0, 0, 0, 0), "dist"),
    "sky": (Level(0.3, 0.3, 0, 0, 0, 0), "disp"),
    "textureless wall": (Level(0.3, 0.3, 0, 0, 0.003, 0), "disp"),
    "wrong edges": (Level(0.3, 0.3, 0, 4, 0.003, 0), "disp"),
    "outdoors, affine": (Level(0.3, 0.3, 0, 0, 0, 0), "disp"),
    "outdoors, affine + 3 % + 1 %": (Level(0.3, 0.3, 0.03, 0, 0.01, 0), "disp"),
    "outdoors, scale + 8 %": (Level(0.3, 0, 0.08, 0, 0, 0), "dist"),
}
FAULT_GOALS = {
    ("exact", 12): 1e-3,
    ("exact", 20): 1e-3,
    ("scale", 12): 1e-3,
    ("scale", 20): 1e-3,
    ("affine", 12): 1e-3,
    ("affine", 20): 1e-3,
    ("affine + 3 % + 1 %", 12): 0.020,
    ("affine + 3 % + 1 %", 20): 0.020,
    ("scale + 8 %", 20): 0.026,
    ("outlier view", 20): 0.005,
    ("outlier view", 12): 0.024,
}


def layout(views: int) -> tuple[str, float]:
    """Twelve views of 90 degrees along the corners, or twenty of 100 degrees along the faces."""
    return ("corners", 1.0) if views == 12 else ("faces", math.tan(math.radians(50)))


def scene_of(name: str) -> str:
    """The scene that a fault is shown in."""
    return fusion_data.OUTDOORS if name.startswith(fusion_data.OUTDOORS) else "room"


def fault(name: str, views: int, seed: int) -> tuple[Prediction, Callable[[Tensor], Tensor]]:
    """Views with one kind of fault, and which directions count [..., 3] -> bool."""
    level, mode = FAULTS[name]
    kind, tan = layout(views)
    prediction = fusion_data.make(scene_of(name), "dct", level, mode, seed, kind, 512, tan)
    rays = fusion_data.rays_of(prediction.rig)
    count: Callable[[Tensor], Tensor] = lambda r: torch.ones(r.shape[:-1], dtype=torch.bool)  # noqa: E731
    if name == "outlier view":
        t = (torch.arange(512) + 0.5) / 256 - 1
        blob = 1 + 0.8 * torch.exp(-((t - 0.2) ** 2 + (t[:, None] + 0.1) ** 2) / (2 * 0.35**2))
        values = prediction.values.clone()
        values[3, 0] *= blob
        prediction = replace(prediction, values=values)
    elif name == "sky":  # the ceiling is open: the network says nothing of use there, the segmentation is right
        count = lambda r: r[..., 2] < 0.5 * r.norm(dim=-1)  # noqa: E731
        sky = ~count(rays)[:, None]
        low = prediction.values.amin((1, 2, 3), keepdim=True)
        prediction = replace(prediction, values=torch.where(sky, low, prediction.values), sky=sky)
    elif name == "textureless wall":  # flat in disparity, and the network knows that it does not know
        wall = (rays[..., 0] > 0.8 * rays.norm(dim=-1))[:, None]
        middle = prediction.values.flatten(1).median(1).values[:, None, None, None]
        confidence = torch.where(wall, 0.02, 1.0)
        prediction = replace(prediction, values=torch.where(wall, middle, prediction.values), confidence=confidence)
        count = lambda r: r[..., 0] < 0.8 * r.norm(dim=-1)  # noqa: E731
    return prediction, count


def faults(
    quick: bool, peers: dict[str, Merge], size: Size, seeds: Iterable[int]
) -> dict[str, dict[str, dict[str, float]]]:
    """AbsRel and pole spread of every method under each fault, the mean over seeds."""
    pairs = ["global+feather", "global+robust", "grid+robust", "grid+poisson"]
    rays = sphere.erp_rays(*size)
    area = sphere.solid_angles(*size).double().expand(size)
    out: dict[str, dict[str, dict[str, float]]] = {}
    for name, views in itertools.product(list(FAULTS)[:4] if quick else FAULTS, (12, 20)):
        rows: dict[str, list[dict[str, float]]] = {}
        for seed in seeds:
            prediction, count = fault(name, views, seed)
            truth = fusion_data.truth(scene_of(name), seed)(rays)
            counted = count(rays) & truth.isfinite()
            truth = torch.where(counted, truth, 1.0)
            for method, merge in methods(pairs, {} if quick else peers).items():
                if quick and method == "lsmr":
                    continue
                start = time.process_time()
                found = merge(prediction, size).double()
                seconds = time.process_time() - start
                seen = counted & found.isfinite() & (found > 0)
                found = torch.where(seen, found, truth)  # what is sky or unseen is not judged here
                scale = fusion_metrics.median((truth / found)[seen], area[seen])
                off, weight = (scale * found / truth)[seen], area[seen] / area[seen].sum()
                square = ((scale * found - truth)[seen].square() * weight).sum()
                log = (scale * found / truth).log()
                figures = {
                    "AbsRel": (weight * (off - 1).abs()).sum(),
                    "RMSE": square.sqrt(),
                    "delta1": (weight * (torch.maximum(off, 1 / off) < 1.25)).sum(),
                    "pole": torch.stack([log[row].std() for row in (0, -1)]).max(),
                    "wrap": (log[:, 0] - log[:, -1]).abs().median(),
                    "CPU s": torch.tensor(seconds),
                }
                rows.setdefault(method, []).append({k: float(v) for k, v in figures.items()})
        out[f"{name} / {views}"] = {m: {k: sum(r[k] for r in v) / len(v) for k in v[0]} for m, v in rows.items()}
    return out


def fault_table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """AbsRel by method; the goal where there is one."""
    names = list(next(iter(rows.values())))
    body = []
    for key, found in rows.items():
        name, views = key.rsplit(" / ", 1)
        goal = FAULT_GOALS.get((name, int(views)))
        body.append([key, *(f"{found[n]['AbsRel']:.4f}" for n in names), f"{goal:g}" if goal else ""])
    return measure.table(["fault / views", *names, "goal"], body)


def method_table(rows: dict[str, dict[str, dict[str, float]]], height: int) -> str:
    """Every figure of each method, the mean over all faults, and the memory that one merge adds at that height."""
    names, figures = list(next(iter(rows.values()))), list(next(iter(next(iter(rows.values())).values())))
    body = []
    for n in names:
        memory = measure.peak_memory("benchmarks.fusion:warm", height, n) if ":" not in n else None
        added = f"{memory.added:.0f}" if memory else ""
        body.append([n, *(f"{sum(r[n][f] for r in rows.values()) / len(rows):.4f}" for f in figures), added])
    return measure.table(["method", *figures, f"MB at {2 * height}x{height}"], body)


def warm(height: int, method: str) -> Callable[[], object]:
    """One warm merge of twenty views by a method of the tables, for its memory."""
    names = [method] if "+" in method else []
    call = methods(names, {})[method]
    prediction = fusion_data.make("room", "dct", 2, "disp", 0)
    if "+" in method:
        call(prediction, (height, 2 * height))
    return lambda: call(prediction, (height, 2 * height))


# ---- end to end -----------------------------------------------------------------------------------------------------


def end_to_end(height: int = 1024, side: int = 392) -> dict[str, Any]:
    """Twenty views through the small Depth Anything V2 and merged: one by one in float32 and by LSMR, against ours.

    The networks have stand-in weights, which cost what real ones cost; the merges are fed made disparities.
    """
    from benchmarks.networks import Running, plain_loop, runner
    from depth_anything_v2 import DepthAnythingV2

    net = DepthAnythingV2("vits").eval()
    views = torch.rand(20, 3, 384, 384, generator=torch.Generator().manual_seed(0))
    prediction = fusion_data.make("room", "dct", 2, "disp", 0)
    plain, fast = plain_loop(net, side), runner(net, side, Running("cpu", "bf16", "torch", False, 4))
    merge = {name: ours(*name.split("+")) for name in ("global+feather", CHOSEN)}

    def theirs() -> None:
        plain(views)
        fusion_baselines.log_gradients(prediction, (height, 2 * height))

    cases: dict[str, Callable[[], object]] = {"plain loop, LSMR": theirs}
    for name, call in merge.items():
        cases[f"ours, {name}"] = lambda call=call: (fast(views), call(prediction, (height, 2 * height)))
    found = measure.interleaved(cases, rounds=3, seconds=200)
    print(measure.timing_table(found, f"ours, {CHOSEN}"))
    ratio = found["plain loop, LSMR"].wall / found[f"ours, {CHOSEN}"].wall
    print("-", measure.goal_line("E1", ratio, 30, True, CHOSEN))
    return {"E1": ratio, **{name: vars(value) for name, value in found.items()}}


# ---- invariance, time and memory ------------------------------------------------------------------------------------


def invariance() -> dict[str, float]:
    """Largest relative change of the aligned views under what must not matter."""
    prediction = fusion_data.make("room", "grf", 2, "disp", 0, resolution=256)
    align = GridAffine()
    base = align(prediction).distance
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64))[0]
    turn = (turn * torch.linalg.det(turn)).float()
    rig = prediction.rig
    turned = replace(prediction, rig=Rig(turn @ rig.rotation, rig.tan_half_fov, rig.resolution))
    order = torch.randperm(len(rig), generator=torch.Generator().manual_seed(6))
    shuffled = replace(
        prediction,
        values=prediction.values[order],
        rig=Rig(rig.rotation[order], rig.tan_half_fov[order], rig.resolution),
    )
    values = prediction.values.clone()
    values[4] = 1000 * values[4]
    values[7] = values[7] + 3 * values[7].median()

    def change(other: Tensor) -> float:
        return float((other / base).log().abs().max())

    back = torch.empty_like(base)
    back[order] = align(shuffled).distance
    return {
        "view order": change(back),
        "rotation": change(align(turned).distance),
        "one view scaled by 1000, one shifted": change(align(replace(prediction, values=values)).distance),
    }


def merging(height: int, align: str, blend: str) -> Callable[[], object]:
    """Warm merge of twenty views, for timing and memory."""
    prediction = fusion_data.make("room", "dct", 2, "disp", 0)
    call = ours(align, blend)
    call(prediction, (height, 2 * height))
    return lambda: call(prediction, (height, 2 * height))


def cold_merging(height: int, align: str, blend: str) -> Callable[[], object]:
    """The same with nothing remembered."""
    prediction = fusion_data.make("room", "dct", 2, "disp", 0)
    return lambda: ours(align, blend)(prediction, (height, 2 * height))


def timings(quick: bool, large: bool) -> dict[str, Any]:
    """Wall and CPU time, interleaved with the machine unit; memory in processes of their own."""
    out: dict[str, Any] = {}
    for height in (512,) if quick else (512, 1024):
        cases: dict[str, Callable[[], object]] = {"unit": measure.unit_call()}
        cases |= {f"{a}+{b}": merging(height, a, b) for a in ALIGN for b in BLEND}
        prediction = fusion_data.make("room", "dct", 2, "disp", 0)
        if not quick:
            cases["lsmr"] = lambda p=prediction, h=height: fusion_baselines.log_gradients(p, (h, 2 * h))
        found = measure.interleaved(cases, rounds=2 if quick else 7, seconds=40)
        out[f"{2 * height}x{height}"] = found
        print(f"\n### Merge, warm, {2 * height}x{height}\n")
        print(measure.timing_table(found, CHOSEN, found["unit"].wall))
    if not quick:
        for blend in BLEND:
            memory = measure.peak_memory("benchmarks.fusion:merging", 1024, "grid", blend)
            cold = measure.peak_memory("benchmarks.fusion:cold_merging", 1024, "grid", blend)
            out[f"memory grid+{blend}"] = {"merge MB": memory.added, "set-up and merge MB": cold.added}
            print(f"grid+{blend} at 2048x1024: merge {memory.added:.0f} MB, with set-up {cold.added:.0f} MB")
    if large:
        for blend in BLEND:
            memory = measure.peak_memory("benchmarks.fusion:cold_merging", 4096, "grid", blend)
            start = time.perf_counter()
            cold_merging(4096, "grid", blend)()
            seconds = time.perf_counter() - start
            out[f"8192x4096 grid+{blend}"] = {"seconds": seconds, "peak MB": memory.peak / measure.MEGABYTE}
            print(f"grid+{blend} at 8192x4096: {seconds:.1f} s, peak {memory.peak / measure.MEGABYTE:.0f} MB in all")
    return out


def failures(path: Path) -> None:
    """A sheet of errors in log distance: what alignment and bending bring, and where they fail."""
    size, limit = (256, 512), 0.15
    rays = sphere.erp_rays(*size)

    def error(prediction: Prediction, align: str, blend: str, scene: str) -> Any:
        found = ours(align, blend)(prediction, size).double() if align in ALIGN else left_alone(prediction, size)
        true = fusion_data.truth(scene, 0)(rays)
        log = (found / true).log()
        good = log.isfinite()
        log = torch.where(good, log - log[good].median(), 0.0)
        return colour_difference(log.numpy(), limit, good.numpy())

    def left_alone(prediction: Prediction, size: Size) -> Tensor:
        return BLEND["feather"](Identity()(prediction), size).distance[0].double()

    hall = fusion_data.make("hall", "dct", 2, "disp", 0)
    outlier = {views: fault("outlier view", views, 0)[0] for views in (12, 20)}
    bent = fusion_data.make("room", "mix", 3, "dist", 0)
    outdoors = fault("outdoors, affine + 3 % + 1 %", 20, 0)[0]
    edges = fault("wrong edges", 20, 0)[0]
    sheets = [
        ("hall 2: alone", hall, "none", "feather", "hall"),
        ("global, feather", hall, "global", "feather", "hall"),
        ("grid, feather", hall, "grid", "feather", "hall"),
        ("outlier of 12: global", outlier[12], "global", "feather", "room"),
        ("grid, robust", outlier[12], "grid", "robust", "room"),
        ("outlier of 20", outlier[20], "grid", "robust", "room"),
        ("room 3: global", bent, "global", "feather", "room"),
        ("grid, poisson", bent, "grid", "poisson", "room"),
        ("wrong edges", edges, "grid", "poisson", "room"),
        ("outdoors: alone", outdoors, "none", "feather", fusion_data.OUTDOORS),
        ("global, feather", outdoors, "global", "feather", fusion_data.OUTDOORS),
        ("grid, poisson", outdoors, "grid", "poisson", fusion_data.OUTDOORS),
    ]
    pictures = [labelled(error(*sheet), name) for name, *sheet in sheets]
    rows = [np.concatenate(pictures[i : i + 3], axis=1) for i in range(0, len(pictures), 3)]
    write = write_jpeg if path.suffix == ".jpg" else write_png
    write(path, np.concatenate(rows))


def labelled(picture: Any, text: str) -> Any:
    """A picture with a line of text above it."""
    line = np.full((24, picture.shape[1], 3), lettering.PAPER, np.uint8)
    lettering.write(line, text, (6, 17))
    return np.concatenate([line, picture])


PARTS = ["families", "faults", "invariance", "timings", "end_to_end"]


def main() -> None:
    """Print all tables and figures of merit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a subset, for CI")
    parser.add_argument("--large", action="store_true", help="also time 8192x4096")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the scenes of the families")
    parser.add_argument("--picture", type=Path, help="only draw where fusion fails, to this file")
    parser.add_argument("--peer", action="append", default=[], metavar="MODULE:FUNCTION", help="an outside merger")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    peers = {name: getattr(importlib.import_module(name.split(":")[0]), name.split(":")[1]) for name in options.peer}
    if options.picture:
        failures(options.picture)
        return
    wanted = [options.only] if options.only else PARTS
    size = (256, 512)
    settings = {**{k: repr(v) for k, v in ALIGN.items()}, **{k: repr(v) for k, v in BLEND.items()}}
    results: dict[str, Any] = {"settings": settings}
    print(f"# Fusion of twenty views at {size[1]}x{size[0]}\n\n{measure.machine()}\n\n{settings}")
    if "families" in wanted:
        cells = families(options.quick, peers, size, options.seeds)
        results["families"], results["merit"] = cells, merit(cells)
        print("\n### Bent, noisy, blurred views: mean AbsRel in %\n\n" + family_table(cells) + "\n")
        for name, value in results["merit"].items():
            print("-", measure.goal_line(name, value, *GOALS[name], what=CHOSEN))
    if "faults" in wanted:
        results["faults"] = faults(options.quick, peers, size, (0,) if options.quick else (0, 1, 2))
        print("\n### Single faults: AbsRel\n\n" + fault_table(results["faults"]))
        print("\n### All of them: means\n\n" + method_table(results["faults"], 256 if options.quick else 512))
    if "invariance" in wanted:
        results["invariance"] = invariance()
        print("\n### What must not matter: largest relative change\n")
        for (name, value), bound in zip(results["invariance"].items(), (1e-6, 1e-3, 1e-3), strict=True):
            print("-", measure.goal_line(name, value, bound, False, "grid_affine"))
    if "timings" in wanted:
        results["timings"] = timings(options.quick, options.large)
    if "end_to_end" in wanted and not options.quick:
        print("\n### From views to a panorama of 2048x1024\n")
        results["end_to_end"] = end_to_end()
    if options.json:
        measure.write_json(options.json, "fusion", results)


if __name__ == "__main__":
    main()
