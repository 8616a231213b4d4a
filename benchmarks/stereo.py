"""360 stereo against what it must beat: the mean map of the training data, and classical block matching.

    python -m benchmarks.stereo --root DATA --weights best.ckpt [--max-disparity 64] [--picture FILE] [--json FILE]

DATA is 3D60, or a miniature made with mode=make_data data.kind=3d60. All are judged on the test pairs, on the same
pixels: those with measured depth whose angle to the baseline has a sine above 0.1, weighted by area.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks import measure
from immersivedepth.data.images import write_jpeg
from immersivedepth.data.three_d60 import MEAN, STD, Pairs, ThreeD60
from immersivedepth.geometry import stereo
from immersivedepth.metrics import depth as metrics
from immersivedepth.systems.stereo_3d60 import Stereo3D60
from immersivedepth.visual.colours import colour_distance, distance_scale
from immersivedepth.visual.grids import grid

FARTHEST = 20.0  # metres; block matching without parallax would say infinity
BLIND = 0.1
WRAP = 16  # rows that block matching sees beyond the ends, since they wrap
Batch = dict[str, Tensor]


def mean_map(pairs: Pairs) -> Tensor:
    """Mean distance of every pixel over the training pairs, where it was measured."""
    total, count = torch.zeros(1), torch.zeros(1)
    for index in range(len(pairs)):
        sample = pairs.sample(index, np.random.default_rng(0))
        total = total + torch.where(sample["valid"], sample["distance"], 0.0)
        count = count + sample["valid"]
    return total / count.clamp_min(1)


def block_matching(batch: Batch, disparities: int) -> Tensor:
    """Semi-global matching on the Cassini pair; what it rejects is filled along the row from the farther neighbour."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    both = [((batch[k][0] * std + mean).clamp(0, 1) * 255).byte().movedim(0, -1).numpy() for k in ("left", "right")]
    both = [np.pad(p, ((WRAP, WRAP), (0, 0), (0, 0)), mode="wrap") for p in both]
    # Columns at the left edge have nothing to match there: a margin of black keeps the range of disparities.
    both = [np.pad(p, ((0, 0), (disparities, 0), (0, 0)), mode="edge") for p in both]
    size = 5
    matcher = cv2.StereoSGBM.create(
        minDisparity=0,
        numDisparities=disparities,
        blockSize=size,
        P1=8 * 3 * size**2,
        P2=32 * 3 * size**2,
        disp12MaxDiff=1,
        uniquenessRatio=5,
        speckleWindowSize=100,
        speckleRange=2,
        mode=cv2.STEREO_SGBM_MODE_HH,
    )
    found = matcher.compute(*both).astype(np.float32)[WRAP:-WRAP, disparities:] / 16
    return torch.from_numpy(filled(found, found > 0))[None, None]


def filled(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Each gap of a row with the smaller of the two disparities beside it: gaps are mostly background."""
    out = values.copy()
    for row, ok in zip(out, known, strict=True):
        places = np.flatnonzero(ok)
        if not len(places):
            row[:] = 1.0
            continue
        gaps = np.flatnonzero(~ok)
        after = np.searchsorted(places, gaps)
        left = row[places[np.clip(after - 1, 0, len(places) - 1)]]
        right = row[places[np.clip(after, 0, len(places) - 1)]]
        row[gaps] = np.minimum(left, right)
    return out


def judge(found: Tensor, batch: Batch) -> dict[str, metrics.Share]:
    """The usual figures on the pixels that count."""
    sight = batch["theta"].sin()
    return metrics.standard(found.clamp(max=FARTHEST), batch["distance"], batch["valid"] & (sight > BLIND), sight)


def main() -> None:
    """Print the table and draw the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--kind", default="stackhourglass")
    parser.add_argument("--max-disparity", type=int, default=64)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    data = ThreeD60(given.root)
    train, test = data.samples("train"), data.samples("test")
    if train is None or test is None:
        parser.error(f"{given.root}: its lists name no training or no test pairs")
    system = Stereo3D60(kind=given.kind, max_disparity=given.max_disparity)
    net = system.net()
    system.read_weights(net, given.weights)
    net.eval()
    average = mean_map(ThreeD60(given.root, roll=False).samples("train") or train)

    def distance(disparity: Tensor, batch: Batch) -> Tensor:
        return system.distance(disparity, batch)

    methods: dict[str, Callable[[Batch], Tensor]] = {
        "mean of training": lambda batch: average[None],
        "block matching": lambda batch: distance(block_matching(batch, given.max_disparity), batch),
        f"PSMNet {given.kind}": lambda batch: distance(system.forward(net, batch)[-1], batch),
    }
    sums: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    rows: dict[str, list[np.ndarray]] = {}
    for index in range(len(test)):
        batch = {k: v[None] for k, v in test.sample(index, np.random.default_rng(0)).items()}
        shown = {"truth": batch["distance"]}
        for name, method in methods.items():
            start = time.process_time()
            with torch.inference_mode():
                found = method(batch)
            seconds[name] += time.process_time() - start
            shown[name] = found
            for key, (total, count) in judge(found, batch).items():
                before = sums[name].get(key, (0.0, 0.0))
                sums[name][key] = (before[0] + float(total), before[1] + float(count))
        if index < 4:
            picture = batch["left"][0] * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
            upright = stereo.from_cassini(picture.clamp(0, 1), data.side)
            rows.setdefault("picture", []).append((upright * 255).byte().movedim(0, -1).numpy())
            scale = distance_scale(batch["distance"][0, 0].numpy(), batch["valid"][0, 0].numpy())
            for name, value in shown.items():
                flat = stereo.from_cassini(value[0].clamp(max=FARTHEST), data.side, "nearest")[0].numpy()
                rows.setdefault(name, []).append(colour_distance(flat, scale))
    means = {n: metrics.rooted({k: a / b for k, (a, b) in found.items()}) for n, found in sums.items()}
    keys = list(next(iter(means.values())))
    print(f"# 360 stereo on {len(test)} test pairs\n\n{measure.machine()}\n")
    header = ["method", *keys, "CPU s per pair"]
    print(measure.table(header, [[n, *(m[k] for k in keys), seconds[n] / len(test)] for n, m in means.items()]))
    names = list(methods)
    ours = means[names[2]]["mae"]
    print("-", measure.goal_line("MAE against the mean map", ours / means[names[0]]["mae"], 0.5, False, names[2]))
    print("-", measure.goal_line("MAE against block matching", ours / means[names[1]]["mae"], 1.0, False, names[2]))
    if given.picture:
        write_jpeg(given.picture, grid(rows, side=300), quality=88)
    if given.json:
        measure.write_json(given.json, "stereo", means)


if __name__ == "__main__":
    main()
