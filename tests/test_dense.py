"""mode=render_dense and mode=view from the command line's functions, on the sample picture's world."""

import importlib.util
import json
import urllib.request

import av
import numpy as np
import pytest

import core_exp_runner
from immersivedepth import config as configs
from immersivedepth.checks import ConfigError, InputError
from immersivedepth.data import images
from immersivedepth.dense import render_dense
from immersivedepth.runs import RunFolder

SMALL = (
    "dataset.image_resize=[128,64]",
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


def test_no_field_is_said(films):
    with pytest.raises(ConfigError, match="holds no radiance field"):
        films("render.source=field")


@pytest.mark.skipif(importlib.util.find_spec("viser") is None, reason="the extra `view` is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of websockets and uvloop, inside viser
def test_the_viewer_serves_its_page(compose, tmp_path):
    from immersivedepth.viewer import Viewer

    config = compose(*SMALL, f"device.base_exp_dir={tmp_path}", "mode=view", "view.port=0", name="nerf")
    with Viewer.of(config, lambda: RunFolder.open(configs.run_of(config), config)) as viewer:
        page = urllib.request.urlopen(viewer.address, timeout=20).read()
        assert b"<html" in page.lower()
    assert len(page) > 1000


def test_without_viser_one_line_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'immersivedepth\[view\]'"):
        core_exp_runner.view({}, "")


def test_a_picture_that_nobody_can_measure_is_said(films, tmp_path):
    images.write_png(tmp_path / "grey.png", np.full((8, 16, 3), 90, np.uint8))
    with pytest.raises(InputError):
        films(f"dataset.image_path={tmp_path / 'grey.png'}")  # no truth lies beside it for the oracle
