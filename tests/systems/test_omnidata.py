"""Depth and normals on many data sets."""

import functools
import inspect

import numpy as np
import pytest
import torch
import yaml

from immersivedepth.checks import ConfigError
from immersivedepth.config import CONF, build
from immersivedepth.data.making import MakeData
from immersivedepth.data.multitask import MultiTask, Part
from immersivedepth.data.synthetic import make_world, render_erp
from immersivedepth.losses import affine
from immersivedepth.scene import Kind
from immersivedepth.stages.predict.midas import Midas
from immersivedepth.stages.project import Icosahedron
from immersivedepth.systems.omnidata import OmnidataDepth, OmnidataNormal
from immersivedepth.training import Trainer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("omnidata")
    MakeData("omnidata", str(root), count=8, size=64, workers=1)()
    return root


def batch_of(made, tasks=("rgb", "depth_zbuffer", "mask_valid")):
    views = MultiTask({"a": Part(str(made))}, tasks, 64).samples("val")
    samples = [views.sample(i, np.random.default_rng(0)) for i in range(2)]
    return {k: torch.stack([s[k] for s in samples]) for k in samples[0]}


def test_scale_and_shift_cost_nothing(made):
    batch = batch_of(made)
    system = OmnidataDepth(model="midas_tiny", regulariser=0.1, virtual_normal=10.0)
    disparity = 1 / batch["depth_zbuffer"].clamp_min(1e-3)
    losses = system.losses((3 * disparity + 2)[:, 0], batch)
    assert set(losses) == {"ssi", "gradients", "virtual_normal"}
    assert sum(losses.values()) < 1e-3
    found = {k: float(a / b) for k, (a, b) in system.metrics((3 * disparity + 2)[:, 0], batch).items()}
    assert found["abs_rel"] < 1e-3
    assert found["delta1"] == 1.0


def test_the_loss_has_the_weights_of_the_recipe(made):
    batch = batch_of(made)
    found = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(0))
    valid = batch["valid"] & (batch["depth_zbuffer"] > 0)
    target = torch.where(batch["depth_zbuffer"] > 0, 1 / batch["depth_zbuffer"].clamp_min(1e-3), 0.0)
    losses = OmnidataDepth(model="midas_tiny", regulariser=0.5).losses(found, batch)
    assert torch.allclose(losses["ssi"], affine.ssi_mae(found[:, None], target, valid))
    assert torch.allclose(losses["gradients"], 0.5 * affine.gradient_term(found[:, None], target, valid))


def test_the_central_part_of_each_image_may_stand_for_its_scale(made):
    batch = batch_of(made)
    system = OmnidataDepth(model="midas_tiny", standardise="central")
    disparity = 1 / batch["depth_zbuffer"].clamp_min(1e-3)
    assert float(system.losses((3 * disparity + 2)[:, 0], batch)["ssi"]) < 1e-3
    found = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(0))
    other = OmnidataDepth(model="midas_tiny").losses(found, batch)["ssi"]
    assert 0.1 < float(system.losses(found, batch)["ssi"]) != float(other)


def test_a_training_batch_gets_a_size_of_its_step(made):
    batch = batch_of(made)
    system = OmnidataDepth(model="midas_tiny", sizes=(32, 64))
    shapes = set()
    for seed in range(12):
        torch.manual_seed(seed)
        out = system.varied(batch)
        torch.manual_seed(seed)
        again = system.varied(batch)
        assert all(torch.equal(out[k], again[k]) for k in batch)
        assert out["valid"].dtype == torch.bool
        shapes.add(tuple(out["rgb"].shape[-2:]))
    assert len(shapes) > 2
    assert OmnidataDepth(model="midas_tiny").varied(batch) is batch


def test_settings_are_those_of_the_original(compose):
    first, fine = compose("system=omnidata_depth"), compose("experiment=omnidata_depth_fine")
    assert (first["trainer"]["optimiser"]["lr"], first["trainer"]["batch_size"], first["dataset"]["size"]) == (
        1e-5,
        8,
        384,
    )
    assert (first["system"]["regulariser"], first["system"]["virtual_normal"]) == (0.0, 0.0)
    assert (fine["system"]["regulariser"], fine["system"]["virtual_normal"]) == (0.1, 10.0)
    normal = compose("system=omnidata_normal")["trainer"]
    assert (normal["optimiser"]["amsgrad"], normal["optimiser"]["weight_decay"], normal["clip_norm"]) == (
        True,
        2e-6,
        10,
    )


def test_yaml_shows_every_key():
    for path, found in (("omnidata_depth", OmnidataDepth), ("omnidata_normal", OmnidataNormal)):
        text = yaml.safe_load((CONF / f"system/{path}.yaml").read_text())["system"]
        assert set(text) - {"_target_"} == set(inspect.signature(found).parameters)
    keys = yaml.safe_load((CONF / "dataset/multitask.yaml").read_text())
    assert set(keys) - {"_target_"} == set(inspect.signature(MultiTask).parameters)


def test_normals_are_judged_in_degrees(made):
    batch = batch_of(made, ("rgb", "normal", "mask_valid"))
    system = OmnidataNormal(model="midas_tiny_normal")
    exact = {k: float(a / b) for k, (a, b) in system.metrics(batch["normal"], batch).items()}
    assert exact["angle"] < 0.1
    assert exact["within_11.25"] == 1.0
    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    x, y, z = (2 * batch["normal"] - 1).unbind(1)
    turned = (torch.stack([c * x - s * y, s * x + c * y, z], 1) + 1) / 2
    found = {k: float(a / b) for k, (a, b) in system.metrics(turned, batch).items()}
    assert found["angle"] <= 20.1
    losses = system.losses(batch["normal"], batch)
    assert float(losses["cosine"]) == pytest.approx(-1, abs=1e-3)
    assert float(losses["l1"]) < 1e-6


def test_a_network_of_another_kind_is_refused():
    with pytest.raises(ConfigError, match="use system=omnidata_normal"):
        OmnidataDepth(model="omnidata_dpt_normal").check_output("normal")
    with pytest.raises(ConfigError, match="use system=omnidata_depth"):
        OmnidataNormal(model="midas_tiny").net()
    with pytest.raises(ConfigError, match="expected one of dpt_"):
        OmnidataDepth(model="midas_huge").net()


def test_trained_weights_look_at_panoramas(made, tmp_path, compose):
    """From made data over the loop to predict=[midas]."""
    data = MultiTask({"a": Part(str(made))}, size=64, augment=False)
    trainer = Trainer(
        optimiser=functools.partial(torch.optim.Adam, lr=1e-3),
        epochs=1,
        batch_size=4,
        workers=0,
        kind="cpu",
        pictures=2,
    )
    done = trainer.fit(OmnidataDepth(model="midas_tiny", regulariser=0.1), data, tmp_path)
    best = next(path for path in done.files if path.name == "best.ckpt")
    views = Icosahedron(resolution=64)(render_erp(make_world("cube_room", 0), 32, 64))
    midas = Midas(model="midas_tiny", side=64, weights=str(best))
    found = midas(views)
    assert set(found.kinds) == {Kind.AFFINE_DISPARITY}
    assert found.values.isfinite().all()
    assert isinstance(build(compose("experiment=omnidata_depth_tiny")["system"]), OmnidataDepth)
