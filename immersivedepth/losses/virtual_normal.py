"""The virtual normal loss (Yin et al.): planes through three far points each, in the true shape and the predicted one.

It sees the shape of a scene at long range, where pixelwise losses and gradients see little.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHARE = 0.15  # triplets for each valid pixel
_COLLINEAR = 0.867  # cosine of 30 degrees: sides of a triangle that point more alike span no reliable plane
_NEAR = 0.005  # points closer than this in x, y and z likewise, in units of the depth
_NO_DEPTH = 1e-4
_EASY = 0.25  # share of the triplets, those with the smallest errors, that are left out


def draw_triplets(valid: Tensor, generator: torch.Generator, share: float = SHARE) -> Tensor:  # [B, N, 3]
    """Numbers of pixels, counted row by row, in threes; drawn among the valid ones of each image [B, 1, h, w].

    N suits the image with the most valid pixels. Images without any get pixel 0, which the loss drops.
    """
    keep = valid.flatten(1)
    count = keep.sum(1)
    number = max(1, int(share * int(count.max())))
    uniform = torch.rand((len(keep), number, 3), generator=generator, device=generator.device).to(valid.device)
    place = (uniform * count[:, None, None]).long().clamp_max(keep.shape[1] - 1)
    rank = (~keep).byte().argsort(dim=1, stable=True)  # valid pixels first, in their order
    return rank.gather(1, place.flatten(1)).view_as(place)


def points(depth: Tensor, focal: float | tuple[float, float] = 1.0) -> Tensor:  # [B, 1, h, w] -> [B, h * w, 3]
    """Points seen by a pinhole camera with its focal length (of x and y) in pixels and its axis in the middle.

    The original takes a focal length of one pixel, so that shapes are stretched sideways; it is the default.
    """
    fx, fy = focal if isinstance(focal, tuple) else (focal, focal)
    height, width = depth.shape[-2:]
    z = depth[:, 0]
    x = (torch.arange(width, device=z.device, dtype=z.dtype) - width / 2) / fx
    y = (torch.arange(height, device=z.device, dtype=z.dtype) - height / 2) / fy
    return torch.stack([z * x, z * y[:, None], z], dim=-1).flatten(1, 2)


def virtual_normal(
    prediction: Tensor,
    target: Tensor,
    valid: Tensor,
    triplets: Tensor,
    focal: float | tuple[float, float] = 1.0,
    easy: float = _EASY,
) -> Tensor:
    """Mean absolute difference of the unit normals, summed over x, y and z, of the hardest triplets.

    Depths [B, 1, h, w]; triplets [B, N, 3] come from `draw_triplets` and are judged by the target alone.
    """
    index = triplets.flatten(1)
    known = valid.flatten(1).gather(1, index).view_as(triplets).all(-1)
    true = _corners(points(torch.where(valid, target, 0.0), focal), triplets)  # [B, N, 3 corners, 3]
    # A depth of 0 or less has no normal; the smallest one that counts keeps a direction to learn from.
    seen = _corners(points(prediction.clamp_min(_NO_DEPTH), focal), triplets)
    keep = known & _reliable(true)
    if not bool(keep.any()):
        return prediction.sum() * 0
    difference = (_normals(seen[keep]) - _normals(true[keep])).abs().sum(-1)
    ranked = difference.sort().values
    return ranked[int(easy * len(ranked)) :].mean()


def _corners(cloud: Tensor, triplets: Tensor) -> Tensor:
    index = triplets.flatten(1)[..., None].expand(-1, -1, 3)
    return cloud.gather(1, index).view(*triplets.shape, 3)


def _reliable(corners: Tensor) -> Tensor:  # [..., 3, 3] -> [...]
    """Whether three points span a plane well: in front of the camera, apart, and not in a line."""
    a, b, c = corners.unbind(-2)
    sides = torch.stack([b - a, c - a, c - b], dim=-2)
    unit = sides / sides.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    cosine = (unit[..., (0, 0, 1), :] * unit[..., (1, 2, 2), :]).sum(-1).abs()
    near = (sides.abs() < _NEAR).all(-1).any(-1)
    return (cosine <= _COLLINEAR).all(-1) & ~near & (corners[..., 2] > _NO_DEPTH).all(-1)


def _normals(corners: Tensor) -> Tensor:  # [..., 3, 3] -> [..., 3]
    a, b, c = corners.unbind(-2)
    normal = torch.linalg.cross(b - a, c - a)
    # Not norm(): its gradient at 0, where predicted points fall together, is nan.
    return normal / (normal.square().sum(-1, keepdim=True) + 1e-16).sqrt()
