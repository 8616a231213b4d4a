"""Foreground mask and depth as a system."""

import functools
import inspect
import typing

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from immersivedepth.checks import ConfigError
from immersivedepth.config import CONF, build
from immersivedepth.data import images
from immersivedepth.data.making import MakeData
from immersivedepth.data.modest import Modest
from immersivedepth.systems.foreground_modest import ForegroundModest
from immersivedepth.training import Trainer

LOSSES = typing.get_args(typing.get_type_hints(ForegroundModest)["loss"])


def batch_of(size=32, count=2):
    generator = torch.Generator().manual_seed(0)
    maps = {k: torch.rand(count, 3, size, size, generator=generator) for k in ("background", "picture")}
    mask = (torch.rand(count, 1, size, size, generator=generator) > 0.7).float()
    return {**maps, "mask": mask, "depth": torch.rand(count, 1, size, size, generator=generator)}


def outputs_of(size=32, count=2):
    generator = torch.Generator().manual_seed(1)
    return {k: torch.randn(count, 1, size, size, generator=generator, requires_grad=True) for k in ("mask", "depth")}


def test_the_main_loss_is_that_of_the_original():
    batch, outputs = batch_of(), outputs_of()
    found = ForegroundModest().losses(outputs, batch)
    assert torch.allclose(found["mask"], F.binary_cross_entropy_with_logits(outputs["mask"], batch["mask"]))
    mse = F.mse_loss(outputs["depth"].sigmoid(), batch["depth"])
    assert torch.allclose(found["depth"], 2 * (mse + 1e-6).sqrt())


@pytest.mark.parametrize("loss", LOSSES)
def test_every_combination_is_finite_and_has_gradients(loss):
    size = 192 if "ms_ssim" in loss else 32
    batch, outputs = batch_of(size), outputs_of(size)
    terms = ForegroundModest(loss=loss, data_range=1.0).losses(outputs, batch)
    sum(terms.values()).backward()
    for value in outputs.values():
        assert value.grad.isfinite().all()
        assert value.grad.abs().max() > 0


def test_the_range_of_the_original_hides_differences():
    batch, outputs = batch_of(), outputs_of()
    wide, right = (
        float(ForegroundModest(loss="ssim_rmse", data_range=r).losses(outputs, batch)["mask"].detach())
        for r in (255.0, 1.0)
    )
    assert wide < 0.1 < right


def test_figures_of_mask_and_depth_are_their_own():
    """In the original one accumulator served both, and its RMSE was upside down."""
    batch = batch_of()
    logits = {"mask": 20 * (batch["mask"] - 0.5), "depth": torch.zeros_like(batch["depth"])}
    system = ForegroundModest()
    found = system.summary({k: float(a / b) for k, (a, b) in system.metrics(logits, batch).items()})
    assert found["mask_iou"] == pytest.approx(1.0)
    assert found["mask_soft_iou"] > 0.99 > found["depth_soft_iou"]
    assert found["depth_rmse"] == pytest.approx(float((batch["depth"] - 0.5).square().mean().sqrt()), rel=1e-5)
    assert found["mask_rmse"] < 1e-3


def test_settings_are_those_of_the_original(compose):
    config = compose("system=foreground_modest")
    optimiser, scheduler = config["trainer"]["optimiser"], config["trainer"]["scheduler"]
    assert (optimiser["lr"], optimiser["momentum"], optimiser["weight_decay"]) == (0.01, 0.9, 1e-8)
    assert (scheduler["factor"], scheduler["patience"], scheduler["threshold"]) == (0.1, 2, 1e-4)
    assert config["trainer"]["schedule"] == "monitor"
    assert [compose(f"experiment=modest_{s}")["dataset"]["size"] for s in (64, 128, 224)] == [64, 128, 224]
    assert build(config["system"]).loss == "bce_rmse"


def test_yaml_shows_every_key():
    for path, found in (("system/foreground_modest", ForegroundModest), ("dataset/modest", Modest)):
        text = yaml.safe_load((CONF / f"{path}.yaml").read_text())
        assert set(text.get("system", text)) - {"_target_"} == set(inspect.signature(found).parameters)


def test_layers_of_the_original_are_read_under_their_own_names(tmp_path):
    system = ForegroundModest(network="mask")
    net = system.net()
    theirs = {"background.": "layer1.", "picture.": "layer2.", "joint.": "layer3.", "last.": "layer3.6."}
    renamed = {}
    for name, value in net.state_dict().items():
        ours = next(key for key in theirs if name.startswith(key))
        renamed["module." + theirs[ours] + name.removeprefix(ours)] = value
    torch.save({"epoch": 1, "model_state_dict": renamed}, tmp_path / "a.pt")
    other = system.net()
    system.read_weights(other, tmp_path / "a.pt")
    assert torch.equal(other.last.weight, net.last.weight)


@pytest.mark.parametrize("network", ["mask", "mask_depth"])
def test_checkpoints_of_the_original_form_are_read(tmp_path, network):
    system = ForegroundModest(network=network)
    net, other = system.net(), system.net()
    content = {
        "epoch": 3,
        "accuracy": np.float64(0.5),
        "loss": np.float64(0.1),
        "model_state_dict": net.state_dict(),
        "optimizer_state_dict": {"state": {}, "param_groups": []},
    }
    torch.save(content, tmp_path / "a.pt")
    system.read_weights(other, tmp_path / "a.pt")
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True))


def test_panels_and_a_pair_of_ones_own(tmp_path):
    system = ForegroundModest()
    net = system.net().eval()
    batch = batch_of()
    with torch.inference_mode():
        panels = system.panels(system.forward(net, batch), batch)
    assert list(panels) == ["picture", "true mask", "mask", "true depth", "depth"]
    for name in ("background", "picture"):
        images.write_png(tmp_path / f"{name}.png", torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0)))
    data = Modest(background=str(tmp_path / "background.png"), picture=str(tmp_path / "picture.png"))
    with torch.inference_mode():
        (done,) = system.predict(net, data, tmp_path / "out", {})
    assert {p.name for p in done.files} == {"mask.png", "mask.npy", "depth.png", "depth.npy"}
    assert np.load(tmp_path / "out/picture/mask.npy").shape == (40, 60)
    (bad,) = system.predict(net, Modest(background=data.background, picture=str(tmp_path / "no.png")), tmp_path, {})
    assert "no.png" in bad.error
    with pytest.raises(ConfigError, match="dataset.background and dataset.picture"):
        list(system.predict(net, Modest(), tmp_path, {}))


def test_each_size_starts_from_the_one_before_and_draws_its_grid(tmp_path):
    """Progressive sizes, the plateau scheduler and a sheet of pictures for every epoch, with the small network."""
    MakeData("modest", str(tmp_path / "made"), count=32, size=64, workers=1)()
    system, start, rates = ForegroundModest(network="mask"), None, []

    class Plateau(torch.optim.lr_scheduler.ReduceLROnPlateau):
        def step(self, metrics, epoch=None):
            super().step(metrics)
            rates.append(self.optimizer.param_groups[0]["lr"])

    for size in (32, 64):
        trainer = Trainer(
            optimiser=functools.partial(torch.optim.SGD, lr=0.0),
            scheduler=functools.partial(Plateau, factor=0.1, patience=0, threshold=1.0),
            schedule="monitor",
            epochs=2,
            steps=2,
            epoch_samples=4,
            batch_size=4,
            workers=0,
            kind="cpu",
            pictures=2,
            init_from=start,
        )
        folder = tmp_path / str(size)
        fitted = trainer.fit(system, Modest(str(tmp_path / "made"), size=size), folder)
        assert sorted(p.name for p in (folder / "pictures").iterdir()) == ["epoch_0001.png", "epoch_0002.png"]
        if start:
            before = system.net()
            system.read_weights(before, start)
            pairs = zip(before.parameters(), fitted.net.parameters(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)  # the learning rate is 0
        start = str(folder / "checkpoints/last.ckpt")
    assert len(rates) == 4


def test_similarity_over_scales_learns_at_the_first_size():
    outputs, batch = outputs_of(64), batch_of(64)
    torch.stack(list(ForegroundModest(loss="bce_ms_ssim").losses(outputs, batch).values())).sum().backward()
    assert all(torch.isfinite(v.grad).all() and v.grad.any() for v in outputs.values())
