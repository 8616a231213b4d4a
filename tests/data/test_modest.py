"""The loader of MODEST and its maker."""

import numpy as np
import pytest
import torch

from immersivedepth.checks import ConfigError, InputError
from immersivedepth.data import images, modest
from immersivedepth.data.making import MakeData
from immersivedepth.data.making.modest import Modest as Maker
from immersivedepth.data.modest import Modest, read_boxes


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("modest")
    MakeData("modest", str(root), count=32, size=64, workers=1)()
    return root


def test_made_data_are_the_real_layout(made):
    scenes = Modest(str(made)).scenes
    assert len(scenes) == 32
    assert {s.background.relative_to(made).as_posix() for s in scenes} == {"bg/bg001.jpeg", "bg/bg002.jpeg"}
    one = scenes[0]
    assert one.picture.relative_to(made).as_posix() == "bg_fg/bg001_fg001_01.jpeg"
    assert one.mask.relative_to(made).as_posix() == "bg_fg_mask/bg001_fg001_01_mask.jpeg"
    assert one.depth.relative_to(made).as_posix() == "bg_fg_depth_map/bg001_fg001_01_depth_map.jpeg"
    figure = images.read_image(made / "fg/fg002.png")
    cover = images.read_image(made / "fg_mask/fg002_mask.png").image[0]
    assert figure.image.shape[-2:] == cover.shape
    assert figure.mask is not None  # RGBA
    assert ((cover > 127) == figure.mask[0]).float().mean() > 0.999
    assert figure.image[:, cover == 255].float().std() > 1
    assert all(p.is_file() for s in scenes for p in (s.background, s.picture, s.mask, s.depth))


def test_masks_boxes_and_pictures_of_made_data_agree(made):
    boxes = read_boxes(made / "bbox.txt")
    scenes, compared = Modest(str(made)).scenes, 0
    for number, scene in enumerate(scenes):
        left, top, width, height = boxes[scene.picture.name]
        inside = images.read_image(scene.mask).image[0] > 127
        rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
        found = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        assert np.abs(np.array(found) - (left, top, left + width, top + height)).max() <= 1  # JPEG
        background, picture = (images.read_image(p).image.float() for p in (scene.background, scene.picture))
        depth = images.read_image(scene.depth).image[0].float()
        other = scenes[number - number % 16 + (number + 3) % 16]  # the same background, the figure elsewhere
        free = inside & (images.read_image(other.mask).image[0] < 20)
        behind = images.read_image(other.depth).image[0].float()[free]
        change = (background - picture).abs().amax(0)
        assert change[~inside].median() <= 4 < change[inside].median()
        if len(behind) > 50:
            compared += 1
            assert depth[free].median() < behind.median()  # in front of what it hides
    assert compared > 10


def test_made_data_are_the_same_again(made, tmp_path):
    Maker(MakeData("modest", str(tmp_path), count=32, size=64)).make(2)
    for path in tmp_path.rglob("*.jpeg"):
        assert path.read_bytes() == (made / path.relative_to(tmp_path)).read_bytes()


def test_samples_are_normalised_and_resized(made):
    sample = Modest(str(made), size=32).samples("val").sample(0, np.random.default_rng(0))
    assert {k: tuple(v.shape) for k, v in sample.items()} == {
        "background": (3, 32, 32),
        "picture": (3, 32, 32),
        "mask": (1, 32, 32),
        "depth": (1, 32, 32),
    }
    assert 0 <= sample["mask"].min() <= sample["mask"].max() <= 1
    mean, std = modest.PICTURE_NORM
    plain = modest.arranged(*(torch.full((3, 8, 8), 128, dtype=torch.uint8),) * 2, 8)["picture"]
    assert plain[:, 0, 0].tolist() == pytest.approx(
        [(128 / 255 - m) / s for m, s in zip(mean, std, strict=True)], abs=1e-6
    )


def test_seven_tenths_are_for_training(made):
    data = Modest(str(made))
    train, val = data.samples("train"), data.samples("val")
    assert (len(train), len(val)) == (22, 10)
    assert not {s.picture for s in train.scenes} & {s.picture for s in val.scenes}


def test_parts_that_share_no_background_and_no_foreground(made):
    data = Modest(str(made), split="apart", train_share=0.5)
    numbers = {p: [s.numbers for s in data.samples(p).scenes] for p in ("train", "val")}
    assert set(numbers["train"]) == {(1, 1)}
    assert set(numbers["val"]) == {(2, 2)}


def test_colours_change_alike_unless_asked_otherwise():
    picture = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    changed = 0
    for seed in range(20):
        a, b = modest.coloured([picture, picture], np.random.default_rng(seed), alike=True)
        assert torch.equal(a, b)
        changed += not torch.equal(a, picture)
    assert 10 <= changed <= 20
    a, b = modest.coloured([picture, picture], np.random.default_rng(1), alike=False)
    assert not torch.equal(a, b)


def test_mistakes_are_told(tmp_path):
    with pytest.raises(ConfigError, match="dataset.root has no value"):
        Modest().samples("train")
    with pytest.raises(InputError, match="file_map.txt does not exist"):
        Modest(str(tmp_path)).samples("train")
    (tmp_path / "file_map.txt").write_text("bg001\tbg001_fg001_01\n")
    with pytest.raises(InputError, match="file_map.txt:1: expected four names"):
        Modest(str(tmp_path)).samples("train")
    (tmp_path / "bbox.txt").write_text("a.jpeg\t1\t2\n")
    with pytest.raises(InputError, match="bbox.txt:1"):
        read_boxes(tmp_path / "bbox.txt")
