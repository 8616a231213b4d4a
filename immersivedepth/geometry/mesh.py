"""Triangles over a panorama: one closed surface around the camera, its seam and both poles included.

A vertex stands at every pixel centre, row by row, and one at either pole. Seen from the camera, faces run
counter-clockwise (their normals point inwards, towards it), unless turned.
"""

import torch
from torch import Tensor

from ..checks import check_shapes
from . import sphere


def erp_faces(height: int, width: int, device: torch.device | str | None = None) -> Tensor:  # [2 H W, 3]
    """Faces over H W + 2 vertices; the last two are the north and the south pole. A watertight sphere."""
    return _faces(height, width, width, device)


def erp_points(distance: Tensor) -> Tensor:  # [1, H, W] -> [H W + 2, 3]
    """The vertices of erp_faces. A pole lies at the harmonic mean of its row; 0 where a distance is not known."""
    check_shapes("erp_points", distance=(distance, "1 H W"))
    height, width = distance.shape[-2:]
    known = torch.where(distance.isfinite() & (distance > 0), distance, 0.0)[0]
    rays = sphere.grid_rays(sphere.latitudes(height), sphere.longitudes(width), distance.device, distance.dtype)
    poles = distance.new_tensor([[0, 0, 1], [0, 0, -1]]) * _pole_distances(known)[:, None]
    return torch.cat([(rays * known[..., None]).flatten(0, 1), poles])


def textured(distance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points [N, 3], faces [2 H W, 3] and texture coordinates [N, 2] of the same surface.

    The seam's column stands twice, and each pole once for every column, since a point has one texture coordinate
    only. (0, 0) is the lower left of the image, as in OBJ; u runs a pixel's half beyond 1, for a repeating texture.
    """
    height, width = distance.shape[-2:]
    points = erp_points(distance)
    grid, (north, south) = points[:-2].unflatten(0, (height, width)), points[-2:]
    grid = torch.cat([grid, grid[:, :1]], dim=1)
    u = (torch.arange(width + 1, device=distance.device, dtype=distance.dtype) + 0.5) / width
    v = 1 - (torch.arange(height, device=distance.device, dtype=distance.dtype) + 0.5) / height
    between = u[:-1] + 0.5 / width
    uv = torch.cat(
        [
            torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1).flatten(0, 1),
            torch.stack([between, torch.ones_like(between)], dim=-1),
            torch.stack([between, torch.zeros_like(between)], dim=-1),
        ]
    )
    points = torch.cat([grid.flatten(0, 1), north.expand(width, 3), south.expand(width, 3)])
    return points, _faces(height, width, width + 1, distance.device), uv


def cut_faces(faces: Tensor, points: Tensor, ratio: float | None = None, keep: Tensor | None = None) -> Tensor:
    """The faces whose corners are all known, kept by `keep` [N], and no more than `ratio` apart in distance."""
    reach = points.norm(dim=-1)
    good = reach > 0
    if keep is not None:
        good = good & keep
    chosen = good[faces].all(-1)
    if ratio is not None:
        corner = reach[faces]
        chosen &= corner.amax(-1) <= ratio * corner.amin(-1)
    return faces[chosen]


def keep_vertices(mask: Tensor, columns: int | None = None) -> Tensor:  # [1, H, W] -> [N]
    """A mask of pixels as one of vertices; a pole is kept when any pixel of its row is.

    `columns` is W + 1 for the vertices of `textured`.
    """
    poles = torch.stack([mask[0, 0].any(), mask[0, -1].any()])
    width = mask.shape[-1]
    if columns is None:
        return torch.cat([mask.flatten(), poles])
    return torch.cat([torch.cat([mask[0], mask[0, :, :1]], dim=1).flatten(), poles.repeat_interleave(width)])


def compact(points: Tensor, faces: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
    """Drop the vertices that no face uses, from the points and from further values per vertex."""
    used = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    used[faces.flatten()] = True
    renumber = used.cumsum(0) - 1
    return (points[used], renumber[faces], *(values[used] for values in more))


def _faces(height: int, width: int, columns: int, device: torch.device | str | None) -> Tensor:
    """Faces of a grid with `columns` vertices a row: `width` closes it, one more leaves a seam and poles in copies."""
    closed = columns == width
    column = torch.arange(width, device=device)
    after = (column + 1) % columns
    row = torch.arange(height - 1, device=device)[:, None] * columns
    a, b, c, d = row + column, row + after, row + columns + column, row + columns + after
    quads = torch.stack([torch.stack([a, c, b], -1), torch.stack([b, c, d], -1)], dim=2).reshape(-1, 3)
    first_pole, last = height * columns, (height - 1) * columns
    north = torch.full_like(column, first_pole) if closed else first_pole + column
    south = torch.full_like(column, first_pole + 1) if closed else first_pole + width + column
    caps = [torch.stack([north, column, after], -1), torch.stack([last + column, south, last + after], -1)]
    return torch.cat([quads, *caps])


def _pole_distances(known: Tensor) -> Tensor:  # [H, W] -> [2]
    rows = known[[0, -1]]
    inverse = torch.where(rows > 0, 1 / rows, 0.0).sum(-1)
    return torch.where(inverse > 0, (rows > 0).sum(-1) / inverse, 0.0)
