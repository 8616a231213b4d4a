"""The tiny networks of MiDaS against the U-Net and against predictors that do not look, on buildings held out.

    python -m benchmarks.omnidata --root DATA [--seconds 120] [--size 64] [--picture FILE] [--curve FILE] [--json FILE]

DATA is Omnidata's layout with a splits.csv in it, or a miniature made with mode=make_data data.kind=omnidata. Three
networks are trained from random weights on the same views with the same batches: midas_tiny and the residual U-Net on
disparity, midas_tiny_normal on normals. Each may spend the same seconds of processor in its forward and backward passes
and steps; reading views is not counted. Of depth, the figures are those after the best scale and shift of each picture,
for everybody, so that the baseline is each picture's own mean disparity; that of normals is the mean direction of each
pixel in the training views.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import measure
from immersivedepth.data.images import write_jpeg, write_png
from immersivedepth.data.instances import decode, drawn
from immersivedepth.data.multitask import MultiTask, Part, Views
from immersivedepth.data.samples import Batch
from immersivedepth.metrics import depth as metrics
from immersivedepth.nets.residual_unet import ResidualUNet
from immersivedepth.systems.omnidata import OmnidataDepth, OmnidataNormal
from immersivedepth.training import System
from immersivedepth.visual.curves import Curve, chart
from immersivedepth.visual.grids import grid

TASKS = ("rgb", "depth_zbuffer", "normal", "mask_valid", "segment_instance")
BATCH, COLUMNS, CHECKS = 16, 6, 6  # samples at a time, pictures drawn, validations during a training
RATE, WARM = 2e-3, 0.15  # highest rate of Adam, and the share of the budget by which it is reached
REGULARISER = 0.5
DEPTH, NORMAL = ("abs_rel", "rmse", "delta1"), ("angle", "within_11.25", "within_22.5", "within_30")


@dataclass(kw_only=True)
class UNetDisparity(OmnidataDepth):
    """The U-Net of system=unet_diode with the data and the loss of system=omnidata_depth."""

    def net(self) -> nn.Module:
        """Its map is disparity, any number."""
        return ResidualUNet("linear")

    def forward(self, net: nn.Module, batch: Batch) -> Any:
        """As the networks of `midas` give it."""
        return net(batch["rgb"])[:, 0]


@dataclass
class Trained:
    """A network with the course of its training."""

    net: nn.Module
    steps: int = 0
    seconds: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)


def collated(samples: list[Batch]) -> Batch:
    """A batch."""
    return {key: torch.stack([s[key] for s in samples]) for key in samples[0]}


@dataclass
class Remembered:
    """Batches that are read once and given to every network in the same order."""

    source: Iterator[Batch]
    kept: list[Batch] = field(default_factory=list)

    def __iter__(self) -> Iterator[Batch]:
        for number in itertools.count():
            if number == len(self.kept):
                batch = next(self.source)
                self.kept.append({k: v for k, v in batch.items() if k != "segment_instance"})
            yield self.kept[number]


def training_batches(views: Views, seed: int) -> Iterator[Batch]:
    """Endless batches, the same for every network."""
    for epoch in itertools.count():
        order = np.random.default_rng([seed, epoch]).permutation(len(views))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH].tolist()
            yield collated([views.sample(i, np.random.default_rng([seed, epoch, i])) for i in chosen])


def held_out(views: Views) -> list[Batch]:
    """All samples in batches."""
    samples = [views.sample(i, np.random.default_rng(0)) for i in range(len(views))]
    return [collated(samples[i : i + BATCH]) for i in range(0, len(samples), BATCH)]


def figures(system: System, net: nn.Module, batches: list[Batch]) -> dict[str, float]:
    """Of a network over all batches."""
    net.eval()
    sums: dict[str, list[float]] = {}
    with torch.inference_mode():
        for batch in batches:
            for name, (total, count) in system.metrics(system.forward(net, batch), batch).items():
                entry = sums.setdefault(name, [0.0, 0.0])
                entry[0] += float(total)
                entry[1] += float(count)
    net.train()
    return system.summary({name: total / max(count, 1.0) for name, (total, count) in sums.items()})


def trained(system: System, batches: Remembered, checks: list[Batch], seconds: float, watched: str) -> Trained:
    """Adam with one warm rise and a fall of its rate, by the share of the budget that is spent."""
    torch.manual_seed(0)
    net = system.net().train()
    optimiser = torch.optim.Adam(net.parameters())
    out, spent = Trained(net), 0.0
    for batch in batches:
        share = spent / seconds
        if len(out.errors) <= share * CHECKS or share >= 1:
            out.seconds.append(spent)
            out.errors.append(figures(system, net, checks)[watched])
            print(f"{system.name}: {spent:.0f} s, {out.steps} steps, {watched} {out.errors[-1]:.4g}", file=sys.stderr)
        if share >= 1:
            return out
        start = time.process_time()
        rate = RATE * (share / WARM if share < WARM else 0.5 * (1 + np.cos(np.pi * (share - WARM) / (1 - WARM))))
        for group in optimiser.param_groups:
            group["lr"] = max(rate, RATE * 1e-3)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(system.losses(system.forward(net, batch), batch).values())).sum().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimiser.step()
        spent += time.process_time() - start
        out.steps += 1
    raise AssertionError


def mean_normals(views: Views) -> Tensor:  # [3, h, w] as normals are stored
    """The mean direction of each pixel of the training views, as they are in validation."""
    plain = Views(views.data, views.files, training=False)
    sums = [torch.where(b["valid"], 2 * b["normal"] - 1, 0.0).sum(0) for b in held_out(plain)]
    return (torch.nn.functional.normalize(torch.stack(sums).sum(0), dim=0) + 1) / 2


def constant_depth(batches: list[Batch]) -> dict[str, float]:
    """The mean disparity of each picture's own truth: all that scale and shift alone can give."""
    sums = {name: np.zeros(2) for name in metrics.standard(*(torch.ones(1, 1, 1, 1),) * 2, torch.ones(1, 1, 1, 1) > 0)}
    for batch in batches:
        valid = batch["valid"] & (batch["depth_zbuffer"] > 0)
        depth = batch["depth_zbuffer"]
        disparity = torch.where(valid, 1 / depth.clamp_min(1e-3), 0.0).sum((-2, -1), keepdim=True)
        count = valid.sum((-2, -1), keepdim=True).clamp_min(1)
        guess = (count / disparity.clamp_min(1e-6)).expand_as(depth)
        for name, (total, number) in metrics.standard(guess, depth, valid).items():
            sums[name] += (float(total), float(number))
    return metrics.rooted({name: total / max(count, 1.0) for name, (total, count) in sums.items()})


def rows_of(batch: Batch, outputs: dict[str, tuple[System, Any]]) -> dict[str, list[np.ndarray]]:
    """Pictures, truth and what each network makes of them."""
    rows: dict[str, Tensor] = {"picture": batch["rgb"]}
    for name, (system, found) in outputs.items():
        panels = system.panels(found, batch)
        kind = "normals" if isinstance(system, OmnidataNormal) else "disparity"
        rows[f"true {kind}"], rows[name] = panels["truth"], panels["found"]
    pictures = {
        name: [(p.clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy() for p in value]
        for name, value in rows.items()
    }
    segments = batch["segment_instance"]
    pictures["instances"] = [
        drawn(np.ascontiguousarray(p), decode(s)) for p, s in zip(pictures["picture"], segments, strict=True)
    ]
    return pictures


def main() -> None:
    """Train, print the tables and draw the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--curve", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = MultiTask({"a": Part(str(given.root), splits=str(given.root / "splits.csv"))}, TASKS, given.size)
    train, val, test = (data.samples(split) for split in ("train", "val", "test"))
    if train is None or val is None or test is None or len(train) < BATCH:
        parser.error(f"{given.root}/splits.csv leaves too few views for one of the parts")
    checks, judged = held_out(val), held_out(test)
    depth = {"midas_tiny": OmnidataDepth(model="midas_tiny", regulariser=REGULARISER),
             "U-Net": UNetDisparity(model="midas_tiny", regulariser=REGULARISER)}  # fmt: skip
    normal = OmnidataNormal(model="midas_tiny_normal")
    batches = Remembered(training_batches(train, 0))
    runs = {name: trained(system, batches, checks, given.seconds, "abs_rel") for name, system in depth.items()}
    runs["midas_tiny_normal"] = trained(normal, batches, checks, given.seconds, "angle")
    table = {"mean disparity of each picture": constant_depth(judged)}
    table |= {name: figures(system, runs[name].net, judged) for name, system in depth.items()}
    counts = {name: sum(p.numel() for p in run.net.parameters()) / 1e6 for name, run in runs.items()}
    mean = mean_normals(train)
    normals = {
        "mean normal of each pixel": figures(_Same(model="midas_tiny_normal", value=mean), nn.Identity(), judged),
        "midas_tiny_normal": figures(normal, runs["midas_tiny_normal"].net, judged),
    }
    print(
        f"# {len(test)} views of held-out buildings, {len(train)} for training, {given.seconds:g} s of processor each\n"
    )
    print(f"{measure.machine()}\n")
    for names, found in ((DEPTH, table), (NORMAL, normals)):
        header = ["method", "million parameters", "steps", *names]
        cells = [
            [n, counts.get(n, "-"), runs[n].steps if n in runs else "-", *(row[k] for k in names)]
            for n, row in found.items()
        ]
        print(measure.table(header, cells) + "\n")
    ratio = table["midas_tiny"]["abs_rel"] / table["U-Net"]["abs_rel"]
    print("-", measure.goal_line("abs_rel against the U-Net", ratio, 1.0, False, "midas_tiny"))
    ratio = normals["midas_tiny_normal"]["angle"] / normals["mean normal of each pixel"]["angle"]
    print("-", measure.goal_line("angle against the mean normal", ratio, 1.0, False, "midas_tiny_normal"))
    if given.picture:
        chosen = np.linspace(0, len(test) - 1, COLUMNS).astype(int).tolist()
        batch = collated([test.sample(i, np.random.default_rng(0)) for i in chosen])
        with torch.inference_mode():
            every: dict[str, System] = {**depth, "midas_tiny_normal": normal}
            outputs = {n: (s, s.forward(runs[n].net.eval(), batch)) for n, s in every.items()}
            write_jpeg(given.picture, grid(rows_of(batch, outputs), side=128), quality=90)
    if given.curve:
        curves = [Curve(name, runs[name].seconds, runs[name].errors) for name in depth]
        picture = chart(curves, title="held-out buildings", x_label="seconds of processor", y_label="relative error")
        write_png(given.curve, picture)
    if given.json:
        measure.write_json(given.json, "omnidata", {"depth": table, "normals": normals})


@dataclass(kw_only=True)
class _Same(OmnidataNormal):
    """Says the same of every view."""

    value: Tensor

    def forward(self, net: nn.Module, batch: Batch) -> Any:
        return self.value.expand(len(batch["rgb"]), -1, -1, -1)


if __name__ == "__main__":
    main()
