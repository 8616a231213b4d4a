"""Every pixel from the one view that looks at it most directly."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F

from ...checks import Range
from ...scene import Aligned, Geometry
from . import lookup


@dataclass
class Nearest:
    """No mixing: seams stay visible, which shows how well the views agree."""

    edge_ratio: Annotated[float, Range(1)] = 1.05  # neighbours further apart are two surfaces, never mixed

    def __call__(self, aligned: Aligned, size: tuple[int, int]) -> Geometry:
        height, width = size
        like = aligned.distance
        distance, spread = like.new_zeros(1, height, width), like.new_zeros(1, height, width)
        mask = torch.zeros(1, height, width, dtype=torch.bool, device=like.device)
        sky, views = mask.clone(), torch.zeros(height, width, dtype=torch.int16, device=like.device)
        normal = None if aligned.normal is None else like.new_zeros(3, height, width)

        def blend(rows: slice, readings: Iterator[lookup.Reading]) -> None:
            best, total, mean, square = like.new_zeros(4, rows.stop - rows.start, width)
            total += lookup.NOTHING
            for reading in readings:
                at, here = (slice(None), reading.columns), (rows, reading.columns)
                inside = reading.border >= 0
                trust = reading.trust * inside
                lookup.add_weighted(total[at], mean[at], square[at], reading.log_distance, trust)
                seen, up = trust > 0, torch.zeros_like(inside)
                if reading.sky is not None:
                    up = (reading.sky > trust) & inside
                    seen = seen | up
                views[here] += seen
                better = seen & (reading.cosine > best[at])
                best[at] = torch.where(better, reading.cosine, best[at])
                sky[0, *here] = torch.where(better, up, sky[0, *here])
                mask[0, *here] = torch.where(better, ~up, mask[0, *here])
                value = reading.log_distance.exp().masked_fill_(up, torch.inf)
                distance[0, *here] = torch.where(better, value, distance[0, *here])
                if normal is not None and reading.normal is not None:
                    normal[:, *here] = torch.where(better, reading.normal, normal[:, *here])
            spread[0, rows] = (square / total).sqrt_() * mask[0, rows]

        lookup.read_bands(aligned, size, self.edge_ratio, blend)
        if normal is not None:
            normal = F.normalize(normal, dim=0) * mask
        report = {**aligned.report, "blend": lookup.coverage("nearest", mask, sky, spread, views)}
        return Geometry(distance, mask, aligned.metric, normal, sky, spread, report)
