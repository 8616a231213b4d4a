import pytest
import torch

from depth_anything_v2 import DepthAnythingV2 as Network
from immersivedepth.checks import ConfigError, WeightsError
from immersivedepth.config import build
from immersivedepth.scene import Kind, Rig, Views
from immersivedepth.stages.predict.depth_anything_v2 import DepthAnythingV2
from immersivedepth.stages.predict.running import Running
from immersivedepth.weights import Weights

CPU = Running(kind="cpu", precision="fp32", batch_size=2)


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Network("vitt").eval()


@pytest.fixture(scope="module")
def file(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(net.state_dict(), path)
    return str(path)


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 40, 40), generator=generator, dtype=torch.uint8)
    rig = Rig(torch.eye(3).expand(3, 3, 3), torch.tensor([1.0, 0.5, 1.5]), 40)
    return Views(images, rig)


def test_relative_network_gives_disparity_at_the_size_of_the_views(net, file, views):
    found = DepthAnythingV2("vitt", 56, weights=file, running=CPU)(views)
    assert found.values.shape == (3, 1, 40, 40)
    assert found.kinds == (Kind.AFFINE_DISPARITY,) * 3
    assert found.models == ("depth_anything_v2_vitt",) * 3
    expected = net.infer(views.images, 56)
    assert expected.std() > 0
    # Batches of two and of three are summed in another order
    torch.testing.assert_close(found.values[:, 0], expected, rtol=0, atol=3e-5 * expected.std().item())


@pytest.mark.parametrize(("metric", "far"), [("indoor", 20.0), ("outdoor", 80.0)])
def test_metric_network_gives_distance_along_the_rays(net, file, views, metric, far):
    found = DepthAnythingV2("vitt", 56, metric, file, CPU)(views)
    assert found.kinds == (Kind.METRIC_DISTANCE,) * 3
    metres = Network("vitt", max_depth=far).eval()
    metres.load_state_dict(net.state_dict())
    depth = metres.infer(views.images, 56)
    t = (torch.arange(40) + 0.5) / 20 - 1
    for v, tan in enumerate((1.0, 0.5, 1.5)):
        length = (1 + (tan * t[:, None]) ** 2 + (tan * t[None, :]) ** 2).sqrt()
        torch.testing.assert_close(found.values[v, 0], depth[v] * length, rtol=1e-4, atol=0)


def test_floating_and_whole_numbers_are_the_same_picture(file, views):
    predict = DepthAnythingV2("vitt", 56, weights=file, running=CPU)
    whole = predict(views).values
    floating = predict(Views(views.images.float() / 255, views.rig)).values
    torch.testing.assert_close(floating, whole, rtol=0, atol=1e-5 * whole.max().item())


def test_network_is_built_at_the_first_call_and_once(file, views, monkeypatch):
    predict = DepthAnythingV2("vitt", 56, weights=file, running=CPU)
    first = predict(views).values
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", None)
    torch.testing.assert_close(predict(views).values, first, rtol=0, atol=0)
    DepthAnythingV2("vitt", weights="nowhere.pth")  # only a call looks for it


def test_weights_in_half_precision_are_widened(net, views, tmp_path):
    path = tmp_path / "half.pth"
    torch.save({k: v.half() for k, v in net.state_dict().items()}, path)
    found = DepthAnythingV2("vitt", 56, weights=str(path), running=CPU)(views).values
    expected = net.infer(views.images, 56)
    # float16 keeps eleven bits of each weight
    torch.testing.assert_close(found[:, 0], expected, rtol=0, atol=0.02 * expected.std().item())


def test_missing_weights_end_in_one_line_with_path_and_command(views, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Weights(folder=str(tmp_path / "empty"), offline=True)
    with pytest.raises(WeightsError) as caught:
        DepthAnythingV2("vits", settings=settings, running=CPU)(views)
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path / "empty" / "depth_anything_v2_vits.pth") in message
    assert "mode=weights weights.download=[depth_anything_v2_vits]" in message


@pytest.mark.parametrize(("encoder", "metric"), [("vitt", "indoor"), ("vitg", "outdoor")])
def test_weights_that_nobody_published_are_asked_for(views, encoder, metric):
    with pytest.raises(WeightsError, match=r"nobody published .* predict.depth_anything_v2.weights"):
        DepthAnythingV2(encoder, metric=metric, running=CPU)(views)


@pytest.mark.parametrize(("metric", "name"), [
    (None, "depth_anything_v2_vitb"),
    ("indoor", "depth_anything_v2_metric_hypersim_vitb"),
    ("outdoor", "depth_anything_v2_metric_vkitti_vitb"),
])  # fmt: skip
def test_weights_are_known_under_their_published_names(metric, name):
    from immersivedepth.weights import REGISTRY

    assert DepthAnythingV2("vitb", metric=metric).name == name
    assert name in REGISTRY


def test_weights_of_another_encoder_are_named(views, tmp_path):
    path = tmp_path / "own.pth"
    state = {"pretrained.cls_token": torch.zeros(1, 1, 768), "depth_head.projects.0.weight": torch.zeros(1)}
    torch.save(state | {f"pretrained.blocks.{i}.ls1.gamma": torch.zeros(768) for i in range(12)}, path)
    with pytest.raises(WeightsError, match=r"vitb file; predict.depth_anything_v2.encoder is vits") as caught:
        DepthAnythingV2("vits", weights=str(path), running=CPU)(views)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("file", "metric", "right"), [
    ("depth_anything_v2_metric_hypersim_vits.pth", None, "indoor"),
    ("depth_anything_v2_metric_vkitti_vits.pth", "indoor", "outdoor"),
    ("depth_anything_v2_vits.pth", "outdoor", "null"),
])  # fmt: skip
def test_a_relative_file_is_not_taken_for_a_metric_one(views, tmp_path, file, metric, right):
    path = tmp_path / file
    torch.save({"pretrained.cls_token": torch.zeros(1)}, path)
    with pytest.raises(ConfigError, match=f"set metric={right}"):
        DepthAnythingV2("vits", metric=metric, weights=str(path), running=CPU)(views)


@pytest.mark.parametrize("option", ["depth_anything_v2", "depth_anything_v2_indoor", "depth_anything_v2_outdoor"])
def test_options_are_built_with_the_settings_of_the_machine(compose, option):
    config = compose(
        f"predict=[{option}]", "device.precision=fp32", "device.kind=cpu", "weights.offline=true",
        "predict.depth_anything_v2.encoder=vitl", "predict.depth_anything_v2.running.batch_size=2",
    )  # fmt: skip
    found = build(config["predict"])["depth_anything_v2"]
    assert isinstance(found, DepthAnythingV2)
    assert found.encoder == "vitl"
    assert found.metric == {"indoor": "indoor", "outdoor": "outdoor"}.get(option.rsplit("_", 1)[-1])
    assert found.running == CPU
    assert found.settings.offline


def test_a_wrong_choice_is_named(compose):
    with pytest.raises(ConfigError, match=r"predict.depth_anything_v2.encoder='vitx': expected one of vitt, vits"):
        compose("predict=[depth_anything_v2]", "predict.depth_anything_v2.encoder=vitx")
