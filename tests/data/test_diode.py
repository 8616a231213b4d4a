"""The loader of DIODE and its maker."""

import math

import numpy as np
import pytest
import torch

from immersivedepth.checks import ConfigError, InputError
from immersivedepth.data import diode, images
from immersivedepth.data.diode import Diode, log_depth
from immersivedepth.data.making import MakeData
from immersivedepth.data.making import diode as diode_making


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
    found = sorted(p.relative_to(made) for p in made.rglob("*.png"))
    assert len(found) == 8
    for path in found:
        part, kind, scene, scan, name = path.parts
        yaw, pitch = (int(v) for v in path.stem.split("_")[-2:])
        assert (part, kind) == ("train", "indoors")
        assert name == f"{scene[6:]}_{scan[5:]}_indoors_{yaw:03d}_{pitch:03d}.png"
        assert yaw % 10 == 0
        assert pitch in (340, 350, 0, 10)
    path = next(made.rglob("*_depth.npy"))
    assert np.load(path).shape == (48, 64, 1)
    stem = path.name.removesuffix("_depth.npy")
    assert np.load(path.with_name(f"{stem}_depth_mask.npy")).shape == (48, 64)
    normal = np.load(path.with_name(f"{stem}_normal.npy"))
    known = np.linalg.norm(normal, axis=-1) > 0
    assert np.allclose(np.linalg.norm(normal, axis=-1)[known], 1, atol=1e-5)
    # Normals face the camera, in the axes of the view.
    x = (np.arange(64) + 0.5 - 32) / (diode_making.FOCAL[0] * 64 / 1024)
    y = (np.arange(48) + 0.5 - 24) / (diode_making.FOCAL[1] * 48 / 768)
    rays = np.stack([*np.meshgrid(x, y), np.ones((48, 64))], -1)
    assert ((rays * normal).sum(-1)[known] < 1e-3).all()


def test_parts_and_kinds_of_made_data():
    maker = diode_making.Diode(MakeData("diode", "made", count=80, size=48))
    shots = {task: maker.shots(task) for task in maker.tasks()}
    parts = {task: {s.path.parts[1] for s in found} for task, found in shots.items()}
    assert [task for task in shots if parts[task] == {"val"}] == [4, 9, 14, 19]
    assert [task for task in shots if maker.kind(task) == "outdoor"] == [7, 17]
    assert len({s.path for found in shots.values() for s in found}) == 80
    assert torch.allclose(diode_making.turned(90, 0)[:, 2], torch.tensor([0.0, -1.0, 0.0]), atol=1e-6)
    assert diode_making.turned(0, 10)[2, 2] > 0


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


def test_holes_do_not_bleed_into_the_target(tmp_path):
    """Along the border of a hole the target is what was measured, or unknown, and never a mixture."""
    depth = np.full((48, 64, 1), np.e, np.float32)
    depth[:, :23] = 0
    write(tmp_path, depth=depth, mask=(depth[..., 0] > 0).astype(np.float32))
    sample = Diode(str(tmp_path), size=16).samples("val").sample(0, np.random.default_rng(0))
    valid = sample["valid"]
    assert 0.5 < valid.float().mean() < 0.7
    assert torch.allclose(sample["target"][valid], torch.tensor(1.0), atol=1e-5)
    assert (sample["target"][~valid] == torch.tensor(0.1)).all()


def test_near_depths_are_kept_where_asked_for():
    depth = torch.full((1, 10, 10), 0.5)
    everywhere = torch.ones(1, 10, 10, dtype=torch.bool)
    assert float(log_depth(depth, everywhere).max()) == pytest.approx(0.1)
    assert float(log_depth(depth, everywhere, -2.3).max()) == pytest.approx(math.log(0.5))


def test_training_mirrors_every_map(tmp_path):
    depth = np.linspace(1, 9, 48 * 64, dtype=np.float32).reshape(48, 64, 1)
    write(tmp_path, "train", depth=depth)
    write(tmp_path, "val", depth=depth)
    train, val = (Diode(str(tmp_path), size=16, flips=True).samples(p) for p in ("train", "val"))
    plain = val.sample(0, np.random.default_rng(0))
    seen = set()
    for seed in range(8):
        sample = train.sample(0, np.random.default_rng(seed))
        turned = not torch.equal(sample["depth"], plain["depth"])
        seen.add(turned)
        for name, value in plain.items():
            assert torch.equal(sample[name], value.flip(-1) if turned else value), name
    assert seen == {True, False}
