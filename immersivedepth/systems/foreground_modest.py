"""Foreground mask and depth from a picture and its empty background: MaskNet and DepthMaskNet on MODEST."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import ConfigError, InputError, Range
from ..data import images
from ..data.modest import PICTURE_NORM, Modest, arranged
from ..data.samples import Batch, Samples
from ..losses.overlap import dice, hard_overlap, soft_overlap
from ..losses.structural import ms_ssim, ssim, weights_for
from ..metrics import depth as metrics
from ..nets.mask_depth import MULTIPLE, DepthMaskNet8, MaskNet3, original_names
from ..training import Predicted, Share, Split, System

Term = Callable[[Tensor, Tensor], Tensor]  # logits and target in 0..1
_TINY = 1e-6  # below the root: its gradient at zero is finite
_RANGE = 255.0  # the original's data range of similarity, although its maps lie in 0..1
_LOSS = Literal[
    "bce_rmse", "ssim_rmse", "bce_ssim", "rmse_ssim", "ssim_dice", "rmse_dice", "bce_dice", "rmse_bce_dice",
    "bce_ms_ssim",
]  # fmt: skip


def _bce(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target)


def _rmse(logits: Tensor, target: Tensor) -> Tensor:
    return ((logits.sigmoid() - target).square().mean() + _TINY).sqrt()


def _dice(logits: Tensor, target: Tensor) -> Tensor:
    return dice(logits.sigmoid(), target)


def _bce_dice(logits: Tensor, target: Tensor) -> Tensor:
    return _bce(logits, target) + 2 * _dice(logits, target)


@dataclass(kw_only=True)
class ForegroundModest(System):
    """The loss is the first named part on the mask and twice the second on the depth."""

    network: Literal["mask", "mask_depth"] = "mask_depth"
    fusion: Literal["code", "diagram"] = "code"
    loss: _LOSS = "bce_rmse"
    data_range: Annotated[float, Range(1e-6)] = _RANGE  # of the similarities; 1 is what they are meant for

    def net(self) -> nn.Module:
        """MaskNet3 or DepthMaskNet8."""
        return MaskNet3() if self.network == "mask" else DepthMaskNet8(self.fusion)

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The layers of the original's MaskNet3 and DepthMaskNet8 in ours."""
        return original_names(state)

    def data(self, dataset: Any, split: Split) -> Samples | None:
        """Scenes of MODEST."""
        return _checked(dataset).samples(split)

    def forward(self, net: nn.Module, batch: Batch) -> Any:
        """Logits by name."""
        found = net(batch["background"], batch["picture"])
        return {"mask": found} if self.network == "mask" else dict(zip(("mask", "depth"), found, strict=True))

    def losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """One term for the mask, and one for the depth where there is one."""
        first, second = self._terms()
        found = {"mask": first(outputs["mask"], batch["mask"])}
        if "depth" in outputs:
            found["depth"] = 2 * second(outputs["depth"], batch["depth"])
        return found

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Share]:
        """Of mask and depth each: IoU of chances as in the original, IoU of sharp masks, MAE and the true RMSE."""
        out: dict[str, Share] = {}
        for name, logits in outputs.items():
            chances, target = logits.sigmoid(), batch[name]
            out[f"{name}_soft_iou"] = soft_overlap(chances, target)
            everywhere = torch.ones_like(target, dtype=torch.bool)
            out[f"{name}_mae"] = metrics.abs_error(chances, target, everywhere)
            out[f"{name}_rmse"] = metrics.square_error(chances, target, everywhere)
        out["mask_iou"] = hard_overlap(outputs["mask"].sigmoid(), batch["mask"])
        return out

    def summary(self, means: dict[str, float]) -> dict[str, float]:
        """Roots of the mean squares."""
        return metrics.rooted(means)

    def panels(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Picture, then truth and result of each map."""
        mean, std = (torch.tensor(v, device=batch["picture"].device).view(3, 1, 1) for v in PICTURE_NORM)
        rows = {"picture": batch["picture"] * std + mean}
        for name, logits in outputs.items():
            rows[f"true {name}"] = batch[name].expand(-1, 3, -1, -1)
            rows[name] = logits.sigmoid().expand(-1, 3, -1, -1)
        return rows

    def predict(self, net: nn.Module, dataset: Any, folder: Path, config: dict[str, Any]) -> Iterable[Predicted]:
        """A picture and its background to a mask, and to depth in 0..1 where the network gives it."""
        data = _checked(dataset)
        if data.background is None or data.picture is None:
            raise ConfigError("mode=predict: set dataset.background and dataset.picture to two pictures of one view")
        if data.size % MULTIPLE:
            raise ConfigError(f"dataset.size={data.size}: expected a multiple of {MULTIPLE}")
        try:
            pair = [images.read_image(path).image for path in (data.background, data.picture)]
            if pair[0].shape != pair[1].shape:
                raise InputError(f"{data.picture} has another size than {data.background}; both must show one view")
        except InputError as error:
            yield Predicted(data.picture, error=str(error))
            return
        device, size = next(net.parameters()).device, pair[1].shape[-2:]
        batch = {k: v[None].to(device) for k, v in arranged(pair[0], pair[1], data.size).items()}
        out, files = folder / Path(data.picture).stem, []
        for name, logits in self.forward(net, batch).items():
            value = F.interpolate(logits, (size[0], size[1]), mode="bilinear")[0].sigmoid().cpu()
            files += [images.write_png(out / f"{name}.png", value), images.write_npy(out / f"{name}.npy", value[0])]
        yield Predicted(data.picture, tuple(files))

    def _terms(self) -> tuple[Term, Term]:
        def likeness(logits: Tensor, target: Tensor) -> Tensor:
            return (1 - ssim(logits.sigmoid(), target, self.data_range)).mean()

        def over_scales(logits: Tensor, target: Tensor) -> Tensor:
            weights = weights_for(min(target.shape[-2:]))  # fewer scales at the first sizes of the recipe
            return (1 - ms_ssim(logits.sigmoid(), target, self.data_range, weights=weights)).mean()

        found: dict[str, tuple[Term, Term]] = {
            "bce_rmse": (_bce, _rmse),
            "ssim_rmse": (likeness, _rmse),
            "bce_ssim": (_bce, likeness),
            "rmse_ssim": (_rmse, likeness),
            "ssim_dice": (likeness, _dice),
            "rmse_dice": (_rmse, _dice),
            "bce_dice": (_bce_dice, _rmse),
            "rmse_bce_dice": (lambda x, t: 2 * _rmse(x, t), lambda x, t: _bce_dice(x, t) / 2),
            "bce_ms_ssim": (_bce, over_scales),
        }
        return found[self.loss]


def _checked(dataset: Any) -> Modest:
    if not isinstance(dataset, Modest):
        raise ConfigError("system=foreground_modest reads dataset=modest; leave dataset to it")
    return dataset
