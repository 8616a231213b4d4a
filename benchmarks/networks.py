"""Seconds per view of Depth Anything V2: ours, transformers' with the same weights, and a plain loop over views.

    python -m benchmarks.networks --encoder vits --sizes 392 518 --batches 1 4 --compile --openvino

Every case starts from the same uint8 views and ends with maps of their size; preparation and the way back are the same
code for all. The plain loop is how the original program works: one picture at a time, float32, attention written out,
projection after upsampling. Weights are the deterministic stand-ins of the parity tests, or a file of your own
(--weights): speed does not depend on them, but rounding errors do.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import Timing, goal_line, interleaved, machine, table, write_json
from depth_anything_v2 import DepthAnythingV2, prepare, restore
from depth_anything_v2.network import Fusion
from immersivedepth import weights
from immersivedepth.stages.predict.running import Runner, Running
from tests.parity import recipe
from tests.parity.transformers_layout import peer

RESOLUTION = 512  # pixels along a side of a view


def network(encoder: str, file: str | None, max_depth: float | None = None) -> DepthAnythingV2:
    """A network with weights of a file, of the recipe, or as torch draws them for the member without a recipe."""
    torch.manual_seed(0)
    net = DepthAnythingV2(encoder, max_depth=max_depth).eval()
    if file:
        net.load_state_dict(weights.read(Path(file)))
    elif encoder != "vitt":
        net.load_state_dict(recipe.weights(f"dav2_{encoder}"))
    return net


def _project_last(self: Fusion, size: tuple[int, int], skip: Tensor, coarse: Tensor | None = None) -> Tensor:
    x = self.resConfUnit2(skip if coarse is None else coarse + self.resConfUnit1(skip))
    out: Tensor = self.out_conv(F.interpolate(x, size, mode="bilinear", align_corners=True))
    return out


def plain_loop(net: DepthAnythingV2, side: int) -> Callable[[Tensor], Tensor]:
    """The network as it was published, called for one view after the other."""
    plain = copy.deepcopy(net)
    for block in plain.pretrained.blocks:
        block.attn.fused_attn = False
    for module in plain.modules():
        if isinstance(module, Fusion):
            module.forward = MethodType(_project_last, module)  # type: ignore[method-assign]
    return lambda views: torch.stack([plain.infer(view, side) for view in views])


class Peer(nn.Module):
    """transformers' network with its map as its output."""

    def __init__(self, net: DepthAnythingV2) -> None:
        super().__init__()
        self.net = peer(copy.deepcopy(net))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pictures to maps."""
        depth: Tensor = self.net(pixel_values=x).predicted_depth
        return depth


def runner(net: nn.Module, side: int, running: Running) -> Callable[[Tensor], Tensor]:
    """A network as the predictors run it."""
    ready = Runner(copy.deepcopy(net), running)
    before, after = partial(prepare, input_size=side), partial(restore, size=(RESOLUTION, RESOLUTION))
    return lambda views: ready(views, before, after)


def cases(net: DepthAnythingV2, side: int, options: argparse.Namespace) -> dict[str, Callable[[Tensor], Tensor]]:
    """Everything that is compared at one input size."""
    theirs = Peer(net)
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    if options.kind == "cpu":
        found["plain loop fp32"] = plain_loop(net, side)
    for precision in options.precisions:
        for batch in options.batches:
            running = Running(options.kind, precision, "torch", False, batch)
            found[f"transformers {precision} b{batch}"] = runner(theirs, side, running)
            found[f"ours {precision} b{batch}"] = runner(net, side, running)
        if options.compile:
            running = Running(options.kind, precision, "torch", True, options.batches[-1])
            found[f"ours compiled {precision} b{options.batches[-1]}"] = runner(net, side, running)
        if options.openvino:
            for batch in options.batches:
                running = Running("cpu", precision, "openvino", False, batch)
                found[f"ours openvino {precision} b{batch}"] = runner(net, side, running)
    return found


def rounding(options: argparse.Namespace, side: int, views: Tensor) -> dict[str, dict[str, float]]:
    """How far the maps in fewer bits are from those in float32."""
    rows: dict[str, dict[str, float]] = {}
    low = [p for p in options.precisions if p != "fp32"]
    backends = ["torch", *(["openvino"] if options.openvino else [])]
    # A metric network is positive everywhere, so that AbsRel is defined; a relative one may be zero.
    for what, max_depth in (("disparity", None), ("metric depth", 20.0)):
        net = network(options.encoder, options.weights, max_depth)
        exact = runner(net, side, Running(options.kind, "fp32", batch_size=options.batches[-1]))(views)
        for backend in backends:
            for precision in low:
                kind = "cpu" if backend == "openvino" else options.kind
                maps = runner(net, side, Running(kind, precision, backend, False, options.batches[-1]))(views)
                off = (maps - exact).abs()
                row = {"mean": (off.mean() / exact.mean()).item(), "std": (off.mean() / exact.std()).item()}
                if max_depth:
                    row["AbsRel"] = (off / exact).mean().item()
                rows[f"{what} {backend} {precision}"] = row
    return rows


def report(side: int, timings: dict[str, Timing], count: int, options: argparse.Namespace) -> None:
    """The table of one size, and the goals it has a say in."""
    reference = "plain loop fp32" if "plain loop fp32" in timings else next(iter(timings))
    base = timings[reference].wall
    rows = [[name, t.wall / count, t.cpu / count, base / t.wall] for name, t in timings.items()]
    print(f"\n## {options.encoder} at {side}x{side}, seconds per view of {RESOLUTION}x{RESOLUTION}\n")
    print(table(["case", "wall s", "cpu s", f"times faster than {reference}"], rows))
    print()
    for batch in options.batches:
        ours, theirs = timings.get(f"ours fp32 b{batch}"), timings.get(f"transformers fp32 b{batch}")
        if ours and theirs:
            print(goal_line(f"fp32 b{batch} ours / transformers", ours.wall / theirs.wall, 1.0, False, "same weights"))
    if options.kind == "cpu":
        amx = torch.cpu.get_capabilities().get("amx_bf16", False) if hasattr(torch.cpu, "get_capabilities") else False
        for name, bound in (("ours bf16", 4.0), ("ours openvino bf16", 6.0)):
            walls = [t.wall for key, t in timings.items() if key.startswith(f"{name} b")]
            if walls:
                what = "with AMX" if amx else "the goal is for processors with AMX, which this one is not"
                print(goal_line(f"plain loop / {name}", base / min(walls), bound, True, what))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="vits", choices=["vitt", "vits", "vitb", "vitl"])
    parser.add_argument("--weights", help="a file of weights of that encoder; without it, stand-ins")
    parser.add_argument("--kind", default="cpu", choices=["cpu", "cuda", "mps"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[392, 518])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--openvino", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    pictures = [recipe.image_u8(RESOLUTION, RESOLUTION, seed) for seed in range(options.views)]
    views = torch.stack([torch.from_numpy(p).permute(2, 0, 1) for p in pictures]).to(options.kind)
    net = network(options.encoder, options.weights)
    results: dict[str, Any] = {}
    print(machine())
    for side in options.sizes:
        calls = {name: partial(case, views) for name, case in cases(net, side, options).items()}
        with torch.inference_mode():
            timings = interleaved(calls, options.rounds)
            report(side, timings, len(views), options)
            errors = rounding(options, side, views)
        print()
        columns = ["mean", "std", "AbsRel"]
        print(table(["mean change against float32, relative to", *columns],
                    [[name, *(row.get(c, "") for c in columns)] for name, row in errors.items()]))  # fmt: skip
        for name, row in errors.items():
            if "AbsRel" in row:
                print(goal_line(f"AbsRel {name}", row["AbsRel"], 5e-3, False, "against float32"))
        results[str(side)] = {"timings": {k: asdict(t) for k, t in timings.items()}, "rounding": errors}
    if options.json:
        write_json(options.json, "networks", {"options": {k: str(v) for k, v in vars(options).items()}} | results)


if __name__ == "__main__":
    main()
