"""Normals of the surface that a distance map describes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import sphere

EDGE_JUMP = 0.05  # change of log distance from one pixel to the next from which on a neighbour counts little
BAND = 64  # rows at once, so that large panoramas need little memory


def normals_from_distance(distance: Tensor) -> Tensor:  # [1, H, W] -> [3, H, W]
    """Unit normals in world axes, facing the camera; 0 where distance is 0, inf or alone.

    Exact on planes; across a depth edge the neighbour on the pixel's own side decides.
    """
    height, width = distance.shape[-2:]
    known = distance.isfinite() & (distance > 0)
    padded = sphere.pad_erp(torch.where(known, distance, 0.0), 1)[0, :, 1:-1]  # [H + 2, W]
    # The rows beyond the poles have latitudes of more than a right angle: their rays come down the other side.
    latitude = sphere.latitudes(height)
    latitude = torch.cat([torch.pi - latitude[:1], latitude, -torch.pi - latitude[-1:]])
    # Towards the poles, columns stand so close that neighbours are taken as far apart as rows are, or rounding rules.
    step = (1 / latitude.cos().abs().clamp_min(1e-12)).round().clamp(1, width // 4).long()
    bands = []
    for start in range(0, height, BAND):
        stop = min(start + BAND, height)
        rays = sphere.grid_rays(latitude[start : stop + 2], sphere.longitudes(width), distance.device, distance.dtype)
        points = rays * padded[start : stop + 2, :, None]
        bands.append(_normals(points, step[start + 1 : stop + 1].to(distance.device)))
    return torch.cat(bands).permute(2, 0, 1)


def _normals(points: Tensor, step: Tensor) -> Tensor:  # [h + 2, W, 3], [h] -> [h, W, 3]
    here = points[1:-1]
    along = _tangent(here, _neighbour(here, step, 1), _neighbour(here, step, -1))
    down = _tangent(here, points[2:], points[:-2])
    normal = torch.linalg.cross(along, down)
    # Up to sign; the surface faces the camera in the middle.
    normal = torch.where((normal * here).sum(-1, keepdim=True) > 0, -normal, normal)
    return F.normalize(normal, dim=-1)


def _neighbour(here: Tensor, step: Tensor, way: int) -> Tensor:
    """The points `step` columns on in each row, around the seam."""
    if bool((step == 1).all()):  # most rows; a roll is far quicker than a gather
        return here.roll(-way, 1)
    column = torch.arange(here.shape[1], device=here.device)
    return here.gather(1, ((column + way * step[:, None]) % len(column))[..., None].expand_as(here))


def _tangent(here: Tensor, ahead: Tensor, behind: Tensor) -> Tensor:  # [h, W, 3]
    """The difference over both neighbours; a neighbour beyond a depth edge or unknown counts little or nothing."""
    with torch.no_grad():
        size, *others = (points.norm(dim=-1, keepdim=True) for points in (here, ahead, behind))
        shares = []
        for other in others:
            jump = (other / size).log().abs() / EDGE_JUMP  # inf or nan where either is 0
            shares.append((1 / (1 + jump**4)).nan_to_num(0.0))
        total = (shares[0] + shares[1]).clamp_min(1e-12)
    return (ahead - here) * (shares[0] / total) + (here - behind) * (shares[1] / total)
