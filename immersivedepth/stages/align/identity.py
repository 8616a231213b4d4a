"""Take every map at its word."""

from dataclasses import dataclass

import torch

from ...scene import Aligned, Kind, Prediction
from .views import border_fade, cosines


@dataclass
class Identity:
    """No alignment: scale 1 and shift 0, so an affine disparity is read as 1 / depth and an affine depth as depth."""

    def __call__(self, prediction: Prediction) -> Aligned:
        """Turn each map into distances by its kind alone."""
        cosine = cosines(prediction.rig)
        values = prediction.values
        as_distance = {
            Kind.AFFINE_DISPARITY: 1 / (values * cosine),
            Kind.AFFINE_DEPTH: values / cosine,
            Kind.SCALE_DISTANCE: values,
            Kind.METRIC_DISTANCE: values,
        }
        distance = torch.stack([as_distance[kind][view] for view, kind in enumerate(prediction.kinds)])
        known = distance.isfinite() & (distance > 0)
        weight = border_fade(prediction.rig) * known
        if prediction.confidence is not None:
            weight = weight * prediction.confidence
        distance = torch.where(known, distance, torch.ones_like(distance))
        if prediction.sky is not None:
            distance = distance.masked_fill(prediction.sky, torch.inf)
            weight = torch.where(prediction.sky, border_fade(prediction.rig), weight)
        metric = all(kind is Kind.METRIC_DISTANCE for kind in prediction.kinds)
        return Aligned(distance, prediction.rig, weight, metric, prediction.normal, {"align": "identity"})
