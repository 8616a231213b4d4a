"""Any depth model of transformers: families of different make, drawn at random, saved and loaded without a network."""

import pytest
import torch
import torch.nn.functional as F
import transformers

from immersivedepth.checks import ConfigError, WeightsError
from immersivedepth.config import build
from immersivedepth.scene import Kind, Rig, Views
from immersivedepth.stages.predict.hugging_face import HuggingFace
from immersivedepth.stages.predict.running import Running
from immersivedepth.weights import Weights

CPU = Running(kind="cpu", precision="fp32", batch_size=2)
OFFLINE = Weights(offline=True)
TINY = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 37}


def depth_anything():
    from transformers import Dinov2Config

    backbone = Dinov2Config(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=56, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=32, neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=8,
        head_hidden_size=8, patch_size=14,
    )  # fmt: skip
    model = transformers.DepthAnythingForDepthEstimation(config)
    processor = transformers.DPTImageProcessor(
        size={"height": 56, "width": 56}, ensure_multiple_of=14, keep_aspect_ratio=True, resample=3
    )
    return model, processor


def dpt():
    config = transformers.DPTConfig(
        **TINY, image_size=32, patch_size=16, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8, is_hybrid=False,
    )  # fmt: skip
    return transformers.DPTForDepthEstimation(config), transformers.DPTImageProcessor(size={"height": 32, "width": 32})


def glpn():
    config = transformers.GLPNConfig(
        hidden_sizes=[8, 8, 16, 16], decoder_hidden_size=8, depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2]
    )
    return transformers.GLPNForDepthEstimation(config), transformers.GLPNImageProcessor(size_divisor=32)


def zoedepth():
    from transformers import BeitConfig

    backbone = BeitConfig(
        **TINY, image_size=32, patch_size=16, out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False, use_relative_position_bias=True, use_absolute_position_embeddings=False,
    )  # fmt: skip
    config = transformers.ZoeDepthConfig(
        backbone_config=backbone, backbone_hidden_size=32, neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=8,
        bottleneck_features=8, num_attractors=[4, 2, 2, 1], bin_embedding_dim=8,
        num_relative_features=8,
    )  # fmt: skip
    return transformers.ZoeDepthForDepthEstimation(config), transformers.ZoeDepthImageProcessor(
        size={"height": 32, "width": 32}, ensure_multiple_of=16
    )


FAMILIES = {f.__name__: f for f in (depth_anything, dpt, glpn, zoedepth)}


@pytest.fixture(scope="module", params=FAMILIES, ids=str)
def saved(request, tmp_path_factory):
    """A family's model and processor, and the folder they were saved to."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model, processor = FAMILIES[request.param]()
        for p in model.parameters():  # the library draws so small that some maps come out flat
            if p.ndim > 1:
                p.data.normal_(std=p[0].numel() ** -0.5)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model.eval(), processor, str(folder)


@pytest.fixture
def folder(tmp_path):
    with torch.random.fork_rng([]):
        model, processor = dpt()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever these tests need is on disk."""
    import socket

    def refuse(*_):
        raise AssertionError("a test reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 8, 8, generator=generator)
    images = (F.interpolate(images, (48, 48), mode="bilinear") * 255).byte()
    return Views(images, Rig(torch.eye(3).expand(3, 3, 3), torch.tensor([1.0, 0.5, 1.5]), 48))


def reference(model, processor, views):
    """What the library itself gives, one picture at a time through its own arrays."""
    maps = []
    for image in views.images:
        inputs = processor(images=image.permute(1, 2, 0).numpy(), return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)
        more = {"source_sizes": [(48, 48)]} if isinstance(model, transformers.ZoeDepthForDepthEstimation) else {}
        found = processor.post_process_depth_estimation(outputs, target_sizes=[(48, 48)], **more)
        maps.append(found[0]["predicted_depth"])
    return torch.stack(maps)


def test_every_family_gives_what_the_library_gives(saved, views):
    model, processor, folder = saved
    found = HuggingFace(folder, "disparity", running=CPU, settings=OFFLINE)(views)
    expected = reference(model, processor, views)
    assert found.values.shape == (3, 1, 48, 48)
    assert found.kinds == (Kind.AFFINE_DISPARITY,) * 3
    assert found.models == (folder,) * 3
    assert expected.std() > 1e-4 * expected.abs().mean()
    torch.testing.assert_close(found.values[:, 0], expected, rtol=1e-5, atol=1e-3 * expected.std().item())


def test_floating_and_whole_numbers_are_the_same_picture(saved, views):
    _, _, folder = saved
    predict = HuggingFace(folder, "disparity", running=CPU, settings=OFFLINE)
    whole = predict(views).values
    floating = predict(Views(views.images.float() / 255, views.rig)).values
    # A uint8 picture is resized in uint8: it is rounded once more, by up to half a step of 256
    torch.testing.assert_close(floating, whole, rtol=0, atol=0.2 * whole.std().item())


def test_kind_says_what_the_numbers_are(folder, views):
    raw = HuggingFace(str(folder), "disparity", running=CPU)(views).values
    depth = HuggingFace(str(folder), "depth", running=CPU)(views)
    assert depth.kinds == (Kind.AFFINE_DEPTH,) * 3
    torch.testing.assert_close(depth.values, raw, rtol=0, atol=0)
    metric = HuggingFace(str(folder), "metric", running=CPU)(views)
    assert metric.kinds == (Kind.METRIC_DISTANCE,) * 3
    t = (torch.arange(48) + 0.5) / 24 - 1
    for v, tan in enumerate((1.0, 0.5, 1.5)):
        length = (1 + (tan * t[:, None]) ** 2 + (tan * t[None, :]) ** 2).sqrt()
        torch.testing.assert_close(metric.values[v, 0], raw[v, 0].clamp_min(1e-3) * length, rtol=1e-5, atol=0)
    assert (metric.values > 0).all()


def test_model_is_loaded_at_the_first_call_and_once(folder, views, monkeypatch):
    predict = HuggingFace(str(folder), "depth", running=CPU)
    first = predict(views).values
    monkeypatch.setattr(transformers.AutoModelForDepthEstimation, "from_pretrained", None)
    torch.testing.assert_close(predict(views).values, first, rtol=0, atol=0)
    HuggingFace("nobody/nothing", "depth")


def failing(model, views, **options):
    with pytest.raises((ConfigError, WeightsError)) as caught:
        HuggingFace(str(model), "depth", running=CPU, settings=OFFLINE, **options)(views)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_on_the_hub_needs_its_revision(views):
    assert "predict.hugging_face.revision" in failing("nobody/nothing", views)


def test_offline_it_says_what_is_missing(views):
    assert "nobody/nothing" in failing("nobody/nothing", views, revision="0" * 40)


def test_lacking_tensors_are_not_drawn_at_random(folder, views):
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    state = load_file(path)
    lost = next(key for key in state if key.startswith("head"))
    save_file({k: v for k, v in state.items() if k != lost}, path, metadata={"format": "pt"})
    assert lost in failing(folder, views)


def test_pickles_are_not_read(folder, views):
    model, _ = dpt()
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert "safetensors" in failing(folder, views)


def test_code_in_a_folder_is_not_run(folder, views):
    canary = folder / "ran"
    (folder / "evil.py").write_text(f"import pathlib\npathlib.Path({str(canary)!r}).touch()\nclass M: pass\n")
    config = folder / "config.json"
    config.write_text(
        '{"model_type": "unheard_of", "auto_map": {"AutoConfig": "evil.M", "AutoModelForDepthEstimation": "evil.M"}}'
    )
    failing(folder, views)
    assert not canary.exists()


def test_a_model_that_sees_no_depth_is_named(tmp_path, views):
    transformers.ViTConfig(**TINY).save_pretrained(tmp_path)
    transformers.ViTImageProcessor().save_pretrained(tmp_path)
    assert "depth" in failing(tmp_path, views)


def test_an_empty_folder_is_named(tmp_path, views):
    assert str(tmp_path) in failing(tmp_path, views)


def test_option_is_built_with_the_settings_of_the_machine(compose):
    config = compose("predict=[hugging_face]", "device.kind=cpu", "device.precision=fp32", "weights.offline=true")
    found = build(config["predict"])["hugging_face"]
    assert isinstance(found, HuggingFace)
    assert len(found.revision) == 40
    assert found.running.kind == "cpu"
    assert found.settings.offline
