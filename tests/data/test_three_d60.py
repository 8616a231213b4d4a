"""The loader of 3D60: names, lists, folders, parts, holes."""

import math
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import torch

from immersivedepth.checks import ConfigError, InputError
from immersivedepth.data import images, three_d60
from immersivedepth.data.making import MakeData
from immersivedepth.data.three_d60 import ThreeD60, folds, read_depth, read_list, rerooted, scan
from immersivedepth.geometry import sphere, stereo

HASH = "0123456789abcdef0123456789abcdef"


def write(root, name, height=16, value=2.0):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        images.write_png(path, torch.full((3, height, 2 * height), 0.5))
    else:
        images.write_exr(path, torch.full((3, height, 2 * height), value))
    return path


def viewpoint(root, folder, stem, places=("Left_Down", "Right", "Up"), yaw="0.0", sides=None):
    for place in places:
        where = sides[place] if sides else folder
        for kind, suffix in (("color", "png"), ("depth", "exr"), ("normal", "exr")):
            write(root, f"{where}/{stem}_{kind}_0_{place}_{yaw}.{suffix}")


def nine(folder, stem, head=".\\"):
    kinds = (("color", "png"), ("depth", "exr"), ("normal", "exr"))
    names = [f"{stem}_{k}_0_{p}_0.0.{e}" for k, e in kinds for p in ("Left_Down", "Right", "Up")]
    return " ".join(head + "\\".join([*folder.split("/"), name]) for name in names)


def test_three_patterns_of_names_and_the_yaw(tmp_path):
    viewpoint(tmp_path, "Matterport3D", f"7_{HASH}1")
    viewpoint(tmp_path, "Stanford2D3D/area5a", "3_area_5a1")
    viewpoint(tmp_path, "SunCG", f"{HASH}0", yaw="90.0")
    views = scan(tmp_path)
    assert [(v.collection, v.stem, v.yaw) for v in views] == [
        ("SunCG", f"{HASH}0", 90.0),
        ("Stanford2D3D", "3_area_5a1", 0.0),
        ("Matterport3D", f"7_{HASH}1", 0.0),
    ]
    assert three_d60.area_of(views[1]) == "5a"
    data = ThreeD60(str(tmp_path), split="all", yaws=[0.0])
    assert [v.yaw for v in data.views("train")] == [0.0, 0.0]


def test_the_six_folders_of_the_original_program(tmp_path):
    sides = {"Left_Down": "Stanford2D3D_left/area1", "Right": "Stanford2D3D_right/area1"}
    viewpoint(tmp_path, "", "0_area_11", ("Left_Down", "Right"), sides=sides)
    sides = {"Left_Down": "SunCG_left", "Right": "SunCG_right"}
    viewpoint(tmp_path, "", f"{HASH}0", ("Left_Down", "Right"), sides=sides)
    views = scan(tmp_path)
    assert [v.collection for v in views] == ["SunCG", "Stanford2D3D"]
    assert views[1].path("color", "Right").parent.name == "area1"


def test_pairs_need_the_same_pose_and_the_same_scene(tmp_path):
    """The original paired by building alone, so that most of its Matterport pairs were of two places."""
    other = HASH[::-1]
    for stem in (f"0_{HASH}1", f"1_{HASH}1", f"0_{other}1"):
        viewpoint(tmp_path, "Matterport3D", stem)
    viewpoint(tmp_path, "Matterport3D", f"9_{HASH}1", ("Left_Down",))  # its right picture is missing
    pairs = ThreeD60(str(tmp_path), split="all").samples("train")
    assert len(pairs) == 3
    for view in pairs.views:
        left, right = view.path("color", "Left_Down").name, view.path("color", "Right").name
        assert left.replace("Left_Down", "Right") == right


@pytest.mark.parametrize("head", [".\\", "D:\\Data\\3D60\\", "/data/3D60/"])
def test_published_lists_are_read_wherever_they_were_written(tmp_path, head):
    viewpoint(tmp_path, "Matterport3D", f"7_{HASH}1")
    line = nine("Matterport3D", f"7_{HASH}1", head)
    (tmp_path / "list.txt").write_text((line.replace("\\", "/") if head.startswith("/") else line) + "\r\n\n")
    (view,) = read_list(tmp_path / "list.txt", tmp_path)
    assert (view.collection, view.stem) == ("Matterport3D", f"7_{HASH}1")
    assert len(view.files) == 9
    assert all(path.is_file() for path in view.files.values())


def test_lists_of_two_columns_and_their_typing_mistake(tmp_path):
    viewpoint(tmp_path, "Matterport3D", f"7_{HASH}1")
    name = f"7_{HASH}1_{{}}_0_Left_Down_0.0.{{}}"
    for folder in ("Matterport", "Matteport3D"):
        line = f"/{folder}/{name.format('color', 'png')} /{folder}/{name.format('depth', 'exr')}"
        (tmp_path / "list.txt").write_text(line)
        (view,) = read_list(tmp_path / "list.txt", tmp_path)
        assert view.path("depth", "Left_Down").is_file()
        assert view.path("color", "Right").is_file()  # not named, but there
        assert view.path("depth", "Up").is_file()
    (tmp_path / "Matterport3D" / name.replace("Left_Down", "Right").format("color", "png")).unlink()
    (view,) = read_list(tmp_path / "list.txt", tmp_path)
    with pytest.raises(InputError, match="holds no color picture of Right"):
        view.path("color", "Right")


def test_a_list_that_mixes_viewpoints_is_refused(tmp_path):
    line = nine("SunCG", f"{HASH}0").replace(HASH, HASH[::-1], 1)
    (tmp_path / "list.txt").write_text(line)
    with pytest.raises(InputError, match="list.txt:1: the files are of different viewpoints"):
        read_list(tmp_path / "list.txt", tmp_path)
    (tmp_path / "list.txt").write_text("just words\n")
    with pytest.raises(InputError, match="list.txt:1: expected two or nine"):
        read_list(tmp_path / "list.txt", tmp_path)


def test_names_are_rerooted_from_the_collection_on():
    root = Path("root")
    assert rerooted(r"D:\Data\3D60\SunCG\a.png", root) == root / "SunCG" / "a.png"
    assert rerooted("./Stanford2D3D/area1/a.png", root) == root / "Stanford2D3D" / "area1" / "a.png"


def test_the_five_parts_of_the_original_program(tmp_path):
    for n in range(4):
        viewpoint(tmp_path, "Matterport3D", f"{n}_{HASH}1")
        viewpoint(tmp_path, "SunCG", f"{HASH[n:]}{HASH[:n]}0")
    viewpoint(tmp_path, "Stanford2D3D/area1", "0_area_11")
    viewpoint(tmp_path, "Stanford2D3D/area3", "0_area_31")
    parts = folds(scan(tmp_path))
    assert [len(parts[p]) for p in ("train", "val", "test")] == [6, 2, 2]
    assert {v.collection for v in parts["test"]} == {"SunCG"}  # the order of the list decides
    assert {v.collection for v in parts["val"]} == {"Matterport3D"}
    everything = [v.stem for p in parts.values() for v in p]
    assert len(set(everything)) == 10


def test_the_original_program_went_through_areas_and_poses_in_order(tmp_path):
    for area, pose in (("3", 0), ("1", 10), ("1", 2), ("5b", 0), ("5a", 1)):
        viewpoint(tmp_path, f"Stanford2D3D/area{area}", f"{pose}_area_{area}1", ("Left_Down",))
    stems = [v.stem for v in scan(tmp_path)]
    assert stems == ["2_area_11", "10_area_11", "0_area_31", "1_area_5a1", "0_area_5b1"]


def test_the_official_areas(tmp_path):
    for area in ("1", "2", "3", "4", "5a", "5b", "6"):
        viewpoint(tmp_path, f"Stanford2D3D/area{area}", f"0_area_{area}1")
    data = ThreeD60(str(tmp_path), split="areas")
    found = {p: sorted(three_d60.area_of(v) for v in data.views(p)) for p in ("train", "val", "test")}
    assert found == {"train": ["1", "2", "4", "6"], "val": ["3"], "test": ["5a", "5b"]}


def test_depth_is_read_as_it_is(tmp_path):
    """OpenCV's grey reading of three equal channels gives 1.09 times the depth; we read the channel itself."""
    path = write(tmp_path, "a.exr", value=3.25)
    distance, valid = read_depth(path)
    assert (distance == 3.25).all()
    assert valid.all()
    planes = OpenEXR.File(str(path)).channels()
    assert float(np.asarray(planes["RGB"].pixels if "RGB" in planes else planes["R"].pixels).max()) == 3.25


def test_holes_are_masked_or_filled_across_the_seam(tmp_path):
    height, width = 32, 64
    longitude = sphere.longitudes(width)
    smooth = (3 + longitude.cos()).float().expand(1, height, width).clone()
    holed = smooth.clone()
    holed[..., 10:20, -3:] = 1e10
    holed[..., 10:20, :3] = 1e10  # one hole that the seam cuts
    images.write_exr(tmp_path / "a.exr", holed.expand(3, -1, -1))
    distance, valid = read_depth(tmp_path / "a.exr")
    assert (~valid).sum() == 60
    assert (distance[~valid] == 0).all()
    full, all_valid = read_depth(tmp_path / "a.exr", inpaint=True)
    assert all_valid.all()
    assert (full - smooth).abs().max() < 0.08  # a cosine bends by 0.05 over six pixels
    assert (full[valid] == smooth[valid]).all()
    assert smooth[valid].min() <= full.min() <= full.max() <= smooth[valid].max()
    with pytest.raises(InputError, match="nothing but holes"):
        three_d60.filled(torch.full((1, 8, 16), 1e10), torch.zeros(1, 8, 16, dtype=torch.bool))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("d60")
    lists = MakeData("3d60", str(root), count=6, size=32, workers=1)()
    return root, lists


def test_made_data_are_the_real_layout(made):
    root, lists = made
    assert [path.name for path in lists] == ["train.txt", "val.txt", "test.txt"]
    assert "\\" in lists[0].read_text()
    views = scan(root)
    assert len(views) == 6
    assert {v.collection for v in views} == {"SunCG", "Stanford2D3D", "Matterport3D"}
    for view in views:
        for place in ("Left_Down", "Right", "Up"):
            assert images.read_image(view.path("color", place)).image.shape == (3, 32, 64)
            assert set(OpenEXR.File(str(view.path("normal", place))).channels()) == {"RGB"}
    sizes = [len(ThreeD60(str(root)).views(p)) for p in ("train", "val", "test")]
    assert sum(sizes) == 6


def test_made_data_are_the_same_again(made, tmp_path):
    root, _ = made
    MakeData("3d60", str(tmp_path), count=1, size=32, workers=1)()
    for path in tmp_path.rglob("*_0.0.*"):
        assert path.read_bytes() == (root / path.relative_to(tmp_path)).read_bytes()


@pytest.mark.parametrize("side", ["right", "up"])
def test_made_pairs_match_along_rows(made, side):
    """The second picture, looked up where the true distance says, shows what the first does; unshifted it does not."""
    root, _ = made
    pairs = ThreeD60(str(root), split="all", side=side).samples("test")
    better = 0
    for index in range(len(pairs)):
        s = pairs.sample(index, np.random.default_rng(0))
        columns = s["left"].shape[-1]
        alpha = stereo.parallax(torch.where(s["valid"], s["distance"], math.inf), s["theta"], 0.26)
        at = torch.arange(columns) - stereo.to_pixels(alpha, columns)[0]
        low = at.floor().clamp(0, columns - 2).long()
        share = (at - low).clamp(0, 1)
        moved = s["right"].gather(2, low.expand(3, -1, -1)) * (1 - share)
        moved = moved + s["right"].gather(2, (low + 1).expand(3, -1, -1)) * share
        error = [(s["left"] - other).abs().mean() for other in (moved, s["right"])]
        better += bool(error[0] < error[1])
    assert better == len(pairs)


def test_training_turns_and_crops_pairs_together(made):
    root, _ = made
    data = ThreeD60(str(root), split="all", crop_rows=16, colour_jitter=0.2)
    pairs = data.samples("train")
    one, two, other = (pairs.sample(0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one["left"].shape == (3, 16, 32)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(one["left"], other["left"])
    assert torch.equal(one["theta"][0, 0], stereo.thetas(32).float())  # columns are never moved
    still = ThreeD60(str(root), split="all", roll=False).samples("train").sample(0, np.random.default_rng(1))
    judged = data.samples("test").sample(0, np.random.default_rng(1))
    assert torch.equal(still["left"], judged["left"])


@pytest.mark.parametrize(("columns", "rows"), [(16, 32), (64, 128), (20, 48)])
def test_views_of_another_resolution(made, columns, rows):
    root, _ = made
    sample = ThreeD60(str(root), split="all", columns=columns).samples("test").sample(0, np.random.default_rng(0))
    usual = ThreeD60(str(root), split="all").samples("test").sample(0, np.random.default_rng(0))
    for name in ("left", "right", "distance", "valid", "theta"):
        assert sample[name].shape[-2:] == (rows, columns)
    assert sample["valid"].dtype == torch.bool
    assert sample["left"].mean(dim=(1, 2)) == pytest.approx(usual["left"].mean(dim=(1, 2)), abs=0.05)


def test_raw_panoramas_as_the_original_took_them(made):
    root, _ = made
    sample = ThreeD60(str(root), split="all", projection="erp").samples("train").sample(0, np.random.default_rng(0))
    assert sample["left"].shape == (3, 32, 64)
    east = sample["theta"][0, 15:17, 47:49].mean()  # three quarters of the width look right, where the camera is
    assert east < 0.1


def test_mistakes_are_told(tmp_path):
    with pytest.raises(ConfigError, match="dataset.root has no value"):
        ThreeD60().views("train")
    with pytest.raises(InputError, match="is not a folder"):
        ThreeD60(str(tmp_path / "none")).views("train")
    with pytest.raises(InputError, match="train.txt not found; set dataset.lists.train"):
        ThreeD60(str(tmp_path)).samples("train")
    assert ThreeD60(str(tmp_path)).samples("val") is None  # not every data set has one
