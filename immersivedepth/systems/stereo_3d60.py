"""360 stereo: PSMNet on pairs of panoramas, in the view in which matches lie on rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from ..checks import ConfigError, InputError, Range
from ..data.panoramas import Wild
from ..data.samples import Batch, Samples
from ..data.three_d60 import MEAN, STD, ThreeD60, arranged
from ..geometry import stereo
from ..losses.supervision import masked
from ..metrics import depth as metrics
from ..nets.psmnet import PSMNet
from ..pipeline import assemble_finish
from ..scene import Geometry, Panorama, unit_image
from ..training import Predicted, Share, Split, System

_FARTHEST = 100.0  # metres: where the parallax is less than can be told, the picture of the result ends
_NEAREST = 0.02  # metres: nothing is nearer to a camera; a disparity that no point can have ends here
_BLIND = 0.1  # sine of theta below which a distance cannot be told


@dataclass(kw_only=True)
class Stereo3D60(System):
    """`target: disparity` is exact spherical stereo; with `depth` the network gives metres, as in the original."""

    kind: Literal["stackhourglass", "basic"] = "stackhourglass"
    max_disparity: Annotated[int, Range(16)] = 96  # pixels of the Cassini view; metres for target=depth
    align_corners: bool = False  # of the framework that trained the weights: true for released files of 2018
    wrap_rows: bool = True  # the rows of Cassini views are angles; those of raw panoramas are not
    target: Literal["disparity", "depth"] = "disparity"
    angle_map: bool = False  # the network also sees theta
    epipole_weight: bool = True  # count pixels by how well distance can be seen there
    scale_weights: tuple[Annotated[float, Range(0)], ...] = (0.5, 0.7, 1.0)  # of the three maps of stackhourglass

    def net(self) -> nn.Module:
        """PSMNet; its rows wrap unless the released weights' alignment of corners forbids it."""
        try:
            wrap, channels = self.wrap_rows and not self.align_corners, 4 if self.angle_map else 3
            return PSMNet(self.kind, self.max_disparity, self.align_corners, wrap, channels)
        except ValueError as error:
            raise ConfigError(f"system.{error}") from error

    def data(self, dataset: Any, split: Split) -> Samples | None:
        """Pairs of 3D60."""
        return self._checked(dataset).samples(split)

    def forward(self, net: nn.Module, batch: Batch) -> Any:
        """One map, or three in training."""
        left, right = batch["left"], batch["right"]
        if self.angle_map:
            angle = batch["theta"] / torch.pi * 2 - 1
            left, right = torch.cat([left, angle], 1), torch.cat([right, angle], 1)
        return net(left, right)

    def losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Smooth L1 of each map; where the target is beyond reach it does not count."""
        target = self._target(batch)
        valid = batch["valid"] & (target < self.max_disparity)
        weight = stereo.sight(batch["theta"]) if self.epipole_weight else None
        weights = self.scale_weights[-len(outputs) :]
        return {
            f"map{i}": w * masked(out, target, valid, "smooth_l1", weight)
            for i, (out, w) in enumerate(zip(outputs, weights, strict=True), start=1)
        }

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Share]:
        """Errors of distance in metres, weighted by area, where it can be seen; the original's PSNR; pixels."""
        found, true, valid, theta = outputs[-1], batch["distance"], batch["valid"], batch["theta"]
        distance = self.distance(found, batch)
        seen = valid & (theta.sin() > _BLIND)
        out = metrics.standard(distance, true, seen, theta.sin())
        one = torch.ones((), device=found.device)
        shown = torch.where(valid, true, 0.0)
        out["psnr"] = (metrics.peak_ratio(torch.where(valid, distance, 0.0), shown), one)
        if self.target == "disparity":
            target = self._target(batch)
            out["end_point_error"] = metrics.abs_error(found, target, seen & (target < self.max_disparity))
        return out

    def summary(self, means: dict[str, float]) -> dict[str, float]:
        """Roots of the mean squares."""
        return metrics.rooted(means)

    def panels(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Picture, true and found inverse distance."""
        mean, std = (torch.tensor(v, device=batch["left"].device).view(3, 1, 1) for v in (MEAN, STD))
        found = self.distance(outputs[-1], batch)
        top = 1 / torch.where(batch["valid"], batch["distance"], torch.inf).amin((-3, -2, -1), keepdim=True)
        rows = {"true 1/distance": torch.where(batch["valid"], 1 / batch["distance"], 0.0), "found": 1 / found}
        shown = {name: (value / top).clamp(0, 1).expand(-1, 3, -1, -1) for name, value in rows.items()}
        return {"picture": batch["left"] * std + mean, **shown}

    def distance(self, output: Tensor, batch: Batch) -> Tensor:  # [B, 1, m, n]
        """Metres along the ray, from what the network gives; at most what can be told from infinity."""
        if self.target == "depth":
            return output
        alpha = stereo.to_angle(output, output.shape[-1])
        found = stereo.distance_from(alpha, batch["theta"], batch["baseline"].view(-1, 1, 1, 1))
        return found.clamp(_NEAREST, _FARTHEST)

    def predict(self, net: nn.Module, dataset: Any, folder: Path, config: dict[str, Any]) -> Iterable[Predicted]:
        """One pair of panoramas to the full geometry, with every refinement and export of the config."""
        data = self._checked(dataset)
        side: stereo.Side = "up" if data.up else "right"
        other = data.up or data.right
        if data.left is None or other is None:
            raise ConfigError("mode=predict: set dataset.left and dataset.right (or dataset.up) to two panoramas")
        finish = assemble_finish(config)
        try:
            left, right = (_panorama(path) for path in (data.left, other))
            if left.size != right.size:
                raise InputError(f"{other} has another size than {data.left}; both panoramas of a pair must agree")
            geometry = self.geometry(net, left, right, data, side)
        except InputError as error:
            yield Predicted(data.left, error=str(error))
            return
        geometry = finish(geometry, left)
        yield Predicted(data.left, tuple(finish.save(geometry, left, folder / left.name)))

    def geometry(self, net: nn.Module, left: Panorama, right: Panorama, data: ThreeD60, side: stereo.Side) -> Geometry:
        """The geometry seen from the left panorama."""
        device = next(net.parameters()).device
        pair = arranged(unit_image(left.image), unit_image(right.image), replace(data, side=side))
        batch = {name: value[None].to(device) for name, value in pair.items()}
        batch["baseline"] = torch.tensor([data.baseline], device=device)
        (output,) = self.forward(net, batch)
        inverse, sight = 1 / self.distance(output, batch).clamp_min(_NEAREST)[0], batch["theta"].sin()[0]
        if data.projection == "cassini":
            # Inverse distance is what may be interpolated: a mean over an edge must not be a point far away.
            inverse, sight = (stereo.from_cassini(value, side, size=left.size) for value in (inverse, sight))
        distance, sight = (1 / inverse).cpu(), sight.cpu()
        mask = (sight > _BLIND) & (distance > _NEAREST) & (distance < _FARTHEST)
        about = {"side": side, "baseline": data.baseline, "seen_share": round(float(mask.float().mean()), 4)}
        return Geometry(distance, mask, metric=True, report={"stereo": about})

    def _target(self, batch: Batch) -> Tensor:
        if self.target == "depth":
            return batch["distance"]
        alpha = stereo.parallax(batch["distance"], batch["theta"], batch["baseline"].view(-1, 1, 1, 1))
        return stereo.to_pixels(alpha, batch["theta"].shape[-1])

    def _checked(self, dataset: Any) -> ThreeD60:
        if not isinstance(dataset, ThreeD60):
            raise ConfigError("system=stereo_3d60 reads dataset=three_d60; leave dataset to it")
        if dataset.projection == "erp" and self.wrap_rows and not self.align_corners:
            raise ConfigError("dataset.projection=erp: rows of a raw panorama do not wrap; set system.wrap_rows=false")
        if dataset.projection == "erp" and self.target == "disparity":
            raise ConfigError(
                "dataset.projection=erp: matches lie on rows only in Cassini views; set system.target=depth"
            )
        return dataset


def _panorama(path: str) -> Panorama:
    wild = Wild(image_path=path)
    return wild.load(wild.sources()[0])
