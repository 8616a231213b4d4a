"""Views, depth and poses for programs that train splats or fields: nerfstudio and COLMAP text, and the panorama too."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from ...checks import Range
from ...data import images
from ...files import write_text
from ...geometry import pinhole, sphere, warp
from ...scene import Geometry, Panorama, Rig, unit_image
from .ply import write_cloud
from .splats import quaternions

# The six sides of a cube, and the eight corners, so that views overlap.
SIDES = [[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]
CORNERS = [[x, y, z] for x in (1, -1) for y in (1, -1) for z in (1, -1)]
DEPTH_UNITS = 60_000  # 16-bit depth: so many steps to the farthest


@dataclass
class Cameras:
    """Fourteen views from the panorama's centre with 16-bit depth, their cameras, and a thinned cloud to begin with.

    Lies in cameras/: transforms.json (nerfstudio, OpenGL axes), transforms_erp.json (the panorama itself),
    sparse/0/*.txt (COLMAP), images/, depth/. World axes stay +x forward, +y left, +z up.
    """

    resolution: Annotated[int, Range(16, 4096)] = 512
    fov: Annotated[float, Range(40, 120)] = 90.0  # degrees
    max_points: Annotated[int, Range(1)] = 100_000

    def __call__(self, geometry: Geometry, panorama: Panorama, folder: Path) -> list[Path]:
        """Write all of it."""
        home = folder / "cameras"
        rig = self.rig()
        image, distance = unit_image(panorama.image).cpu().float(), geometry.distance.cpu().float()
        good = distance.isfinite() & (distance > 0)
        unit = float(distance[good].amax()) / DEPTH_UNITS if good.any() else 1.0
        views = warp.erp_to_views(image, rig)
        rays = pinhole.view_rays(rig.rotation, rig.tan_half_fov, self.resolution)
        known = torch.where(good, distance, 0.0)
        # The nearest pixel's distance: a mean across an edge would hang in the air.
        reach = torch.stack([sphere.sample_erp(known, sphere.rays_to_erp(r), "nearest")[..., 0] for r in rays])
        depth = reach / pinhole.ray_lengths(rig.tan_half_fov, self.resolution)
        names = [f"view_{i:02d}.png" for i in range(len(rig))]
        paths = []
        for i, name in enumerate(names):
            paths.append(images.write_png(home / "images" / name, views[i]))
            paths.append(images.write_map_png(home / "depth" / name, depth[i][None], unit))
        paths.append(images.write_png(home / "panorama.png", image))
        paths.append(images.write_npy(home / "panorama_distance.npy", distance[0]))
        points, colours = self._points(image, known)
        return [
            *paths,
            *self._nerfstudio(home, rig, names, unit, panorama),
            *self._colmap(home, rig, names, points, colours),
        ]

    def rig(self) -> Rig:
        """The cameras."""
        rotation = pinhole.look_along(torch.tensor(SIDES + CORNERS, dtype=torch.float32))
        tan = torch.full((len(rotation),), math.tan(math.radians(self.fov) / 2))
        return Rig(rotation, tan, self.resolution)

    def _points(self, image: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        height, width = known.shape[-2:]
        chance = sphere.solid_angles(height, width).expand(height, width) * (known[0] > 0)
        chance = chance / chance.amax().clamp_min(1e-12)
        chance = chance * min(1.0, self.max_points / max(float(chance.sum()), 1.0))
        chosen = torch.rand(height, width, generator=torch.Generator().manual_seed(0)) < chance
        points = (sphere.erp_rays(height, width) * known[0, ..., None])[chosen]
        return points, image.permute(1, 2, 0)[chosen]

    def _nerfstudio(self, home: Path, rig: Rig, names: list[str], unit: float, panorama: Panorama) -> list[Path]:
        n = self.resolution
        focal = pinhole.focal_of(n, math.radians(self.fov))
        frames = [
            {
                "file_path": f"images/{name}",
                "depth_file_path": f"depth/{name}",
                "transform_matrix": _opengl(turn),
            }
            for name, turn in zip(names, rig.rotation, strict=True)
        ]
        about = {"camera_model": "OPENCV", "w": n, "h": n, "fl_x": focal, "fl_y": focal, "cx": n / 2, "cy": n / 2}
        about |= {"depth_unit_scale_factor": unit, "ply_file_path": "sparse/0/points.ply", "frames": frames}
        height, width = panorama.size
        level = pinhole.look_along(torch.tensor([[1.0, 0.0, 0.0]]))[0]
        frame = {"file_path": "panorama.png", "distance_file_path": "panorama_distance.npy"}
        whole = {"camera_model": "EQUIRECTANGULAR", "w": width, "h": height, "fl_x": height, "fl_y": height}
        whole |= {"cx": width / 2, "cy": height / 2, "frames": [{**frame, "transform_matrix": _opengl(level)}]}
        return [
            write_text(home / "transforms.json", json.dumps(about, indent=2) + "\n"),
            write_text(home / "transforms_erp.json", json.dumps(whole, indent=2) + "\n"),
        ]

    def _colmap(self, home: Path, rig: Rig, names: list[str], points: Tensor, colours: Tensor) -> list[Path]:
        n, sparse = self.resolution, home / "sparse" / "0"
        focal = pinhole.focal_of(n, math.radians(self.fov))
        # COLMAP's poses turn the world into the camera; all cameras stand in the origin.
        turns = quaternions(rig.rotation.transpose(1, 2)).tolist()
        poses = "".join(
            f"{i} {' '.join(f'{q:.9f}' for q in turn)} 0 0 0 1 {name}\n\n"
            for i, (turn, name) in enumerate(zip(turns, names, strict=True), 1)
        )
        rows = zip(points.tolist(), (colours.clamp(0, 1) * 255).round().int().tolist(), strict=True)
        cloud = "".join(
            f"{i} {x:.6f} {y:.6f} {z:.6f} {r} {g} {b} 0\n" for i, ((x, y, z), (r, g, b)) in enumerate(rows, 1)
        )
        return [
            write_text(sparse / "cameras.txt", f"1 PINHOLE {n} {n} {focal} {focal} {n / 2} {n / 2}\n"),
            write_text(sparse / "images.txt", poses),
            write_text(sparse / "points3D.txt", cloud),
            write_cloud(sparse / "points.ply", points, colours),
        ]


def _opengl(turn: Tensor) -> list[list[float]]:
    """Camera to world with +x right, +y up, -z forward."""
    matrix: Any = torch.eye(4)
    matrix[:3, :3] = turn * turn.new_tensor([1.0, -1.0, -1.0])
    rows: list[list[float]] = matrix.tolist()
    return rows
