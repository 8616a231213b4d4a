import math
from collections import Counter

import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from immersivedepth.geometry import mesh, sphere


def edges(faces):
    """Every directed edge with how often it occurs."""
    return Counter((a, b) for f in faces.tolist() for a, b in ((f[0], f[1]), (f[1], f[2]), (f[2], f[0])))


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 9), st.integers(3, 18))
def test_the_surface_is_a_closed_sphere(height, width):
    faces = mesh.erp_faces(height, width)
    found = edges(faces)
    assert set(found.values()) == {1}  # no edge twice in one direction: consistent orientation
    assert all((b, a) in found for a, b in found)  # and every one also in the other: no border
    vertices = set(faces.flatten().tolist())
    assert vertices == set(range(height * width + 2))
    assert len(vertices) - len(found) // 2 + len(faces) == 2  # Euler: a sphere


def test_another_library_agrees():
    distance = torch.rand(1, 8, 16, generator=torch.Generator().manual_seed(0)) + 1
    solid = trimesh.Trimesh(mesh.erp_points(distance).numpy(), mesh.erp_faces(8, 16).numpy(), process=False)
    assert solid.is_watertight
    assert solid.is_winding_consistent
    assert solid.euler_number == 2
    assert solid.volume < 0  # inwards


def test_faces_look_at_the_camera_and_fill_the_sphere():
    points = mesh.erp_points(torch.ones(1, 64, 128)).double()
    a, b, c = points[mesh.erp_faces(64, 128)].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    assert ((normal * (a + b + c)).sum(-1) < 0).all()
    assert float(normal.norm(dim=-1).sum() / 2) == pytest.approx(4 * math.pi, rel=2e-3)  # of the inscribed polyhedron


def test_points_lie_on_their_rays():
    distance = torch.rand(1, 4, 8, generator=torch.Generator().manual_seed(0)) + 1
    distance[0, 1, 2], distance[0, 2, 3] = 0, torch.inf
    points = mesh.erp_points(distance)
    assert torch.allclose(points[5], sphere.erp_rays(4, 8)[0, 5] * distance[0, 0, 5])
    assert points[10].tolist() == [0, 0, 0] == points[19].tolist()
    assert points[-2].tolist() == pytest.approx([0, 0, float(8 / (1 / distance[0, 0]).sum())])
    assert points[-1].tolist() == pytest.approx([0, 0, -float(8 / (1 / distance[0, 3]).sum())])
    assert mesh.erp_points(torch.zeros(1, 4, 8)).abs().max() == 0


def test_textures_run_on_over_the_seam():
    distance = torch.rand(1, 5, 10, generator=torch.Generator().manual_seed(0)) + 1
    points, faces, uv = mesh.textured(distance)
    assert points.shape == (5 * 11 + 20, 3)
    assert uv.shape == (5 * 11 + 20, 2)
    # The same triangles in space as the closed surface, in the same order.
    assert torch.equal(points[faces], mesh.erp_points(distance)[mesh.erp_faces(5, 10)])
    # No triangle runs back across the image.
    across = uv[faces][..., 0]
    assert (across.amax(1) - across.amin(1)).max() < 1.5 / 10
    # Each vertex shows the pixel that its ray meets; v counts from below.
    want = sphere.rays_to_erp(points)
    u, v = uv.unbind(-1)
    assert torch.allclose(v, 1 - want[:, 1], atol=1e-5)
    assert torch.allclose((u % 1)[:55], want[:55, 0], atol=1e-5)


def test_cutting_at_edges_holes_and_masks():
    distance = torch.ones(1, 6, 12)
    distance[..., 6:] = 2
    points, faces = mesh.erp_points(distance), mesh.erp_faces(6, 12)
    kept = mesh.cut_faces(faces, points, ratio=1.6)
    # Two columns of quads are cut, at the middle and at the seam: five rows of two triangles each; of the caps,
    # whose poles lie between, at 4 / 3, only the faces over the cuts.
    assert len(faces) - len(kept) == 2 * 5 * 2 + 2 * 2
    hole = distance.clone()
    hole[0, 2, 3] = 0
    assert len(mesh.cut_faces(faces, mesh.erp_points(hole))) == len(faces) - 6  # six triangles meet at a vertex
    mask = torch.ones(1, 6, 12, dtype=torch.bool)
    mask[0, 2, 3] = False
    keep = mesh.keep_vertices(mask)
    assert len(mesh.cut_faces(faces, points, keep=keep)) == len(faces) - 6
    points, faces, _ = mesh.textured(distance)
    mask[0, 2, 0] = False
    assert len(mesh.cut_faces(faces, points, keep=mesh.keep_vertices(mask, 13))) == len(faces) - 12


def test_compacting_drops_what_no_face_uses():
    points = torch.arange(15.0).reshape(5, 3)
    kept, faces, more = mesh.compact(points, torch.tensor([[4, 1, 2]]), torch.arange(5))
    assert torch.equal(kept, points[[1, 2, 4]])
    assert faces.tolist() == [[2, 0, 1]]
    assert more.tolist() == [1, 2, 4]
