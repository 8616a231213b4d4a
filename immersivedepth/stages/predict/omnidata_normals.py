"""Omnidata's networks see the normals of every view."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ...geometry import pinhole
from ...scene import Kind, Prediction, Rig, Views
from ...weights import Weights
from .midas import loaded, runner
from .running import Runner, Running

if TYPE_CHECKING:
    from midas.network import Network


@dataclass
class OmnidataNormals:
    """Normals in world axes and nothing else: the values are 0 and have no confidence.

    The network is built and its weights are read when it is first called.
    """

    model: Literal["omnidata_dpt_normal", "omnidata_unet_normal", "midas_tiny_normal"] = "omnidata_dpt_normal"
    weights: str | None = None  # a file of one's own; null: found by name, or fetched
    running: Running = field(default_factory=Running)
    settings: Weights = field(default_factory=Weights)

    def load(self) -> None:
        """Build the network and read its weights now rather than at the first look."""
        _ = self._ready

    def __call__(self, views: Views) -> Prediction:
        rig = views.rig
        net, ready = self._ready
        seen = ready(views.images, net.prepare, partial(net.restore, size=(rig.resolution, rig.resolution)))
        nothing = seen.new_zeros(len(rig), 1, rig.resolution, rig.resolution)
        return Prediction(
            nothing,
            (Kind.AFFINE_DISPARITY,) * len(rig),
            rig,
            confidence=nothing,
            normal=world_normals(seen, rig),
            models=(self.model,) * len(rig),
        )

    @cached_property
    def _ready(self) -> tuple[Network, Runner]:
        net = loaded(self.model, self.weights, self.settings, f"predict.omnidata_normals.model is {self.model}")
        return net, runner(net, self.running)


def world_normals(seen: Tensor, rig: Rig) -> Tensor:  # [V, 3, h, w]
    """Normals [V, 3, h, w] with +x right, +y down, +z towards the camera, turned into world axes and to the camera.

    What points away from the camera, as no visible surface does, is turned until it is seen edge-on.
    """
    forward = seen * seen.new_tensor([1.0, 1.0, -1.0]).view(3, 1, 1)  # views look along +z
    normal = torch.einsum("vij,vjhw->vihw", rig.rotation.to(seen), forward)
    rays = pinhole.view_rays(rig.rotation, rig.tan_half_fov, rig.resolution).to(seen)
    rays = torch.nn.functional.normalize(rays, dim=-1).permute(0, 3, 1, 2)
    away = (normal * rays).sum(dim=1, keepdim=True).clamp(min=0)
    turned = normal - away * rays
    length = turned.norm(dim=1, keepdim=True)
    # Straight away from the camera there is no nearest edge-on direction: such a normal is simply turned round.
    return torch.where(length > 1e-3, turned / length, -rays)
