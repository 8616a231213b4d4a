"""A weighted mean of the views, which fade out towards their borders."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F

from ...checks import Range
from ...scene import Aligned, Geometry
from . import lookup


@dataclass
class Feather:
    """Mean of log distance; a view's weight falls to zero over the outer part of its half width."""

    margin: Annotated[float, Range(0.01, 1)] = 0.35  # of the half width; the rest counts in full
    edge_ratio: Annotated[float, Range(1)] = 1.05  # neighbours further apart are two surfaces, never mixed

    def __call__(self, aligned: Aligned, size: tuple[int, int]) -> Geometry:
        height, width = size
        like = aligned.distance
        distance, spread = like.new_zeros(1, height, width), like.new_zeros(1, height, width)
        mask = torch.zeros(1, height, width, dtype=torch.bool, device=like.device)
        sky, views = mask.clone(), torch.zeros(height, width, dtype=torch.int16, device=like.device)
        normal = None if aligned.normal is None else like.new_zeros(3, height, width)

        def blend(rows: slice, readings: Iterator[lookup.Reading]) -> None:
            total, mean, square, up = like.new_zeros(4, rows.stop - rows.start, width)
            total += lookup.NOTHING
            for reading in readings:
                at, here = (slice(None), reading.columns), (rows, reading.columns)
                fade = (reading.border / self.margin).clamp_(0, 1)
                weight = reading.trust * fade
                lookup.add_weighted(total[at], mean[at], square[at], reading.log_distance, weight)
                seen = weight
                if reading.sky is not None:
                    seen = weight + reading.sky * fade
                    up[at] += reading.sky * fade
                views[here] += seen > 0
                if normal is not None and reading.normal is not None:
                    normal[:, *here] += reading.normal * fade
            sky[0, rows] = up > total
            mask[0, rows] = (total > 2 * lookup.NOTHING) & ~sky[0, rows]
            distance[0, rows] = torch.where(mask[0, rows], mean.exp(), 0.0).masked_fill_(sky[0, rows], torch.inf)
            spread[0, rows] = torch.where(mask[0, rows], (square / total).sqrt_(), 0.0)

        lookup.read_bands(aligned, size, self.edge_ratio, blend)
        if normal is not None:
            normal = F.normalize(normal, dim=0) * mask
        report = {**aligned.report, "blend": lookup.coverage("feather", mask, sky, spread, views)}
        return Geometry(distance, mask, aligned.metric, normal, sky, spread, report)
