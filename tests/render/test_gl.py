"""Meshes drawn by OpenGL against the plain z-buffer."""

import pytest
import torch

from immersivedepth.checks import ConfigError
from immersivedepth.data.synthetic import make_world
from immersivedepth.data.synthetic.render import erp_maps
from immersivedepth.render import gl
from immersivedepth.render.mesh import MeshScene
from immersivedepth.render.protocol import Camera, Pose

works = pytest.mark.skipif(bool(gl.reason_against()), reason=f"no OpenGL here: {gl.reason_against()}")
CAMERAS = [Camera("panorama", 64, 128), Camera("perspective", 96, 128, 90)]


@works
@pytest.mark.parametrize("camera", CAMERAS, ids=lambda c: c.kind)
@pytest.mark.parametrize("fill", ["harmonic", "mark"])
def test_frames_agree_but_for_pixels_on_edges(camera, fill):
    maps = erp_maps(make_world("room", 3), 64, 128)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    pose = Pose(turn * torch.linalg.det(turn), torch.tensor([0.2, -0.3, 0.1]))
    plain, drawn = (MeshScene(maps.image, maps.distance, fill, b).render(pose, camera) for b in ("torch", "gl"))
    assert float(((plain.distance > 0) != (drawn.distance > 0)).float().mean()) < 0.005
    both = (plain.distance > 0) & (drawn.distance > 0) & plain.distance.isfinite() & drawn.distance.isfinite()
    off = (drawn.distance / plain.distance - 1).abs()[both]
    assert float((off < 1e-3).float().mean()) > 0.95
    assert float((plain.image - drawn.image).abs().mean()) < 0.006
    assert float((plain.seen != drawn.seen).float().mean()) < 0.02


@works
def test_the_same_scene_in_several_threads():
    from concurrent.futures import ThreadPoolExecutor

    maps = erp_maps(make_world("room", 3), 32, 64)
    scene = MeshScene(maps.image, maps.distance, "mark", "gl")
    poses = [Pose(torch.eye(3), torch.tensor([0.05 * k, 0.0, 0.0])) for k in range(4)]
    alone = [scene.render(pose, CAMERAS[0]).distance for pose in poses]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pose: scene.render(pose, CAMERAS[0]).distance, poses))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_where_opengl_does_not_work_auto_does_without_and_gl_is_refused(monkeypatch):
    monkeypatch.setattr(gl, "reason_against", lambda: "ImportError: no moderngl")
    assert not gl.chosen("auto", torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"render.backend=gl.*no moderngl.*render.backend=torch"):
        gl.chosen("gl", torch.device("cpu"))
