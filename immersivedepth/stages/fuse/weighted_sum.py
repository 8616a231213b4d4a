"""A weighted mean of the models."""

from dataclasses import dataclass, field, replace
from typing import Annotated

import torch

from ...checks import ConfigError, Range
from ...scene import Prediction
from .matching import back, matched


@dataclass
class WeightedSum:
    """Mean of disparity after every view of every model was matched to the heaviest model by a robust affine fit."""

    # By model; one that is not named counts 1.
    weights: dict[str, Annotated[float, Range(0)]] = field(default_factory=dict)

    def __call__(self, predictions: dict[str, Prediction]) -> Prediction:
        """Sum over the models that know a pixel; the result is of the heaviest model's kind."""
        if not predictions:
            raise ConfigError("fuse: expected the predictions of at least one model, got none; set predict=[...]")
        if wrong := [f"{k}={w:g}" for k, w in self.weights.items() if not 0 <= w < float("inf")]:
            raise ConfigError(f"fuse.weights: expected numbers from 0, got {', '.join(wrong)}")
        share = {name: float(self.weights.get(name, 1.0)) for name in predictions}
        reference = max(share, key=share.__getitem__)
        if share[reference] == 0:
            raise ConfigError(f"fuse.weights: all of {', '.join(share)} count 0; give one of them a weight")
        base = predictions[reference]
        if len(predictions) == 1:
            return base
        maps, known = matched(predictions, reference)
        trust = torch.stack([_trust(p) for p in predictions.values()]) * known
        weight = maps.new_tensor(list(share.values()))[:, None, None, None, None] * trust
        total = weight.sum(0)
        mean = (weight * maps).sum(0) / total.clamp_min(1e-12)
        values = torch.where(total > 0, back(mean, base), base.values)
        confidence = total / sum(share.values())
        return replace(base, values=values, confidence=confidence, models=(" + ".join(predictions),) * len(values))


def _trust(prediction: Prediction) -> torch.Tensor:
    return torch.ones_like(prediction.values) if prediction.confidence is None else prediction.confidence
