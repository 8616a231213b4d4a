"""The indoor U-Net against predictors that do not look: on pictures of rooms that were held out.

    python -m benchmarks.indoor --root DATA --weights best.ckpt [--size 64] [--head linear]
        [--picture FILE] [--curve FILE] [--json FILE]

DATA is DIODE, or a miniature made with mode=make_data data.kind=diode. Baselines, all of the training pictures: the
mean depth, the median depth, and the mean depth of each pixel. Figures are over measured pixels, in metres, at the
network's size.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.courses import course
from immersivedepth.data.diode import Diode, Pictures
from immersivedepth.data.images import write_jpeg, write_png
from immersivedepth.metrics import depth as metrics
from immersivedepth.systems.unet_diode import UNetDiode, jet
from immersivedepth.visual.grids import grid

GOAL = 0.5  # of the mean predictor's relative error
BATCH, COLUMNS = 32, 6
NAMES = ("abs_rel", "mae", "rmse", "rmse_log", "delta1")


def read(pictures: Pictures) -> dict[str, Tensor]:
    """All samples at once."""
    samples = [pictures.sample(i, np.random.default_rng(0)) for i in range(len(pictures))]
    return {key: torch.stack([s[key] for s in samples]) for key in samples[0]}


def constants(depth: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """What one may say without looking."""
    values = depth[valid]
    count = valid.sum(0).clamp_min(1)
    pixels = torch.where(valid, depth, 0.0).sum(0) / count
    pixels = torch.where(valid.any(0), pixels, values.mean())
    return {"mean depth": values.mean(), "median depth": values.median(), "mean of each pixel": pixels}


def figures(found: Tensor, true: Tensor, valid: Tensor) -> list[float]:
    """The usual ones."""
    shares = metrics.standard(found.expand_as(true), true, valid)
    means = metrics.rooted({name: float(total / count) for name, (total, count) in shares.items()})
    return [means[name] for name in NAMES]


def main() -> None:
    """Print the table and draw the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--head", choices=["tanh", "linear"], default="linear")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--curve", type=Path, help="a chart of the run that the weights lie in")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    data, system = Diode(given.root, size=given.size), UNetDiode(head=given.head)
    train, test = data.samples("train"), data.samples("test")
    if train is None or test is None:
        parser.error(f"{given.root} holds no pictures below train/indoors or val/indoors")
    net = system.net()
    system.read_weights(net, given.weights)
    net.eval()
    seen, held_out = read(train), read(test)
    with torch.inference_mode():
        parts = [net(held_out["image"][i : i + BATCH]) for i in range(0, len(test), BATCH)]
    logarithm = torch.cat(parts)
    true, valid = held_out["depth"], held_out["valid"]
    guesses = {**constants(seen["depth"], seen["valid"]), "U-Net": logarithm.exp()}
    table = {name: figures(guess, true, valid) for name, guess in guesses.items()}
    rooms = len({scan.picture.parent for scan in test.scans})
    print(f"# Indoor depth on {len(test)} pictures of {rooms} held-out rooms, {len(train)} for training\n")
    print(f"{measure.machine()}\n")
    print(measure.table(["method", *NAMES], [[name, *row] for name, row in table.items()]))
    ratio = table["U-Net"][0] / table["mean depth"][0]
    print("-", measure.goal_line("abs_rel against the mean depth", ratio, GOAL, False, "U-Net"))
    if given.picture:
        chosen = np.linspace(0, len(test) - 1, COLUMNS).astype(int).tolist()
        measured = torch.where(valid, true, torch.nan)[chosen]
        top = torch.where(valid, true, 0.0)[chosen].amax((-3, -2, -1), keepdim=True)
        rows: dict[str, Any] = {
            "picture": held_out["image"][chosen],
            "true depth": jet(measured / top),
            "U-Net": jet(logarithm[chosen].exp() / top),
        }
        pictures = {n: [(p * 255).round().byte().movedim(0, -1).numpy() for p in v] for n, v in rows.items()}
        write_jpeg(given.picture, grid(pictures, side=128), quality=90)
    if given.curve:
        levels = {"mean depth": table["mean depth"][0], "half of it": table["mean depth"][0] / 2}
        write_png(given.curve, course(given.weights, {"U-Net": "abs_rel"}, "relative error, held-out rooms", levels))
    if given.json:
        measure.write_json(given.json, "indoor", {n: dict(zip(NAMES, row, strict=True)) for n, row in table.items()})


if __name__ == "__main__":
    main()
