"""The panorama as a textured mesh that 3D programs, browsers and engines open."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...checks import InputError, Range
from ...files import atomic, write_bytes
from ...geometry import mesh, sphere
from ...render.layers import edge_ratio
from ...scene import Geometry, Panorama, unit_image

LOOSE = (
    4  # times the budget that the grid may have before triangles are merged: so flat parts merge, and none grow huge
)
Array = NDArray[Any]
COARSER = 0.8  # height of the next grid where the budget was not met
SMALLEST = 4  # rows
POLAR = 1e-6  # nearer to the axis than this, a vertex has no longitude of its own


@dataclass
class Mesh:
    """Closed at the seam and the poles, cut where neighbours are apart, coloured by the panorama itself.

    Texture coordinates are the directions of the vertices, so they fit whatever was merged. Faces look inwards: from
    outside, one sees into the room. PLY and OBJ keep the world's axes (+z up); GLB has +y up, as glTF wants.
    """

    formats: tuple[Literal["glb", "ply", "obj"], ...] = ("glb",)
    max_faces: Annotated[int, Range(100)] = 500_000
    edge_angle: Annotated[float, Range(0, 45)] = 4.0  # degrees; surfaces seen flatter than that are cut; 0: no cuts
    sky_dome: bool = False
    dome_radius: Annotated[float, Range(1, 1000)] = 3.0  # in farthest distances
    quality: Annotated[int, Range(1, 100)] = 92  # of the texture as JPEG

    def __call__(self, geometry: Geometry, panorama: Panorama, folder: Path) -> list[Path]:
        """mesh.glb, mesh.ply and mesh.obj with mesh.mtl and mesh.jpg."""
        points, faces = self.surface(geometry)
        points, faces, uv = with_texture(points, faces)
        writers = {"glb": self._glb, "ply": self._ply, "obj": self._obj}
        numbers = points.numpy(), faces.numpy(), uv.numpy()
        return [path for form in dict.fromkeys(self.formats) for path in writers[form](*numbers, panorama, folder)]

    def surface(self, geometry: Geometry) -> tuple[Tensor, Tensor]:
        """Points and faces within the budget, without texture."""
        distance = geometry.distance.cpu().float()
        finite = distance[distance.isfinite()]
        if not (finite > 0).any():
            raise InputError("export.mesh: no distance is known, so there is no surface; look at mask.png and quality")
        dome = self.dome_radius * float(finite.amax()) if self.sky_dome else 0.0
        distance = torch.where(distance.isfinite(), distance, dome)
        # 2 H W faces stand over H W pixels, and W = 2 H. Edges of cuts resist merging: then a coarser grid follows.
        height = min(distance.shape[-2], max(SMALLEST, math.floor(math.sqrt(LOOSE * self.max_faces / 4))))
        while True:
            points, faces = self._grid(sphere.resize_erp(distance, height, 2 * height, "nearest"))
            if len(faces) > self.max_faces:
                points, faces = merge(points, faces, self.max_faces)
            if len(faces) <= self.max_faces or height <= SMALLEST:
                return points, faces
            height = max(SMALLEST, math.floor(height * COARSER))

    def _grid(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        height, width = distance.shape[-2:]
        ratio = edge_ratio(height, self.edge_angle) if self.edge_angle else None
        points = mesh.erp_points(distance)
        points, faces = mesh.compact(points, mesh.cut_faces(mesh.erp_faces(height, width), points, ratio))
        return points, faces

    def _glb(self, points: Array, faces: Array, uv: Array, shown: Panorama, to: Path) -> list[Path]:
        upright = np.stack([-points[:, 1], points[:, 2], -points[:, 0]], 1)
        data = _trimesh(upright, faces, uv, _picture(shown, self.quality)).export(
            file_type="glb", tree_postprocessor=_unlit
        )
        return [write_bytes(to / "mesh.glb", data)]

    def _ply(self, points: Array, faces: Array, uv: Array, shown: Panorama, to: Path) -> list[Path]:
        """With colours and texture coordinates for each vertex, which programs read as s and t."""
        from plyfile import PlyData, PlyElement

        at = torch.from_numpy(np.stack([uv[:, 0] % 1, 1 - uv[:, 1]], 1).astype(np.float32))
        colour = (sphere.sample_erp(unit_image(shown.image).cpu(), at).clamp(0, 1) * 255).round().byte().numpy()
        vertex = np.empty(len(points), [(n, "<f4") for n in ("x", "y", "z", "s", "t")] + [(c, "u1") for c in _RGB])
        for i, name in enumerate("xyz"):
            vertex[name] = points[:, i]
        vertex["s"], vertex["t"] = uv.T
        for i, name in enumerate(_RGB):
            vertex[name] = colour[:, i]
        face = np.empty(len(faces), [("vertex_indices", "<i4", (3,))])
        face["vertex_indices"] = faces
        elements = [PlyElement.describe(vertex, "vertex"), PlyElement.describe(face, "face")]
        with atomic(to / "mesh.ply") as temporary:
            PlyData(elements, byte_order="<", comments=["TextureFile mesh.jpg"]).write(str(temporary))
        return [to / "mesh.ply", *([] if "obj" in self.formats else [self._texture(shown, to)])]

    def _obj(self, points: Array, faces: Array, uv: Array, shown: Panorama, to: Path) -> list[Path]:
        text = io.StringIO()
        text.write("mtllib mesh.mtl\nusemtl panorama\n")
        np.savetxt(text, points, "v %.6g %.6g %.6g")
        np.savetxt(text, uv, "vt %.7g %.7g")
        np.savetxt(text, np.repeat(faces + 1, 2, axis=1), "f %d/%d %d/%d %d/%d")
        material = "newmtl panorama\nKa 1 1 1\nKd 1 1 1\nillum 0\nmap_Kd mesh.jpg\n"
        return [
            write_bytes(to / "mesh.obj", text.getvalue().encode()),
            write_bytes(to / "mesh.mtl", material.encode()),
            self._texture(shown, to),
        ]

    def _texture(self, shown: Panorama, to: Path) -> Path:
        return write_bytes(to / "mesh.jpg", _jpeg(shown, self.quality))


_RGB = ("red", "green", "blue")


def merge(points: Tensor, faces: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """Fewer faces by merging those that lie flat (quadric error); edges of cuts stay edges."""
    import fast_simplification

    out, kept = fast_simplification.simplify(
        points.numpy().astype(np.float32), faces.numpy().astype(np.int32), target_count=budget, agg=3
    )
    return torch.from_numpy(np.asarray(out, np.float32)), torch.from_numpy(np.asarray(kept, np.int64))


def with_texture(points: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points, faces and texture coordinates by direction; vertices on the seam and at the poles come in copies.

    (0, 0) is the lower left of the picture; beyond the seam u goes on above 1, for a repeating texture.
    """
    uv = sphere.rays_to_erp(points.double())
    u, v = uv[faces, 0], 1 - uv[faces, 1]  # [F, 3]
    polar = (points[:, :2].norm(dim=-1) <= POLAR * points.norm(dim=-1))[faces]
    u = torch.where(((u.amax(1) - u.amin(1)) > 0.5)[:, None] & (u < 0.5) & ~polar, u + 1, u)
    others = torch.where(polar, 0.0, u).sum(1) / (~polar).sum(1).clamp_min(1)
    u = torch.where(polar, others[:, None], u)
    # One vertex for every (point, turn, and at poles face) that occurs.
    turn = (u.flatten() > uv[faces.flatten(), 0] + 0.5).long()
    face = torch.arange(len(faces)).repeat_interleave(3)
    key = torch.stack([faces.flatten(), turn, torch.where(polar.flatten(), face, -1)], 1)
    unique, index = torch.unique(key, dim=0, return_inverse=True)
    out = points.new_zeros(len(unique), 2)
    out[index] = torch.stack([u.flatten(), v.flatten()], 1).to(points)
    return points[unique[:, 0]], index.reshape(-1, 3), out


def _trimesh(points: Array, faces: Array, uv: Array, picture: Any) -> Any:
    import trimesh

    material = trimesh.visual.material.PBRMaterial(
        name="panorama", baseColorTexture=picture, metallicFactor=0.0, roughnessFactor=1.0, doubleSided=False
    )
    visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return trimesh.Trimesh(points, faces, visual=visual, process=False)


def _picture(shown: Panorama, quality: int) -> Any:
    """A Pillow image that the writer of glTF keeps as JPEG."""
    from PIL import JpegImagePlugin

    return JpegImagePlugin.JpegImageFile(io.BytesIO(_jpeg(shown, quality)))


def _jpeg(shown: Panorama, quality: int) -> bytes:
    import cv2

    pixels = (unit_image(shown.image).cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data.tobytes())


def _unlit(tree: dict[str, Any]) -> None:
    """The picture holds its light already: no lamp of a viewer is to be added."""
    for material in tree.get("materials", ()):
        material["extensions"] = {"KHR_materials_unlit": {}}
    tree["extensionsUsed"] = sorted({*tree.get("extensionsUsed", ()), "KHR_materials_unlit"})
