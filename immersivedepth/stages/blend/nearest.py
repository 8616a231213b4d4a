"""Every pixel from the one view that looks at it most directly."""

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
        for rows, readings in lookup.read_bands(aligned, size, self.edge_ratio):
            best, total, mean, square = like.new_zeros(4, rows.stop - rows.start, width)
            for reading in readings:
                at, full = (slice(None), reading.columns), (rows, reading.columns)
                lookup.welford(total[at], mean[at], square[at], reading.log_distance, reading.trust)
                seen = reading.trust if reading.sky is None else reading.trust + reading.sky
                better = (seen > 0) & (reading.cosine > best[at])
                best[at] = torch.where(better, reading.cosine, best[at])
                up = torch.zeros_like(seen, dtype=torch.bool) if reading.sky is None else reading.sky > reading.trust
                views[full] += seen > 0
                for target, value in (
                    (distance[0], reading.log_distance.exp().masked_fill(up, torch.inf)),
                    (sky[0], up),
                    (mask[0], better & ~up),
                ):
                    target[full] = torch.where(better, value, target[full])
                if normal is not None and reading.normal is not None:
                    normal[:, *full] = torch.where(better, reading.normal, normal[:, *full])
            spread[0, rows] = (square / total.clamp_min(1e-12)).sqrt() * mask[0, rows]
        if normal is not None:
            normal = F.normalize(normal, dim=0) * mask
        report = {**aligned.report, "blend": lookup.coverage("nearest", mask, sky, spread, views)}
        return Geometry(distance, mask, aligned.metric, normal, sky, spread, report)
