"""Depth from motion: DepthNet on pairs of frames of a camera that moves without turning."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import ConfigError, InputError, Range
from ..data import images
from ..data.samples import Batch, Samples
from ..data.still_box import FARTHEST, MEAN, STD, StillBox, normalised
from ..files import write_text
from ..geometry import pinhole
from ..losses.supervision import Form, over_scales
from ..metrics import depth as metrics
from ..nets.depthnet import NOMINAL, DepthNet
from ..training import Predicted, Share, Split, System
from ..training.records import read_rows
from ..visual.colours import colour_map

_SUMMARY, _FULL = "progress_log_summary.csv", "progress_log_full.csv"
_SUMMARY_NAMES = ("train_loss", "train_depth_error", "normalized_train_error", "depth_error", "normalized_depth_error")
_FULL_NAMES = ("train_loss", "train_depth_error")
_NEAREST = 0.1  # metres; nothing in Still Box is nearer, and networks without ELU may say less than 0


@dataclass(kw_only=True)
class MotionStillBox(System):
    """The depth of the second frame, metric for a displacement of 0.3 m between the two."""

    batch_norm: bool = True
    elu: bool = True
    clamp: bool = False
    loss: Form = "l1"
    scale_weights: tuple[Annotated[float, Range(0)], ...] = (0.32, 0.08, 0.02, 0.01, 0.005)  # fine to coarse
    frame_shift: Annotated[int, Range(1)] = 1  # of predict: which earlier frame each is compared with
    output_disp: bool = True
    output_depth: bool = True
    output_raw: bool = False

    def __post_init__(self) -> None:
        if self.frame_shift < 1:
            raise ConfigError(f"system.frame_shift={self.frame_shift}: expected a whole number at least 1")

    def net(self) -> nn.Module:
        """DepthNet."""
        return DepthNet(self.batch_norm, self.elu, self.clamp)

    def data(self, dataset: Any, split: Split) -> Samples | None:
        """Pairs of Still Box."""
        return _checked(dataset).samples(split)

    def forward(self, net: nn.Module, batch: Batch) -> Any:
        """Depth at five scales in training, else the finest."""
        return net(batch["first"], batch["second"])

    def losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """One term for each scale."""
        terms = over_scales(outputs, batch["depth"], self.scale_weights, self.loss)
        return {f"scale{i + 2}": term for i, term in enumerate(terms)}

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Share]:
        """Absolute error in metres and relative to the truth, at the finest scale."""
        found = outputs[0]
        true = F.adaptive_avg_pool2d(batch["depth"], (found.shape[-2], found.shape[-1]))
        valid = true > 0
        error = metrics.abs_error(found, true, valid)
        return {"depth_error": error, "normalized_error": metrics.abs_rel(found, true, valid)}

    def panels(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Both frames, truth and result as rainbows up to 100 m."""
        frames = {name: batch[name] * STD + MEAN for name in ("first", "second")}
        return {**frames, "true depth": _rainbow(batch["depth"]), "found": _rainbow(outputs[0])}

    def recorded(self, folder: Path, row: dict[str, Any]) -> None:
        """The two logs of the original program, tab-separated; made from metrics.jsonl, so that a resume keeps them."""
        if not row["whole"] or row["split"] != "val":
            return
        rows = read_rows(folder / "metrics.jsonl")
        steps = [(r["loss"], r.get("depth_error", "")) for r in rows if r["split"] == "train" and not r["whole"]]
        epochs: dict[int, dict[str, Any]] = {}
        for r in rows:
            if r["whole"]:
                epochs.setdefault(r["epoch"], {})[r["split"]] = r
        lines = [
            (
                e["train"]["loss"],
                *(e[s].get(k, "") for s in ("train", "val") for k in ("depth_error", "normalized_error")),
            )
            for e in epochs.values()
            if {"train", "val"} <= e.keys()
        ]
        write_text(folder / _FULL, _tabbed(_FULL_NAMES, steps))
        write_text(folder / _SUMMARY, _tabbed(_SUMMARY_NAMES, lines))

    def predict(self, net: nn.Module, dataset: Any, folder: Path, config: dict[str, Any]) -> Iterable[Predicted]:
        """Every frame against an earlier one; files are named after the second."""
        if not (self.output_disp or self.output_depth or self.output_raw):
            raise ConfigError("system.output_disp, output_depth and output_raw are all false: choose what is written")
        data = _checked(dataset)
        frames = frames_of(data)
        if len(frames) <= self.frame_shift:
            raise InputError(f"{data.images} holds {len(frames)} frames, too few for frame_shift={self.frame_shift}")
        if data.fov is not None and data.displacement is None:
            raise ConfigError("dataset.fov: set dataset.displacement too; what an angle changes depends on the way")
        later = zip(frames[self.frame_shift :], names_of(frames)[self.frame_shift :], strict=True)
        for first, (second, name) in zip(frames, later, strict=False):
            try:
                depth = self.depth_of(net, first, second, data)
                yield Predicted(str(second), tuple(self._written(depth, folder, name)))
            except InputError as error:
                yield Predicted(str(second), error=str(error))

    def depth_of(self, net: nn.Module, first: Path, second: Path, data: StillBox) -> Tensor:  # [h, w]
        """Depth of the second frame at its own size, in metres for the displacement that is known, else the nominal."""
        device = next(net.parameters()).device
        pictures = [images.read_image(path).image for path in (first, second)]
        if pictures[0].shape != pictures[1].shape:
            raise InputError(f"{second} has another size than {first}, with which it is compared")
        size = (pictures[1].shape[-2], pictures[1].shape[-1])
        looked = (data.height or size[0], data.width or size[1])
        pair = [
            F.interpolate(normalised(p)[None].to(device), looked, mode="bilinear", antialias=True) for p in pictures
        ]
        (found,) = net(*pair)
        return F.interpolate(found, size, mode="bilinear")[0, 0].float().cpu() * nominal_ways(data, size, looked)

    def _written(self, depth: Tensor, folder: Path, name: str) -> Iterable[Path]:
        if self.output_disp:
            disparity = (1 / depth.clamp_min(_NEAREST)).numpy()
            shown = colour_map(disparity / disparity.max(), "bone")
            yield images.write_png(folder / f"{name}_disp.png", shown)
        if self.output_depth:
            shares = (depth / FARTHEST).clamp(0, 1).numpy()
            yield images.write_png(folder / f"{name}_depth.png", colour_map(shares, "rainbow"))
        if self.output_raw:
            yield images.write_npy(folder / f"{name}.npy", depth)


def frames_of(data: StillBox) -> list[Path]:
    """The frames that were named, in order: sorted in a folder, as they stand in a list."""
    if data.images is None:
        raise ConfigError("mode=predict: set dataset.images to a folder of frames, or to a .txt list of them")
    path = Path(data.images).expanduser()
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.suffix.lower().lstrip(".") in data.extensions)
    images.check_file(path)
    lines = path.read_text("utf-8").splitlines()
    return [path.parent / line.strip() for line in lines if line.strip()]


def names_of(frames: list[Path]) -> list[str]:
    """What the files of each frame are called: as the frame, with its number in front where several are called so."""
    often = Counter(path.stem for path in frames)
    return [path.stem if often[path.stem] == 1 else f"{i:06d}_{path.stem}" for i, path in enumerate(frames)]


def nominal_ways(data: StillBox, size: tuple[int, int], looked: tuple[int, int]) -> float:
    """The factor from the network's depth to metres, for frames of a size that are looked at in another."""
    if data.displacement is None:
        return 1.0
    way = torch.tensor(data.displacement)
    if data.fov is not None:
        across = math.tan(math.radians(data.fov) / 2)
        # Pixels of the frame are square; the network takes half the width for the focal length of both axes.
        upwards = across * (size[0] / size[1]) * (looked[1] / looked[0])
        way = pinhole.apparent_way(way, torch.tensor([across, upwards]))
    return float(way.norm()) / NOMINAL


def _checked(dataset: Any) -> StillBox:
    if not isinstance(dataset, StillBox):
        raise ConfigError("system=motion_stillbox reads dataset=still_box; leave dataset to it")
    return dataset


def _rainbow(depth: Tensor) -> Tensor:  # [B, 1, h, w] -> [B, 3, h, w]
    shares = (depth[:, 0].float().cpu() / FARTHEST).clamp(0, 1).numpy()
    return torch.stack([torch.from_numpy(colour_map(s, "rainbow")).movedim(-1, 0) for s in shares]).float() / 255


def _tabbed(names: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    return "".join("\t".join(str(v) for v in row) + "\n" for row in (names, *rows))
