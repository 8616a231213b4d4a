"""The two commands of nerf.yaml: a field is trained, and a film is made of it."""

import inspect
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hydra.utils import get_object

import core_exp_runner
from immersivedepth import config as configs
from immersivedepth.checks import ConfigError
from immersivedepth.data import images
from immersivedepth.field import fields, train_field
from immersivedepth.geometry import sphere
from immersivedepth.pipeline import Pipeline
from immersivedepth.render.protocol import Scene
from immersivedepth.runs import RunFolder
from immersivedepth.scene import unit_image
from immersivedepth.training import checkpoints

SMALL = (
    "dataset.image_resize=[64,32]",
    "project=cube",
    "project.resolution=32",
    "field.budget=0.01",
    "field.rays=64",
    "pose_sampler.poses=2",
    "render.height=16",
    "render.width=32",
    "render.video=false",
)


@pytest.fixture
def trained(compose, tmp_path):
    def make(*more):
        config = compose(*SMALL, f"device.base_exp_dir={tmp_path}", "device.kind=cpu", *more, name="nerf")
        return config, train_field(config, lambda: RunFolder.open(configs.run_of(config), config))

    return make


def test_train_then_film(trained, compose, tmp_path, capsys):
    config, (folder, paths) = trained()
    assert config["mode"] == "train"
    assert all(path.is_file() for path in paths)
    place = next(path.parent for path in paths if path.name == "1.png")
    assert isinstance(fields(config)(place), Scene)
    more = (f"device.base_exp_dir={tmp_path}", "device.kind=cpu", "mode=render_dense", "is_continue=true")
    film = compose(*SMALL, *more, "render.source=field", name="nerf")
    core_exp_runner.render_dense(film, "")
    assert folder.path.name in capsys.readouterr().out
    assert len(list(place.glob("dense_images_panorama/image_*.png"))) == 2


@pytest.mark.slow
def test_the_commands_of_the_readme(tmp_path):
    """A picture of one's own, without any truth beside it, becomes a field and a film."""
    root = Path(configs.__file__).parents[1]
    sample = images.read_image(root / "immersivedepth" / "assets" / "room.png").image
    images.write_png(tmp_path / "room.png", sphere.resize_erp(unit_image(sample), 64, 128))
    lines = (root / "README.md").read_text(encoding="utf-8").splitlines()
    commands = [
        line.strip() for line in lines if line.strip().startswith("python core_exp_runner.py --config-name nerf")
    ]
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command.replace("$(pwd)", str(tmp_path)))[2:]
        small = [word for word in SMALL if not word.startswith("dataset.image_resize")]
        subprocess.run([sys.executable, root / "core_exp_runner.py", *words, *small], cwd=tmp_path, check=True)
    (place,) = (tmp_path / "exp").glob("nerf/*/room")
    assert json.loads((place / "dense_images_panorama" / "path.json").read_text())["scene"]["kind"] == "VoxelField"
    assert len(list(place.glob("dense_images_panorama/image_*.png"))) == 2


def test_no_checkpoint_no_field(compose, tmp_path):
    assert fields(compose(name="nerf"))(tmp_path) is None


def test_a_field_needs_a_scene(trained):
    with pytest.raises(ConfigError, match="scene=voxel"):
        trained("~scene")


@pytest.mark.parametrize("key", ["scene.strange", "field.strange", "inpaint.strange", "field.anchors.strange"])
def test_keys_that_nobody_reads_are_refused(compose, key):
    with pytest.raises(ConfigError, match="is not a key"):
        compose(f"+{key}=1", name="nerf")


@pytest.mark.parametrize("group", ["scene", "field", "inpaint"])
def test_yaml_shows_every_key(compose, group):
    for path in (configs.CONF / group).glob("*.yaml"):
        node = compose(f"{group}={path.stem}", name="nerf")[group]
        keys = {key for key in node if not key.startswith("_")}
        assert keys == set(inspect.signature(get_object(node["_target_"])).parameters)


def test_an_inpainter_of_ones_own(trained, tmp_path, monkeypatch):
    (tmp_path / "my_inpainter.py").write_text(
        "class White:\n    def __call__(self, image, unseen):\n        return image * ~unseen + unseen * 1.0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("IMMERSIVEDEPTH_TRUST", "my_inpainter.")
    _, (folder, _) = trained("inpaint._target_=my_inpainter.White", "field.anchors.n_anchors_per_ratio=1")
    assert len(list(folder.path.glob("*/inpaint_vis/*/completed.png"))) == 3


def test_completed_parts_are_measured_by_the_networks_of_the_run(trained, monkeypatch):
    looks = []
    real = Pipeline.estimate
    monkeypatch.setattr(Pipeline, "estimate", lambda self, panorama: looks.append(panorama) or real(self, panorama))
    more = ("inpaint=telea", "field.anchors.n_anchors_per_ratio=1", "predict=[bundled_midas]")
    _, (folder, _) = trained("field.new_distances=predicted", *more)
    assert [look.size for look in looks] == [(32, 64)] * 4  # the panorama, then the views of three rings
    (last,) = folder.path.glob("*/checkpoints/last.ckpt")
    assert '"predict"' in checkpoints.load(last)["training"]["facts"]  # other networks cannot go on with it
    with pytest.raises(ConfigError, match="other settings"):
        trained("field.new_distances=predicted", *more, "predict=[bundled_dav2]", "is_continue=true")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_process_that_was_killed(tmp_path):
    def start(home, *more):
        arguments = [*SMALL, "field.budget=0.1", "field.save_minutes=0", f"device.base_exp_dir={home}", *more]
        runner = Path(core_exp_runner.__file__)
        command = [sys.executable, str(runner), "--config-name", "nerf", "device.kind=cpu", *arguments]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait() == 0
    killed = start(tmp_path / "killed")
    end = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("nerf/*/*/checkpoints/last.ckpt")) and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert start(tmp_path / "killed", "is_continue=true").wait() == 0
    a, b = (
        checkpoints.load(next((tmp_path / name).glob("nerf/*/*/checkpoints/last.ckpt"))) for name in ("whole", "killed")
    )
    assert a["training"]["position"] == b["training"]["position"]
    assert all(torch.equal(a["state_dict"][name], b["state_dict"][name]) for name in a["state_dict"])
