"""Read aligned views along the rays of a panorama, one piece at a time."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...geometry import footprint, pinhole, sphere
from ...scene import Aligned, Rig


class Reading(NamedTuple):
    """What one view says about a piece of the panorama, [r, c] each; nothing where `border` is below 0."""

    columns: slice
    log_distance: Tensor  # 0 where the view says nothing
    trust: Tensor  # weight of log_distance, 0 where the view says nothing or sees sky
    sky: Tensor | None  # weight of seeing sky; None where there is none
    border: Tensor  # 1 in the middle of the view, 0 on its border, below 0 beyond
    cosine: Tensor  # of the angle to the view's axis
    normal: Tensor | None  # [3, r, c], weighted by trust, not normalized


def read_bands(
    aligned: Aligned,
    size: tuple[int, int],
    edge_ratio: float,
    work: Callable[[slice, Iterator[Reading]], None],
) -> None:
    """Call `work` for every band of rows, several at once, with the readings of the views that see it.

    Between pixels, inverse depth is interpolated, which a plane makes linear. Where it bends sharply and the nearest
    pixel differs by more than `edge_ratio`, a depth edge runs between the pixels and the nearest one is taken, since a
    value in between would be a point in mid-air.
    """
    like = aligned.distance
    rig = Rig(aligned.rig.rotation.to(like), aligned.rig.tan_half_fov.to(like), aligned.rig.resolution)
    read = _reader(aligned, rig, edge_ratio)
    grid = footprint.grid_of(rig, *size)

    def readings(pieces: tuple[footprint.Piece, ...]) -> Iterator[Reading]:
        for piece in pieces:
            yield read(piece, footprint.sight(piece, grid))

    footprint.over_bands(lambda rows, pieces: work(rows, readings(pieces)), rig, *size)


def _reader(aligned: Aligned, rig: Rig, edge_ratio: float) -> Callable[[footprint.Piece, footprint.Sight], Reading]:
    trusted = (aligned.weight > 0) & (aligned.distance > 0)  # nan fails too
    sky = trusted & aligned.distance.isinf()
    surface = trusted & ~sky
    lengths = pinhole.ray_lengths(rig.tan_half_fov, rig.resolution)[:, None]
    inverse = torch.where(surface, lengths / aligned.distance, 0.0)
    whole, any_sky = bool(surface.all()), bool(sky.any())
    maps = [inverse, torch.where(trusted, aligned.weight, 0.0)]
    maps += [] if whole else [surface.to(inverse)]
    maps += [sky.to(inverse)] if any_sky else []
    maps += [] if aligned.normal is None else [torch.where(surface, aligned.normal, 0.0)]
    soft = footprint.reader(torch.cat(maps, dim=1))
    # Only next to edges is the nearest pixel asked for; nan differs from nothing.
    sharp = footprint.reader(torch.where(_next_to_bend(inverse, edge_ratio) & surface, inverse, torch.nan))

    def read(piece: footprint.Piece, at: footprint.Sight) -> Reading:
        near, weight, *rest = soft(piece.view, at, False)
        surface_share = None if whole else rest.pop(0)
        sky_share = rest.pop(0) if any_sky else None
        if surface_share is not None:
            near = near / surface_share.clamp_min(1e-6)  # the mean of those neighbours that know
            known = surface_share if sky_share is None else surface_share + sky_share
            # A pixel of which less than half is known is left to others.
            weight = torch.where(known >= 0.5, weight / known.clamp_min(0.5), 0.0)
        nearest = sharp(piece.view, at, True)[0]
        near = torch.where((near > edge_ratio * nearest) | (nearest > edge_ratio * near), nearest, near)
        log_distance = (near * at.cosine).log_().neg_()
        trust = weight
        if surface_share is not None:
            trust = torch.where(near > 0, weight * surface_share, 0.0)
            log_distance = torch.where(trust > 0, log_distance, 0.0)
        return Reading(
            columns=piece.columns,
            log_distance=log_distance,
            trust=trust,
            sky=None if sky_share is None else weight * sky_share,
            border=at.border,
            cosine=at.cosine,
            normal=torch.stack(rest) * trust if rest else None,
        )

    return read


def _next_to_bend(inverse: Tensor, edge_ratio: float) -> Tensor:  # [V, 1, h, w], bool
    """Pixels around a second difference of inverse depth that is a depth edge's; a steep plane has none."""
    edge = torch.zeros_like(inverse, dtype=torch.bool)
    for dim in (-2, -1):
        before, here, after = (inverse.narrow(dim, i, inverse.shape[dim] - 2) for i in range(3))
        bent = (torch.lerp(before, after, 0.5) - here).abs() > (0.5 * (edge_ratio - 1)) * here
        edge.narrow(dim, 1, bent.shape[dim]).logical_or_(bent)
    for dim in (-2, -1):
        size = edge.shape[dim] - 1
        spread = edge.clone()
        spread.narrow(dim, 0, size).logical_or_(edge.narrow(dim, 1, size))
        spread.narrow(dim, 1, size).logical_or_(edge.narrow(dim, 0, size))
        edge = spread
    return edge


def add_weighted(total: Tensor, mean: Tensor, square: Tensor, value: Tensor, weight: Tensor) -> None:
    """Add a weighted value, in place, to a running total weight, mean and sum of squared deviations.

    Updated view by view (West 1979), so nothing is stacked and nothing cancels. The total must start above 0.
    """
    total += weight
    step = value - mean
    part = (weight / total).mul_(step)
    mean += part
    square.addcmul_(weight * step, step - part)


NOTHING = 1e-30  # total weight to start from, so that nothing is divided by zero


def coverage(name: str, mask: Tensor, sky: Tensor, spread: Tensor, views: Tensor) -> dict[str, Any]:
    """How much of the sphere is known, and how well the views agree, for the quality report."""
    height, width = mask.shape[-2:]
    area = sphere.solid_angles(height, width, mask.device)[:, 0].double() / (4 * math.pi)

    def share(values: Tensor) -> float:
        return float(values.sum(-1).double() @ area)

    seen = share(mask[0])
    return {
        "blend": name,
        "covered": round(seen + share(sky[0]), 6),
        "sky": round(share(sky[0]), 6),
        "views_per_direction": {"mean": round(share(views), 3), "least": int(views.min())},
        "mean_spread": round(share(spread[0]) / max(seen, NOTHING), 6),
    }
