"""DIODE: pictures with laser depth, by a scan of its folders, and the log-depth target of the Keras example.

Layout: <root>/<split>/<indoors|outdoor>/scene_000xx/scan_00yyy/<stem>.png beside <stem>_depth.npy (metres, H x W x 1),
<stem>_depth_mask.npy (1 where it is measured) and <stem>_normal.npy (0, 0, 0 where unknown).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import ConfigError, InputError, Range
from . import images
from .measured import MeasuredView
from .samples import Batch

Split = Literal["train", "val", "test"]
TAN_HALF_FOV = 384 * (1 / 886.81 + 1 / 927.06) / 2  # of the square in the middle; the focal lengths differ by 4 %
NEAREST, FARTHEST = 0.1, 300.0  # metres
_PERCENTILE = 99.0  # of a map: what is farther is clipped to it
_FIRST = 260  # pictures of the original's training part
_SHARED = 0.5  # of a small pixel that must be measured for it to count


@dataclass(frozen=True)
class Scan:
    """One picture and its files."""

    picture: Path
    depth: Path
    mask: Path

    @property
    def normal(self) -> Path:
        return self.picture.with_name(f"{self.picture.stem}_normal.npy")


@dataclass
class Diode:
    """Where the data are and how they are divided; the fields are the keys of its YAML."""

    root: str | None = None
    kind: Literal["indoors", "outdoor", "both"] = "indoors"
    size: Annotated[int, Range(16)] = 256  # pixels of a side at which pictures are looked at
    split: Literal["folders", "shuffled"] = "folders"
    seed: Annotated[int, Range(0)] = 42  # of the shuffle
    least_log: Annotated[float, Range(-10, 10)] = NEAREST  # log depths below it become it; the original's 0.1 is 1.1 m
    flips: bool = False  # training mirrors left to right
    images: str | None = None  # of one's own, for mode=predict: a picture, a folder or a .txt list

    def samples(self, split: Split) -> Pictures | None:
        """The pictures of a part.

        folders: those below train and val. shuffled: those below val in an order drawn from the seed, the first 260 (or
        four fifths, if that is less) for training, as the original divided the indoor validation set.
        """
        if self.split == "folders":
            found = self._below("train" if split == "train" else "val")
        else:
            every = self._below("val")
            order = np.random.RandomState(self.seed).permutation(len(every))  # pandas shuffles with this generator
            cut = min(_FIRST, len(every) * 4 // 5)
            found = [every[i] for i in (order[:cut] if split == "train" else order[cut:])]
        return Pictures(self, found, split == "train") if found else None

    def sources(self) -> list[Path]:
        """The pictures of the validation part, for the measurement of other networks."""
        samples = self.samples("val")
        return [scan.picture for scan in samples.scans] if samples is not None else []

    def name(self, path: Path) -> str:
        """Unlike all others: DIODE numbers pictures by scene and scan."""
        return path.stem

    def view(self, path: Path) -> MeasuredView:
        """The square in the middle of a picture, with its depth, as it is stored."""
        image = images.read_image(path).image
        depth, valid = read_depth(*(path.with_name(f"{path.stem}_{end}.npy") for end in ("depth", "depth_mask")))
        if image.shape[-2:] != depth.shape[-2:]:
            raise InputError(f"{path} and its depth differ in size")
        return MeasuredView.middle(image, depth, valid, TAN_HALF_FOV)

    def _below(self, part: str) -> list[Scan]:
        return [s for s in self._scans if s.picture.relative_to(self._root).parts[0] == part]

    @property
    def _root(self) -> Path:
        if self.root is None:
            raise ConfigError("dataset.root has no value: set it to the folder that holds DIODE's train and val")
        return Path(self.root).expanduser()

    @cached_property
    def _scans(self) -> list[Scan]:
        if not self._root.is_dir():
            raise InputError(f"{self._root} is not a folder; set dataset.root to the folder that holds DIODE")
        wanted = ("indoors", "outdoor") if self.kind == "both" else (self.kind,)
        found = []
        for path in sorted(self._root.rglob("*_depth.npy")):
            if any(part in wanted for part in path.relative_to(self._root).parts):
                stem = path.name.removesuffix("_depth.npy")
                scan = Scan(path.with_name(f"{stem}.png"), path, path.with_name(f"{stem}_depth_mask.npy"))
                found.append(scan)
        return found


@dataclass
class Pictures:
    """image [3, s, s] in 0..1, depth [1, s, s] in metres, target [1, s, s] in log metres, valid [1, s, s]."""

    data: Diode
    scans: list[Scan]
    training: bool = False

    def __len__(self) -> int:
        return len(self.scans)

    def sample(self, index: int, random: np.random.Generator) -> Batch:
        """One picture; nothing about it is random but that training may mirror it."""
        scan, data = self.scans[index], self.data
        size = (data.size, data.size)
        image = images.read_image(scan.picture).image.float() / 255
        depth, valid = read_depth(scan.depth, scan.mask)
        if image.shape[-2:] != depth.shape[-2:]:
            raise InputError(f"{scan.picture} and its depth differ in size")
        # What is not measured neither enters a mean nor bleeds into its neighbours.
        share = F.interpolate(valid[None].float(), size, mode="bilinear")[0]
        target = torch.where(valid, log_depth(depth, valid, data.least_log), 0.0)
        mean = F.interpolate(target[None], size, mode="bilinear")[0] / share.clamp_min(_SHARED)
        # Depth and mask are taken at one place: a mean of near and far would be the depth of neither.
        known = (F.interpolate(valid[None].float(), size, mode="nearest")[0] > 0) & (share > _SHARED)
        batch = {
            "image": F.interpolate(image[None], size, mode="bilinear", antialias=True)[0],
            "target": torch.where(known, mean, NEAREST),
            "depth": F.interpolate(depth[None], size, mode="nearest")[0],
            "valid": known,
        }
        if self.training and data.flips and random.random() < 0.5:
            batch = {name: value.flip(-1) for name, value in batch.items()}
        return batch


def read_depth(depth: Path, mask: Path) -> tuple[Tensor, Tensor]:  # [1, H, W] twice, the second bool
    """Depth in metres and where it is measured."""
    values = images.read_map(depth)
    valid = images.read_map(mask) > 0.5
    if values.shape != valid.shape:
        raise InputError(f"{mask} has another size than {depth.name}")
    return values, valid & values.isfinite() & (values > 0)


def log_depth(depth: Tensor, valid: Tensor, least: float = NEAREST) -> Tensor:
    """Natural logarithm of depth clipped to 0.1 m and the map's 99th percentile (at most 300 m), then to at least
    `least`, which is 0.1 in the original.

    Where nothing is measured it is 0.1; in the original that was whatever the memory held.
    """
    if not valid.any():
        return torch.full_like(depth, NEAREST)
    farthest = min(FARTHEST, float(np.percentile(depth.numpy(), _PERCENTILE)))
    logarithm = depth.clamp(NEAREST, max(farthest, NEAREST)).log()
    top = max(float(np.log(max(farthest, NEAREST))), least)
    return torch.where(valid, logarithm.clamp(least, top), NEAREST)
