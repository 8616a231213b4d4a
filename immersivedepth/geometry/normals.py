"""Normals of the surface that a distance map describes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import sphere

EDGE_JUMP = 0.05  # change of log distance from one pixel to the next from which on a neighbour counts little
_HALF = 0.1  # change of log distance between neighbours at which the normal of a pixel is trusted half
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


def trust(distance: Tensor) -> Tensor:  # [1, H, W] -> [1, H, W], in 0..1
    """1 on smooth surfaces, falling to 0 where the distance jumps from one pixel to the next."""
    log = distance.clamp(1e-6, 1e6).log()
    around = sphere.pad_erp(log, 1)[None]
    jump = F.max_pool2d(around, 3, 1)[0] + F.max_pool2d(-around, 3, 1)[0]
    return 1 / (1 + (jump / _HALF) ** 4)


def local_axes(height: int, device: torch.device | str | None = None) -> Tensor:  # [3, 3, H, 2H]
    """At every pixel the unit vectors to the right, down and away from the camera, in world axes."""
    away = sphere.erp_rays(height, 2 * height, device)
    longitude = sphere.longitudes(2 * height).to(away)
    right = torch.stack([longitude.sin(), -longitude.cos(), torch.zeros_like(longitude)], -1).expand_as(away)
    return torch.stack([right, torch.linalg.cross(away, right), away]).movedim(-1, 1)


def to_local(normal: Tensor) -> Tensor:  # [..., 3, H, 2H]
    """Along `local_axes` what is along world axes: turning the panorama then only shifts it."""
    return torch.einsum("...chw,achw->...ahw", normal, local_axes(normal.shape[-2], normal.device).to(normal))


def to_world(local: Tensor) -> Tensor:  # [..., 3, H, 2H]
    """The inverse of `to_local`."""
    return torch.einsum("...ahw,achw->...chw", local, local_axes(local.shape[-2], local.device).to(local))
