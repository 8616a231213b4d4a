"""What no surface covers in a view: filled from around."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import sphere
from .protocol import PANORAMA, Camera, Frame


def close_holes(frame: Frame, covered: Tensor, camera: Camera) -> Frame:
    """Colours and distances where nothing is covered, by weighted means that widen until they find something.

    Weights grow with the square of distance: what opens behind a near thing belongs to what is far.
    """
    if bool(covered.all()) or not bool(covered.any()):
        return frame
    reach = frame.distance
    finite = torch.where(reach.isfinite(), reach, 0.0)
    top = finite.amax().clamp_min(1e-9)
    weight = covered * torch.where(reach.isfinite(), (finite / top).square(), 1.0)
    values = torch.cat([frame.image, 1 / finite.clamp_min(1e-9), torch.ones_like(finite)]) * weight
    values[3] = torch.where(reach.isfinite()[0] & covered[0], weight[0] / finite[0].clamp_min(1e-9), 0.0)
    filled = widen(values, camera.kind == PANORAMA)
    colour, inverse = filled[:3] / filled[4:], filled[3:4] / filled[4:]
    # Between sky and things, means of inverse distances lie farther than any thing: these are sky too.
    distance = torch.where(inverse * top >= 0.5, 1 / inverse.clamp_min(1e-9), torch.inf)
    return Frame(
        torch.where(covered, frame.image, colour), torch.where(covered, frame.distance, distance), frame.seen & covered
    )


def widen(values: Tensor, turn: bool) -> Tensor:  # [C, h, w]; the last channel is the weight
    """Sums over ever larger blocks, the smallest that hold anything; panoramas close at the seam."""
    if min(values.shape[-2:]) < 2 or bool((values[-1] > 0).all()):
        return values
    height, width = values.shape[-2:]
    odd = (width % 2, height % 2)
    even = F.pad(values[None], (0, odd[0], 0, odd[1]))
    small = widen(F.avg_pool2d(even, 2)[0], turn and not odd[0])
    if turn and not odd[0] and min(small.shape[-2:]) > 1:
        wide = F.interpolate(sphere.pad_erp(small, 1)[None], scale_factor=2, mode="bilinear")[0, :, 2:-2, 2:-2]
    else:
        wide = F.interpolate(small[None], size=even.shape[-2:], mode="bilinear")[0]
    return torch.where(values[-1:] > 0, values, wide[:, :height, :width])
