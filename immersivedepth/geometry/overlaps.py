"""Where views look at the same direction: sample directions, who sees them, and bilinear look-up in the views.

The directions are pixel grids of the views themselves, not of the world, so nothing depends on how the rig is turned.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Rows = tuple[Tensor, Tensor, Tensor, Tensor]


def grid_directions(rotation: Tensor, tan_half_fov: Tensor, per_side: int) -> tuple[Tensor, Tensor]:
    """A square grid in every view: unit world directions [N, 3] and their solid angles [N] in steradian."""
    t = (torch.arange(per_side, dtype=torch.float64, device=rotation.device) + 0.5) / per_side * 2 - 1
    y, x = torch.meshgrid(t, t, indexing="ij")
    tan = tan_half_fov.double()[:, None, None]
    rays = torch.stack([x * tan, y * tan, torch.ones_like(x * tan)], dim=-1)  # [V, n, n, 3]
    angle = (2 * tan / per_side) ** 2 / rays.norm(dim=-1) ** 3
    world = torch.einsum("vij,vhwj->vhwi", rotation.double(), F.normalize(rays, dim=-1))
    return world.reshape(-1, 3), angle.reshape(-1)


def see(directions: Tensor, rotation: Tensor, tan_half_fov: Tensor, margin: float) -> Rows:
    """One row for every (view, direction in sight), sorted by view: view [R], direction [R], xy [R, 2], cosine [R].

    xy runs from -1 to 1 between the borders of the view; rows within `margin` of the border are left out, so that a
    grid of the view itself stays inside by the same rule.
    """
    local = torch.einsum("nj,vjk->vnk", directions, rotation.double())
    z = local[..., 2]
    xy = local[..., :2] / (z.clamp_min(1e-9) * tan_half_fov.double()[:, None])[..., None]
    view, direction = ((z > 1e-9) & (xy.abs() < 1 - margin).all(-1)).nonzero(as_tuple=True)
    return view, direction, xy[view, direction], z[view, direction]


def pairs(view: Tensor, direction: Tensor, views: int, directions: int) -> tuple[Tensor, Tensor, list[tuple]]:
    """All pairs of rows that share a direction, grouped by their two views.

    Returns first [P] and second [P] row, the first with the smaller view, and groups (view, view, start, stop).
    """
    row_of = view.new_full((views, directions), -1)
    row_of[view, direction] = torch.arange(len(view), device=view.device)
    first, second, groups, start = [], [], [], 0
    for i in range(views):
        for j in range(i + 1, views):
            both = ((row_of[i] >= 0) & (row_of[j] >= 0)).nonzero()[:, 0]
            if len(both):
                first.append(row_of[i, both])
                second.append(row_of[j, both])
                groups.append((i, j, start, start + len(both)))
                start += len(both)
    if not groups:
        return view.new_zeros(0), view.new_zeros(0), []
    return torch.cat(first), torch.cat(second), groups


def taps(view: Tensor, xy: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Bilinear look-up of rows in maps [V, h, w] laid flat: four indices [R, 4] and four weights [R, 4]."""
    at = ((xy + 1) / 2 * resolution - 0.5).clamp(0, resolution - 1)
    low = at.floor().clamp(max=max(resolution - 2, 0))
    fx, fy = (at - low).unbind(-1)
    x, y = low.long().unbind(-1)
    right, down = (1, resolution) if resolution > 1 else (0, 0)
    corner = (view * resolution + y) * resolution + x
    index = torch.stack([corner, corner + right, corner + down, corner + right + down], dim=-1)
    weight = torch.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy], dim=-1)
    return index, weight
