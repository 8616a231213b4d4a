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


def test_all_maps_are_mirrored_and_turned_together():
    y, x = np.mgrid[:32, :32]
    ramp = torch.from_numpy((4 * x + 3 * y).astype(np.uint8))[None]
    maps = [ramp.expand(3, -1, -1), ramp.expand(3, -1, -1), ramp, ramp]
    data = Modest(flip=1.0)
    assert torch.equal(modest.turned(maps, np.random.default_rng(0), data)[2], ramp.flip(-1))
    assert torch.equal(modest.turned(maps, np.random.default_rng(0), Modest(flip_vertical=1.0))[3], ramp.flip(-2))
    outs = [modest.turned(maps, np.random.default_rng(s), Modest(rotation=1.0, flip=0.5)) for s in range(8)]
    for out in outs:
        assert all(torch.equal(out[0], value.expand(3, -1, -1)) for value in out)
        assert out[2].shape == (1, 32, 32)
    assert len({out[2].numpy().tobytes() for out in outs}) == 8
    quarter = modest._rotated(ramp, 90.0)  # anticlockwise
    assert (quarter.int() - ramp.rot90(1, (-2, -1)).int()).abs().max() <= 1
    assert modest.turned(maps, np.random.default_rng(0), Modest()) is maps


@pytest.mark.parametrize("kind", ["cutout", "noise", "blur"])
def test_inputs_are_spoilt_alike_unless_asked_otherwise(kind):
    picture = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = Modest(**{kind: 1.0})
    outs = [modest.spoilt([picture, picture], np.random.default_rng(s), data) for s in range(10)]
    assert all(not torch.equal(a, picture) and a.dtype == torch.uint8 for a, _ in outs)
    if kind == "cutout":
        holes = [[(value != picture).any(0) for value in pair] for pair in outs]
        assert all(torch.equal(a, b) for a, b in holes)  # the same place, each with the mean colour of its data
        rows, columns = holes[0][0].any(1), holes[0][0].any(0)
        assert 0 < rows.sum() <= 10
        inside = outs[0][0][:, rows][:, :, columns]
        mean = torch.tensor(modest.BACKGROUND_NORM[0]).mul(255).round().byte()
        assert torch.equal(inside, mean.view(3, 1, 1).expand_as(inside))
    else:
        assert all(torch.equal(a, b) for a, b in outs) == (kind == "blur")  # grain is never the same twice
    apart = modest.spoilt([picture, picture], np.random.default_rng(3), Modest(augment_alike=False, **{kind: 1.0}))
    again = modest.spoilt([picture, picture], np.random.default_rng(3), Modest(augment_alike=False, **{kind: 1.0}))
    assert all(torch.equal(a, b) for a, b in zip(apart, again, strict=True))
    assert any(
        not torch.equal((a != picture).any(0), (b != picture).any(0)) if kind == "cutout" else not torch.equal(a, b)
        for a, b in (
            modest.spoilt([picture] * 2, np.random.default_rng(s), Modest(augment_alike=False, **{kind: 1.0}))
            for s in range(5)
        )
    )


def test_changes_reach_training_samples_alone(made):
    options = Modest(str(made), size=32, flip=1.0)
    plain = Modest(str(made), size=32)
    for split, same in (("train", False), ("val", True)):
        a, b = (d.samples(split).sample(0, np.random.default_rng(0)) for d in (options, plain))
        assert all(torch.equal(a[k], b[k]) for k in a) == same
        if not same:
            assert all(torch.allclose(a[k], b[k].flip(-1), atol=1e-5) for k in a)
    coloured = Modest(str(made), size=32, augment=True).samples("train")
    a, b = coloured.sample(0, np.random.default_rng(1)), plain.samples("train").sample(0, np.random.default_rng(1))
    assert {k: torch.equal(a[k], b[k]) for k in a} == dict(background=False, picture=False, mask=True, depth=True)


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
