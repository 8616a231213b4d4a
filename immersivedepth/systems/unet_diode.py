"""Indoor depth of single pictures: the residual U-Net of the Keras example on DIODE."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import ConfigError, InputError, Range
from ..data import images
from ..data.diode import Diode
from ..data.samples import Batch, Samples
from ..losses.edges import edge_weighted_smoothness
from ..losses.structural import ssim
from ..losses.supervision import masked
from ..metrics import depth as metrics
from ..nets.residual_unet import ResidualUNet
from ..training import Predicted, Share, Split, System

_WINDOW, _K = 7, (1e-4, 9e-4)  # of the original's similarity; its range is the width of the picture
_STEP = 3  # every so many pixels is a point of the scatter


@dataclass(kw_only=True)
class UNetDiode(System):
    """The map is the natural logarithm of depth in metres."""

    head: Literal["tanh", "linear"] = "tanh"  # tanh reaches 1, which is 2.7 m; linear reaches all
    ssim_weight: Annotated[float, Range(0)] = 0.85
    l1_weight: Annotated[float, Range(0)] = 0.1
    edge_weight: Annotated[float, Range(0)] = 0.9
    masked_loss: bool = False  # every term over measured pixels only; the original had lost the mask
    output_scatter: bool = True  # of predict

    def net(self) -> nn.Module:
        """The U-Net."""
        return ResidualUNet(self.head)

    def data(self, dataset: Any, split: Split) -> Samples | None:
        """Pictures of DIODE."""
        return _checked(dataset).samples(split)

    def forward(self, net: nn.Module, batch: Batch) -> Any:
        """Log depth."""
        return net(batch["image"])

    def losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Similarity, difference and edges, equal to the reference values of TensorFlow."""
        target, valid = batch["target"], batch["valid"] if self.masked_loss else None
        likeness = ssim(target, outputs, float(outputs.shape[-1]), _WINDOW, k=_K, valid=valid)
        everywhere = torch.ones_like(batch["valid"])
        return {
            "ssim": self.ssim_weight * (1 - likeness).mean(),
            "l1": self.l1_weight * masked(outputs, target, everywhere if valid is None else valid, "l1"),
            "edges": self.edge_weight * edge_weighted_smoothness(outputs, target, valid),
        }

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Share]:
        """The usual figures in metres, over measured pixels."""
        return metrics.standard(outputs.exp(), batch["depth"], batch["valid"])

    def summary(self, means: dict[str, float]) -> dict[str, float]:
        """Roots of the mean squares."""
        return metrics.rooted(means)

    def panels(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Picture, truth and result; what is not measured is black, as in the original."""
        top = torch.where(batch["valid"], batch["target"], 0.0).amax((-3, -2, -1), keepdim=True).clamp_min(1e-3)
        shown = {"truth": torch.where(batch["valid"], batch["target"], torch.nan), "found": outputs}
        return {"picture": batch["image"], **{name: jet(value / top) for name, value in shown.items()}}

    def predict(self, net: nn.Module, dataset: Any, folder: Path, config: dict[str, Any]) -> Iterable[Predicted]:
        """Depth of one's own pictures at their own size: npy, exr, a picture, and coloured points seen from above."""
        data = _checked(dataset)
        for path in pictures_of(data):
            try:
                image = images.read_image(path).image.float() / 255
                depth = self.depth_of(net, image, data.size)
            except InputError as error:
                yield Predicted(str(path), error=str(error))
                continue
            out = folder / path.stem
            files = [
                images.write_npy(out / "depth.npy", depth[0]),
                images.write_exr(out / "depth.exr", depth, channel="Z"),
                images.write_png(out / "depth.png", jet((depth.log() / depth.log().amax().clamp_min(1e-3))[None])[0]),
            ]
            if self.output_scatter:
                files.append(images.write_png(out / "points.png", scatter(image, depth)))
            yield Predicted(str(path), tuple(files))

    def depth_of(self, net: nn.Module, image: Tensor, size: int) -> Tensor:  # [3, H, W] -> [1, H, W]
        """Metres."""
        device = next(net.parameters()).device
        small = F.interpolate(image[None].to(device), (size, size), mode="bilinear", antialias=True)
        found = F.interpolate(net(small), (image.shape[-2], image.shape[-1]), mode="bilinear")
        return found[0].exp().cpu()


def jet(shares: Tensor) -> Tensor:  # [B, 1, h, w] in 0..1 -> [B, 3, h, w]; nan is black
    """Values in the colours of the original's panels."""
    flat = shares[:, 0].detach().float().cpu().numpy()
    codes = (np.nan_to_num(flat).clip(0, 1) * 255).astype(np.uint8)
    colours = np.stack([cv2.applyColorMap(c, cv2.COLORMAP_JET)[..., ::-1] for c in codes])
    colours = np.where(np.isnan(flat)[..., None], 0, colours)
    return torch.from_numpy(colours).movedim(-1, 1).float() / 255


def scatter(image: Tensor, depth: Tensor, side: int = 512) -> np.ndarray:
    """The pixels as points in space in their own colours, seen from 45 degrees above and 135 degrees to the side."""
    colours = image[:, ::_STEP, ::_STEP].flatten(1).T.numpy()  # 0..1; the original divided by 255 once more
    z = depth[0, ::_STEP, ::_STEP].numpy()
    v, u = np.mgrid[0 : z.shape[0], 0 : z.shape[1]]
    points = np.stack([u / u.max() - 0.5, 0.5 - v / v.max(), z / z.max() - 0.5], -1).reshape(-1, 3)
    up, turn = np.radians(45), np.radians(135)
    c, s = np.cos(turn), np.sin(turn)
    x, away = c * points[:, 0] + s * points[:, 2], -s * points[:, 0] + c * points[:, 2]
    y = np.cos(up) * points[:, 1] - np.sin(up) * away
    near = np.sin(up) * points[:, 1] + np.cos(up) * away
    order = np.argsort(-near)
    paper = np.full((side, side, 3), 255, np.uint8)
    column = np.clip((x * 0.55 + 0.5) * side, 1, side - 2).astype(int)[order]
    row = np.clip((0.5 - y * 0.55) * side, 1, side - 2).astype(int)[order]
    ink = np.rint(colours[order].clip(0, 1) * 255).astype(np.uint8)
    for down in (0, 1):
        for right in (0, 1):
            paper[row + down, column + right] = ink
    return paper


def pictures_of(data: Diode) -> list[Path]:
    """The pictures that were named: one, those of a folder, or those of a list."""
    if data.images is None:
        raise ConfigError("mode=predict: set dataset.images to a picture, a folder of them, or a .txt list")
    path = Path(data.images).expanduser()
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.suffix.lower() in images.SUFFIXES)
    if path.suffix.lower() == ".txt":
        images.check_file(path)
        return [path.parent / line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    return [path]


def _checked(dataset: Any) -> Diode:
    if not isinstance(dataset, Diode):
        raise ConfigError("system=unet_diode reads dataset=diode; leave dataset to it")
    return dataset
