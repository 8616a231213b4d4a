"""The panorama as surfaces of triangles that take their colours from it by projection."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import mesh, sphere
from . import gl, raster
from .holes import close_holes
from .layers import Fill, edge_ratio, layers
from .protocol import PANORAMA, Camera, Frame, Pose


class MeshScene:
    """A closed mesh of the panorama, cut where neighbours are apart, before a hidden surface behind the cuts.

    Backs of surfaces are drawn but count as not seen. `fill=mark` leaves open whatever the panorama did not show.
    """

    def __init__(self, image: Tensor, distance: Tensor, fill: Fill = "harmonic", backend: gl.Backend = "torch") -> None:
        parts = layers(image, distance, fill)
        height, width = distance.shape[-2:]
        faces = mesh.erp_faces(height, width, distance.device)
        ratio = edge_ratio(height)
        shown = mesh.erp_points(parts.distance)
        behind = mesh.erp_points(parts.hidden_distance)
        front = mesh.cut_faces(faces, shown, ratio)
        back = mesh.cut_faces(faces, behind, ratio**2)
        self.points = torch.cat([shown, behind])
        self.faces = torch.cat([front, back + len(shown)])
        self.fronts = len(front)
        self.image, self.hidden_image = parts.image, parts.hidden_image
        self.dome, self.fill = parts.dome, fill
        self.backend = backend
        if backend == "gl":
            gl.chosen(backend, image.device)  # refused now rather than at the first frame

    def render(self, pose: Pose, camera: Camera) -> Frame:
        """One view by exact intersection of rays and triangles; OpenGL or a z-buffer in torch tells which meet."""
        place, turn = pose.position.to(self.points), pose.rotation.to(self.points)
        rays = camera.rays(self.points.device).flatten(0, 1)
        corners = ((self.points - place) @ turn)[self.faces]  # [F, 3, 3], in the camera's axes
        # Panoramas were measured to cost the same either way, and the z-buffer is exact on edges too.
        wanted = self.backend == "gl" or camera.kind != PANORAMA
        by_gl = wanted and gl.chosen(self.backend, self.image.device)
        distance, face = (_drawn if by_gl else _cast)(corners, rays, camera)
        return self._frame(distance, face, rays @ turn.T, place, corners, camera)

    def _frame(
        self, distance: Tensor, face: Tensor, rays: Tensor, place: Tensor, corners: Tensor, camera: Camera
    ) -> Frame:
        met = face >= 0
        points = rays * torch.where(met, distance, 0.0)[:, None] + place
        uv = sphere.rays_to_erp(points)
        colour = sphere.sample_erp(self.image, uv)
        hidden = met & (face >= self.fronts)
        if hidden.any():
            colour[hidden] = sphere.sample_erp(self.hidden_image, uv[hidden])
        a, b, c = corners[face.clamp_min(0)].unbind(1)
        backs = (torch.linalg.cross(b - a, c - a) * a).sum(-1) > 0
        seen = met & ~hidden & ~backs
        distance = torch.where(met & (points.norm(dim=-1) > self.dome / 2), torch.inf, torch.where(met, distance, 0.0))
        shape = (camera.height, camera.width)
        image = torch.where(met[:, None], colour, 0.0).T.unflatten(1, shape)
        frame = Frame(image, distance.reshape(1, *shape), seen.reshape(1, *shape))
        return frame if self.fill == "mark" else close_holes(frame, met.reshape(1, *shape), camera)


def _drawn(corners: Tensor, rays: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    number = torch.full((len(rays),), -1, dtype=torch.int64, device=rays.device)
    reach = rays.new_full((len(rays),), torch.inf)
    faces = gl.candidates(corners, rays, camera)
    for face in faces:
        a, b, c = corners[face.clamp_min(0)].unbind(1)
        sides = torch.stack([(torch.linalg.cross(p, q) * rays).sum(-1) for p, q in ((b, c), (c, a), (a, b))])
        distance = (torch.linalg.cross(b, c) * a).sum(-1) / sides.sum(0)
        inside = ((sides >= 0).all(0) | (sides <= 0).all(0)) & distance.isfinite() & (distance > 0)
        nearer = (face >= 0) & inside & (distance < reach)
        number, reach = torch.where(nearer, face, number), torch.where(nearer, distance, reach)
    # A ray that passes just beside all of them meets the plane of the likeliest one, within what its corners allow.
    beside = (number < 0) & (faces[0] >= 0)
    a, b, c = corners[faces[0].clamp_min(0)].unbind(1)
    across = torch.linalg.cross(b - a, c - a)
    plane = (across * a).sum(-1) / (across * rays).sum(-1)
    ends = torch.stack([a, b, c]).norm(dim=-1)
    plane = torch.where(plane.isfinite(), plane, ends.mean(0)).clamp(ends.amin(0), ends.amax(0))
    return torch.where(beside, plane, reach), torch.where(beside, faces[0], number)


def _cast(corners: Tensor, rays: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    a, b, c = corners.unbind(1)
    # A ray meets a triangle when it passes all three edges on one side; edges shared by two triangles give both the
    # same number with opposite signs, so that no ray slips between them.
    edges = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], 1)
    volume = (a * edges[:, 0]).sum(-1)
    units = F.normalize(corners, dim=-1)
    middle = F.normalize(units.sum(1), dim=-1)
    # The sine of half the chord is exact for small angles too.
    cap = 2 * torch.asin(((units - middle[:, None]).norm(dim=-1).amax(1) / 2).clamp_max(1))

    def meet(thing: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
        sides = torch.einsum("pij,pj->pi", edges[thing], ray)
        total = sides.sum(-1)
        distance = volume[thing] / total
        inside = (sides >= 0).all(-1) | (sides <= 0).all(-1)
        return distance, inside & (total != 0) & (distance > 0) & distance.isfinite()

    return raster.nearest(middle, cap, camera, rays, meet)
