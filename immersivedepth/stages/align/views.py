"""What every aligner needs to know of its views: cosines and the fading of trust towards the borders."""

import torch
from torch import Tensor

from ...geometry import pinhole
from ...scene import Rig


def cosines(rig: Rig) -> Tensor:  # [V, 1, h, w]
    """Depth / distance at every pixel."""
    return 1 / pinhole.ray_lengths(rig.tan_half_fov, rig.resolution)[:, None]


def border_fade(rig: Rig, width: float = 0.15, least: float = 0.05) -> Tensor:  # [V, 1, h, w]
    """Full trust in the middle of a view, falling to `least` over the outer `width` of the half side."""
    t = (torch.arange(rig.resolution, device=rig.rotation.device) + 0.5) / rig.resolution * 2 - 1
    ramp = ((1 - t.abs()) / width).clamp(least, 1)
    return torch.minimum(ramp[:, None], ramp[None, :]).expand(len(rig), 1, -1, -1)
