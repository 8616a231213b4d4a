"""Depth from motion against the best constant: the median depth of the training films.

    python -m benchmarks.motion --root DATA --weights RUN/checkpoints/best.ckpt
        [--picture FILE] [--curve FILE] [--json FILE]

DATA is a folder of Still Box, or a miniature made with mode=make_data data.kind=stillbox. Judged on the films that are
held out, every frame and the third after it, at the network's own resolution.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import measure
from immersivedepth.data.images import write_jpeg, write_png
from immersivedepth.data.still_box import FARTHEST, MEAN, STD, StillBox, read_depth
from immersivedepth.metrics import depth as metrics
from immersivedepth.systems.motion_stillbox import MotionStillBox
from immersivedepth.training.records import read_rows
from immersivedepth.visual.colours import colour_map
from immersivedepth.visual.curves import Curve, chart
from immersivedepth.visual.grids import grid

BATCH = 32
COLUMNS = 6


def median_depth(data: StillBox) -> float:
    """The constant with the least absolute error on the training films, over every tenth pixel of each frame."""
    train = data.samples("train")
    if train is None:
        raise SystemExit("the data set holds no training films")
    values = [read_depth(path).flatten()[::10] for film in train.films for path in film.depths]
    return float(torch.cat(values).clamp(max=FARTHEST).median())


def error_chart(rows: Path, means: dict[str, dict[str, float]]) -> np.ndarray:
    """The error after each validation of a run, with the best constant and half of it."""
    found = [row for row in read_rows(rows) if row["whole"] and row["split"] == "val"]
    epochs, constant = [float(row["epoch"]) for row in found], means["best constant"]["error m"]
    curves = [
        Curve("DepthNet", epochs, [row["depth_error"] for row in found]),
        Curve("best constant", epochs, [constant] * len(found)),
        Curve("half of it", epochs, [constant / 2] * len(found)),
    ]
    return chart(curves, title="held-out films", x_label="epoch", y_label="error in metres", log_y=True)


def main() -> None:
    """Print the table and draw the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--curve", type=Path, help="a chart of the run that the weights lie in")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    data, system = StillBox(given.root), MotionStillBox()
    test = data.samples("test")
    if test is None:
        parser.error(f"{given.root} holds no films")
    net = system.net()
    system.read_weights(net, given.weights)
    net.eval()
    constant = median_depth(data)
    sums = {name: np.zeros((2, 2)) for name in ("best constant", "DepthNet")}
    rows: dict[str, list[np.ndarray]] = {}
    spread = np.linspace(0, len(test) - 1, COLUMNS).astype(int)
    for start in range(0, len(test), BATCH):
        samples = [test.sample(i, np.random.default_rng(0)) for i in range(start, min(start + BATCH, len(test)))]
        batch = {key: torch.stack([s[key] for s in samples]) for key in samples[0]}
        with torch.inference_mode():
            found = system.forward(net, batch)[0]
        true = F.adaptive_avg_pool2d(batch["depth"], (found.shape[-2], found.shape[-1]))
        valid = true > 0
        for name, guess in (("best constant", torch.full_like(found, constant)), ("DepthNet", found)):
            shares = metrics.abs_error(guess, true, valid), metrics.abs_rel(guess, true, valid)
            sums[name] += np.array([[float(v) for v in share] for share in shares])
        for i in spread[(spread >= start) & (spread < start + len(samples))] - start:
            for name in ("first", "second"):
                picture = (batch[name][i] * STD + MEAN).clamp(0, 1)
                rows.setdefault(name, []).append((picture * 255).byte().movedim(0, -1).numpy())
            for name, value in (("truth", true), ("found", found)):
                rows.setdefault(name, []).append(
                    colour_map((value[i, 0] / (2 * constant)).clamp(0, 1).numpy(), "rainbow")
                )
    means = {name: {"error m": s[0, 0] / s[0, 1], "relative": s[1, 0] / s[1, 1]} for name, s in sums.items()}
    print(f"# Depth from motion on {len(test)} pairs of {len(test.films)} held-out films\n\n{measure.machine()}\n")
    print(measure.table(["method", "error m", "relative"], [[n, *m.values()] for n, m in means.items()]))
    ratio = means["DepthNet"]["error m"] / means["best constant"]["error m"]
    print("-", measure.goal_line("error against the best constant", ratio, 0.5, False, "DepthNet"))
    if given.picture:
        write_jpeg(given.picture, grid(rows, side=128), quality=90)
    if given.curve:
        write_png(given.curve, error_chart(Path(given.weights).parents[1] / "metrics.jsonl", means))
    if given.json:
        measure.write_json(given.json, "motion", means)


if __name__ == "__main__":
    main()
