"""The system that makes the small networks of the package."""

import pytest
import torch

from immersivedepth.checks import ConfigError
from immersivedepth.config import build
from immersivedepth.losses import affine
from immersivedepth.systems.tiny_depth import TinyDepth
from immersivedepth.training.muon import Muon


def _batch(size):
    generator = torch.Generator().manual_seed(0)
    depth = 1 + 5 * torch.rand(2, 1, size, size, generator=generator)
    sky = torch.rand(2, 1, size, size, generator=generator) > 0.9
    disparity = torch.where(sky, 0.0, 1 / depth)
    image = torch.rand(2, 3, size, size, generator=generator)
    return {"image": image, "depth": torch.where(sky, 0.0, depth), "disparity": disparity, "sky": sky}


def test_no_loss_of_the_fit_where_scale_and_shift_explain_it_and_the_anchor_sees_them():
    batch = _batch(28)
    system = TinyDepth()
    off = system.losses(0.5 * batch["disparity"] + 0.3, batch)
    assert float(off["values"]) < 1e-5
    assert float(off["gradients"]) < 1e-4
    assert float(off["anchor"]) > 0.01
    assert float(system.losses(batch["disparity"], batch)["anchor"]) == 0
    assert float(system.losses(batch["disparity"].flip(-1), batch)["values"]) > 0.1


def test_relative_error_against_a_loop():
    batch = _batch(6)
    found = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    valid = ~batch["sky"]
    total, count = 0.0, 0
    for f, d, v in zip(found, batch["disparity"], valid, strict=True):
        x, y = f[v].double(), d[v].double()
        matrix = torch.stack([x, torch.ones_like(x)], 1)
        a, b = torch.linalg.lstsq(matrix, y[:, None]).solution.flatten()
        total += float(((a * x + b - y).abs() / (y + 0.5 * y.mean()).clamp_min(0.02)).sum())
        count += len(x)
    assert float(affine.relative_mae(found, batch["disparity"], valid, 0.02)) == pytest.approx(total / count, rel=1e-4)


def test_ratios_count_where_there_is_no_sky():
    batch = _batch(28)
    assert "ratios" not in TinyDepth().losses(batch["disparity"], batch)
    system = TinyDepth(ratios=2.0)
    found = torch.where(batch["sky"], 5.0, 3 * batch["disparity"] + 1)
    assert float(system.losses(found, batch)["ratios"]) < 1e-4
    worse = batch["disparity"].flip(-1)
    one = affine.ratio_mae(worse, batch["disparity"], ~batch["sky"], 1 / 200)
    assert float(system.losses(worse, batch)["ratios"]) == pytest.approx(2 * float(one))


@pytest.mark.parametrize("model", ["vitt", "midas_tiny"])
def test_both_networks_learn_a_view_by_heart(model):
    torch.manual_seed(0)
    system = TinyDepth(model=model)
    size = 56 if model == "vitt" else 64
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    depth = (1 + 2 * (x > 0.5) + y)[None, None]
    image = torch.stack([x, y, (x > 0.5).float()])[None]
    batch = {"image": image, "depth": depth, "disparity": 1 / depth, "sky": torch.zeros_like(depth, dtype=torch.bool)}
    batch = {k: torch.cat([v, v.flip(-1)]) for k, v in batch.items()}
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


def test_sizes_the_network_does_not_take_and_other_data_are_refused(compose):
    batch = _batch(30)
    with pytest.raises(ConfigError, match="multiples of 14"):
        TinyDepth().forward(torch.nn.Identity(), batch)
    with pytest.raises(ConfigError, match="rendered_views"):
        TinyDepth().data(None, "train")


@pytest.mark.parametrize("name", ["bundled_vitt", "bundled_midas"])
def test_the_experiments_fit_together(compose, name):
    config = compose(f"experiment={name}")
    assert config["mode"] == "train"
    trainer, data = config["trainer"], build(config["dataset"])
    assert 0 < data.small_batches < trainer["scheduler"]["total_steps"]
    assert data.small % (14 if name == "bundled_vitt" else 32) == 0
    assert trainer["scheduler"]["total_steps"] == trainer["epochs"] * trainer["epoch_samples"] // trainer["batch_size"]
    assert data.size % (14 if name == "bundled_vitt" else 32) == 0
