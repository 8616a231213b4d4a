"""Square pinhole views: pixels to rays and back. View axes: +x right, +y down, +z forward."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def view_rays(rotation: Tensor, tan_half_fov: Tensor, resolution: int) -> Tensor:  # [V, h, w, 3]
    """Rays of depth one in world axes, so that their length is distance / depth."""
    t = (torch.arange(resolution, device=rotation.device, dtype=rotation.dtype) + 0.5) / resolution * 2 - 1
    y, x = torch.meshgrid(t, t, indexing="ij")
    flat = torch.stack([x, y], dim=-1) * tan_half_fov[:, None, None, None]
    rays = torch.cat([flat, torch.ones_like(flat[..., :1])], dim=-1)
    return torch.einsum("vij,vhwj->vhwi", rotation, rays)


def ray_lengths(tan_half_fov: Tensor, resolution: int) -> Tensor:  # [V, h, w]
    """Ratios of distance to depth at the pixels of each view: the lengths of its rays of depth one."""
    t = (torch.arange(resolution, device=tan_half_fov.device, dtype=tan_half_fov.dtype) + 0.5) / resolution * 2 - 1
    square = (t * tan_half_fov[:, None]).square()
    return (1 + square[:, :, None] + square[:, None, :]).sqrt()


def project_rays(rays: Tensor, rotation: Tensor, tan_half_fov: Tensor | float) -> tuple[Tensor, Tensor]:
    """World rays [..., 3] to one view's coordinates [..., 2] in -1..1 and to whether the view sees them."""
    x, y, z = (rays @ rotation).unbind(-1)
    xy = torch.stack([x, y], dim=-1) / (z.clamp_min(1e-6) * tan_half_fov)[..., None]
    return xy, (z > 1e-6) & (xy.abs() <= 1).all(-1)


def look_along(forward: Tensor) -> Tensor:  # [V, 3] -> [V, 3, 3]
    """View-to-world rotations with the horizon level; straight up and down, the image's top points to +x or -x."""
    forward = F.normalize(forward.double(), dim=-1)
    down = forward.new_tensor([0.0, 0.0, -1.0]).expand_as(forward)
    right = torch.linalg.cross(down, forward)
    level = right.norm(dim=-1, keepdim=True) > 1e-6
    right = F.normalize(torch.where(level, right, right.new_tensor([0.0, -1.0, 0.0])), dim=-1)
    return torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-1).float()


def width_of(focal: float, fov: float) -> float:
    """Width in pixels of a picture with this focal length in pixels and field of view in radian: 2 f tan(fov / 2)."""
    return 2 * focal * math.tan(fov / 2)


def focal_of(width: float, fov: float) -> float:
    """Focal length in pixels of a picture of this width and field of view in radian."""
    return width / (2 * math.tan(fov / 2))


def cropped_to(width: float, fov: float, wanted: float) -> float:
    """Width in pixels of the middle part of a picture that has the wanted field of view; both in radian."""
    return width * math.tan(wanted / 2) / math.tan(fov / 2)


def apparent_way(way: Tensor, tangents: Tensor) -> Tensor:  # [..., 3], [..., 2] -> [..., 3]
    """The way, in view axes, on which a camera of 90 degrees sees what a camera of these half-angle tangents sees.

    A picture with tangents (tx, ty) is, pixel for pixel, what tangents of 1 make of the world narrowed to
    (X / tx, Y / ty, Z), in which every point keeps its depth Z.
    """
    return way / torch.cat([tangents, torch.ones_like(tangents[..., :1])], -1)
