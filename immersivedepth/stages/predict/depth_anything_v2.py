"""Depth Anything V2 looks at every view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import Tensor

from ...checks import ConfigError, Range, WeightsError
from ...geometry import pinhole
from ...scene import Kind, Prediction, Views
from ...weights import REGISTRY, Weights, fetch, fit, read
from .running import Runner, Running

# What the publishers call the two data sets behind the metric networks.
_TRAINED_ON = {"indoor": "hypersim", "outdoor": "vkitti"}


@dataclass
class DepthAnythingV2:
    """Relative networks give disparity up to an affine map per view, metric ones distance in metres.

    The network is built and its weights are read when it is first called.
    """

    encoder: Literal["vitt", "vits", "vitb", "vitl", "vitg"] = "vits"
    input_size: Annotated[int, Range(14, 4096)] = 518  # the side at which a view enters the network, rounded to 14
    metric: Literal["indoor", "outdoor"] | None = None
    weights: str | None = None  # a file of one's own; null: found by name, or fetched
    running: Running = field(default_factory=Running)
    settings: Weights = field(default_factory=Weights)
    sky_below: Annotated[float, Range(0)] | None = None  # of networks taught that sky is 0: disparities that are sky

    def __post_init__(self) -> None:
        if self.metric and self.sky_below is not None:
            raise ConfigError("predict.depth_anything_v2.sky_below is for disparities; set it or metric to null")

    @property
    def name(self) -> str:
        """The name of the weights in the registry."""
        middle = f"_metric_{_TRAINED_ON[self.metric]}" if self.metric else ""
        return f"depth_anything_v2{middle}_{self.encoder}"

    def load(self) -> None:
        """Build the network and read its weights now rather than at the first look."""
        _ = self._runner

    def __call__(self, views: Views) -> Prediction:
        from depth_anything_v2 import prepare, restore

        rig = views.rig
        size = (rig.resolution, rig.resolution)
        before = partial(prepare, input_size=self.input_size)
        values = self._runner(views.images, before, partial(restore, size=size))[:, None]
        kind = Kind.AFFINE_DISPARITY
        sky = None if self.sky_below is None else values < self.sky_below
        if self.metric:
            kind = Kind.METRIC_DISTANCE
            rays = pinhole.view_rays(rig.rotation, rig.tan_half_fov, rig.resolution)
            values = values * rays.norm(dim=-1)[:, None].to(values)  # depth to distance
        return Prediction(values, (kind,) * len(rig), rig, sky=sky, models=(self.name,) * len(rig))

    @cached_property
    def _runner(self) -> Runner:
        from depth_anything_v2 import MAX_DEPTH
        from depth_anything_v2 import DepthAnythingV2 as Network

        path = self._path()
        state = read(path)
        with torch.device("meta"):  # nothing is drawn that the file replaces anyway
            net = Network(self.encoder, max_depth=MAX_DEPTH[self.metric] if self.metric else None)
        key = f"predict.depth_anything_v2.encoder is {self.encoder}"
        fit(net, state, what=str(path), key=key, recognise=_recognise, assign=True)
        return Runner(net.float(), self.running)

    def _path(self) -> Path:
        if self.name not in REGISTRY:  # a member of the family that nobody published
            if self.weights is None:
                raise WeightsError(
                    f"{self.name}: nobody published such weights; set predict.depth_anything_v2.weights to a file of "
                    "your own, or choose another encoder"
                )
            return Path(self.weights).expanduser()
        path = fetch(self.name, self.weights, self.settings)
        # Keys and shapes are the same in all three, so that only the published names tell a mistaken choice.
        trained = next((kind for kind, data in _TRAINED_ON.items() if f"_metric_{data}_" in path.name), None)
        if trained != self.metric and (trained or path.stem == f"depth_anything_v2_{self.encoder}"):
            raise ConfigError(
                f"predict.depth_anything_v2.metric is {self.metric or 'null'}, but {path} holds the "
                f"{trained or 'relative'} network: set metric={trained or 'null'} or give other weights"
            )
        return path


def _recognise(state: Mapping[str, Tensor]) -> str | None:
    from depth_anything_v2 import recognise

    found = recognise(state)
    return found and f"Depth Anything V2 {found}"
