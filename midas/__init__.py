"""MiDaS v3.1 and its relatives on current timm: every released network, weight-compatible.

    net = midas.load("dpt_beit_base_384", torch.load(path, weights_only=True))
    disparity = net.infer(images)  # [B, 3, H, W] in 0..1 -> [B, H, W]

Nothing here reads files. timm is imported with the first network that is made.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from .recognition import bare_state, recognise
from .specs import SPECS, Spec

if TYPE_CHECKING:
    from .network import Network

__all__ = ["MODELS", "SPECS", "Spec", "bare_state", "create", "load", "recognise"]

MODELS = tuple(SPECS)

_FAMILIES = {
    "vit": ("vit", "ViT"),
    "hybrid": ("vit", "Hybrid"),
    "beit": ("beit", "Beit"),
    "swin": ("swin", "Swin"),
    "levit": ("levit", "Levit"),
    "next_vit": ("next_vit", "NextViT"),
    "convolutional": ("convolutional", "MidasNet"),
    "unet": ("unet", "UNet"),
}


def create(name: str, seed: int | None = 0) -> Network:
    """The named network with random weights drawn from `seed`, for training; the global generator stays as it is.

    With seed=None nothing is drawn, which is faster: the weights are undefined until a state dict is loaded.
    """
    if seed is None:
        with _NoDraws():
            return _build(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _build(name)


def load(name: str, checkpoint: Mapping[str, Any]) -> Network:
    """The named network in evaluation mode with the weights of a released file, given as torch.load returns it."""
    net = create(name, seed=None)
    net.load_state_dict(bare_state(checkpoint), strict=True)
    return net.eval()


def _build(name: str) -> Network:
    if name not in SPECS:
        raise ValueError(f"no model is called {name!r}; there are {', '.join(MODELS)}")
    module, network = _FAMILIES[SPECS[name].family]
    built: Network = getattr(importlib.import_module(f".{module}", __name__), network)(SPECS[name])
    return built


class _NoDraws(TorchFunctionMode):
    """Leaves memory as it is where weights would be drawn: strict loading overwrites all of them."""

    # Functions of nn.init are seen as a whole; what they call inside is not.
    _draws = frozenset(
        {Tensor.normal_, Tensor.uniform_, Tensor.erfinv_, init.normal_, init.uniform_, init.kaiming_uniform_}
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self._draws:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))
