"""Omnidata's depth network looks at every view."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

from ...checks import Range
from ...scene import Prediction, Views
from ...weights import Weights
from .midas import loaded, look, runner
from .running import Runner, Running

if TYPE_CHECKING:
    from midas.network import Network


@dataclass
class OmnidataDepth:
    """Depth, not disparity, up to an affine map per view: a DPT on the hybrid transformer.

    The network is built and its weights are read when it is first called.
    """

    side: Annotated[int, Range(32, 4096)] | None = None  # pixels at which views are looked at; null: 384
    weights: str | None = None  # a file of one's own; null: found by name, or fetched
    running: Running = field(default_factory=Running)
    settings: Weights = field(default_factory=Weights)

    def load(self) -> None:
        """Build the network and read its weights now rather than at the first look."""
        _ = self._ready

    def __call__(self, views: Views) -> Prediction:
        return look(views, *self._ready, self.side, "predict.omnidata_depth")

    @cached_property
    def _ready(self) -> tuple[Network, Runner]:
        net = loaded("omnidata_dpt_depth", self.weights, self.settings, "predict.omnidata_depth wants its own")
        return net, runner(net, self.running)
