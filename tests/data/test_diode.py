"""The loader of DIODE and its maker."""

import math

import numpy as np
import pytest
import torch

from immersivedepth.checks import ConfigError, InputError
from immersivedepth.data import diode, images
from immersivedepth.data.diode import Diode, log_depth
from immersivedepth.data.making import MakeData


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("diode")
    MakeData("diode", str(root), count=8, size=48, workers=1)()
    return root


def write(root, part="val", kind="indoors", scene=0, depth=None, mask=None):
    folder = root / part / kind / f"scene_{scene:05d}" / f"scan_{scene:05d}"
    stem = f"{scene:05d}_{scene:05d}_{kind}_000_000"
    depth = np.full((48, 64, 1), 2.0, np.float32) if depth is None else depth
    images.write_png(folder / f"{stem}.png", torch.full((3, *depth.shape[:2]), 0.5))
    images.write_npy(folder / f"{stem}_depth.npy", depth)
    images.write_npy(folder / f"{stem}_depth_mask.npy", np.ones(depth.shape[:2], np.float32) if mask is None else mask)


def test_made_data_are_the_real_layout(made):
    names = {p.relative_to(made).as_posix() for p in made.rglob("*.png")}
    assert names == {
        f"train/indoors/scene_{s:05d}/scan_{s:05d}/{s:05d}_{s:05d}_indoors_{y:03d}_000.png"
        for s in (0, 1)
        for y in (0, 90, 180, 270)
    }
    path = next(made.rglob("*_depth.npy"))
    assert np.load(path).shape == (48, 64, 1)
    stem = path.name.removesuffix("_depth.npy")
    assert np.load(path.with_name(f"{stem}_depth_mask.npy")).shape == (48, 64)
    normal = np.load(path.with_name(f"{stem}_normal.npy"))
    known = np.linalg.norm(normal, axis=-1) > 0
    assert np.allclose(np.linalg.norm(normal, axis=-1)[known], 1, atol=1e-5)


def test_parts_by_folder_and_kind(tmp_path):
    for scene, (part, kind) in enumerate([("train", "indoors"), ("train", "outdoor"), ("val", "indoors")]):
        write(tmp_path, part, kind, scene)
    sizes = {k: [len(Diode(str(tmp_path), k).samples(p) or ()) for p in ("train", "val")] for k in ("indoors", "both")}
    assert sizes == {"indoors": [1, 1], "both": [2, 1]}
    assert Diode(str(tmp_path), "outdoor").samples("val") is None


def test_the_division_of_the_original(tmp_path):
    for scene in range(10):
        write(tmp_path, scene=scene)
    data = Diode(str(tmp_path), split="shuffled")
    train, val = data.samples("train"), data.samples("val")
    assert (len(train), len(val)) == (8, 2)
    order = [s.picture.name[:5] for s in (*train.scans, *val.scans)]
    assert order == [f"{i:05d}" for i in np.random.RandomState(42).permutation(10)]


def test_the_target_is_log_depth_with_its_clips():
    depth = torch.tensor([[[0.05, 0.5, 2.0, math.e, 1000.0]]])
    valid = torch.tensor([[[True, True, True, True, False]]])
    far = min(300.0, float(np.percentile(depth.numpy(), 99)))
    assert far == 300.0
    found = log_depth(depth, valid)[0, 0]
    assert found.tolist() == pytest.approx([0.1, 0.1, math.log(2), 1.0, 0.1])
    flat = log_depth(torch.full((1, 1, 4), 5.0), torch.ones(1, 1, 4, dtype=torch.bool))
    assert flat[0, 0].tolist() == pytest.approx([math.log(5)] * 4)
    assert (log_depth(depth, torch.zeros_like(valid)) == 0.1).all()


def test_the_mask_is_kept(tmp_path):
    mask = np.ones((48, 64), np.float32)
    mask[:, 32:] = 0
    write(tmp_path, mask=mask)
    sample = Diode(str(tmp_path), size=16).samples("val").sample(0, np.random.default_rng(0))
    assert sample["valid"][0, :, :8].all()
    assert not sample["valid"][0, :, 8:].any()
    assert sample["image"].shape == (3, 16, 16)
    assert sample["depth"][sample["valid"]].tolist() == [2.0] * int(sample["valid"].sum())


def test_mistakes_are_told(tmp_path):
    with pytest.raises(ConfigError, match="dataset.root has no value"):
        Diode().samples("train")
    with pytest.raises(InputError, match="is not a folder"):
        Diode(str(tmp_path / "none")).samples("train")
    write(tmp_path, mask=np.ones((4, 4), np.float32))
    with pytest.raises(InputError, match="has another size"):
        Diode(str(tmp_path)).samples("val").sample(0, np.random.default_rng(0))
    assert diode.NEAREST == 0.1
