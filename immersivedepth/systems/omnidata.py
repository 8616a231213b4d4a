"""Depth and normals of single pictures: the networks of `midas`, trained on many data sets at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..checks import ConfigError, Range
from ..data.multitask import MultiTask
from ..data.samples import Batch, Samples
from ..data.transforms import at_random_size
from ..losses import affine, virtual_normal
from ..losses.masked import masked_cosine, standardised_depth
from ..losses.supervision import masked
from ..metrics import depth as metrics
from ..training import Share, Split, System
from ..visual.colours import colour_map

_STEEP = (11.25, 22.5, 30.0)  # degrees within which a normal counts as right


class _OfMidas(System):
    """What both share: the network by name, its normalisation, and its data."""

    model: str
    sizes: tuple[int, ...]

    def varied(self, batch: Batch) -> Batch:
        """Training at sizes drawn for each batch, if there are sizes to draw from."""
        if not self.sizes:
            return batch
        return at_random_size(batch, self.sizes, np.random.default_rng(int(torch.randint(2**31, (1,)))))

    def net(self) -> nn.Module:
        """A network of `midas`, from tiny up, drawn from torch's seeded random numbers."""
        from midas import MODELS, create

        if self.model not in MODELS:
            raise ConfigError(f"system.model={self.model}: expected one of {', '.join(MODELS)}")
        net = create(self.model, int(torch.randint(2**31, (1,))))
        self.check_output(net.spec.output)
        return net

    def check_output(self, output: str) -> None:
        """Refuse a network whose maps are of another kind."""

    def data(self, dataset: Any, split: Split) -> Samples | None:
        """Views of all data sets."""
        if not isinstance(dataset, MultiTask):
            raise ConfigError(f"system={self.name} reads dataset=multitask; leave dataset to it")
        return dataset.samples(split)

    def forward(self, net: nn.Module, batch: Batch) -> Any:
        """A map of the network's own kind."""
        from midas import SPECS

        mean, std = (batch["rgb"].new_tensor(v).view(3, 1, 1) for v in SPECS[self.model].norm)
        return net((batch["rgb"] - mean) / std)


@dataclass(kw_only=True)
class OmnidataDepth(_OfMidas):
    """Depth up to scale and shift, or disparity, whichever the network gives.

    The loss is that of MiDaS with virtual normals: ssi + regulariser * gradients + virtual_normal * normals. The mask
    is the target's; in the original it came from the prediction.
    """

    model: str = "omnidata_dpt_depth"
    depth: str = "depth_zbuffer"  # the task that is learnt
    regulariser: Annotated[float, Range(0)] = 0.0
    virtual_normal: Annotated[float, Range(0)] = 0.0
    # What takes scale and shift out of each image before both are compared: median and mean deviation, or mean and
    # standard deviation of the central 80 %.
    standardise: Literal["median", "central"] = "median"
    sizes: tuple[int, ...] = ()  # heights and widths that training batches are brought to; none: as they come

    def check_output(self, output: str) -> None:
        """Depth or disparity, not normals."""
        if output == "normal":
            raise ConfigError(f"system.model={self.model} gives normals; use system=omnidata_normal")

    def losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Named terms; those of weight 0 are not computed."""
        found, target, valid = outputs[:, None], self._target(batch), self._valid(batch)
        terms = {"ssi": self._compared(found, target, valid)}
        if self.regulariser:
            terms["gradients"] = self.regulariser * affine.gradient_term(found, target, valid)
        if self.virtual_normal:
            # Drawn from the step's own random numbers, so that a continued run draws the same.
            seed = int(torch.randint(2**31, (1,)))
            triplets = virtual_normal.draw_triplets(valid, torch.Generator().manual_seed(seed))
            fitted = affine.aligned(found, target, valid)
            near, true = (self._as_depth(v) for v in (fitted, target))
            terms["virtual_normal"] = self.virtual_normal * virtual_normal.virtual_normal(near, true, valid, triplets)
        return terms

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Share]:
        """Errors in metres after the best scale and shift of each image, in what the network gives."""
        target, valid = self._target(batch), self._valid(batch)
        fitted = affine.aligned(outputs[:, None], target, valid)
        return metrics.standard(self._as_depth(fitted), batch[self.depth], valid)

    def summary(self, means: dict[str, float]) -> dict[str, float]:
        """Roots of the mean squares."""
        return metrics.rooted(means)

    def panels(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Picture, truth and result after the best scale and shift."""
        target, valid = self._target(batch), self._valid(batch)
        fitted = affine.aligned(outputs[:, None], target, valid)
        low = torch.where(valid, target, torch.inf).amin((-3, -2, -1), keepdim=True)
        high = torch.where(valid, target, -torch.inf).amax((-3, -2, -1), keepdim=True)
        rows = {"truth": torch.where(valid, target, low), "found": fitted}
        shown = {n: _coloured((v - low) / (high - low).clamp_min(1e-6)) for n, v in rows.items()}
        return {"picture": batch["rgb"], **shown}

    def _compared(self, found: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        if self.standardise == "median":
            return affine.ssi_mae(found, target, valid)
        return masked(standardised_depth(found, valid), standardised_depth(target, valid), valid, "l1")

    def _target(self, batch: Batch) -> Tensor:
        depth = batch[self.depth]
        if self._disparity:
            return torch.where(depth > 0, 1 / depth.clamp_min(1e-3), 0.0)
        return depth

    def _valid(self, batch: Batch) -> Tensor:
        return batch["valid"] & (batch[self.depth] > 0)

    def _as_depth(self, values: Tensor) -> Tensor:
        return 1 / values.clamp_min(1e-2) if self._disparity else values

    @property
    def _disparity(self) -> bool:
        from midas import SPECS

        return SPECS[self.model].output == "disparity"


@dataclass(kw_only=True)
class OmnidataNormal(_OfMidas):
    """Normals in view axes, (vector + 1) / 2: cosine + l1_weight * L1."""

    model: str = "omnidata_dpt_normal"
    l1_weight: Annotated[float, Range(0)] = 10.0
    sizes: tuple[int, ...] = ()  # heights and widths that training batches are brought to; none: as they come

    def check_output(self, output: str) -> None:
        """Normals, not depth."""
        if output != "normal":
            raise ConfigError(f"system.model={self.model} gives {output}; use system=omnidata_depth")

    def losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Direction and value."""
        target, valid = batch["normal"], batch["valid"]
        return {
            "cosine": masked_cosine(outputs, target, valid),
            "l1": self.l1_weight * masked(outputs, target, valid, "l1"),
        }

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Share]:
        """Mean angle in degrees, and shares within three angles."""
        valid = batch["valid"]
        cosine = torch.nn.functional.cosine_similarity(2 * outputs - 1, 2 * batch["normal"] - 1, dim=1)[:, None]
        angle = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
        count = valid.sum().float()
        found = {"angle": (torch.where(valid, angle, 0.0).sum(), count)}
        return found | {f"within_{limit:g}": (((angle < limit) & valid).sum().float(), count) for limit in _STEEP}

    def panels(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Picture, truth and result."""
        return {"picture": batch["rgb"], "truth": batch["normal"], "found": outputs}


def _coloured(shares: Tensor) -> Tensor:  # [B, 1, h, w] -> [B, 3, h, w]
    flat = shares[:, 0].detach().float().cpu().clamp(0, 1).numpy()
    return torch.stack([torch.from_numpy(colour_map(s).copy()).movedim(-1, 0) for s in flat]).float() / 255
