"""Join the gradients of the views instead of their values."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from ...checks import Range
from ...geometry import poisson
from ...scene import Aligned, Geometry, Rig
from . import lookup
from .robust import Robust

GAP = 64  # columns


@dataclass
class Poisson:
    """Screened Poisson blend of log distance on the sphere: no view's border leaves a step.

    The level over distances longer than `length` comes from the majority blend, all detail from the gradients of the
    views. Where everything is seen the answer is exact; with sky or holes it is found by conjugate gradients.
    """

    length: Annotated[float, Range(0.01, 1000)] = 0.1  # radians
    margin: Annotated[float, Range(0.01, 1)] = 0.55  # of the half width, over which a view fades out
    tolerance: Annotated[float, Range(0.5)] = 3.0  # in usual disagreements, beyond which a view counts little
    edge_ratio: Annotated[float, Range(1)] = 1.05  # neighbours further apart are two surfaces, never mixed

    def __call__(self, aligned: Aligned, size: tuple[int, int]) -> Geometry:
        base = Robust(self.margin, self.tolerance, edge_ratio=self.edge_ratio)(aligned, size)
        known = base.mask[0]
        anchor = torch.where(known, base.distance[0], 1.0).log()
        across, across_weight, down, down_weight = self._gradients(aligned, anchor, known)
        joined = (across_weight > lookup.NOTHING, down_weight > lookup.NOTHING)
        across /= across_weight.clamp_min_(lookup.NOTHING)
        down /= down_weight.clamp_min_(lookup.NOTHING)
        del across_weight, down_weight
        complete = bool(known.all() & joined[0].all() & joined[1].all())
        u, turns, left = poisson.integrate(
            (across, down),
            anchor,
            self.length,
            weights=None if complete else joined,
            confidence=None if complete else known,
        )
        distance = torch.where(known, u.exp().to(base.distance), base.distance[0])[None]
        blend = {**base.report["blend"], "blend": "poisson", "turns": turns, "residual": left}
        return replace(base, distance=distance, report={**base.report, "blend": blend})

    def _gradients(self, aligned: Aligned, anchor: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weighted sums over the views of differences and of weights: across, its weight, down, its weight."""
        height, width = anchor.shape
        like = aligned.distance
        across, across_weight = like.new_zeros(2, height, width)
        down, down_weight = like.new_zeros(2, height - 1, width)
        value, trust = like.new_zeros(2, height, width)
        far = (self.tolerance * max(float(aligned.report.get("noise", 0.0)) * 2**0.5, 1e-4)) ** 2

        def read(rows: slice, readings: Iterator[lookup.Reading]) -> None:
            for reading in readings:
                fade = (reading.border / self.margin).clamp_(0, 1)
                value[rows, reading.columns] = reading.log_distance
                trust[rows, reading.columns] = reading.trust * fade

        for view in range(len(aligned.rig)):
            lookup.read_bands(_one(aligned, view), (height, width), self.edge_ratio, read)
            rows, columns = trust.amax(1).nonzero()[:, 0], trust.amax(0).nonzero()[:, 0]
            if not len(rows):
                continue
            tall = slice(int(rows[0]), int(rows[-1]) + 1)
            for wide in _stretches(columns.tolist()):
                u, weight = value[tall, wide], trust[tall, wide]
                weight *= known[tall, wide] / (1 + (u - anchor[tall, wide]).square_() / far) ** 2
                both = torch.minimum(weight[:, 1:], weight[:, :-1])
                inner = slice(wide.start, wide.stop - 1)
                across[tall, inner] += both * (u[:, 1:] - u[:, :-1])
                across_weight[tall, inner] += both
                both = torch.minimum(weight[1:], weight[:-1])
                upper = slice(tall.start, tall.stop - 1)
                down[upper, wide] += both * (u[1:] - u[:-1])
                down_weight[upper, wide] += both
            both = torch.minimum(trust[tall, 0], trust[tall, -1])  # the edge that closes the seam
            across[tall, -1] += both * (value[tall, 0] - value[tall, -1])
            across_weight[tall, -1] += both
            for wide in _stretches(columns.tolist()):
                trust[tall, wide] = 0
        return across, across_weight, down, down_weight


def _one(aligned: Aligned, view: int) -> Aligned:
    at = slice(view, view + 1)
    rig = Rig(aligned.rig.rotation[at], aligned.rig.tan_half_fov[at], aligned.rig.resolution)
    return Aligned(aligned.distance[at], rig, aligned.weight[at])


def _stretches(columns: list[int]) -> list[slice]:
    """Runs of columns, joined where the gap is small: a view meets a panorama in one stretch, or two at the seam."""
    runs = [[columns[0], columns[0] + 1]]
    for column in columns[1:]:
        if column - runs[-1][1] > GAP:
            runs.append([column, column + 1])
        runs[-1][1] = column + 1
    return [slice(start, stop) for start, stop in runs]
