"""Read aligned views along the rays of a panorama, one piece at a time."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...geometry import footprint, pinhole, sphere
from ...scene import Aligned


class Reading(NamedTuple):
    """What one view says about a piece of the panorama, [r, c] each."""

    columns: slice
    log_distance: Tensor  # 0 where the view says nothing
    trust: Tensor  # weight of log_distance, 0 where the view says nothing or sees sky
    sky: Tensor | None  # weight of seeing sky; None where there is none
    border: Tensor  # 1 in the middle of the view, 0 on its border and beyond
    cosine: Tensor  # of the angle to the view's axis
    normal: Tensor | None  # [3, r, c], not normalized


def read_bands(aligned: Aligned, size: tuple[int, int], edge_ratio: float) -> Iterator[tuple[slice, Iterator[Reading]]]:
    """Bands of rows, each with the readings of the views that see it.

    Between pixels, inverse depth is interpolated, which a plane makes linear. Where it bends sharply and the nearest
    pixel differs by more than `edge_ratio`, a depth edge runs between the pixels and the nearest one is taken, since a
    value in between would be a point in mid-air.
    """
    rig, height, width = aligned.rig, *size
    ratio = pinhole.ray_lengths(rig.tan_half_fov, rig.resolution).to(aligned.distance)[:, None]  # [V, 1, h, w]
    trusted = (aligned.weight > 0) & (aligned.distance > 0)  # nan fails too
    sky = trusted & aligned.distance.isinf()
    surface = trusted & ~sky
    inverse = torch.where(surface, ratio / aligned.distance, 0.0)
    whole, any_sky = bool(surface.all()), bool(sky.any())
    uniform = whole and bool((aligned.weight == aligned.weight.flatten()[0]).all())
    soft = [inverse]
    soft += [] if uniform else [torch.where(trusted, aligned.weight, 0.0)]
    soft += [] if whole else [surface.to(inverse)]
    soft += [sky.to(inverse)] if any_sky else []
    soft += [] if aligned.normal is None else [torch.where(surface, aligned.normal, 0.0)]
    read = footprint.reader(torch.cat(soft, dim=1))
    read_nearest = footprint.reader(torch.cat([inverse, _bends(inverse, edge_ratio)], dim=1))
    grid = footprint.axes(rig, height, width)
    level = aligned.weight.flatten()[0]

    def readings(pieces: list[footprint.Piece]) -> Iterator[Reading]:
        for piece in pieces:
            at = footprint.sight(piece, rig, grid)
            maps = read(piece.view, at, False)
            near, rest = maps[0], list(maps[1:])
            weight = level if uniform else rest.pop(0)
            share = None if whole else rest.pop(0)
            sky_share = rest.pop(0) if any_sky else None
            normal = torch.stack(rest) if rest else None
            border = (1 - torch.maximum(at.x.abs(), at.y.abs())) * at.inside
            weight = weight * at.inside
            if share is not None:
                near = near / share.clamp_min(1e-6)  # the mean of those neighbours that know
                known = share if sky_share is None else share + sky_share
                # A pixel of which less than half is known is left to others.
                weight = torch.where(known >= 0.5, weight / known.clamp_min(0.5), 0.0)
            nearest, bend = read_nearest(piece.view, at, True)
            jump = (bend > 0) & (nearest > 0) & ((near > edge_ratio * nearest) | (nearest > edge_ratio * near))
            near = torch.where(jump, nearest, near) * at.cosine
            trust = weight if share is None else weight * share
            said = (trust > 0) & (near > 0)
            yield Reading(
                columns=piece.columns,
                log_distance=torch.where(said, -near.clamp_min(1e-30).log(), 0.0),
                trust=torch.where(said, trust, 0.0),
                sky=None if sky_share is None else weight * sky_share,
                border=border,
                cosine=at.cosine,
                normal=normal,
            )

    for rows, pieces in footprint.bands(rig, height, width):
        yield rows, readings(pieces)


def _bends(inverse: Tensor, edge_ratio: float) -> Tensor:  # [V, 1, h, w]
    """1 next to pixels where inverse depth has a second difference of a depth edge; planes, however steep, have none."""
    edge = torch.zeros_like(inverse, dtype=torch.bool)
    for dim in (-2, -1):
        before, here, after = (inverse.narrow(dim, i, inverse.shape[dim] - 2) for i in range(3))
        bent = (before - 2 * here + after).abs() > (edge_ratio - 1) * here
        edge |= F.pad(bent, (0, 0, 1, 1) if dim == -2 else (1, 1))
    return F.max_pool2d(edge.to(inverse), 3, 1, 1)


def welford(total: Tensor, mean: Tensor, square: Tensor, value: Tensor, weight: Tensor) -> None:
    """Add a weighted value, in place, to a running total weight, mean and sum of squared deviations.

    Updated view by view (West 1979), so nothing is stacked and nothing cancels.
    """
    total += weight
    step = value - mean
    share = weight / total.clamp_min(1e-12)
    mean += share * step
    square += weight * step.square() * (1 - share)


def coverage(name: str, mask: Tensor, sky: Tensor, spread: Tensor, views: Tensor) -> dict[str, Any]:
    """How much of the sphere is known, and how well the views agree, for the quality report."""
    area = sphere.solid_angles(*mask.shape[-2:], mask.device).double() / (4 * math.pi)
    known = (mask | sky)[0]
    agreed = float((spread[0] * mask[0] * area).sum() / (mask[0] * area).sum().clamp_min(1e-12))
    return {
        "blend": name,
        "covered": round(float((known * area).sum()), 6),
        "sky": round(float((sky[0] * area).sum()), 6),
        "views_per_direction": {"mean": round(float((views * area).sum()), 3), "least": int(views.min())},
        "mean_spread": round(agreed, 6),
    }
