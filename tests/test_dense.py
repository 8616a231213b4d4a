"""mode=render_dense and mode=view from the command line's functions, on the sample picture's world."""

import importlib.util
import json
import urllib.request

import av
import numpy as np
import pytest
import torch

import core_exp_runner
from immersivedepth import config as configs
from immersivedepth import dense
from immersivedepth.checks import ConfigError, InputError
from immersivedepth.data import images
from immersivedepth.dense import load_geometry, render_dense
from immersivedepth.runs import RunFolder

SMALL = (
    "dataset.image_resize=[128,64]",
    "predict=[oracle]",
    "project=cube",
    "project.resolution=32",
    "pose_sampler.poses=3",
    "render.height=32",
    "render.width=64",
)


@pytest.fixture
def films(compose, tmp_path):
    def film(*more):
        config = compose(*SMALL, f"device.base_exp_dir={tmp_path}", "mode=render_dense", *more, name="nerf")
        return render_dense(config, lambda: RunFolder.open(configs.run_of(config), config))

    return film


def test_a_film_of_every_kind(films):
    folder, paths = films("render.source=mesh")
    frames = next(folder.path.glob("*/dense_images_panorama"))
    assert {p.name for p in paths} == {p.name for p in frames.iterdir()}
    assert len(list(frames.glob("image_*.png"))) == len(list(frames.glob("distance_*.png"))) == 3
    distance = images.read_map(frames / "distance_1.exr")
    assert distance.shape == (1, 32, 64)
    assert (distance > 0).all()
    with av.open(str(frames / "video.mp4")) as film:
        assert len(list(film.decode(video=0))) == 3
    again, _ = films("render.source=splats", "render.kind=perspective", "render.width=32", "is_continue=true")
    assert again.path == folder.path
    assert next(again.path.glob("*/dense_images_perspective/video.mp4")).is_file()


def test_a_killed_film_goes_on(films):
    folder, _ = films("render.video=false")
    frames = next(folder.path.glob("*/dense_images_panorama"))
    first = (frames / "image_0.png").stat().st_mtime_ns
    wanted = (frames / "image_2.png").read_bytes()
    (frames / "distance_2.exr").unlink()
    (frames / "image_2.png").unlink()
    films("render.video=false", "is_continue=true")
    assert (frames / "image_0.png").stat().st_mtime_ns == first
    assert (frames / "image_2.png").read_bytes() == wanted
    films("render.video=false", "is_continue=true", "render.fill=mark")  # other settings: all are made again
    assert (frames / "image_0.png").stat().st_mtime_ns != first
    assert json.loads((frames / "path.json").read_text())["render"]["fill"] == "mark"


def test_a_film_of_other_settings_that_was_killed_keeps_no_old_frame(films, monkeypatch):
    folder, _ = films("render.video=false")
    frames = next(folder.path.glob("*/dense_images_panorama"))
    other = ("render.video=false", "is_continue=true", "render.source=splats")
    with monkeypatch.context() as patch:
        patch.setattr(dense, "_save", lambda *_: pytest.fail("killed before its first frame"))
        with pytest.raises(pytest.fail.Exception):
            films(*other)
    old = (frames / "image_2.png").read_bytes()
    films(*other)
    assert (frames / "image_2.png").read_bytes() != old


def test_a_film_of_another_scene_is_made_anew(films, monkeypatch):
    folder, _ = films("render.video=false", "render.source=auto")
    frames = next(folder.path.glob("*/dense_images_panorama"))
    old = (frames / "image_2.png").read_bytes()
    monkeypatch.setattr(dense, "MeshScene", lambda image, distance, *_: dense.SplatScene(image, distance))
    films("render.video=false", "render.source=auto", "is_continue=true")
    assert (frames / "image_2.png").read_bytes() != old


def test_geometry_that_a_kill_left_half_written_is_estimated_again(films):
    folder, _ = films("render.video=false")
    place = next(folder.path.glob("*/dense_images_panorama")).parent
    for name in ("result.json", "distance.json", "mask.png"):
        (place / name).unlink()
    films("render.video=false", "is_continue=true")
    assert (place / "mask.png").is_file()


def test_normals_of_the_run_are_read(films):
    folder, _ = films("render.video=false")
    place = next(folder.path.glob("*/dense_images_panorama")).parent
    up = torch.tensor([0.0, 0.0, 1.0]).expand(64, 128, 3).permute(2, 0, 1)
    images.write_npy(place / "normal.npy", up.permute(1, 2, 0))
    assert torch.equal(load_geometry(place).normal, up)
    (place / "normal.npy").unlink()
    assert load_geometry(place).normal.shape == (3, 64, 128)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("render.source=splats", "render.backend=gl"), "render.backend=gl draws meshes"),
        (("render.source=field", "render.fill=navier_stokes"), "render.fill=navier_stokes: a field has"),
        (("render.source=field", "render.backend=gl"), "render.backend=gl draws meshes"),
    ],
)
def test_what_a_scene_cannot_do_is_refused(compose, tmp_path, given, line):
    config = compose(*SMALL, f"device.base_exp_dir={tmp_path}", "mode=render_dense", *given, name="nerf")
    with pytest.raises(ConfigError, match=line):
        render_dense(config, lambda: RunFolder.open(configs.run_of(config), config), lambda place: object())


@pytest.mark.gpu
@pytest.mark.parametrize("source", ["mesh", "splats"])
def test_frames_of_a_gpu_are_those_of_a_processor(films, source):
    given = (f"render.source={source}", "render.kind=perspective", "render.width=32", "render.backend=torch")
    frames = []
    for kind in ("cpu", "cuda"):
        folder, _ = films(*given, "render.video=false", f"device.kind={kind}", f"exp_name={kind}")
        home = next(folder.path.glob("*/dense_images_perspective"))
        frames.append(torch.cat([images.read_map(home / f"distance_{k}.exr") for k in range(3)]))
    apart = (frames[0] - frames[1]).abs() > 1e-3 * frames[0]
    assert apart.float().mean() < 0.01  # a ray along an edge may fall to either side


def test_no_field_is_said(films):
    with pytest.raises(ConfigError, match="holds no radiance field"):
        films("render.source=field")


@pytest.mark.skipif(importlib.util.find_spec("viser") is None, reason="the extra `view` is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of websockets and uvloop, inside viser
def test_the_viewer_serves_points_mesh_splats_and_the_path(compose, tmp_path, monkeypatch):
    import viser

    from immersivedepth.viewer import Viewer

    shown = {}
    for name in [name for name in dir(viser.SceneApi) if name.startswith("add_")]:
        real = getattr(viser.SceneApi, name)

        def noted(self, *given, name=name, real=real, **more):
            if str(given[0]) in ("/points", "/splats", "/mesh", "/path"):
                shown[name] = given
            return real(self, *given, **more)

        monkeypatch.setattr(viser.SceneApi, name, noted)
    config = compose(*SMALL, f"device.base_exp_dir={tmp_path}", "mode=view", "view.port=0", name="nerf")
    with Viewer.of(config, lambda: RunFolder.open(configs.run_of(config), config)) as viewer:
        page = urllib.request.urlopen(viewer.address, timeout=20).read()
        assert b"<html" in page.lower()
    assert len(page) > 1000
    assert shown.keys() >= {"add_point_cloud", "add_gaussian_splats", "add_mesh_trimesh", "add_spline_catmull_rom"}
    points, mesh = shown["add_point_cloud"][1], shown["add_mesh_trimesh"][1].vertices
    assert len(points) == len(shown["add_gaussian_splats"][1]) == len(shown["add_gaussian_splats"][2]) > 1000
    size = np.ptp(points, axis=0)
    assert np.abs(points.min(0) - mesh.min(0)).max() < 0.1 * size.max()  # upright, and in the same place
    assert np.abs(points.max(0) - mesh.max(0)).max() < 0.1 * size.max()
    path = shown["add_spline_catmull_rom"][1]
    assert path.shape == (3, 3)
    assert (np.abs(path) < np.abs(points).max(0)).all()


def test_without_viser_one_line_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'immersivedepth\[view\]'"):
        core_exp_runner.view({}, "")


def test_a_picture_that_nobody_can_measure_is_said(films, tmp_path):
    images.write_png(tmp_path / "grey.png", np.full((64, 128, 3), 90, np.uint8))
    with pytest.raises(InputError, match="truth of a synthetic world"):
        films(f"dataset.image_path={tmp_path / 'grey.png'}")  # no truth lies beside it
