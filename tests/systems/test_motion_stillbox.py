"""Depth from motion as a system: loss, logs, old checkpoints, frames of one's own, and panoramas."""

import inspect
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from immersivedepth.checks import ConfigError, InputError, WeightsError
from immersivedepth.config import CONF, build
from immersivedepth.data import images
from immersivedepth.data.making import MakeData
from immersivedepth.data.still_box import StillBox
from immersivedepth.data.synthetic import make_world, render_erp
from immersivedepth.geometry import directions, pinhole
from immersivedepth.nets.depthnet import DepthNet
from immersivedepth.scene import Kind, Rig
from immersivedepth.stages.predict.motion import Motion
from immersivedepth.stages.project import Icosahedron
from immersivedepth.systems.motion_stillbox import MotionStillBox, nominal_ways
from immersivedepth.training.records import read_rows
from immersivedepth.weights import read

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("still_box")
    MakeData("stillbox", str(root), count=2, size=32, workers=1)()
    return root


def batch_of(made, split="val", count=2):
    pairs = StillBox(str(made), train_share=0.5).samples(split)
    samples = [pairs.sample(i, np.random.default_rng(i)) for i in range(count)]
    return {k: torch.stack([s[k] for s in samples]) for k in samples[0]}


def test_the_loss_is_that_of_the_original(made):
    """Five scales against area means of the target, by a slow loop."""
    batch, system = batch_of(made), MotionStillBox()
    outputs = [scale.detach() for scale in system.net().train()(batch["first"], batch["second"])]
    found = system.losses(outputs, batch)
    want = 0.0
    for weight, out in zip((0.32, 0.08, 0.02, 0.01, 0.005), outputs, strict=True):
        h, w = out.shape[-2:]
        by = batch["depth"].shape[-1] // w
        for b in range(len(out)):
            for i in range(h):
                for j in range(w):
                    mean = batch["depth"][b, 0, i * by : (i + 1) * by, j * by : (j + 1) * by].mean()
                    want += weight * float((out[b, 0, i, j] - mean).abs()) / out.numel()
    assert float(sum(found.values())) == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize(("form", "value"), [("l1", 2.0), ("mse", 4.0), ("smooth_l1", 1.5)])
def test_three_forms_of_the_loss(form, value):
    system = MotionStillBox(loss=form, scale_weights=(1.0,))
    batch = {"depth": torch.full((1, 1, 8, 8), 5.0)}
    assert float(system.losses([torch.full((1, 1, 2, 2), 7.0)], batch)["scale2"]) == pytest.approx(value)


def test_the_errors_of_the_original():
    batch = {"depth": torch.full((1, 1, 8, 8), 5.0)}
    found = {k: float(a / b) for k, (a, b) in MotionStillBox().metrics([torch.full((1, 1, 2, 2), 7.0)], batch).items()}
    assert found == pytest.approx({"depth_error": 2.0, "normalized_error": 0.4})


def test_settings_are_those_of_the_original(compose):
    config = compose("system=motion_stillbox")
    trainer = config["trainer"]
    assert {k: trainer["optimiser"][k] for k in ("lr", "momentum", "dampening", "weight_decay")} == {
        "lr": 0.01,
        "momentum": 0.9,
        "dampening": 0.9,
        "weight_decay": 4e-4,
    }
    assert (trainer["scheduler"]["milestones"], trainer["scheduler"]["gamma"]) == ([19, 30, 44, 53], 0.3)
    assert (trainer["epochs"], trainer["batch_size"]) == (55, 256)
    sizes = {s: compose(f"experiment=stillbox_{s}")["trainer"] for s in (64, 128, 256, 512)}
    assert [(t["batch_size"], t["optimiser"]["lr"]) for t in sizes.values()] == [
        (256, 0.01),
        (256, 0.01),
        (64, 0.001),
        (16, 0.001),
    ]
    adam = compose("system=motion_stillbox", "optimiser=adam")
    net = torch.nn.Linear(1, 1)
    assert isinstance(build(adam["trainer"]).optimiser(net.parameters()), torch.optim.Adam)


def test_yaml_shows_every_key():
    for path, found in (("system/motion_stillbox", MotionStillBox), ("dataset/still_box", StillBox)):
        text = yaml.safe_load((CONF / f"{path}.yaml").read_text())
        keys = text.get("system", text)
        assert set(keys) - {"_target_"} == set(inspect.signature(found).parameters)


def test_checkpoints_of_the_original_are_read(tmp_path):
    net = DepthNet(batch_norm=True, elu=True)
    content = {
        "epoch": 3,
        "arch": "DepthNet_elu_bn",
        "state_dict": {f"module.{key}": value for key, value in net.state_dict().items()},
        "best_error": np.float64(2.5),
        "bn": True,
        "with_confidence": False,
        "activation_function": "elu",
        "clamp": False,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.2, 0.2, 0.2],
    }
    for prefix in ("module.", ""):
        content["state_dict"] = {f"{prefix}{key}": value for key, value in net.state_dict().items()}
        torch.save(content, tmp_path / "model_best.pth.tar")
        system = MotionStillBox()
        other = system.net()
        system.read_weights(other, tmp_path / "model_best.pth.tar")
        assert torch.equal(other.conv6[0].weight, net.conv6[0].weight)
    plain = MotionStillBox(batch_norm=False)
    with pytest.raises(WeightsError, match="does not fit"):
        plain.read_weights(plain.net(), tmp_path / "model_best.pth.tar")


def frames(folder, count=5, size=(48, 64)):
    for i in range(count):
        generator = torch.Generator().manual_seed(i)
        images.write_png(folder / f"frame_{i:03d}.png", torch.rand(3, *size, generator=generator))


def test_frames_of_ones_own(tmp_path):
    frames(tmp_path / "in")
    system = MotionStillBox(frame_shift=2, output_raw=True)
    net = system.net().eval()
    data = StillBox(images=str(tmp_path / "in"), height=64, width=64)
    with torch.inference_mode():
        done = list(system.predict(net, data, tmp_path / "out", {}))
        twice = list(system.predict(net, replace(data, displacement=(0.0, 0.0, 0.6)), tmp_path / "twice", {}))
    assert [Path(d.source).name for d in done] == ["frame_002.png", "frame_003.png", "frame_004.png"]
    names = {path.name for d in done for path in d.files}
    assert names == {f"frame_{i:03d}{end}" for i in (2, 3, 4) for end in ("_disp.png", "_depth.png", ".npy")}
    raw = np.load(tmp_path / "out/frame_002.npy")
    assert raw.shape == (48, 64)
    assert np.allclose(np.load(tmp_path / "twice/frame_002.npy"), 2 * raw)
    assert len(twice) == 3


def test_a_bad_frame_does_not_stop_the_others(tmp_path):
    frames(tmp_path, 4)
    (tmp_path / "frame_001.png").write_bytes(b"broken")
    system = MotionStillBox()
    with torch.inference_mode():
        done = list(system.predict(system.net().eval(), StillBox(images=str(tmp_path)), tmp_path / "out", {}))
    assert [d.error is None for d in done] == [False, False, True]
    assert all("frame_001.png" in d.error for d in done[:2])


@pytest.mark.parametrize(("batch_norm", "elu"), [(False, False), (True, True)])
def test_pictures_are_drawn_whatever_the_network_says(tmp_path, batch_norm, elu):
    """An untrained network without ELU says less than nothing here and there."""
    frames(tmp_path, 2)
    system = MotionStillBox(batch_norm=batch_norm, elu=elu, output_raw=True)
    torch.manual_seed(0)
    with torch.inference_mode():
        (done,) = system.predict(
            system.net().eval(), StillBox(images=str(tmp_path), height=64, width=64), tmp_path / "out", {}
        )
    depth = np.load(tmp_path / "out/frame_001.npy")
    assert elu or depth.min() < 0
    shown = images.read_image(tmp_path / "out/frame_001_disp.png").image
    assert shown.shape == (3, 48, 64)
    assert int(shown.max()) == 255  # the nearest is white
    assert len(done.files) == 3


def test_the_way_to_metres():
    """The original's formula; with a known angle that of a camera which sees the same with 90 degrees."""
    assert nominal_ways(StillBox(), (48, 64), (64, 64)) == 1
    assert nominal_ways(StillBox(displacement=(0.0, 0.3, 0.4)), (48, 64), (64, 64)) == pytest.approx(5 / 3)
    for way, want in (((0.3, 0, 0), 2.0), ((0, 0, 0.3), 1.0), ((0, 0.3, 0), 8 / 3)):
        data = StillBox(displacement=way, fov=2 * math.degrees(math.atan(0.5)))
        # Tangents 0.5 across and 3/8 upwards, squeezed into a square.
        assert nominal_ways(data, (48, 64), (64, 64)) == pytest.approx(want)
    # As they are, both axes have the same focal length.
    data = StillBox(displacement=(0, 0.3, 0), fov=90.0)
    assert nominal_ways(data, (48, 64), (48, 64)) == pytest.approx(1)


def test_frames_of_one_name_do_not_overwrite_each_other(tmp_path):
    for name in ("a", "b"):
        frames(tmp_path / name, 2)
    (tmp_path / "list.txt").write_text("".join(f"{d}/frame_{i:03d}.png\n" for d in "ab" for i in (0, 1)))
    system = MotionStillBox(output_disp=False)
    data = StillBox(images=str(tmp_path / "list.txt"), height=64, width=64)
    with torch.inference_mode():
        done = list(system.predict(system.net().eval(), data, tmp_path / "out", {}))
    names = [path.name for d in done for path in d.files]
    assert names == ["000001_frame_001_depth.png", "000002_frame_000_depth.png", "000003_frame_001_depth.png"]


def test_a_list_of_frames_and_mistakes(tmp_path):
    frames(tmp_path, 3)
    (tmp_path / "list.txt").write_text("frame_002.png\nframe_000.png\n")
    system = MotionStillBox(output_disp=False)
    net = system.net().eval()
    with torch.inference_mode():
        (done,) = system.predict(
            net, StillBox(images=str(tmp_path / "list.txt"), height=None, width=None), tmp_path, {}
        )
        assert [path.name for path in done.files] == ["frame_000_depth.png"]
        with pytest.raises(InputError, match="too few for frame_shift=9"):
            list(MotionStillBox(frame_shift=9).predict(net, StillBox(images=str(tmp_path)), tmp_path, {}))
        with pytest.raises(ConfigError, match="dataset.images"):
            list(system.predict(net, StillBox(), tmp_path, {}))
        with pytest.raises(ConfigError, match="all false"):
            list(MotionStillBox(output_disp=False, output_depth=False).predict(net, StillBox(), tmp_path, {}))
        with pytest.raises(ConfigError, match="dataset.fov"):
            list(system.predict(net, StillBox(images=str(tmp_path), fov=60.0), tmp_path, {}))
    with pytest.raises(ConfigError, match="frame_shift=0"):
        MotionStillBox(frame_shift=0)


# ---- training --------------------------------------------------------------------------------------------------------


def fitted(compose, root, folder, *more):
    plain = ("trainer.workers=0", "trainer.batch_size=2", "trainer.log_every=1", "trainer.pictures=1")
    config = compose("system=motion_stillbox", "device.kind=cpu", *plain, *more)
    data = StillBox(str(root), train_share=0.5)
    return build(config["trainer"]).fit(build(config["system"]), data, folder, seed=int(config["seed"]))


def tabbed(path):
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_a_run_leaves_the_logs_of_the_original(compose, made, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = fitted(compose, made, tmp_path, "trainer.epochs=1")
    assert found.position.best_epoch == 1  # the original never kept its first epoch
    assert (tmp_path / "checkpoints/best.ckpt").is_file()
    head, *rows = tabbed(tmp_path / "progress_log_summary.csv")
    assert head == [
        "train_loss",
        "train_depth_error",
        "normalized_train_error",
        "depth_error",
        "normalized_depth_error",
    ]
    assert len(rows) == 1
    assert all(float(value) > 0 for value in rows[0])
    assert float(rows[0][3]) == pytest.approx(found.position.best)
    head, *rows = tabbed(tmp_path / "progress_log_full.csv")
    assert head == ["train_loss", "train_depth_error"]
    assert len(rows) == 5  # ten frames of one film, two at a time
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    scalars = {"train/loss", "train_epoch/depth_error", "val_epoch/depth_error", "val_epoch/normalized_error"}
    assert scalars <= set(board.Tags()["scalars"])
    assert board.Tags()["images"] == ["samples"]  # both frames, truth and result of fixed samples
    assert list((tmp_path / "pictures").iterdir())


def test_each_size_starts_from_the_one_before(compose, made, tmp_path):
    """With a learning rate of nothing, the weights of the larger size stay those it began with."""
    MakeData("stillbox", str(tmp_path / "large"), count=2, size=48, workers=1)()
    first = fitted(compose, made, tmp_path / "small", "trainer.epochs=1").net.state_dict()
    best = tmp_path / "small/checkpoints/best.ckpt"
    second = fitted(compose, tmp_path / "large", tmp_path / "next", "experiment=stillbox_128", "trainer.epochs=1",
                    "trainer.optimiser.lr=0", f"trainer.init_from={best}").net  # fmt: skip
    names = [name for name, _ in second.named_parameters()]
    assert all(torch.equal(first[name], second.state_dict()[name]) for name in names)
    assert not torch.equal(first["conv1.0.weight"], MotionStillBox().net().conv1[0].weight)


# ---- panoramas -------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path):
    world = make_world("cube_room", 0)
    picture = render_erp(world, 32, 64)
    images.write_png(tmp_path / "second.png", picture.image)
    net = DepthNet(batch_norm=True, elu=True)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "net.pt")
    return picture, str(tmp_path / "second.png"), str(tmp_path / "net.pt")


def test_two_panoramas_are_looked_at_view_by_view(two):
    picture, second, weights = two
    views = Icosahedron(resolution=32)(picture)
    plain = Motion(second=second, size=32, weights=weights)(views)
    assert set(plain.kinds) == {Kind.SCALE_DISTANCE}
    assert plain.values.shape == (20, 1, 32, 32)
    way = Motion(second=second, size=32, weights=weights, displacement=(0.0, 0.0, 0.6))(views)
    assert set(way.kinds) == {Kind.METRIC_DISTANCE}
    ratio = way.values / plain.values
    assert torch.allclose(ratio, ratio[:, :, :1, :1].expand_as(ratio), rtol=1e-5)  # one factor for each view
    assert ratio.amin() >= 2 / float(views.rig.tan_half_fov.max()) - 1e-4  # views of 100 degrees
    assert ratio.amax() <= 2 + 1e-4
    rays = F.normalize(pinhole.view_rays(views.rig.rotation, views.rig.tan_half_fov, 32), dim=-1)
    along = rays[..., 2].abs() > 0.999
    assert (way.confidence[:, 0][along] == 0).all()
    assert way.confidence.max() > 0.999


@pytest.mark.parametrize("tangent", [0.5, 1.0, 1.7])
def test_depth_follows_the_way_that_each_view_seems_to_go(two, monkeypatch, tangent):
    """A view along the motion sees the way as it is, one across it as its focal length shows it."""
    picture, second, weights = two
    views = Icosahedron(resolution=32)(picture)
    rig = Rig(pinhole.look_along(directions.cube_faces()), torch.full((6,), tangent), 32)
    views = replace(views, images=views.images[:6], rig=rig, mask=None)
    motion = Motion(second=second, size=32, weights=weights, displacement=(0.0, 0.6, 0.0))
    constant = staticmethod(lambda pairs, before, after: torch.full((6, 1, 32, 32), 10.0))
    monkeypatch.setattr(Motion, "_runner", constant)
    depth = motion(views).values / pinhole.ray_lengths(rig.tan_half_fov, 32)[:, None]
    along = rig.rotation[:, 1, 2].abs() > 0.5  # the forward axis in the world, along +y or -y
    assert int(along.sum()) == 2
    assert torch.allclose(depth[along], torch.tensor(20.0), rtol=1e-5)
    assert torch.allclose(depth[~along], torch.tensor(20.0 / tangent), rtol=1e-5)


def test_what_is_missing_is_told(two):
    picture, second, weights = two
    views = Icosahedron(resolution=32)(picture)
    with pytest.raises(ConfigError, match="predict.motion.second"):
        Motion(weights=weights)(views)
    with pytest.raises(WeightsError, match="predict.motion.weights"):
        Motion(second=second).load()


# ---- processes ---------------------------------------------------------------------------------------------------


def command(made, base, *more):
    return [
        sys.executable, "core_exp_runner.py", "mode=train", "system=motion_stillbox", f"dataset.root={made}",
        f"device.base_exp_dir={base}", "device.kind=cpu", "dataset.train_share=0.5", "trainer.workers=0",
        "trainer.batch_size=2", "trainer.log_every=1", "trainer.pictures=0", *more,
    ]  # fmt: skip


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(made, base, *more):
    done = subprocess.run(
        command(made, base, *more), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_do_what_one_does(made, tmp_path):
    """At the same global batch; without batch statistics, which each process would take of its own half."""
    plain = ("system.batch_norm=false", "trainer.epochs=2")
    run(made, tmp_path / "one", *plain)
    run(made, tmp_path / "two", *plain, "trainer.devices=2")
    one, two = (read(next((tmp_path / name).rglob("last.ckpt"))) for name in ("one", "two"))
    # Sums in another order, through ten steps of momentum.
    assert max(float((one[k] - two[k]).abs().max()) for k in one) < 1e-4
    rows = [[r for r in read_rows(next((tmp_path / n).rglob("metrics.jsonl"))) if r["whole"]] for n in ("one", "two")]
    assert [r["split"] for r in rows[0]] == ["train", "val"] * 2
    for x, y in zip(*rows, strict=True):
        assert (x["loss"], x["depth_error"]) == pytest.approx((y["loss"], y["depth_error"]), rel=1e-4)
