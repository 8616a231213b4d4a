"""MiDaS and Omnidata as stages: views in, predictions out, and files that do not fit."""

import math
import typing
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

import midas
from immersivedepth.checks import ConfigError, WeightsError
from immersivedepth.config import build, compose
from immersivedepth.geometry import pinhole
from immersivedepth.scene import Kind, Rig, Views
from immersivedepth.stages.fuse.stack import Stack
from immersivedepth.stages.predict.midas import Midas, loaded
from immersivedepth.stages.predict.omnidata_depth import OmnidataDepth
from immersivedepth.stages.predict.omnidata_normals import OmnidataNormals, world_normals
from immersivedepth.stages.predict.running import Runner, Running
from immersivedepth.weights import REGISTRY, Weights
from midas.network import Network

CPU = Running(kind="cpu", precision="fp32", batch_size=2)


@pytest.fixture(scope="module")
def net():
    return midas.create("midas_tiny").eval()


@pytest.fixture(scope="module")
def file(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    torch.save(net.state_dict(), path)
    return str(path)


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 40, 40), generator=generator, dtype=torch.uint8)
    forward = torch.tensor([[1.0, 0.2, 0.1], [-0.3, 1.0, 0.5], [0.1, -0.2, -1.0]])
    return Views(images, Rig(pinhole.look_along(forward), torch.tensor([1.0, 0.5, 1.5]), 40))


def test_network_gives_disparity_at_the_size_of_the_views(net, file, views):
    found = Midas("midas_tiny", 128, file, CPU)(views)
    assert found.values.shape == (3, 1, 40, 40)
    assert found.kinds == (Kind.AFFINE_DISPARITY,) * 3
    assert found.models == ("midas_tiny",) * 3
    assert found.rig is views.rig
    expected = net.infer(views.images, 128)
    assert expected.std() > 0
    # Batches of two and of three are summed in another order.
    torch.testing.assert_close(found.values[:, 0], expected, rtol=0, atol=3e-5 * float(expected.std()))
    floating = Views(views.images.float() / 255, views.rig)
    torch.testing.assert_close(Midas("midas_tiny", 128, file, CPU)(floating).values, found.values)


def test_network_is_built_at_the_first_call_and_once(file, views, monkeypatch):
    predict = Midas("midas_tiny", 64, file, CPU)
    first = predict(views).values
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", None)
    assert torch.equal(predict(views).values, first)
    Midas("dpt_beit_large_512", weights="nowhere.pt")  # only a call looks for it


def injected(stage, output, model=None):
    """The stage with a network that gives `output` whatever it sees."""

    class Fixed(Network):
        def forward(self, x):
            return F.interpolate(output, x.shape[-2:], mode="nearest") if output.ndim == 4 else output

    net = Fixed(midas.SPECS[model or stage.model])
    stage.__dict__["_ready"] = (net, Runner(net, Running(kind="cpu", precision="fp32", batch_size=len(output))))
    return stage


def test_overshoot_is_no_negative_disparity(views):
    step = torch.zeros(3, 256, 256)
    step[..., 128:] = 5
    net = Network(midas.SPECS["midas_tiny"])
    assert float(net.restore(step[..., ::16, ::16], (40, 40)).min()) < -0.1
    found = injected(Midas("midas_tiny"), step[..., ::16, ::16])(views)
    assert float(found.values.min()) == 0
    assert float(found.values.max()) > 5


def test_omnidata_depth_is_depth(views):
    ramp = torch.linspace(0, 1, 40).expand(3, 40, 40).contiguous()
    found = injected(OmnidataDepth(), ramp, "omnidata_dpt_depth")(views)
    assert found.kinds == (Kind.AFFINE_DEPTH,) * 3
    torch.testing.assert_close(found.values[:, 0], ramp)


def test_side_that_no_network_takes_is_a_mistake_in_the_config(file, views):
    with pytest.raises(ConfigError, match=r"predict\.midas\.side=100: midas_tiny: side must be a multiple of 32"):
        Midas("midas_tiny", 100, file, CPU)(views)
    with pytest.raises(ConfigError, match=r"dpt_levit_224 looks at 224x224 pixels only"):
        injected(Midas("dpt_levit_224", 256), torch.zeros(3, 40, 40))(views)


@pytest.mark.parametrize("model", ["omnidata_dpt_normal", "omnidata_unet_normal"])
def test_normals_are_turned_into_world_axes(model, views):
    """Three walls as one network would see them: +x right, +y down, +z towards the camera, in 0..1."""
    walls = F.normalize(torch.tensor([[-1.0, 0.1, 0.0], [0.2, -1.0, -0.3], [0.9, 0.1, 0.5]]), dim=1)
    in_view = torch.einsum("vij,vi->vj", views.rig.rotation, walls)
    seen = in_view * torch.tensor([1.0, 1.0, -1.0]) / 2 + 0.5
    found = injected(OmnidataNormals(model), seen[:, :, None, None].expand(-1, -1, 40, 40))(views)
    assert found.kinds == (Kind.AFFINE_DISPARITY,) * 3
    assert float(found.confidence.abs().max()) == 0
    assert float(found.values.abs().max()) == 0
    assert found.models == (model,) * 3
    assert found.normal.shape == (3, 3, 40, 40)
    rays = pinhole.view_rays(views.rig.rotation, views.rig.tan_half_fov, 40)
    facing = torch.einsum("vhwi,vi->vhw", rays, walls) < 0
    assert facing.float().mean() > 0.8
    error = (found.normal - walls[:, :, None, None]).norm(dim=1)
    assert float(error[facing].max()) < 1e-5
    assert float(error[~facing].max()) > 1e-3
    towards = torch.einsum("vhwi,vihw->vhw", F.normalize(rays, dim=-1), found.normal)
    assert float(towards.max()) < 1e-6
    torch.testing.assert_close(found.normal.norm(dim=1), torch.ones(3, 40, 40))


def test_normals_that_point_away_are_turned_to_the_nearest_edge():
    rig = Rig(pinhole.look_along(torch.tensor([[1.0, 0.0, 0.0]])), torch.tensor([1e-4]), 1)
    angle = math.radians(100)  # ten degrees beyond edge-on; in view axes: to the right and slightly forward
    seen = torch.tensor([math.sin(angle), 0.0, math.cos(angle)]).view(1, 3, 1, 1)
    torch.testing.assert_close(world_normals(seen, rig).flatten(), torch.tensor([0.0, -1.0, 0.0]), rtol=0, atol=1e-6)
    away = torch.tensor([0.0, 0.0, -1.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(world_normals(away, rig).flatten(), torch.tensor([-1.0, 0.0, 0.0]), rtol=0, atol=1e-6)


def test_choices_are_all_models_of_the_package():
    depths = typing.get_args(typing.get_type_hints(Midas)["model"])
    normals = typing.get_args(typing.get_type_hints(OmnidataNormals)["model"])
    assert set(depths) == {name for name, spec in midas.SPECS.items() if spec.output == "disparity"}
    assert set(normals) == {name for name, spec in midas.SPECS.items() if spec.output == "normal"}
    published = {source.variant for source in REGISTRY.values() if source.package == "midas"}
    assert published == {name for name in midas.MODELS if name.startswith(("dpt_", "midas_v21"))}


def test_missing_files_are_told_in_one_line(views, tmp_path):
    settings = Weights(folder=str(tmp_path), offline=True)
    for stage, file in (
        (Midas("dpt_swin2_tiny_256", running=CPU, settings=settings), "dpt_swin2_tiny_256.pt"),
        (OmnidataDepth(running=CPU, settings=settings), "omnidata_dpt_depth_v2.ckpt"),
        (OmnidataNormals(running=CPU, settings=settings), "omnidata_dpt_normal_v2.ckpt"),
    ):
        with pytest.raises(WeightsError, match="not found") as told:
            stage(views)
        assert str(told.value).startswith(str(tmp_path / file))
        assert "\n" not in str(told.value)
    with pytest.raises(WeightsError, match=r"nowhere\.pt.*not found"):
        Midas("midas_tiny", weights=str(tmp_path / "nowhere.pt"), running=CPU)(views)


def test_files_of_other_models_are_refused_and_named(file, views, tmp_path):
    for model in ("midas_v21_small_256", "dpt_levit_224"):
        with pytest.raises(WeightsError) as told:
            Midas(model, weights=file, running=CPU)(views)
        assert f"this is a midas_tiny file; predict.midas.model is {model}" in str(told.value)
        assert "\n" not in str(told.value)
    strange = tmp_path / "strange.pt"
    torch.save({"weight": torch.zeros(3)}, strange)
    with pytest.raises(WeightsError, match=r"strange\.pt does not fit: .*is it a file of this network\?"):
        Midas("midas_tiny", weights=str(strange), running=CPU)(views)


@pytest.mark.parametrize(
    ("stage", "name", "key"),
    [
        (partial(Midas, "dpt_hybrid_384"), "omnidata_dpt_depth_v2.ckpt", "predict.midas.model is dpt_hybrid_384"),
        (OmnidataDepth, "dpt_hybrid_384.pt", "predict.omnidata_depth"),
    ],
)
def test_twins_are_told_apart_by_the_names_of_their_files(stage, name, key, views, tmp_path):
    (tmp_path / name).write_bytes(b"never read")
    with pytest.raises(WeightsError) as told:
        stage(weights=str(tmp_path / name), running=CPU)(views)
    assert f"this is a {name.split('.')[0]} file; {key}" in str(told.value)


def test_weights_in_half_precision_are_widened(net, views, tmp_path):
    path = tmp_path / "half.pt"
    torch.save({key: v.half() if v.is_floating_point() else v for key, v in net.state_dict().items()}, path)
    found = Midas("midas_tiny", 64, str(path), CPU)(views).values
    assert found.dtype == torch.float32
    expected = net.infer(views.images, 64)
    assert float((found[:, 0] - expected).abs().max()) < 0.02 * float(expected.abs().max())  # 11 bits, many layers


def test_configs_build_the_stages():
    config = compose(
        overrides=["predict=[midas,omnidata_normals]", "predict.midas.model=dpt_levit_224", "device.kind=cpu"]
    )
    predict = {name: build(node, name) for name, node in config["predict"].items()}
    assert isinstance(predict["midas"], Midas)
    assert predict["midas"].model == "dpt_levit_224"
    assert predict["midas"].running.kind == "cpu"
    assert isinstance(predict["omnidata_normals"], OmnidataNormals)
    both = compose(overrides=["predict=[midas,omnidata_depth]"])["predict"]
    assert [type(build(node)) for node in both.values()] == [Midas, OmnidataDepth]
    with pytest.raises(ConfigError, match=r"predict\.midas\.model.*dpt_beit_large_512"):
        compose(overrides=["predict=[midas]", "predict.midas.model=dpt_huge"])


@pytest.mark.slow
def test_a_lightning_checkpoint_gives_normals(views, tmp_path):
    unet = midas.create("omnidata_unet_normal").eval()
    path = tmp_path / "checkpoint.ckpt"
    torch.save({"epoch": 1, "state_dict": {f"model.{k}": v for k, v in unet.state_dict().items()}}, path)
    found = OmnidataNormals("omnidata_unet_normal", str(path), CPU)(views)
    expected = world_normals(unet.infer(views.images), views.rig)
    assert float((found.normal - expected).norm(dim=1).max()) < 1e-3
    again = loaded("omnidata_unet_normal", str(path), Weights(), "")
    assert all(torch.equal(v, unet.state_dict()[k]) for k, v in again.state_dict().items())


def test_normals_are_lent_to_models_that_see_distances(views):
    towards = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1) / 2 + 0.5
    normals = injected(OmnidataNormals(), towards.expand(3, 3, 40, 40))(views)
    depths = injected(
        OmnidataDepth(), torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0)), "omnidata_dpt_depth"
    )(views)
    fused = Stack()({"omnidata_normals": normals, "omnidata_depth": depths})
    assert torch.equal(fused.values, depths.values)
    assert fused.confidence is None
    torch.testing.assert_close(fused.normal, normals.normal)
    both = Stack()({"a": depths, "b": normals, "c": depths})
    assert len(both.rig) == 6
    torch.testing.assert_close(both.normal, torch.cat([normals.normal] * 2))
    own = replace(depths, normal=-normals.normal)
    assert torch.equal(Stack()({"a": own, "b": normals}).normal, own.normal)
    elsewhere = replace(depths, rig=replace(views.rig, tan_half_fov=2 * views.rig.tan_half_fov))
    assert Stack()({"a": elsewhere, "b": normals}).normal is None
    with pytest.raises(ConfigError, match=r"predict=\[omnidata_normals\] sees normals only"):
        Stack()({"omnidata_normals": normals})
