"""Models that see normals and no distances lend them to the others."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from ...checks import ConfigError
from ...scene import Prediction


def lend_normals(predictions: dict[str, Prediction]) -> dict[str, Prediction]:
    """The predictions that tell distances, each with the normals that another model saw in the same views.

    Who has normals of its own keeps them. A prediction tells no distances if none of its values has confidence.
    """
    lenders = {
        name: p
        for name, p in predictions.items()
        if p.normal is not None and p.confidence is not None and not bool(p.confidence.any())
    }
    if not lenders:
        return predictions
    others = {name: p for name, p in predictions.items() if name not in lenders}
    if not others:
        raise ConfigError(
            f"predict=[{','.join(lenders)}] sees normals only; add a model that sees distances, e.g. depth_anything_v2"
        )
    return {name: _with(p, list(lenders.values())) for name, p in others.items()}


def _with(prediction: Prediction, lenders: list[Prediction]) -> Prediction:
    normals = [
        p.normal
        for p in lenders
        if p.normal is not None
        and p.values.shape == prediction.values.shape
        and torch.equal(p.rig.rotation, prediction.rig.rotation)
        and torch.equal(p.rig.tan_half_fov, prediction.rig.tan_half_fov)
    ]
    if prediction.normal is not None or not normals:
        return prediction
    return replace(prediction, normal=F.normalize(torch.stack(normals).sum(0), dim=1))
