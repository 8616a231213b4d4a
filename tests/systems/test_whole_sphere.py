"""The system that makes the network which mends whole panoramas."""

import pytest
import torch

from immersivedepth.checks import ConfigError
from immersivedepth.config import build, run_of
from immersivedepth.geometry import sphere
from immersivedepth.pipeline import assemble
from immersivedepth.runs import RunFolder
from immersivedepth.scene import Panorama
from immersivedepth.systems.whole_sphere import WholeSphere
from immersivedepth.training import modes
from immersivedepth.training.muon import Muon


def _batch(height=64):
    generator = torch.Generator().manual_seed(0)
    truth = 1 + 5 * torch.rand(2, 1, height, 2 * height, generator=generator)
    sky = torch.zeros_like(truth, dtype=torch.bool)
    sky[..., :6, 5:30] = True
    return {
        "image": torch.rand(2, 3, height, 2 * height, generator=generator),
        "first": torch.where(sky, torch.inf, truth),
        "spread": torch.zeros_like(truth),
        "truth": torch.where(sky, 0.0, truth),
        "sky": sky,
        "normal": torch.nn.functional.normalize(torch.randn(2, 3, height, 2 * height, generator=generator), dim=1),
        "sure": (~sky).float(),
    }


def _said(batch, factor=1.0):
    log = torch.where(batch["sky"], 9.0, (factor * batch["truth"].clamp_min(1e-6)).log())
    return {"log": log, "sky": torch.where(batch["sky"], 20.0, -20.0), "normal": batch["normal"]}


def test_a_factor_costs_nothing_and_what_is_said_of_the_sky_neither():
    batch = _batch()
    losses = WholeSphere().losses(_said(batch, 3.0), batch)
    assert all(float(v) < 1e-4 for v in losses.values())
    assert set(losses) == {"values", "ratios", "gradients", "sky", "normals"}


def test_losses_against_a_loop():
    batch = _batch()
    found = _said(batch)
    noise = torch.rand(found["log"].shape, generator=torch.Generator().manual_seed(2)) ** 4
    found["log"] = found["log"] + 4 * noise
    system = WholeSphere(ratios=1.0)
    area = sphere.solid_angles(64, 128).expand(64, 128)
    values, ratios = [], []
    for one in range(2):
        pairs = sorted(
            (4 * float(noise[one, 0, r, c]), float(area[r, c]))
            for r in range(64)
            for c in range(128)
            if not batch["sky"][one, 0, r, c]
        )
        total, half = sum(w for _, w in pairs), 0.0
        for middle, w in pairs:  # noqa: B007
            half += w
            if half >= total / 2:
                break
        off = [(e - middle, w) for e, w in pairs]
        values.append(sum(abs(e) * w for e, w in off) / total)
        top = torch.e**2.5
        ratios.append(sum(w * abs(torch.e**e - 1 if e < 2.5 else top * (1 + e - 2.5) - 1) for e, w in off) / total)
    losses = system.losses(found, batch)
    assert float(losses["values"]) == pytest.approx(sum(values) / 2, rel=1e-3)
    assert float(losses["ratios"]) == pytest.approx(sum(ratios) / 2, rel=1e-3)


def test_metrics_tell_the_first_look_from_the_second():
    batch = _batch()
    batch["first"] = torch.where(batch["sky"], torch.inf, batch["truth"] * 1.6 ** batch["image"][:, :1].round())
    found = {k: float(a / b) for k, (a, b) in WholeSphere().metrics(_said(batch, 2.0), batch).items()}
    assert found["delta1"] == 1
    assert found["abs_rel"] < 1e-4
    assert 0.3 < found["first_delta1"] < 0.7
    assert found["sky_found"] == 1
    assert found["sky_false"] == 0
    assert found["normal_error"] < 0.1


def test_it_learns_to_mend():
    torch.manual_seed(0)
    batch = _batch()
    wrong = torch.where(batch["image"][:, :1] > 0.5, 1.5, 1.0)  # the picture tells where
    batch["first"] = batch["first"] * wrong
    system = WholeSphere()
    net = system.net()
    optimiser = Muon(system.parameters(net), lr=2e-3)
    course = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = torch.stack(list(system.losses(system.forward(net, batch), batch).values())).sum()
        loss.backward()
        optimiser.step()
        course.append(float(loss.detach()))
    assert course[-1] < 0.6 * course[0]


def test_panels_are_pictures_of_one_size():
    batch = _batch()
    for row in WholeSphere().panels(_said(batch), batch).values():
        assert row.shape == (2, 3, 64, 128)
        assert 0 <= row.min() <= row.max() <= 1


def test_other_data_are_refused_and_the_experiment_fits_together(compose):
    with pytest.raises(ConfigError, match="rendered_panoramas"):
        WholeSphere().data(None, "train")
    config = compose("experiment=bundled_whole_sphere")
    odd = build({**config["dataset"], "height": 80}, "dataset")
    with pytest.raises(ConfigError, match="multiple of 32"):
        WholeSphere().data(odd, "train")
    dataset, system = build(config["dataset"], "dataset"), build(config["system"], "system")
    assert system.data(dataset, "train") is not None
    assert dataset.first.predict.keys() == {"bundled_dav2", "bundled_midas"}


def test_a_run_makes_weights_that_the_refinement_takes(compose, tmp_path):
    small = ("dataset.height=64", "dataset.window=2", "dataset.validation=1", "dataset.first.project.resolution=64")
    config = compose(
        "experiment=bundled_whole_sphere",
        "predict=[bundled_midas]",
        *small,
        "trainer.fast=true",
        "trainer.batch_size=2",
        f"device.base_exp_dir={tmp_path}",
        "device.kind=cpu",
    )
    result = modes.train(config, lambda: RunFolder.open(run_of(config), config))
    (last,) = result.folder.rglob("last.ckpt")
    given = ["predict=[bundled_midas]", "project.resolution=64", f"refine.whole_sphere.weights={last}", "export=[]"]
    pipeline = assemble(compose(*given))
    picture = torch.rand(3, 64, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = pipeline(Panorama(picture))
    assert found.report["models"] == ["midas_tiny"]
    assert found.report["whole_sphere"]["mended"]
    assert list(pipeline.refine) == ["normals", "whole_sphere"]
