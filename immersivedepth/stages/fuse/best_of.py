"""At every pixel, the model that is surest."""

from dataclasses import dataclass, replace

from ...checks import ConfigError
from ...scene import Prediction
from .matching import back, matched


@dataclass
class BestOf:
    """Every view of every model is matched to the first one by a robust affine fit; then the surest wins."""

    def __call__(self, predictions: dict[str, Prediction]) -> Prediction:
        """Choose pixel by pixel; all models must give a confidence, else there is nothing to choose by."""
        if not predictions:
            raise ConfigError("fuse: expected the predictions of at least one model, got none; set predict=[...]")
        base = next(iter(predictions.values()))
        if len(predictions) == 1:
            return base
        if silent := [name for name, p in predictions.items() if p.confidence is None]:
            raise ConfigError(f"fuse=best_of: {', '.join(silent)} give no confidence; use fuse=stack or weighted_sum")
        maps, known = matched(predictions, next(iter(predictions)))
        trust = maps.new_zeros(maps.shape)
        for row, confidence in zip(trust, [p.confidence for p in predictions.values()], strict=True):
            row += confidence
        trust = trust.masked_fill(~known, -1)
        best = trust.argmax(0, keepdim=True)
        values = back(maps.gather(0, best)[0], base)
        confidence = trust.gather(0, best)[0].clamp_min(0)
        return replace(base, values=values, confidence=confidence, models=(" | ".join(predictions),) * len(values))
