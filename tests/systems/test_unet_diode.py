"""The U-Net of DIODE as a system."""

import inspect

import numpy as np
import pytest
import torch
import yaml

from immersivedepth.checks import ConfigError, WeightsError
from immersivedepth.config import CONF, build
from immersivedepth.data import images
from immersivedepth.data.diode import Diode
from immersivedepth.data.synthetic import make_world, render_erp
from immersivedepth.geometry import pinhole
from immersivedepth.losses.edges import edge_weighted_smoothness
from immersivedepth.losses.structural import ssim
from immersivedepth.scene import Kind
from immersivedepth.stages.predict.residual_unet import UNet
from immersivedepth.stages.project import Icosahedron
from immersivedepth.systems.unet_diode import UNetDiode, jet, scatter


def batch_of(size=32):
    generator = torch.Generator().manual_seed(0)
    depth = 1 + 3 * torch.rand(2, 1, size, size, generator=generator)
    valid = torch.rand(2, 1, size, size, generator=generator) > 0.2
    image = torch.rand(2, 3, size, size, generator=generator)
    return {"image": image, "depth": depth, "target": torch.where(valid, depth.log(), 0.1), "valid": valid}


def test_the_loss_has_the_weights_of_the_original():
    batch = batch_of()
    found = torch.rand(batch["target"].shape, generator=torch.Generator().manual_seed(1))
    losses = UNetDiode().losses(found, batch)
    target = batch["target"]
    assert float(losses["ssim"]) == pytest.approx(
        0.85 * float((1 - ssim(target, found, 32.0, 7, k=(1e-4, 9e-4))).mean()), rel=1e-5
    )
    assert float(losses["l1"]) == pytest.approx(0.1 * float((target - found).abs().mean()), rel=1e-5)
    assert float(losses["edges"]) == pytest.approx(0.9 * float(edge_weighted_smoothness(found, target)), rel=1e-5)
    kept = UNetDiode(masked_loss=True).losses(found, batch)["l1"]
    want = 0.1 * float((target - found).abs()[batch["valid"]].mean())
    assert float(kept) == pytest.approx(want, rel=1e-5)


def test_the_exact_log_depth_has_no_error():
    batch = batch_of()
    found = {k: float(a / b) for k, (a, b) in UNetDiode().metrics(batch["depth"].log(), batch).items()}
    assert found["delta1"] == 1.0
    assert max(found[k] for k in ("mae", "abs_rel", "rmse_log")) < 1e-5


def test_settings_are_those_of_the_original(compose):
    config = compose("system=unet_diode")
    assert config["trainer"]["optimiser"]["_target_"] == "torch.optim.Adam"
    assert (config["trainer"]["optimiser"]["lr"], config["trainer"]["epochs"], config["trainer"]["batch_size"]) == (
        2e-4,
        30,
        32,
    )
    assert (config["dataset"]["size"], config["dataset"]["seed"], config["seed"]) == (256, 42, 123)
    assert build(config["system"]).head == "tanh"


def test_yaml_shows_every_key():
    for path, found in (("system/unet_diode", UNetDiode), ("dataset/diode", Diode)):
        text = yaml.safe_load((CONF / f"{path}.yaml").read_text())
        assert set(text.get("system", text)) - {"_target_"} == set(inspect.signature(found).parameters)


def test_panels_show_what_is_not_measured_in_black():
    batch = batch_of()
    panels = UNetDiode().panels(batch["target"], batch)
    hidden = ~batch["valid"].expand(-1, 3, -1, -1)
    assert (panels["truth"][hidden] == 0).all()
    assert panels["found"][hidden].max() > 0
    ends = jet(torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2))[0, :, 0]
    assert ends[2, 0] > ends[0, 0]  # blue is near
    assert ends[0, 1] > ends[2, 1]


def test_points_have_the_colours_of_the_picture():
    image = torch.zeros(3, 30, 30)
    image[0] = 1.0
    paper = scatter(image, torch.ones(1, 30, 30))
    ink = (paper != 255).any(-1)
    assert ink.sum() > 100
    assert (paper[ink] == [255, 0, 0]).all()  # the original divided by 255 once more, and all was black


def test_pictures_of_ones_own(tmp_path):
    images.write_png(tmp_path / "in/a.png", torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0)))
    (tmp_path / "in/b.png").write_bytes(b"broken")
    system = UNetDiode()
    with torch.inference_mode():
        good, bad = system.predict(system.net().eval(), Diode(images=str(tmp_path / "in"), size=32), tmp_path / "o", {})
    assert {p.name for p in good.files} == {"depth.npy", "depth.exr", "depth.png", "points.png"}
    depth = np.load(tmp_path / "o/a/depth.npy")
    assert depth.shape == (40, 60)
    assert np.exp(-1) <= depth.min() <= depth.max() <= np.exp(1)
    assert "b.png" in bad.error
    with pytest.raises(ConfigError, match="dataset.images"):
        list(system.predict(system.net(), Diode(), tmp_path, {}))


@pytest.mark.parametrize("kind", [Kind.SCALE_DISTANCE, Kind.METRIC_DISTANCE])
def test_it_looks_at_views(tmp_path, kind):
    """A network whose map is 0 everywhere sees depth one everywhere."""
    system = UNetDiode(head="linear")
    net = system.net()
    torch.nn.init.zeros_(net.last.weight)
    torch.save({"state_dict": net.state_dict()}, tmp_path / "net.pt")
    views = Icosahedron(resolution=24)(render_erp(make_world("cube_room", 0), 32, 64))
    unet = UNet(size=32, kind=str(kind).split("_")[0], weights=str(tmp_path / "net.pt"))
    found = unet(views)
    assert set(found.kinds) == {kind}
    lengths = pinhole.ray_lengths(views.rig.tan_half_fov, 24)
    assert torch.allclose(found.values[:, 0], lengths, rtol=1e-5)
    with pytest.raises(WeightsError, match="predict.unet.weights"):
        UNet().load()
    with pytest.raises(ConfigError, match="multiple of 16"):
        UNet(size=100)


def test_the_masked_loss_is_blind_to_what_was_not_measured():
    generator = torch.Generator().manual_seed(3)
    outputs, target = torch.rand(2, 2, 1, 32, 32, generator=generator)
    valid = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    valid[:, :, 20:] = False
    batch = {"target": target, "valid": valid}
    wild = torch.where(valid, outputs, 50.0)
    masked, plain = UNetDiode(masked_loss=True), UNetDiode()
    for name, value in masked.losses(outputs, batch).items():
        assert torch.equal(value, masked.losses(wild, batch)[name]), name
        assert not torch.equal(plain.losses(outputs, batch)[name], plain.losses(wild, batch)[name]), name
