"""The way of a picture into the networks of `midas` and back, as the original goes it."""

import json

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import midas
from midas.network import Network
from tests.parity import recipe
from tests.parity.golden import GOLDENS

CONFIGURATIONS = {
    "midas_beit_512": ["dpt_beit_large_512"],
    "midas_dpt_384": [
        "dpt_beit_large_384",
        "dpt_beit_base_384",
        "dpt_large_384",
        "dpt_hybrid_384",
        "dpt_next_vit_large_384",
    ],
    "midas_swin_384": ["dpt_swin2_large_384", "dpt_swin2_base_384", "dpt_swin_large_384"],
    "midas_swin2_tiny_256": ["dpt_swin2_tiny_256"],
    "midas_levit_224": ["dpt_levit_224"],
    "midas_v21_384": ["midas_v21_384"],
    "midas_v21_small_256": ["midas_v21_small_256", "midas_tiny"],
}
TABLES = json.loads((GOLDENS / "preprocess_sizes.json").read_text())["tables"]
NETWORKS = [(c, name) for c, names in CONFIGURATIONS.items() for name in names]


def size(text):
    width, height = map(int, text.split("x"))
    return height, width


def picture(height=90, width=140, seed=3):
    return torch.from_numpy(recipe.image_u8(height, width, seed)).permute(2, 0, 1)[None]


def hollow(name):
    """The network without its parts: enough for what happens around it."""
    return Network(midas.SPECS[name])


def test_every_model_of_the_original_has_a_table():
    names = [name for _, name in NETWORKS]
    ours = [n for n in midas.MODELS if "omnidata" in n or n == "midas_tiny_normal"]
    assert sorted([*names, *ours]) == sorted(midas.MODELS)
    assert all(len(TABLES[configuration]) == 17 for configuration in CONFIGURATIONS)


@pytest.mark.parametrize(("configuration", "name"), NETWORKS)
def test_sizes_are_those_of_the_original(configuration, name):
    spec = midas.SPECS[name]
    for given, expected in TABLES[configuration].items():
        assert spec.network_size(*size(given)) == size(expected), given
        spec.check_size(*size(expected))


@pytest.mark.parametrize(("configuration", "name"), NETWORKS)
def test_prepared_pictures_are_those_of_the_original(configuration, name):
    with np.load(GOLDENS / "preprocess.npz") as record:
        shape, stats, sub = (record[f"{configuration}/{part}"] for part in ("shape", "stats", "sub"))
    x = hollow(name).prepare(picture())
    assert list(x.shape[1:]) == shape.tolist()
    # OpenCV takes its weights in float32: the two differ by 1.7e-5 of the normalised range, which ImageNet's doubles.
    assert np.abs(x[0, :, ::16, ::16].numpy() - sub).max() < 5e-5
    v = x.double()
    found = np.array([v.mean(), v.std(correction=0), v.min(), v.max()])
    assert np.abs(found - stats).max() < 5e-5


def test_side_replaces_that_of_the_model():
    spec = midas.SPECS["dpt_beit_large_384"]
    assert spec.network_size(512, 1024, 512) == midas.SPECS["dpt_beit_large_512"].network_size(512, 1024)
    assert spec.network_size(512, 1024, 256) == (256, 512)
    with pytest.raises(ValueError, match="multiple of 32"):
        spec.network_size(512, 1024, 250)
    with pytest.raises(ValueError, match="dpt_levit_224 looks at 224x224 pixels only"):
        midas.SPECS["dpt_levit_224"].network_size(512, 512, 384)
    assert midas.SPECS["dpt_levit_224"].network_size(512, 512, 224) == (224, 224)


def test_very_long_pictures_keep_a_legal_size():
    for spec in midas.SPECS.values():
        spec.check_size(*spec.network_size(8, 4096))
        spec.check_size(*spec.network_size(4096, 8))


def test_omnidata_sees_the_short_side_whole_and_antialiased():
    net = hollow("omnidata_dpt_depth")
    assert net.spec.network_size(400, 520) == (384, 512)
    assert midas.SPECS["omnidata_unet_normal"].network_size(400, 520) == (384, 512)
    big = picture(768, 768)
    x = net.prepare(big)
    assert x.shape == (1, 3, 384, 384)
    assert float(x.min()) >= -1
    assert float(x.max()) <= 1
    # Pillow filters 8-bit pictures and rounds twice, once per axis: that alone is up to a grey value of 255.
    from PIL import Image

    demo = Image.fromarray(big[0].permute(1, 2, 0).numpy()).resize((384, 384), Image.Resampling.BILINEAR)
    assert np.abs(x[0].permute(1, 2, 0).numpy() / 2 + 0.5 - np.asarray(demo) / 255).max() < 1.01 / 255
    normal = hollow("omnidata_dpt_normal").prepare(big)
    torch.testing.assert_close(normal, x / 2 + 0.5)  # in 0..1: the normal network was trained without centring


def test_bytes_and_numbers_are_one_picture():
    net = hollow("dpt_hybrid_384")
    assert torch.equal(net.prepare(picture()), net.prepare(picture().float() / 255))
    assert net.prepare(picture().double() / 255).dtype == torch.float32
    with pytest.raises(ValueError, match=r"expected images \[B, 3, H, W\]"):
        net.prepare(picture()[0])
    with pytest.raises(ValueError, match="RGB"):
        net.prepare(picture()[:, :1])


def test_disparity_returns_as_opencv_and_the_original_resize_it():
    low = torch.rand(2, 24, 32, generator=torch.Generator().manual_seed(0))
    found = hollow("dpt_hybrid_384").restore(low, (90, 140))
    expected = cv2.resize(low[1].numpy(), (140, 90), interpolation=cv2.INTER_CUBIC)
    assert np.abs(found[1].numpy() - expected).max() < 1e-4  # OpenCV's weights are float32 approximations
    step = torch.zeros(1, 24, 32)
    step[..., 16:] = 1
    assert float(hollow("dpt_hybrid_384").restore(step, (90, 140)).min()) < 0, (
        "bicubic overshoots, as the original does"
    )


def test_depth_of_omnidata_stays_in_its_range():
    step = torch.zeros(1, 24, 32)
    step[..., 16:] = 3
    found = hollow("omnidata_dpt_depth").restore(step, (90, 140))
    assert float(found.min()) == 0
    assert float(found.max()) == 1
    assert float(found[0, 45, 10]) == pytest.approx(0, abs=1e-6)
    assert float(found[0, 45, 130]) == pytest.approx(1, abs=1e-6)


def test_normals_of_omnidata_are_unit_vectors():
    vectors = F.normalize(torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    net = hollow("omnidata_dpt_normal")
    torch.testing.assert_close(net.restore(vectors / 2 + 0.5, (8, 8)), vectors)
    outside = net.restore(4 * vectors, (20, 24))
    torch.testing.assert_close(outside.norm(dim=1), torch.ones(1, 20, 24))
    nothing = net.restore(torch.full((1, 3, 2, 2), 0.5), (2, 2))
    assert nothing[0, :, 0, 0].tolist() == [0, 0, 1]


def test_inferring_is_preparing_looking_and_restoring():
    net = midas.create("midas_tiny").eval()
    with torch.no_grad():
        expected = net.restore(net(net.prepare(picture())), (90, 140))
    assert torch.equal(net.infer(picture()), expected)
    assert net.infer(picture(), side=128).shape == (1, 90, 140)
    assert not net.infer(picture()).requires_grad
