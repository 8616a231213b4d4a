"""Pictures and maps of synthetic worlds: panoramas, tangent views, any pinhole camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...checks import ShapeError
from ...geometry.sphere import erp_rays, grid_rays
from ...scene import Panorama, Rig
from .world import World, follow


@dataclass(frozen=True)
class Maps:
    """What one camera sees of a world, or what many do with a leading batch axis."""

    image: Tensor | None  # [3, h, w], RGB in 0..1; None if no colour was asked for
    distance: Tensor  # [1, h, w], metres along the ray, inf for sky
    depth: Tensor | None  # [1, h, w], metres along the view axis, inf for sky; None for panoramas
    normal: Tensor  # [3, h, w], unit, panorama axes, facing the camera; 0 for sky
    instance: Tensor  # [1, h, w], 0 for sky
    sky: Tensor  # [1, h, w], bool


def render_erp(world: World, height: int, width: int, supersample: int = 1, name: str | None = None) -> Panorama:
    """An equirectangular picture with its truth; `supersample` squared rays per pixel, which soften the shadows too."""
    image = _erp_colour(world, height, width, supersample).movedim(-1, 0)
    about = {"synthetic": world.recipe}
    return Panorama(image, name=name or f"{world.about['kind']}_{world.about.get('seed', 0)}", truth=world, about=about)


def erp_maps(world: World, height: int, width: int, supersample: int = 1) -> Maps:
    """All maps of a panorama; geometry belongs to the pixel centres. Supersample 0 leaves the colour out."""
    rays = erp_rays(height, width, world.position.device)[None]
    if supersample == 1:
        *found, colour = follow([world], rays, True, math.pi / height, 0)
        image: Tensor | None = colour[0].movedim(-1, 0)
    else:
        found = follow([world], rays, False, 0.0, 0)
        image = _erp_colour(world, height, width, supersample).movedim(-1, 0) if supersample else None
    found = [part[0] for part in found]
    return _maps(image, found, None)


def render_rig(world: World, rig: Rig, supersample: int = 1) -> Maps:
    """All maps of the views of a rig, with a leading view axis."""
    side = rig.resolution
    half = rig.tan_half_fov.to(world.position)
    rotation = rig.rotation.to(world.position)
    focal = side / (2 * half)
    intrinsics = torch.zeros(len(rig), 3, 3, device=focal.device)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, 0, 2] = intrinsics[:, 1, 2] = side / 2
    intrinsics[:, 2, 2] = 1
    return _pinhole([world], intrinsics[None], rotation[None], side, side, supersample, lead=(len(rig),))


def render_pinhole(
    world: World, intrinsics: Tensor, height: int, width: int, rotation: Tensor, supersample: int = 1
) -> Maps:
    """All maps of one camera with a matrix of pixels [3, 3], turned by view-to-panorama `rotation` [3, 3] at the
    world's position; `world.at()` moves it. Pixel centres lie at i + 0.5, so a principal point in the middle is w / 2.
    """
    k, r = intrinsics.to(world.position)[None, None], rotation.to(world.position)[None, None]
    return _pinhole([world], k, r, height, width, supersample, lead=())


def render_batch(
    worlds: Sequence[World], rotation: Tensor, tan_half_fov: Tensor, resolution: int, supersample: int = 1
) -> Maps:
    """One square view of each of B worlds, all at once: rotation [B, 3, 3], tan_half_fov [B]; leading batch axis."""
    focal = resolution / (2 * tan_half_fov.to(worlds[0].position))
    intrinsics = torch.zeros(len(worlds), 1, 3, 3, device=focal.device)
    intrinsics[:, 0, 0, 0] = intrinsics[:, 0, 1, 1] = focal
    intrinsics[:, 0, 0, 2] = intrinsics[:, 0, 1, 2] = resolution / 2
    intrinsics[:, 0, 2, 2] = 1
    rotation = rotation.to(worlds[0].position)[:, None]
    return _pinhole(worlds, intrinsics, rotation, resolution, resolution, supersample, lead=(len(worlds),))


def _pinhole(
    worlds: Sequence[World],
    intrinsics: Tensor,
    rotation: Tensor,
    height: int,
    width: int,
    supersample: int,
    lead: tuple[int, ...],
) -> Maps:
    """Cameras [B, V] with intrinsics [B, V, 3, 3] and rotations [B, V, 3, 3]."""
    if intrinsics.shape != rotation.shape or intrinsics.shape[-2:] != (3, 3):
        raise ShapeError(f"pinhole: expected intrinsics and rotation [3, 3], got {list(intrinsics.shape[2:])}")
    rays = _pinhole_rays(intrinsics, rotation, height, width, 0.5, 0.5)
    pixel = (1 / intrinsics[..., 0, 0]).mean(1) / max(supersample, 1)  # [B]
    total: Tensor | None = None
    if supersample == 1:
        *found, total = follow(worlds, rays, True, pixel, 0)
    else:
        found = follow(worlds, rays, False, 0.0, 0)
        for k, (dy, dx) in enumerate(_offsets(supersample)):
            colour = follow(worlds, _pinhole_rays(intrinsics, rotation, height, width, dy, dx), True, pixel, k)[-1]
            total = colour if total is None else total + colour
    # Rays have depth one, so that distance = depth * length.
    depth = found[0] / rays.norm(dim=-1)
    image = None if total is None else (total / supersample**2).movedim(-1, -3).reshape(*lead, 3, height, width)
    flat = [part.reshape(*lead, *part.shape[2:]) for part in found]
    return _maps(image, flat, depth.reshape(*lead, height, width))


def _maps(image: Tensor | None, found: list[Tensor], depth: Tensor | None) -> Maps:
    distance, normal, instance, sky = found
    return Maps(
        image=image,
        distance=distance.unsqueeze(-3),
        depth=None if depth is None else depth.unsqueeze(-3),
        normal=normal.movedim(-1, -3),
        instance=instance.unsqueeze(-3),
        sky=sky.unsqueeze(-3),
    )


def _erp_colour(world: World, height: int, width: int, supersample: int) -> Tensor:  # [H, W, 3]
    """Mean display colour over the rays of each pixel."""
    if width != 2 * height or supersample < 1:
        raise ShapeError(
            f"render_erp: expected width = 2 * height and supersample >= 1, got {width}x{height}, {supersample}"
        )
    total = torch.zeros(height, width, 3, device=world.position.device)
    pixel = math.pi / (height * supersample)
    for k, (dy, dx) in enumerate(_offsets(supersample)):
        rays = _erp_rays(height, width, dy, dx, world.position.device)
        total += follow([world], rays[None], True, pixel, k)[-1][0]
    return total / supersample**2


def _offsets(supersample: int) -> list[tuple[float, float]]:
    """Where in a pixel its rays go through, rows first."""
    steps = [(i + 0.5) / supersample for i in range(supersample)]
    return [(y, x) for y in steps for x in steps]


def _erp_rays(height: int, width: int, dy: float, dx: float, device: torch.device) -> Tensor:  # [H, W, 3]
    """Unit rays through a place in every pixel; dy = dx = 0.5 is its centre."""
    latitude = math.pi * (0.5 - (torch.arange(height, dtype=torch.float64) + dy) / height)
    longitude = 2 * math.pi * (0.5 - (torch.arange(width, dtype=torch.float64) + dx) / width)
    return grid_rays(latitude, longitude, device)


def _pinhole_rays(intrinsics: Tensor, rotation: Tensor, height: int, width: int, dy: float, dx: float) -> Tensor:
    """Rays [B, V, h, w, 3] of depth one, in panorama axes."""
    row = torch.arange(height, device=intrinsics.device) + dy
    column = torch.arange(width, device=intrinsics.device) + dx
    v, u = torch.meshgrid(row, column, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1)  # [h, w, 3]
    matrix = rotation @ torch.linalg.inv(intrinsics)
    return (matrix[:, :, None, None] * pixels[..., None, :]).sum(-1)
