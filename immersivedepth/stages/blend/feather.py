"""A weighted mean of the views that fade out towards their borders."""

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
        out = {name: like.new_zeros(1, height, width) for name in ("distance", "spread")}
        sky = torch.zeros(1, height, width, dtype=torch.bool, device=like.device)
        mask, views = sky.clone(), torch.zeros(height, width, dtype=torch.int16, device=like.device)
        normal = None if aligned.normal is None else like.new_zeros(3, height, width)
        for rows, readings in lookup.read_bands(aligned, size, self.edge_ratio):
            tall = rows.stop - rows.start
            total, mean, square, sky_total = like.new_zeros(4, tall, width)
            for reading in readings:
                at = (slice(None), reading.columns)
                fade = (reading.border / self.margin).clamp_max(1)
                weight = reading.trust * fade
                lookup.welford(total[at], mean[at], square[at], reading.log_distance, weight)
                views[rows, reading.columns] += weight > 0
                if reading.sky is not None:
                    sky_total[at] += reading.sky * fade
                if normal is not None and reading.normal is not None:
                    normal[:, rows, reading.columns] += reading.normal * fade
            sky[0, rows] = sky_total > total
            mask[0, rows] = (total > 0) & ~sky[0, rows]
            out["distance"][0, rows] = torch.where(mask[0, rows], mean.exp(), 0.0).masked_fill(sky[0, rows], torch.inf)
            out["spread"][0, rows] = torch.where(mask[0, rows], (square / total.clamp_min(1e-12)).sqrt(), 0.0)
        if normal is not None:
            normal = F.normalize(normal, dim=0) * mask
        report = {**aligned.report, "blend": lookup.coverage("feather", mask, sky, out["spread"], views)}
        return Geometry(mask=mask, metric=aligned.metric, normal=normal, sky=sky, report=report, **out)
