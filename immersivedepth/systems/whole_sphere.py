"""The network that mends distances of a whole panorama, learnt from what the package's small networks get wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import ConfigError, Range
from ..data.rendered_panoramas import RenderedPanoramas
from ..data.samples import Batch, Samples, Stream
from ..geometry import sphere
from ..metrics import depth as metrics
from ..nets.whole_sphere import FARTHEST, MULTIPLE, NEAREST, described, log_distance, scale_of
from ..nets.whole_sphere import WholeSphere as Net
from ..training import Share, Split, System, decaying
from ..visual.colours import colour_map

_STEEPEST = 2.5  # log of a ratio of distances up to which the relative error grows with the ratio itself
_SCALES = 4  # of the gradients


@dataclass(kw_only=True)
class WholeSphere(System):
    """Distance up to one factor for the sphere, the sky and normals."""

    ratios: Annotated[float, Range(0)] = 1.0  # weight of the relative error: nothing near may be called far
    gradients: Annotated[float, Range(0)] = 0.3  # weight of the gradients of what is left
    sky: Annotated[float, Range(0)] = 0.5  # weight of the sky
    normals: Annotated[float, Range(0)] = 1.0  # weight of the normals

    def net(self) -> nn.Module:
        """The network, drawn from torch's seeded random numbers."""
        return Net().to(memory_format=torch.channels_last)

    def data(self, dataset: Any, split: Split) -> Samples | Stream | None:
        """Panoramas that are rendered and looked at on the way."""
        if not isinstance(dataset, RenderedPanoramas):
            raise ConfigError("system=whole_sphere reads dataset=rendered_panoramas; leave dataset to it")
        if dataset.height % MULTIPLE:
            raise ConfigError(f"dataset.height={dataset.height}: expected a multiple of {MULTIPLE}")
        return dataset.stream() if split == "train" else dataset.fixed()

    def parameters(self, net: nn.Module) -> Iterable[Any]:
        """Matrices decay, biases and norms do not."""
        return decaying(net)

    def forward(self, net: nn.Module, batch: Batch) -> Any:
        """Logarithm of distance and logit of the sky [B, 1, H, W], unit normals along local axes [B, 3, H, W]."""
        found = net(described(batch["image"], batch["first"], batch["spread"]))
        log, sky, local = found.float().split((1, 1, 3), 1)
        return {"log": log, "sky": sky, "normal": F.normalize(local, dim=1)}

    def losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Errors of log distance after the best factor, what they make of distance, their gradients, sky, normals."""
        sky, valid, area = batch["sky"], batch["truth"] > 0, _area(batch["truth"])
        left = _left(outputs["log"], batch)
        weight = area * valid
        beyond = torch.e**_STEEPEST * (1 + left - _STEEPEST) - 1
        ratio = torch.where(left < _STEEPEST, left.clamp(max=_STEEPEST).expm1(), beyond)
        unlike = F.binary_cross_entropy_with_logits(outputs["sky"], sky.float(), reduction="none")
        cosine = (outputs["normal"] * batch["normal"]).sum(1, keepdim=True)
        return {
            "values": _mean(left.abs(), weight),
            "ratios": self.ratios * _mean(ratio.abs(), weight),
            "gradients": self.gradients * _steps(left, weight),
            "sky": self.sky * _mean(unlike, area * (sky | valid)),
            "normals": self.normals * _mean(1 - cosine, area * batch["sure"]),
        }

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Share]:
        """Figures of distance after the best factor where there is no sky, of the first look too, and of the sky."""
        sky, truth = batch["sky"], batch["truth"]
        valid, area = truth > 0, _area(truth).expand_as(truth)
        found = metrics.standard(
            truth * _left(outputs["log"].clamp(NEAREST, FARTHEST), batch).exp(), truth, valid, area
        )
        before = truth * _left(log_distance(batch["first"], scale_of(batch["first"])), batch).exp()
        first = metrics.standard(before, truth, valid, area, "first_")
        called = outputs["sky"] > 0
        return {
            **found,
            **{name: first[name] for name in ("first_abs_rel", "first_delta1")},
            "normal_error": _degrees((outputs["normal"] * batch["normal"]).sum(1, keepdim=True), area * batch["sure"]),
            "sky_found": ((area * (called & sky)).sum(), (area * sky).sum()),
            "sky_false": ((area * (called & valid)).sum(), (area * valid).sum()),
        }

    def summary(self, means: dict[str, float]) -> dict[str, float]:
        """Roots of the mean squares."""
        return metrics.rooted(means)

    def panels(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Picture, normals, truth, what was said at first, and the result."""
        truth, first = torch.where(batch["sky"], torch.inf, batch["truth"]), batch["first"]
        truth, first = (log_distance(d, scale_of(d)) for d in (truth, first))
        found = torch.where(outputs["sky"] > 0, FARTHEST, outputs["log"])
        shown = {"truth": truth, "first": first, "found": found}
        colours = {"normals": (outputs["normal"] + 1) / 2}
        return {"picture": batch["image"], **colours, **{name: _coloured(v) for name, v in shown.items()}}


def _left(log: Tensor, batch: Batch) -> Tensor:
    """Error of log distance where the truth is no sky, after the best factor of each panorama; 0 elsewhere."""
    truth = batch["truth"]
    valid, scale = truth > 0, scale_of(truth)
    left = torch.where(valid, log - log_distance(truth, scale), 0.0)
    with torch.no_grad():
        middle = torch.stack([_median(one, where) for one, where in zip(left, valid, strict=True)])
    return torch.where(valid, left - middle.view(-1, 1, 1, 1), 0.0)


def _median(values: Tensor, valid: Tensor) -> Tensor:  # [1, H, W]
    """By solid angle, of valid pixels; 0 where there are none."""
    ordered, index = values[valid].sort()
    if not len(ordered):
        return values.new_zeros(())
    weight = _area(values).expand_as(values)[valid][index].cumsum(0)
    return ordered[int(torch.searchsorted(weight, weight[-1] / 2).clamp(max=len(ordered) - 1))]


def _degrees(cosine: Tensor, weight: Tensor) -> Share:
    return (torch.rad2deg(cosine.clamp(-1, 1).acos()) * weight).sum(), weight.sum()


def _area(like: Tensor) -> Tensor:  # [H, 1]
    return sphere.solid_angles(like.shape[-2], like.shape[-1], like.device).to(like)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Over each panorama, then over panoramas."""
    total = weight.sum((-3, -2, -1)).clamp_min(1e-6)
    return ((values * weight).sum((-3, -2, -1)) / total).mean()


def _steps(left: Tensor, weight: Tensor) -> Tensor:
    """How much the error changes from pixel to pixel, around the seam too, summed over scales."""
    found = left.new_zeros(())
    for k in range(_SCALES):
        r, w = left[..., :: 2**k, :: 2**k], weight[..., :: 2**k, :: 2**k]
        along, down = r.roll(1, -1) - r, r[..., 1:, :] - r[..., :-1, :]
        found = found + _mean(along.abs(), torch.minimum(w, w.roll(1, -1)))
        found = found + _mean(down.abs(), torch.minimum(w[..., 1:, :], w[..., :-1, :]))
    return found


def _coloured(log: Tensor) -> Tensor:  # [B, 1, H, W] -> [B, 3, H, W]
    shares = (1 - (log + 2) / (FARTHEST + 2)).clamp(0, 1)[:, 0].detach().float().cpu().numpy()
    return torch.stack([torch.from_numpy(colour_map(s).copy()).movedim(-1, 0) for s in shares]).float() / 255
