"""A mean of the views in which the majority decides."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from ...checks import Range
from ...geometry import robust
from ...scene import Aligned, Geometry
from . import lookup


@dataclass
class Robust:
    """As the feathered mean, but a view that stands apart from the others at a pixel counts little there.

    Starts from the weighted median; a view is far from it when its distance is large against the usual disagreement.
    """

    margin: Annotated[float, Range(0.01, 1)] = 0.5  # of the half width, over which a view fades out
    tolerance: Annotated[float, Range(0.5)] = 3.0  # in usual disagreements
    rounds: Annotated[int, Range(1, 20)] = 3  # of reweighting
    edge_ratio: Annotated[float, Range(1)] = 1.05  # neighbours further apart are two surfaces, never mixed

    def __call__(self, aligned: Aligned, size: tuple[int, int]) -> Geometry:
        height, width = size
        like = aligned.distance
        distance, spread = like.new_zeros(1, height, width), like.new_zeros(1, height, width)
        mask = torch.zeros(1, height, width, dtype=torch.bool, device=like.device)
        sky, views = mask.clone(), torch.zeros(height, width, dtype=torch.int16, device=like.device)
        normal = None if aligned.normal is None else like.new_zeros(3, height, width)
        usual = float(aligned.report.get("noise", 0.0)) * 2**0.5

        def blend(rows: slice, readings: Iterator[lookup.Reading]) -> None:
            tall, up = rows.stop - rows.start, like.new_zeros(rows.stop - rows.start, width)
            said: list[Tensor] = []
            trust: list[Tensor] = []
            for reading in readings:
                fade = (reading.border / self.margin).clamp_(0, 1)
                weight = reading.trust * fade
                columns = reading.columns
                if reading.sky is not None:
                    up[:, columns] += reading.sky * fade
                views[rows, columns] += (weight if reading.sky is None else weight + reading.sky * fade) > 0
                if normal is not None and reading.normal is not None:
                    normal[:, rows, columns] += reading.normal * fade
                _lay(said, trust, reading.log_distance, weight, columns, (tall, width))
            value, weight = torch.stack(said), torch.stack(trust)  # [layers, r, W], as many as views overlap
            mean, total, square = self._majority(value, weight, usual)
            sky[0, rows] = up > total
            mask[0, rows] = (total > 2 * lookup.NOTHING) & ~sky[0, rows]
            distance[0, rows] = torch.where(mask[0, rows], mean.exp(), 0.0).masked_fill_(sky[0, rows], torch.inf)
            spread[0, rows] = torch.where(mask[0, rows], square.sqrt(), 0.0)

        lookup.read_bands(aligned, size, self.edge_ratio, blend)
        if normal is not None:
            normal = F.normalize(normal, dim=0) * mask
        report = {**aligned.report, "blend": lookup.coverage("robust", mask, sky, spread, views)}
        return Geometry(distance, mask, aligned.metric, normal, sky, spread, report)

    def _majority(self, value: Tensor, weight: Tensor, usual: float) -> tuple[Tensor, Tensor, Tensor]:
        """Robust mean, total weight and mean squared deviation of the layers at every pixel."""
        total = weight.sum(0).clamp_min(lookup.NOTHING)
        mean = (weight * value).sum(0) / total
        square = (weight * (value - mean).square()).sum(0) / total
        middle = robust.layer_median(value, weight)
        for _ in range(self.rounds):
            off = (value - middle).square_()
            pull = weight / (1 + off / (self.tolerance * max(usual, 1e-4)) ** 2) ** 2
            middle = (pull * value).sum(0) / pull.sum(0).clamp_min(lookup.NOTHING)
        return middle, total, square


def _lay(
    said: list[Tensor], trust: list[Tensor], value: Tensor, weight: Tensor, columns: slice, size: tuple[int, int]
) -> None:
    """Put a piece into a layer of its own; layers are as many as views meet in the band."""
    layer, share = value.new_zeros(size), value.new_zeros(size)
    layer[:, columns], share[:, columns] = value, weight
    said.append(layer)
    trust.append(share)
