"""The loader of Still Box and its maker."""

import json
import math

import numpy as np
import pytest
import torch

from immersivedepth.checks import ConfigError, InputError
from immersivedepth.data import images, still_box
from immersivedepth.data.making import MakeData
from immersivedepth.data.making.still_box import FRAMES
from immersivedepth.data.making.still_box import StillBox as Maker
from immersivedepth.data.still_box import SHIFT, StillBox


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("still_box")
    MakeData("stillbox", str(root), count=3, size=32, workers=1)()
    return root


def labelled(root, scenes=10, frames=10):
    """A data set whose pictures tell their scene and frame, and whose depth is 10 * scene + frame + 1."""
    (root / "00").mkdir()
    about = []
    for s in range(scenes):
        names = [f"RGB_{s:04d}_{i:04d}.jpg" for i in range(frames)]
        depths = [f"{s:04d}_{i:04d}.npy" for i in range(frames)]
        for i in range(frames):
            grey = torch.full((3, 16, 16), (s * frames + i) / 255)
            images.write_jpeg(root / "00" / names[i], grey)
            images.write_npy(root / "00" / depths[i], np.full((16, 16), 10.0 * s + i + 1, np.float32))
        scene = {"imgs": names, "depth": depths, "length": frames, "speed": [1.0, 2.0, 3.0], "time_step": 0.1}
        about.append(scene)
    (root / "00" / "metadata.json").write_text(json.dumps({"scenes": about, "fov": 90.0, "resolution": [16, 16]}))
    return root


def frame_of(picture):
    return round(float((picture * still_box.STD + still_box.MEAN).mean()) * 255)


def test_no_scene_is_lost_between_the_parts(tmp_path):
    """The original began the second part one scene too late."""
    data = StillBox(str(labelled(tmp_path)))
    train, val = data.samples("train"), data.samples("val")
    assert (len(train.films), len(val.films)) == (9, 1)
    assert {f.pictures[0] for f in train.films} | {f.pictures[0] for f in val.films} == {
        f.pictures[0] for f in data.films
    }
    assert len(train) == 90  # a film counts once for each of its frames
    assert len(val) == 7  # every frame and the third after it
    other = StillBox(str(tmp_path), seed=3).samples("val")
    assert other.films[0].pictures != val.films[0].pictures or other.films == val.films


def test_training_pairs_shifts_scaling_and_swaps(tmp_path):
    data = StillBox(str(labelled(tmp_path, scenes=2)), flips=False, train_share=0.5)
    train = data.samples("train")
    base = int(train.films[0].pictures[0].stem.split("_")[1])
    shifts = set()
    for seed in range(300):
        sample = train.sample(0, np.random.default_rng(seed))
        first, second = (frame_of(sample[k]) - 10 * base for k in ("first", "second"))
        shift = second - first
        shifts.add(shift)
        true = 10.0 * base + second + 1
        want = 100.0 if shift == 0 else min(100.0, true * 3 / abs(shift))
        assert float(sample["depth"].mean()) == pytest.approx(want)
        assert torch.allclose(sample["displacement"], torch.tensor([0.1, 0.2, 0.3]) * shift)
    assert shifts == set(range(-6, 7))


@pytest.mark.parametrize("least", [1, 2, 6])
def test_frames_can_be_kept_apart(tmp_path, least):
    data = StillBox(str(labelled(tmp_path, scenes=2)), least_shift=least, train_share=0.5)
    train = data.samples("train")
    samples = [train.sample(i % 10, np.random.default_rng(i)) for i in range(200)]
    shifts = {frame_of(s["second"]) - frame_of(s["first"]) for s in samples}
    assert shifts == {s for s in range(-6, 7) if abs(s) >= least}


def test_evaluation_takes_the_third_frame_after_and_depth_as_it_is(tmp_path):
    val = StillBox(str(labelled(tmp_path, scenes=2)), train_share=0.5).samples("val")
    base = int(val.films[0].pictures[0].stem.split("_")[1])
    for index in range(len(val)):
        sample = val.sample(index, np.random.default_rng(0))
        first, second = (frame_of(sample[k]) - 10 * base for k in ("first", "second"))
        assert (first, second) == (index, index + SHIFT)
        assert float(sample["depth"].mean()) == 10.0 * base + second + 1


def test_flips_mirror_everything_and_turn_the_displacement():
    batch = {
        "first": torch.arange(12.0).reshape(1, 3, 4),
        "depth": torch.arange(12.0).reshape(1, 3, 4) + 1,
        "displacement": torch.tensor([1.0, 2.0, 3.0]),
    }
    seen = set()
    for seed in range(40):
        out = still_box.flipped(batch, np.random.default_rng(seed))
        assert torch.equal(out["first"] + 1, out["depth"])
        mirrored, upside = (bool(v) for v in (out["displacement"][0] < 0, out["displacement"][1] < 0))
        want = batch["first"].flip([d for d, yes in ((-1, mirrored), (-2, upside)) if yes])
        assert torch.equal(out["first"], want)
        assert out["displacement"].abs().tolist() == [1.0, 2.0, 3.0]
        assert out["displacement"][2] == 3.0
        seen.add((mirrored, upside))
    assert len(seen) == 4


def test_orientations_are_read_and_a_camera_that_turns_is_told(tmp_path, caplog):
    labelled(tmp_path, scenes=3)
    about = json.loads((tmp_path / "00/metadata.json").read_text())
    half = math.radians(2) / 2
    for scene, angles in zip(about["scenes"], ([], [0.0] * 10, [half * i for i in range(10)]), strict=True):
        scene["orientation"] = [[math.cos(a), 0, math.sin(a), 0] for a in angles]
    about["scenes"][1]["orientation"][4] = [-1.0, 0, 0, 0]  # the same rotation as 1, 0, 0, 0
    (tmp_path / "00/metadata.json").write_text(json.dumps(about))
    films = StillBox(str(tmp_path)).films
    assert [len(film.orientation) for film in films] == [0, 10, 10]
    assert [film.turns for film in films] == [False, False, True]
    assert "turns in 1 of 3 films" in caplog.text


def test_a_depth_map_of_another_size_is_told(tmp_path):
    val = StillBox(str(labelled(tmp_path, scenes=2)), train_share=0.5).samples("val")
    images.write_npy(val.films[0].depths[SHIFT], np.ones((8, 16), np.float32))
    with pytest.raises(InputError, match="another size than the pictures"):
        val.sample(0, np.random.default_rng(0))


def test_made_films_are_the_real_layout(made):
    films = StillBox(str(made)).films
    assert len(films) == 3
    for film in films:
        assert len(film) == FRAMES
        assert math.isclose(math.hypot(*film.speed), 1.0, rel_tol=1e-6)
        assert film.time_step == 0.1
        assert float(film.displacement(SHIFT).norm()) == pytest.approx(0.3)
        assert film.pictures[0].suffix == ".jpg"
        assert still_box.read_depth(film.depths[0]).shape == (1, 32, 32)
    about = json.loads((made / "00" / "metadata.json").read_text())
    assert (about["fov"], about["resolution"], about["scenes_nb"]) == (90.0, [32, 32], 3)


def test_made_depth_and_speed_explain_the_pictures(made):
    """Points of the last frame, moved back by the displacement, land in the first frame at the depth seen there."""
    film = StillBox(str(made)).films[0]
    near, far = (still_box.read_depth(film.depths[i])[0] for i in (0, SHIFT))
    right, up, forward = film.displacement(SHIFT).tolist()
    v, u = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    z = far + forward
    x = (u - 16) / 16 * far + right
    y = (v - 16) / 16 * far - up
    column, row = 16 + 16 * x / z, 16 + 16 * y / z
    inside = (column > 0) & (column < 32) & (row > 0) & (row < 32)
    there = near[row.clamp(0, 31.9).long(), column.clamp(0, 31.9).long()]
    assert (there / z).log().abs()[inside].median() < 0.02  # half a pixel on slanted walls


def test_made_films_are_the_same_again(made, tmp_path):
    maker = Maker(MakeData("stillbox", str(tmp_path), count=3, size=32))
    maker.make(0)
    for path in tmp_path.rglob("*_0000_*"):
        assert path.read_bytes() == (made / path.relative_to(tmp_path)).read_bytes()


def test_mistakes_are_told(tmp_path):
    with pytest.raises(ConfigError, match="dataset.root has no value"):
        StillBox().samples("train")
    with pytest.raises(InputError, match="holds no metadata.json"):
        StillBox(str(tmp_path)).samples("train")
    (tmp_path / "metadata.json").write_text('{"scenes": [{"length": 2}]}')
    with pytest.raises(InputError, match="is not the metadata of Still Box"):
        StillBox(str(tmp_path)).samples("train")
    (tmp_path / "metadata.json").write_text(
        '{"scenes": [{"length": 2, "imgs": ["a"], "depth": [], "speed": [0,0,1], "time_step": 0.1}]}'
    )
    with pytest.raises(InputError, match="1 pictures and 0 depth maps"):
        StillBox(str(tmp_path)).samples("train")
