"""360 stereo as a system: losses, metrics, learning, old checkpoints, and a pair of one's own."""

import json
import math

import numpy as np
import pytest
import torch
import yaml

from immersivedepth.checks import ConfigError
from immersivedepth.config import CONF, build
from immersivedepth.data import images
from immersivedepth.data.making import MakeData
from immersivedepth.data.three_d60 import ThreeD60
from immersivedepth.geometry import sphere, stereo
from immersivedepth.metrics import depth as metrics
from immersivedepth.systems.stereo_3d60 import Stereo3D60
from immersivedepth.training import Trainer


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("d60")
    MakeData("3d60", str(folder), count=2, size=64, workers=1)()
    return folder


def batch_of(root, **settings):
    sample = ThreeD60(str(root), split="all", **settings).samples("test").sample(0, np.random.default_rng(0))
    return {k: v[None] for k, v in sample.items()}


def exact(batch, columns=64):
    alpha = stereo.parallax(torch.where(batch["valid"], batch["distance"], 5.0), batch["theta"], 0.26)
    return stereo.to_pixels(alpha, columns)


def test_the_exact_disparity_has_no_loss_and_no_error(root):
    batch, system = batch_of(root), Stereo3D60(max_disparity=64)
    outputs = [exact(batch)] * 3
    assert sum(system.losses(outputs, batch).values()) < 1e-6
    found = {k: float(a / b) for k, (a, b) in system.metrics(outputs, batch).items()}
    assert found["mae"] < 1e-3
    assert found["delta1"] == 1.0
    assert found["end_point_error"] < 1e-5


def test_the_loss_is_that_of_the_original(root):
    """0.5, 0.7, 1.0 times smooth L1 with beta 1, by a slow loop."""
    batch, system = batch_of(root), Stereo3D60(max_disparity=64, epipole_weight=False)
    target = exact(batch)
    outputs = [target + offset for offset in (0.5, 2.0, -3.0)]
    want = 0.5 * 0.5 * 0.5**2 + 0.7 * (2 - 0.5) + 1.0 * (3 - 0.5)
    assert float(sum(system.losses(outputs, batch).values())) == pytest.approx(want, rel=1e-4)
    one = Stereo3D60(kind="basic", max_disparity=64, epipole_weight=False).losses(outputs[:1], batch)
    assert float(sum(one.values())) == pytest.approx(0.125, rel=1e-4)


def test_near_the_epipoles_pixels_count_less(root):
    batch, system = batch_of(root), Stereo3D60(max_disparity=64)
    target = exact(batch)
    middle, edge = target.clone(), target.clone()
    middle[..., 31:33] += 2
    edge[..., :2] += 2
    a, b = (float(sum(system.losses([x], batch).values())) for x in (middle, edge))
    assert a > 5 * b > 0


def test_the_depth_target_of_the_original(root):
    batch = batch_of(root, projection="erp", inpaint=True)
    system = Stereo3D60(target="depth", max_disparity=192, epipole_weight=False)
    outputs = [batch["distance"] + 0.5]
    assert float(sum(system.losses(outputs, batch).values())) == pytest.approx(0.125, rel=1e-4)
    assert "end_point_error" not in system.metrics(outputs, batch)


def test_psnr_is_defined_as_in_the_original():
    a, b = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2.0, 2.0, 8.0])
    mse = ((1 / 4 - 2 / 8) ** 2 + (2 / 4 - 2 / 8) ** 2 + 0) / 3
    assert float(metrics.peak_ratio(a, b)) == pytest.approx(20 * math.log10(1 / math.sqrt(mse)), rel=1e-6)
    assert float(metrics.peak_ratio(a, 3 * a)) == 0.0  # equal up to scale: the original says 0


def test_the_preset_of_the_original(compose):
    config = compose("experiment=stereo_seed_original")
    system, trainer = build(config["system"]), build(config["trainer"])
    assert (system.target, system.max_disparity, system.kind) == ("depth", 192, "stackhourglass")
    assert (trainer.batch_size, config["trainer"]["optimiser"]["lr"], trainer.scheduler) == (1, 1e-3, None)
    assert (config["dataset"]["projection"], config["dataset"]["inpaint"]) == ("erp", True)
    assert not system.net().wrap_rows  # rows of a raw panorama are latitudes
    assert Stereo3D60(max_disparity=16).net().wrap_rows


def test_raw_panoramas_are_not_mistaken_for_cassini_views(root):
    data = ThreeD60(str(root), split="all", projection="erp")
    with pytest.raises(ConfigError, match="system.wrap_rows=false"):
        Stereo3D60(target="depth").data(data, "test")
    with pytest.raises(ConfigError, match="system.target=depth"):
        Stereo3D60(wrap_rows=False).data(data, "test")
    with pytest.raises(ConfigError, match="reads dataset=three_d60"):
        Stereo3D60().data(object(), "test")


def test_yaml_shows_every_key_of_the_system_and_its_data():
    import inspect

    text = yaml.safe_load((CONF / "system/stereo_3d60.yaml").read_text())
    assert set(text["system"]) - {"_target_"} == set(inspect.signature(Stereo3D60).parameters)
    keys = yaml.safe_load((CONF / "dataset/three_d60.yaml").read_text())
    assert set(keys) - {"_target_"} == set(inspect.signature(ThreeD60).parameters)


@pytest.mark.parametrize("name", ["depth_checkpoint_3.tar", "depth_new_checkpoint_0.tar"])
def test_checkpoints_of_the_original_are_read(tmp_path, name):
    system = Stereo3D60(max_disparity=32)
    net = system.net()
    content = {
        "epoch": 3,
        "state_dict": {f"module.{key}": value for key, value in net.state_dict().items()},
        "optimizer_dict": {"state": {}, "param_groups": [{"lr": 0.001, "params": [0]}]},
        "val_loss": [np.float64(0.5), np.float64(0.25)],
    }
    torch.save(content, tmp_path / name)
    other = system.net()
    system.read_weights(other, tmp_path / name)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.slow
def test_a_checkpoint_of_the_original_is_a_starting_point_and_runs_resume(root, tmp_path):
    """Its weights start a run; a run that is cut short and continued ends with the bits of one that was not."""
    import functools

    system, data = Stereo3D60(kind="basic", max_disparity=16), ThreeD60(str(root), split="all", crop_rows=32)
    net = system.net()
    state = {f"module.{key}": value for key, value in net.state_dict().items()}
    old = {"epoch": 0, "state_dict": state, "optimizer_dict": {}, "val_loss": [np.float64(0.5)]}
    torch.save(old, tmp_path / "depth_checkpoint_0.tar")

    def trainer(epochs, rate):
        return Trainer(
            optimiser=functools.partial(torch.optim.Adam, lr=rate),
            epochs=epochs,
            batch_size=2,
            workers=0,
            kind="cpu",
            pictures=0,
            init_from=str(tmp_path / "depth_checkpoint_0.tar"),
        )

    def end(folder):
        return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]

    trainer(1, 0.0).fit(system, data, tmp_path / "still")
    still = end(tmp_path / "still")
    assert all(torch.equal(still[key], value) for key, value in net.named_parameters())
    trainer(2, 1e-3).fit(system, data, tmp_path / "whole")
    trainer(1, 1e-3).fit(system, data, tmp_path / "cut")
    trainer(2, 1e-3).fit(system, data, tmp_path / "cut", continued=True)
    whole, cut = end(tmp_path / "whole"), end(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(value, cut[key]) for key, value in whole.items())
    assert any(not torch.equal(whole[key], value) for key, value in still.items())


@pytest.mark.slow
def test_it_learns_one_pair_by_heart(root, tmp_path):
    import functools

    data = ThreeD60(str(root), split="all")
    trainer = Trainer(
        optimiser=functools.partial(torch.optim.Adam, lr=2e-3),
        epochs=60,
        batch_size=1,
        overfit_batches=1,
        workers=0,
        kind="cpu",
        pictures=1,
        validate_every=60,
    )
    found = trainer.fit(Stereo3D60(kind="basic", max_disparity=32), data, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    train = [row for row in rows if row["split"] == "train" and row["whole"]]
    assert train[-1]["loss"] < 0.1 * train[0]["loss"]
    assert train[-1]["end_point_error"] < 0.5  # pixels
    assert found.position.step == 60


def test_a_pair_of_ones_own_becomes_a_geometry(root, tmp_path, compose):
    view = ThreeD60(str(root), split="all").views("test")[0]
    left, right = (str(view.path("color", place)) for place in ("Left_Down", "Right"))
    config = compose("system=stereo_3d60", "system.max_disparity=32", f"dataset.left={left}", f"dataset.right={right}")
    system, dataset = build(config["system"]), build(config["dataset"])
    net = system.net().eval()
    with torch.inference_mode():
        (done,) = list(system.predict(net, dataset, tmp_path, config))
    assert done.error is None
    assert {"distance.exr", "distance.npy", "normal.exr", "mask.png", "report.html", "points.ply"} <= {
        path.name for path in done.files
    }
    distance = images.read_map(next(p for p in done.files if p.name == "distance.exr"))
    assert distance.shape == (1, 64, 128)
    assert (distance > 0).all()
    (bad,) = list(system.predict(net, ThreeD60(left=left, right=str(tmp_path / "none.png")), tmp_path, config))
    assert "none.png" in bad.error
    with pytest.raises(ConfigError, match="dataset.left and dataset.right"):
        list(system.predict(net, ThreeD60(left=left), tmp_path, config))


@pytest.mark.parametrize(
    ("changes", "settings"),
    [({}, {}), ({"columns": 32}, {}), ({"projection": "erp"}, {"target": "depth", "wrap_rows": False})],
    ids=["whole", "small", "raw"],
)
def test_pairs_of_any_size_become_a_geometry_of_their_size(changes, settings):
    from immersivedepth.scene import Panorama

    system = Stereo3D60(kind="basic", max_disparity=16, angle_map=True, **settings)
    left, right = (Panorama(torch.rand(3, 50, 100, generator=torch.Generator().manual_seed(i))) for i in (0, 1))
    with torch.no_grad():
        geometry = system.geometry(system.net().eval(), left, right, ThreeD60(**changes), "up")
    assert geometry.distance.shape == geometry.mask.shape == (1, 50, 100)
    assert geometry.distance.isfinite().all()


def test_disparities_that_no_point_can_have_are_masked(root):
    """Beyond pi - theta the ray of the second camera points away: the formula would give a negative distance."""
    from immersivedepth.scene import Panorama

    system = Stereo3D60(max_disparity=64)

    class Wrong(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, left, right):
            return [torch.full_like(left[:, :1], 20.0)]

    picture = Panorama(torch.zeros(3, 64, 128))
    with torch.no_grad():
        geometry = system.geometry(Wrong(), picture, picture, ThreeD60(side="up"), "up")
    assert (geometry.distance > 0).all()
    theta = torch.pi * (torch.arange(64) + 0.5) / 64  # of the rows, from straight up
    possible = theta + 20 * torch.pi / 64 < torch.pi
    rows = geometry.mask[0].all(-1)
    assert not rows[~possible].any()
    assert rows[4:40].all()


@pytest.mark.parametrize("side", ["right", "up"])
def test_perfect_matches_give_the_true_geometry(root, side):
    """With a network that knows the disparity, what comes out is the true distance on the panorama."""
    data = ThreeD60(str(root), split="all", side=side)
    view = data.views("test")[0]
    batch = batch_of(root, side=side)
    system = Stereo3D60(max_disparity=64)

    class Knowing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, left, right):
            return [exact(batch)]

    from immersivedepth.scene import Panorama

    picture = Panorama(images.read_image(view.path("color", "Left_Down")).image)
    with torch.no_grad():
        geometry = system.geometry(Knowing(), picture, picture, data, side)
    true = images.read_map(view.path("depth", "Left_Down"))
    seen = geometry.mask & (true < 20)
    off = (geometry.distance / true).log().abs()[seen]
    assert geometry.metric
    assert off.median() < 0.02  # nearest and bilinear lookups at 64 rows
    blind = sphere.erp_rays(64, 128) @ stereo.frame(side)[:, 2].float()
    assert not geometry.mask[0][blind.abs() > 0.996].any()
