"""What a view beside the panorama is completed with, where the panorama did not show it.

A class of one's own needs `__call__(image, unseen) -> image` and its package in IMMERSIVEDEPTH_TRUST.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

import cv2
import torch
from torch import Tensor

from ...checks import Range
from ...geometry import sphere


@runtime_checkable
class Inpaint(Protocol):
    """Completes panoramas."""

    def __call__(self, image: Tensor, unseen: Tensor) -> Tensor | None:  # [3, H, W], [1, H, W] -> [3, H, W]
        """The picture with new colours where it was not seen; None where nothing is to be completed at all."""
        ...


@dataclass
class Nothing:
    """No views beside the panorama: its hidden parts stay as they were begun."""

    def __call__(self, image: Tensor, unseen: Tensor) -> Tensor | None:
        return None


@dataclass
class NavierStokes:
    """Lines of equal brightness go on into the hole (Bertalmio and others)."""

    radius: Annotated[float, Range(1, 64)] = 3.0  # pixels

    def __call__(self, image: Tensor, unseen: Tensor) -> Tensor | None:
        return _by_cv2(image, unseen, self.radius, cv2.INPAINT_NS)


@dataclass
class Telea:
    """From the border inwards by weighted means (Telea)."""

    radius: Annotated[float, Range(1, 64)] = 3.0  # pixels

    def __call__(self, image: Tensor, unseen: Tensor) -> Tensor | None:
        return _by_cv2(image, unseen, self.radius, cv2.INPAINT_TELEA)


def _by_cv2(image: Tensor, unseen: Tensor, radius: float, method: int) -> Tensor:
    pad = min(round(4 * radius), image.shape[-2])
    wide = (sphere.pad_erp(image, pad).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    holes = sphere.pad_erp(unseen.byte(), pad)[0].cpu().numpy()
    filled = torch.from_numpy(cv2.inpaint(wide.copy(), holes.copy(), radius, method))
    new = filled.permute(2, 0, 1)[:, pad:-pad, pad:-pad].to(image) / 255
    return torch.where(unseen, new, image)
