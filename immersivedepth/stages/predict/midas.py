"""MiDaS looks at every view."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ...checks import ConfigError, Range, WeightsError
from ...scene import Kind, Prediction, Views
from ...weights import REGISTRY, Weights, fetch, fit, read
from .running import Runner, Running

if TYPE_CHECKING:
    from midas.network import Network

# Where a file is published under another name than that of its model.
_FILES = {
    "omnidata_dpt_depth": "omnidata_dpt_depth_v2",
    "omnidata_dpt_normal": "omnidata_dpt_normal_v2",
    "omnidata_unet_normal": "omnidata_unet_normal_v1",
}
# Two published files have the same keys and shapes and mean different things: only their names tell them apart.
_TWINS = {"dpt_hybrid_384", "omnidata_dpt_depth_v2"}


@dataclass
class Midas:
    """Disparity up to an affine map per view.

    The network is built and its weights are read when it is first called.
    """

    model: Literal[
        "dpt_beit_large_512",
        "dpt_beit_large_384",
        "dpt_beit_base_384",
        "dpt_swin2_large_384",
        "dpt_swin2_base_384",
        "dpt_swin2_tiny_256",
        "dpt_swin_large_384",
        "dpt_next_vit_large_384",
        "dpt_levit_224",
        "dpt_large_384",
        "dpt_hybrid_384",
        "midas_v21_384",
        "midas_v21_small_256",
        "midas_tiny",
    ] = "midas_v21_small_256"
    side: Annotated[int, Range(32, 4096)] | None = None  # pixels at which views are looked at; null: the model's own
    weights: str | None = None  # a file of one's own; null: found by name, or fetched
    running: Running = field(default_factory=Running)
    settings: Weights = field(default_factory=Weights)
    sky_below: Annotated[float, Range(0)] | None = None  # of networks taught that sky is 0: disparities that are sky

    def load(self) -> None:
        """Build the network and read its weights now rather than at the first look."""
        _ = self._ready

    def __call__(self, views: Views) -> Prediction:
        found = look(views, *self._ready, self.side, "predict.midas")
        return found if self.sky_below is None else replace(found, sky=found.values < self.sky_below)

    @cached_property
    def _ready(self) -> tuple[Network, Runner]:
        net = loaded(self.model, self.weights, self.settings, f"predict.midas.model is {self.model}")
        return net, runner(net, self.running)


def runner(net: Network, running: Running) -> Runner:
    """What looks with a network of `midas`."""
    # Convolutions were measured to be 1.4 times as fast with their channels last.
    return Runner(net, running, channels_last=net.spec.family == "convolutional")


def look(views: Views, net: Network, ready: Runner, side: int | None, key: str) -> Prediction:
    """What a network of disparity or depth says of every view."""
    rig = views.rig
    try:
        net.spec.network_size(rig.resolution, rig.resolution, side)
    except ValueError as error:
        raise ConfigError(f"{key}.side={side}: {error}") from error
    restore = partial(net.restore, size=(rig.resolution, rig.resolution))
    # Bicubic interpolation overshoots below 0, where neither a disparity nor a depth of these networks is.
    values = ready(views.images, partial(net.prepare, side=side), lambda y: restore(y).clamp(min=0))
    kind = Kind.AFFINE_DEPTH if net.spec.output == "depth" else Kind.AFFINE_DISPARITY
    return Prediction(values[:, None], (kind,) * len(rig), rig, models=(net.spec.name,) * len(rig))


def loaded(model: str, weights: str | None, settings: Weights, key: str) -> Network:
    """A network of `midas` with its weights; `key` is the choice that a file of another model contradicts."""
    from midas import create, recognise

    name = _FILES.get(model, model)
    if weights is not None and name not in REGISTRY:
        path = Path(weights).expanduser()  # nobody published it
    else:
        path = fetch(name, weights, settings)
        if name in _TWINS and path.stem in _TWINS - {name}:
            raise WeightsError(f"{path} does not fit: this is a {path.stem} file; {key}.")
    state = read(path)
    net = create(model, seed=None)
    fit(net, state, what=str(path), key=key, recognise=recognise, assign=True)
    return net.float()
