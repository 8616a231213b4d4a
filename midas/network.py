"""What all networks share: names of the released files, legal sizes, and the way from an image to a map and back."""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .specs import Spec


class Network(nn.Module):
    """A network whose `state_dict` speaks the names of the released file, whatever its modules are called.

    A family whose modules are named otherwise overrides `released_key`, and names the tables that old releases store
    and that are computed here in `structural`; both ways go through these, so that a file saved here loads wherever
    the released one does.
    """

    structural: re.Pattern[str] | None = None  # keys of released files that hold no weights
    pretrained: Any  # the encoder and
    scratch: nn.Module  # the decoder, under the names of the released keys

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.register_load_state_dict_pre_hook(_from_released_keys)
        self.register_state_dict_post_hook(_to_released_keys)

    def released_key(self, key: str) -> str:
        """Name in the released file of what is called `key` here."""
        return key

    def features(self, x: Tensor) -> list[Tensor]:
        """Four (LeViT: three) maps of the encoder, finest first."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """A prepared image [B, 3, h, w] as disparity or depth [B, h, w] or normals [B, 3, h, w], not yet clamped."""
        self.spec.check_size(x.shape[-2], x.shape[-1])
        out = self.scratch(self.features(x))
        return out if self.spec.output == "normal" else out[:, 0]

    def prepare(self, images: Tensor, side: int | None = None) -> Tensor:  # [B, 3, h, w]
        """Images [B, 3, H, W], RGB, uint8 or floating in 0..1, as the network wants them."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"{self.spec.name}: expected images [B, 3, H, W], RGB, got {list(images.shape)}")
        x = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        size = self.spec.network_size(x.shape[-2], x.shape[-1], side)
        if self.spec.output == "disparity":
            # As the original does it: no antialiasing, and values may leave 0..1.
            x = F.interpolate(x, size, mode="bicubic", align_corners=False)
        else:
            x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        mean, std = (x.new_tensor(triple).view(3, 1, 1) for triple in self.spec.norm)
        return (x - mean) / std

    def restore(self, output: Tensor, size: tuple[int, int]) -> Tensor:
        """An output of the network at the size of the image.

        Disparity [B, H, W] is as the original leaves it: bicubic interpolation overshoots, so clamp it before
        inverting. Depth [B, H, W] is in 0..1. Normals [B, 3, H, W] are unit vectors, +x right, +y down, +z towards the
        camera.
        """
        if self.spec.output == "normal":
            vectors = 2 * output.float().clamp(0, 1) - 1
            vectors = F.interpolate(vectors, size, mode="bilinear", align_corners=False)
            length = vectors.norm(dim=1, keepdim=True)
            towards = vectors.new_tensor((0.0, 0.0, 1.0)).view(3, 1, 1)  # where opposite neighbours cancel out
            return torch.where(length > 1e-6, vectors / length, towards)
        values = output.float()[:, None]
        if self.spec.output == "depth":
            values = values.clamp(0, 1)
        values = F.interpolate(values, size, mode="bicubic", align_corners=False)
        return values[:, 0].clamp(0, 1) if self.spec.output == "depth" else values[:, 0]

    @torch.no_grad()
    def infer(self, images: Tensor, side: int | None = None) -> Tensor:
        """Maps of images [B, 3, H, W] at their own size, as `restore` describes them; `side` replaces the model's."""
        return self.restore(self(self.prepare(images, side)), (images.shape[-2], images.shape[-1]))


def _from_released_keys(net: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    assert isinstance(net, Network)
    names = {prefix + net.released_key(own): prefix + own for own in _own_keys(net)}
    renamed: dict[str, Any] = {}
    for key in list(state):
        if not key.startswith(prefix):
            continue
        value = state.pop(key)
        if key in names:
            renamed[names[key]] = value
        elif net.structural is None or not net.structural.search(key):
            # Not ours: kept under a name that no module has, so that loading reports it.
            renamed[key if key not in names.values() else f"{key} (not a name of {net.spec.name})"] = value
    state.update(renamed)


def _to_released_keys(net: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    assert isinstance(net, Network)
    for key in [key for key in state if key.startswith(prefix)]:
        state[prefix + net.released_key(key[len(prefix) :])] = state.pop(key)


def _own_keys(net: nn.Module) -> list[str]:
    buffers = [
        f"{path}.{name}" if path else name
        for path, module in net.named_modules()
        for name, buffer in module.named_buffers(recurse=False)
        if buffer is not None and name not in module._non_persistent_buffers_set
    ]
    return [name for name, _ in net.named_parameters(remove_duplicate=False)] + buffers
