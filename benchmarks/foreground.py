"""Foreground mask and depth against baselines, on scenes whose backgrounds and foregrounds were both held out.

    python -m benchmarks.foreground --root DATA --weights best.ckpt [--network mask] [--size 64]
        [--picture FILE] [--curve FILE] [--json FILE]

DATA is MODEST, or a miniature made with mode=make_data data.kind=modest; the network was trained with
dataset.split=apart. Baselines of the mask: the mean mask of training, and the largest difference of a channel between
picture and background; each above the threshold that does best in training. Of the depth: the mean map of training.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.courses import course
from immersivedepth.data.images import write_jpeg, write_png
from immersivedepth.data.modest import BACKGROUND_NORM, PICTURE_NORM, Modest, Scenes
from immersivedepth.losses.overlap import hard_overlap, soft_overlap
from immersivedepth.systems.foreground_modest import ForegroundModest
from immersivedepth.visual.grids import grid

GOAL = 0.9
BATCH, COLUMNS, TRAINING = 32, 6, 512  # samples at a time, pictures drawn, training samples the baselines look at
_THRESHOLDS = np.linspace(0.01, 0.6, 60)


def shown(batch: dict[str, Tensor], name: str) -> Tensor:  # [B, 3, h, w]
    """A picture as it was before normalisation."""
    norm = PICTURE_NORM if name == "picture" else BACKGROUND_NORM
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in norm)
    return (batch[name] * std + mean).clamp(0, 1)


def difference(batch: dict[str, Tensor]) -> Tensor:  # [B, 1, h, w]
    """Largest difference of a channel."""
    return (shown(batch, "picture") - shown(batch, "background")).abs().amax(1, keepdim=True)


def batches(scenes: Scenes, count: int | None = None) -> Any:
    """So many samples, evenly spread, without augmentation."""
    chosen = np.linspace(0, len(scenes) - 1, min(count or len(scenes), len(scenes))).astype(int)
    for start in range(0, len(chosen), BATCH):
        samples = [scenes.sample(int(i), np.random.default_rng(0)) for i in chosen[start : start + BATCH]]
        yield {key: torch.stack([s[key] for s in samples]) for key in samples[0]}


def best_threshold(values: Tensor, masks: Tensor) -> float:
    """The threshold with the best overlap."""
    scores = []
    for threshold in _THRESHOLDS:
        shared, either = hard_overlap((values > threshold).float(), masks)
        scores.append(float(shared / either))
    return float(_THRESHOLDS[int(np.argmax(scores))])


class Table:
    """Sums for one method."""

    def __init__(self) -> None:
        self.hard, self.soft = np.zeros(2), np.zeros(2)
        self.errors: dict[str, list[Tensor]] = {"mask": [], "depth": []}

    def add(self, name: Literal["mask", "depth"], found: Tensor, true: Tensor) -> None:
        """One batch of one map."""
        if name == "mask":
            self.hard += [float(v) for v in hard_overlap(found, true)]
            self.soft += [float(v) for v in soft_overlap(found, true)]
        self.errors[name].append((found - true).abs().flatten())

    def row(self) -> list[float | str]:
        """IoU, soft IoU, RMSE of the mask; MAE and RMSE of the depth."""
        out: list[float | str] = ["-"] * 3
        if self.errors["mask"]:
            error = torch.cat(self.errors["mask"])
            out = [self.hard[0] / self.hard[1], self.soft[0] / self.soft[1], float(error.square().mean().sqrt())]
        if not self.errors["depth"]:
            return [*out, "-", "-"]
        error = torch.cat(self.errors["depth"])
        return [*out, float(error.mean()), float(error.square().mean().sqrt())]


def main() -> None:
    """Print the table and draw the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--network", choices=["mask", "mask_depth"], default="mask_depth")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--curve", type=Path, help="a chart of the run that the weights lie in")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    data, system = Modest(given.root, size=given.size, split="apart"), ForegroundModest(network=given.network)
    train, test = data.samples("train"), data.samples("test")
    if train is None or test is None:
        parser.error(f"{given.root} holds too few backgrounds and foregrounds to hold some out")
    net = system.net()
    system.read_weights(net, given.weights)
    net.eval()
    known = [{**b, "difference": difference(b)} for b in batches(train, TRAINING)]
    masks, depths, apart = (torch.cat([b[k] for b in known]) for k in ("mask", "depth", "difference"))
    mean_mask, mean_depth = masks.mean(0, keepdim=True), depths.mean(0, keepdim=True)
    limits = best_threshold(mean_mask.expand_as(masks), masks), best_threshold(apart, masks)
    names = ["mean map of training", "difference of the pictures", type(net).__name__]
    tables = {name: Table() for name in names}
    rows: dict[str, list[Any]] = {}
    spread, scenes = np.linspace(0, len(test) - 1, COLUMNS).astype(int), 0
    for batch in batches(test):
        with torch.inference_mode():
            found = {k: v.sigmoid() for k, v in system.forward(net, batch).items()}
        guesses = {
            names[0]: {"mask": (mean_mask > limits[0]).float().expand_as(batch["mask"])},
            names[1]: {"mask": (difference(batch) > limits[1]).float()},
            names[2]: found,
        }
        guesses[names[0]]["depth"] = mean_depth.expand_as(batch["depth"])
        for name, maps in guesses.items():
            for key in ("mask", "depth"):
                if key in maps:
                    tables[name].add(key, maps[key], batch[key])
        for i in spread[(spread >= scenes) & (spread < scenes + len(batch["mask"]))] - scenes:
            maps = {"background": shown(batch, "background"), "picture": shown(batch, "picture")}
            maps |= {"true mask": batch["mask"], "mask": found["mask"]}
            maps |= {"true depth": batch["depth"], "depth": found["depth"]} if "depth" in found else {}
            for name, value in maps.items():
                picture = (value[i].expand(3, -1, -1) * 255).round().byte()
                rows.setdefault(name, []).append(picture.movedim(0, -1).numpy())
        scenes += len(batch["mask"])
    print(f"# Foreground on {scenes} scenes with backgrounds and foregrounds held out\n\n{measure.machine()}\n")
    print(f"Thresholds chosen on training scenes: mean mask {limits[0]:.2f}, difference {limits[1]:.2f}.\n")
    columns = ["method", "mask IoU", "mask soft IoU", "mask RMSE", "depth MAE", "depth RMSE"]
    print(measure.table(columns, [[name, *table.row()] for name, table in tables.items()]))
    value = float(tables[names[2]].hard[0] / tables[names[2]].hard[1])
    print("-", measure.goal_line("mask IoU", value, GOAL, True, names[2]))
    if given.picture:
        write_jpeg(given.picture, grid(rows, side=128), quality=90)
    if given.curve:
        named = {"mask IoU": "mask_iou", "RMSE of mask": "mask_rmse"}
        write_png(given.curve, course(given.weights, named, "held-out scenes", {"goal of IoU": GOAL}))
    if given.json:
        results = {name: dict(zip(columns[1:], table.row(), strict=True)) for name, table in tables.items()}
        measure.write_json(given.json, "foreground", results)


if __name__ == "__main__":
    main()
