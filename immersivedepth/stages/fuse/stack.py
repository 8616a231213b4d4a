"""Keep every model's maps side by side."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...checks import ConfigError
from ...scene import Prediction, Rig
from .lending import lend_normals


@dataclass
class Stack:
    """Every model is one more look at the same sphere: the aligner solves all (model, view) maps jointly."""

    def __call__(self, predictions: dict[str, Prediction]) -> Prediction:
        """Concatenate along the views; a model without confidence, sky or normals says 1, False and 0."""
        if not predictions:
            raise ConfigError("fuse: expected the predictions of at least one model, got none; set predict=[...]")
        predictions = lend_normals(predictions)
        parts = list(predictions.values())
        if len(parts) == 1:
            return parts[0]
        if len({p.rig.resolution for p in parts}) > 1:
            sizes = ", ".join(f"{name} {p.rig.resolution}" for name, p in predictions.items())
            raise ConfigError(f"fuse: expected maps of one size from all models, got {sizes}")
        rig = Rig(
            torch.cat([p.rig.rotation for p in parts]),
            torch.cat([p.rig.tan_half_fov for p in parts]),
            parts[0].rig.resolution,
        )
        return Prediction(
            values=torch.cat([p.values for p in parts]),
            kinds=tuple(kind for p in parts for kind in p.kinds),
            rig=rig,
            confidence=_join(parts, "confidence", 1.0),
            normal=_join(parts, "normal", 0.0),
            sky=_join(parts, "sky", False),
            models=tuple(model for name, p in predictions.items() for model in (p.models or (name,) * len(p.values))),
        )


def _join(parts: list[Prediction], name: str, missing: float | bool) -> Tensor | None:
    maps: list[Tensor | None] = [getattr(p, name) for p in parts]
    given = [m for m in maps if m is not None]
    if not given:
        return None
    kind, channels = given[0].dtype, given[0].shape[1]
    filled = [
        torch.full_like(p.values, missing, dtype=kind).expand(-1, channels, -1, -1) if m is None else m
        for p, m in zip(parts, maps, strict=True)
    ]
    return torch.cat(filled)
