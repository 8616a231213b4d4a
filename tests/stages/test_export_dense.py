"""Meshes, splats and cameras, read back by programs and readers that are not ours."""

import functools
import http.server
import json
import math
import os
import shutil
import struct
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from plyfile import PlyData

from immersivedepth.checks import InputError
from immersivedepth.data import images
from immersivedepth.geometry import sphere
from immersivedepth.render.splats import splats
from immersivedepth.scene import Geometry
from immersivedepth.stages.export.cameras import Cameras
from immersivedepth.stages.export.mesh import Mesh, with_texture
from immersivedepth.stages.export.pointcloud import PointCloud
from immersivedepth.stages.export.splats import FIELDS, Splats, quaternions

from .rooms import geometry, panorama, truth

H = 64


@pytest.fixture(scope="module")
def picture():
    return panorama(H)


@pytest.fixture(scope="module")
def room():
    hits = truth(H)
    return geometry(hits.distance.clone(), hits.normal.permute(2, 0, 1).contiguous())


@pytest.fixture(scope="module")
def ball():
    return geometry(torch.full((H, 2 * H), 2.0), None)


def loaded(path):
    return trimesh.load(path, force="mesh", process=False)


def test_a_ball_is_closed_and_as_large_as_it_should_be(ball, picture, tmp_path):
    Mesh(formats=("glb", "ply", "obj"))(ball, picture, tmp_path)
    for name in ("mesh.glb", "mesh.ply", "mesh.obj"):
        mesh = loaded(tmp_path / name)
        mesh.merge_vertices(merge_tex=True, merge_norm=True)
        assert mesh.is_watertight, name
        # Inscribed in the sphere of radius 2, and inside out: its volume counts negative.
        assert abs(-mesh.volume / (4 / 3 * math.pi * 8) - 1) < 0.005, name


def test_glb_stands_upright_and_carries_the_picture(room, picture, tmp_path):
    Mesh()(room, picture, tmp_path)
    mesh = loaded(tmp_path / "mesh.glb")
    flat = np.asarray(mesh.vertices, np.float32)
    world = np.stack([-flat[:, 2], -flat[:, 0], flat[:, 1]], 1)
    uv = sphere.rays_to_erp(torch.from_numpy(world)).numpy()
    off = np.abs((mesh.visual.uv[:, 0] - uv[:, 0] + 0.5) % 1 - 0.5)
    polar = np.linalg.norm(world[:, :2], axis=1) < 1e-5
    assert off[~polar].max() < 1e-4
    assert np.abs(1 - mesh.visual.uv[:, 1] - uv[:, 1]).max() < 1e-4
    texture = mesh.visual.material.baseColorTexture
    assert texture.size == (2 * H, H)
    assert b"image/jpeg" in (tmp_path / "mesh.glb").read_bytes()


def test_no_face_spans_the_seam_or_a_depth_edge(room, picture, tmp_path):
    mesh = Mesh()
    points, faces = mesh.surface(room)
    reach = points.norm(dim=-1)[faces]
    ratio = 1 + math.pi / H / math.tan(math.radians(mesh.edge_angle))
    assert (reach.amax(1) <= ratio * reach.amin(1) * 1.0001).all()
    _, corners, uv = with_texture(points, faces)
    across = uv[corners, 0].amax(1) - uv[corners, 0].amin(1)
    assert across.max() < 0.1  # a pole's face is half a column wider than the others; none goes around
    uncut, _ = Mesh(edge_angle=0).surface(room)
    assert len(uncut) >= len(points)


def test_budget_keeps_texture_on_the_directions(room):
    points, faces = Mesh(max_faces=2000).surface(room)
    assert len(faces) <= 2000
    points, faces, uv = with_texture(points, faces)
    middle = points[faces].mean(1)
    wanted = sphere.rays_to_erp(middle)
    got = uv[faces].mean(1)
    off = ((got[:, 0] - wanted[:, 0] + 0.5) % 1 - 0.5).abs() * wanted[:, 1].mul(math.pi).sin()
    # Texture is linear within a face, directions are not: merged faces may shear it by a few hundredths of the turn.
    assert off.quantile(0.95) < 0.02
    assert off.median() < 0.004


def test_sky_is_open_or_a_dome(room, picture):
    distance = room.distance[0].clone()
    distance[: H // 4] = math.inf
    sky = geometry(distance, None)
    opened, _ = Mesh().surface(sky)
    assert opened.norm(dim=-1).max() < 1.01 * distance[distance.isfinite()].max()
    domed, _ = Mesh(sky_dome=True, dome_radius=3.0).surface(sky)
    assert abs(domed.norm(dim=-1).max() / distance[distance.isfinite()].max() - 3) < 1e-3


def test_nothing_known_is_said(picture, tmp_path):
    with pytest.raises(InputError, match="no surface"):
        Mesh()(geometry(torch.zeros(H, 2 * H), None), picture, tmp_path)


def of_npm(name):
    """Where npm put a package: in the checkout, or in the folder that NODE_PATH names."""
    for home in (os.environ.get("NODE_PATH", ""), Path(__file__).parents[2] / "node_modules"):
        if home and (Path(home) / name).is_dir():
            return Path(home) / name
    return None


VALIDATOR, MODEL_VIEWER = of_npm("gltf-validator"), of_npm("@google/model-viewer")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(not shutil.which("node") or not VALIDATOR, reason="node or its package gltf-validator is missing")
@pytest.mark.parametrize("dome", [False, True])
def test_khronos_finds_no_fault(room, picture, tmp_path, dome):
    Mesh(sky_dome=dome, max_faces=4000)(room, picture, tmp_path)
    script = (
        "const v=require(process.argv[1]),fs=require('fs');"
        "v.validateBytes(new Uint8Array(fs.readFileSync(process.argv[2])))"
        ".then(r=>console.log(JSON.stringify(r.issues)))"
    )
    out = subprocess.run(
        ["node", "-e", script, str(VALIDATOR), str(tmp_path / "mesh.glb")], capture_output=True, check=True, text=True
    )
    issues = json.loads(out.stdout)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]


def rows_of(path):
    """The splats by the letter of the format: a header of lines, then little-endian floats."""
    data = path.read_bytes()
    head, _, body = data.partition(b"end_header\n")
    lines = head.decode().splitlines()
    names = [line.split()[2] for line in lines if line.startswith("property float")]
    count = next(int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    assert "format binary_little_endian 1.0" in lines
    size = 4 * len(names)
    assert len(body) == count * size
    rows = np.array([struct.unpack_from(f"<{len(names)}f", body, i * size) for i in range(count)])
    return dict(zip(names, rows.T, strict=True))


def matrix_of(w, x, y, z):
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def test_splats_lie_in_the_surface(ball, picture, tmp_path):
    Splats()(ball, picture, tmp_path)
    rows = rows_of(tmp_path / "splats.ply")
    assert tuple(rows) == FIELDS
    centre = np.stack([rows[c] for c in "xyz"], 1)
    assert np.abs(np.linalg.norm(centre, axis=1) - 2).max() < 1e-5
    for i in range(0, len(centre), 97):
        turn = matrix_of(*(rows[f"rot_{k}"][i] for k in range(4)))
        assert np.abs(turn[:, 2] + centre[i] / 2).max() < 1e-3  # the thin axis points to the middle
    widths = np.exp(np.stack([rows[f"scale_{k}"] for k in range(3)], 1))
    assert (widths[:, 2] < 0.1 * widths[:, :2].min(1)).all()
    # A disc stands for its share of the sphere: by area, all together make the sphere's, up to the constant WIDTH^2.
    area = (widths[:, 0] * widths[:, 1]).sum() / 0.6**2
    assert abs(area / (4 * math.pi * 4) - 1) < 0.06  # where columns thin out, the last step is not whole
    assert np.allclose(1 / (1 + np.exp(-rows["opacity"])), 0.99)


def test_splats_are_turned_by_the_normals_that_are_given(picture, tmp_path):
    """Normals of a network need not be those of its distance; what is unknown faces the camera."""
    rays = sphere.erp_rays(H, 2 * H)
    given = torch.nn.functional.normalize(torch.tensor([0.0, 0.6, -0.8]) - 2 * rays, dim=-1).permute(2, 0, 1)
    given = torch.where(torch.arange(H)[:, None] < H // 4, 0.0, given)
    Splats()(geometry(torch.full((H, 2 * H), 2.0), given), picture, tmp_path)
    rows = rows_of(tmp_path / "splats.ply")
    centre = torch.from_numpy(np.stack([rows[c] for c in "xyz"], 1)).float()
    row, column = at_pixels(sphere.rays_to_erp(centre))
    wanted = torch.where((row < H // 4)[:, None], -rays[row, column], given[:, row, column].T)
    thin = np.stack([rows[c] for c in ("nx", "ny", "nz")], 1)
    assert np.abs(thin - wanted.numpy()).max() < 1e-5
    for i in range(0, len(thin), 97):
        turn = matrix_of(*(rows[f"rot_{k}"][i] for k in range(4)))
        assert np.abs(turn[:, 2] - thin[i]).max() < 1e-3
    # As wide as the pixel across, and longer by 1 / cosine along the tilt.
    cosine = -(wanted * rays[row, column]).sum(-1)
    ratio = np.exp(rows["scale_0"] - rows["scale_1"])
    assert np.allclose(ratio, 1 / cosine.clamp_min(0.15).numpy(), rtol=1e-3)


def test_discs_turn_to_the_camera():
    """A normal that points away belongs to the same surface."""
    distance = torch.full((1, H, 2 * H), 2.0)
    normal = sphere.erp_rays(H, 2 * H).permute(2, 0, 1)
    away, to = (splats(torch.ones(3, H, 2 * H), distance, sign * normal) for sign in (1, -1))
    assert torch.equal(away.axes[..., 2], to.axes[..., 2])
    assert (away.axes[..., 2] * away.centre).sum(-1).max() < 0


def test_splats_have_the_pictures_colours_and_keep_the_limit(room, picture, tmp_path):
    Splats(max_splats=1500)(room, picture, tmp_path)
    rows = rows_of(tmp_path / "splats.ply")
    assert 700 < len(rows["x"]) <= 1500
    colour = 0.5 + 0.28209479177387814 * np.stack([rows[f"f_dc_{k}"] for k in range(3)], 1)
    assert colour.min() > -1e-5
    assert colour.max() < 1 + 1e-5
    uv = sphere.rays_to_erp(torch.from_numpy(np.stack([rows[c] for c in "xyz"], 1)).float())
    small = sphere.resize_erp(
        picture.image.float() / (255 if picture.image.dtype == torch.uint8 else 1), H // 4, H // 2
    )
    assert np.abs(sphere.sample_erp(small, uv).numpy() - colour).mean() < 0.05


def test_quaternions_are_exact_for_every_turn():
    random = torch.linalg.qr(torch.randn(200, 3, 3, generator=torch.Generator().manual_seed(0)))[0]
    turns = random * torch.linalg.det(random).sign()[:, None, None]
    turns = torch.cat([turns, torch.diag_embed(torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]]))])
    for q, turn in zip(quaternions(turns).tolist(), turns.numpy(), strict=True):
        assert np.abs(matrix_of(*q) - turn).max() < 1e-5


def test_cameras_agree_with_the_room(room, picture, tmp_path):
    paths = Cameras(resolution=32, max_points=500)(room, picture, tmp_path)
    assert all(path.is_file() for path in paths)
    about = json.loads((tmp_path / "cameras/transforms.json").read_text())
    n, focal = about["w"], about["fl_x"]
    poses = [line.split() for line in (tmp_path / "cameras/sparse/0/images.txt").read_text().splitlines() if line]
    for frame, row in zip(about["frames"], poses, strict=True):
        unit = about["depth_unit_scale_factor"]
        depth = images.read_map(tmp_path / "cameras" / frame["depth_file_path"], unit=unit)[0].numpy()
        turn = np.array(frame["transform_matrix"])[:3, :3]
        colmap = matrix_of(*map(float, row[1:5]))
        assert np.abs(colmap.T * [1, -1, -1] - turn).max() < 1e-5
        y, x = 9, 20
        ray = turn @ np.array([(x + 0.5 - n / 2) / focal, -(y + 0.5 - n / 2) / focal, -1.0])
        reach = np.linalg.norm(ray) * depth[y, x]
        uv = sphere.rays_to_erp(torch.tensor(ray, dtype=torch.float32))
        wanted = float(sphere.sample_erp(room.distance, uv[None], "nearest"))
        assert abs(reach / wanted - 1) < 1e-3  # depth has 60,000 steps
    cloud = np.loadtxt(tmp_path / "cameras/sparse/0/points3D.txt")
    assert 0 < len(cloud) <= 600
    assert json.loads((tmp_path / "cameras/transforms_erp.json").read_text())["camera_model"] == "EQUIRECTANGULAR"


@pytest.mark.parametrize("export", [PointCloud(), Cameras(resolution=32), Mesh(), Splats()])
def test_a_panorama_that_nobody_trusts_is_exported_too(export, picture, tmp_path):
    nothing = Geometry(torch.full((1, H, 2 * H), 2.0), torch.zeros(1, H, 2 * H, dtype=torch.bool))
    written = {path.name: path for path in export(nothing, picture, tmp_path)}
    assert written
    if isinstance(export, PointCloud | Splats):
        (path,) = written.values()
        assert PlyData.read(str(path))["vertex"].count == 0


def cloud_of(path):
    """Directions and distances of a cloud as trimesh reads it, and its colours in 0..1."""
    cloud = trimesh.load(path, process=False)
    points = torch.from_numpy(np.asarray(cloud.vertices)).float()
    assert points.isfinite().all()
    colours = torch.from_numpy(np.asarray(cloud.colors)[:, :3]).float() / 255
    assert len(colours) == len(points) > 0
    return sphere.rays_to_erp(points), points.norm(dim=-1), colours


def at_pixels(uv):
    """Row and column of directions that must lie in the middle of pixels."""
    column, row = uv[:, 0] * 2 * H - 0.5, uv[:, 1] * H - 0.5
    assert (row - row.round()).abs().max() < 1e-2
    # Close to the poles a column is narrow, so that rounding of the points counts more.
    assert ((column - column.round()).abs() * (uv[:, 1] * math.pi).sin()).max() < 1e-2
    return row.round().long(), column.round().long() % (2 * H)


def test_clouds_are_the_map_and_the_picture(room, picture, tmp_path):
    """Each point lies on the ray of a pixel, at its distance, in its colour, and no two are of one pixel."""
    mask = room.mask.clone()
    mask[:, 20:24, 30:50] = False
    holed = replace(room, mask=mask, distance=torch.where(mask, room.distance, 0.0))
    PointCloud(max_points=2000)(holed, picture, tmp_path)
    Cameras(resolution=32, max_points=500)(holed, picture, tmp_path)
    for name, most in (("points.ply", 2000), ("cameras/sparse/0/points.ply", 500)):
        uv, reach, colours = cloud_of(tmp_path / name)
        row, column = at_pixels(uv)
        assert mask[0, row, column].all(), name
        assert (reach / room.distance[0, row, column] - 1).abs().max() < 1e-5, name
        assert (colours - picture.image[:, row, column].T.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6, name
        assert len(set(zip(row.tolist(), column.tolist(), strict=True))) == len(row), name
        assert 0.85 * most < len(row) < 1.15 * most, name  # each pixel stays with a chance of its own
    text = np.loadtxt(tmp_path / "cameras/sparse/0/points3D.txt")
    both = trimesh.load(tmp_path / "cameras/sparse/0/points.ply", process=False)
    assert np.abs(text[:, 1:4] - both.vertices).max() < 1e-5
    assert np.array_equal(text[:, 4:7], np.asarray(both.colors)[:, :3])


def test_colmaps_camera_is_that_of_nerfstudio(room, picture, tmp_path):
    Cameras(resolution=32, fov=80)(room, picture, tmp_path)
    about = json.loads((tmp_path / "cameras/transforms.json").read_text())
    (line,) = (tmp_path / "cameras/sparse/0/cameras.txt").read_text().splitlines()
    number, model, *values = line.split()
    assert (number, model) == ("1", "PINHOLE")
    assert [float(v) for v in values] == [about[key] for key in ("w", "h", "fl_x", "fl_y", "cx", "cy")]
    assert about["fl_x"] == pytest.approx(16 / math.tan(math.radians(40)))
    for frame in about["frames"]:
        assert images.read_image(tmp_path / "cameras" / frame["file_path"]).image.shape[1:] == (about["h"], about["w"])


PAGE = """<!doctype html><body style="margin:0"><script type="module" src="model-viewer.min.js"></script>
<model-viewer src="mesh.glb" style="width:480px;height:480px;background:#ff00ff" camera-orbit="30deg 40deg 120%"
 interaction-prompt="none"></model-viewer>"""


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM or not MODEL_VIEWER, reason="a browser or npm's @google/model-viewer is missing")
def test_a_browser_shows_the_room(room, picture, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    Mesh(max_faces=20_000)(room, picture, tmp_path)
    (tmp_path / "index.html").write_text(PAGE)
    shutil.copy(MODEL_VIEWER / "dist/model-viewer.min.js", tmp_path)
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, playwright.sync_playwright() as driver:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        running = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = running.new_page(viewport={"width": 480, "height": 480})
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        page.wait_for_function("document.querySelector('model-viewer').modelIsVisible", timeout=90_000)
        page.wait_for_timeout(1500)
        shot = page.screenshot(path=str(tmp_path / "shot.png"))
        running.close()
        server.shutdown()
    assert shot
    pixels = images.read_image(tmp_path / "shot.png").image.float()
    behind = (pixels - torch.tensor([255.0, 0, 255])[:, None, None]).abs().amax(0) < 8
    assert 0.1 < 1 - behind.float().mean() < 0.999  # the room stands before the page's own colour
    assert pixels[:, ~behind].std(dim=1).min() > 10  # and is not of one colour


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without telling of them."""

    def log_message(self, *_):
        """Nothing."""
