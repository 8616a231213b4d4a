"""How sure a mean over images is: percentile intervals of the bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
LEVEL = 0.95


def draws(images: int, samples: int, seed: int = 0) -> Values:  # [samples, images]
    """How often each image occurs in each resampled set of as many images; the same for all that is compared."""
    random = np.random.default_rng(seed)
    return random.multinomial(images, np.full(images, 1 / images), size=samples).astype(np.float64)


def mean_of_images(values: Values, counts: Values) -> Values:  # [images], [samples, images] -> [samples]
    """Means over images that have a value, for every resampled set."""
    known = np.isfinite(values)
    weight = counts[:, known].sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(counts[:, known] @ values[known] / weight)


def pooled(
    sums: Mapping[str, Values], counts: Values, figures: Callable[[Mapping[str, Values]], dict[str, Values]]
) -> dict[str, Values]:  # name: [images] -> name: [samples]
    """Figures of all pixels of every resampled set."""
    return figures({name: counts @ values for name, values in sums.items()})


def interval(samples: Values, level: float = LEVEL) -> tuple[float, float] | None:
    """The middle share of the samples; None where nothing was resampled."""
    good = samples[np.isfinite(samples)]
    if len(good) < 2:
        return None
    low, high = np.quantile(good, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
