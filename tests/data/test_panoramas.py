"""Which files are meant, what is a panorama and what is not, and where its truth comes from."""

import json
import logging
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from immersivedepth.checks import ConfigError, InputError
from immersivedepth.data import images, panoramas
from immersivedepth.data.panoramas import ErpTruth, Wild, placement, safe_name
from immersivedepth.geometry import sphere
from immersivedepth.scene import Hits


def colours(height=32, width=64):  # [H, W, 3], uint8, a smooth picture that closes at the seam
    rays = sphere.erp_rays(height, width)
    return ((rays + 1) * 127).round().byte().numpy()


def save(path, array=None, **options):
    Image.fromarray(colours() if array is None else array).save(path, **options)
    return path


def gpano(path, array, **tags):
    namespace = "http://ns.google.com/photos/1.0/panorama/"
    text = " ".join(f'G:{key}="{value}"' for key, value in tags.items())
    packet = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a xmlns:G="{namespace}" {text}/></x:xmpmeta>'
    return save(path, array, xmp=packet.encode(), lossless=True)


def crop_tags(full, left, top, width, height):
    return {
        "FullPanoWidthPixels": 2 * full,
        "FullPanoHeightPixels": full,
        "CroppedAreaLeftPixels": left,
        "CroppedAreaTopPixels": top,
        "CroppedAreaImageWidthPixels": width,
        "CroppedAreaImageHeightPixels": height,
    }


def refused(path, **options) -> str:
    dataset = Wild(str(path), **options)
    with pytest.raises(InputError) as caught:
        dataset.load(path)
    assert "\n" not in str(caught.value)
    assert images.show(path) in str(caught.value)
    return str(caught.value)


# --- Which files


def test_one_file(tmp_path):
    path = save(tmp_path / "room.png")
    dataset = Wild(str(path))
    (panorama,) = dataset
    assert len(dataset) == 1
    assert dataset.sources() == [path]
    assert panorama.name == "room"
    assert panorama.image.dtype == torch.uint8
    assert np.array_equal(panorama.image.permute(1, 2, 0).numpy(), colours())
    assert panorama.mask is None
    assert panorama.truth is None
    assert panorama.about["path"] == str(path)
    assert panorama.about["size"] == [64, 32]
    json.dumps(panorama.about)


def test_the_array_is_not_copied_on_its_way(tmp_path):
    """What the views are cut from is [H, W, 3] in memory, as the decoder wrote it."""
    panorama = Wild(str(save(tmp_path / "room.png"))).load(tmp_path / "room.png")
    assert panorama.image.permute(1, 2, 0).is_contiguous()


def test_a_folder(tmp_path):
    for name in ("b.png", "a.jpg", "C.PNG", ".hidden.png", "notes.md", "a_distance.npy", "list.txt"):
        save(tmp_path / "x.png").rename(tmp_path / name)
    (tmp_path / "deeper").mkdir()
    (tmp_path / "folder.png").mkdir()
    save(tmp_path / "deeper" / "d.png")
    assert [p.name for p in Wild(str(tmp_path)).sources()] == ["C.PNG", "a.jpg", "b.png"]
    assert [p.name for p in Wild(f"{tmp_path}/**/*.png").sources()] == ["b.png", "d.png"]
    assert [p.name for p in Wild([f"{tmp_path}/b.png", str(tmp_path)]).sources()] == ["b.png", "C.PNG", "a.jpg"]


def test_a_name_with_brackets_is_a_name_first(tmp_path):
    path = save(tmp_path / "room [1].png")
    save(tmp_path / "room 1.png")
    assert Wild(str(path)).sources() == [path]


def test_a_list_in_a_text_file(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    names = ["a=1,b=2.png", "深度.png", "#1.png", "-x.png"]
    for name in names:
        save(tmp_path / "in" / name)
    lines = ["\ufeff# a comment", "", *(f"in/{name}  " for name in names), str(tmp_path / "in" / names[0])]
    (tmp_path / "list.txt").write_text("\r\n".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path / "in")
    dataset = Wild("../list.txt")
    assert [p.name for p in dataset.sources()][:4] == names
    assert [panorama.image.shape for panorama in dataset] == [(3, 32, 64)] * 5


def test_a_batch_goes_on_past_bad_files(tmp_path):
    save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"<html>")
    (tmp_path / "list.txt").write_text("good.png\nbad.png\nmissing.png\n")
    dataset = Wild(str(tmp_path / "list.txt"))
    outcomes = []
    for source in dataset.sources():
        try:
            outcomes.append(dataset.load(source).name)
        except InputError as error:
            outcomes.append(str(error))
    assert outcomes[0] == "good"
    assert "HTML" in outcomes[1]
    assert "missing.png does not exist" in outcomes[2]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("missing.png", "did you mean missin.png"),
        ("no/such/folder/*.png", "matches no picture"),
        ("empty", "holds no picture"),
        ("empty.txt", "names no picture"),
        ("binary.txt", "UTF-8"),
        ("gone.txt", "does not exist"),
        ("", "is empty"),
        ("  ", "is empty"),
        ("a\0b.png", "cannot be opened"),
        ([], "names no picture"),
    ],
)
def test_what_names_no_picture_is_told_at_once(tmp_path, monkeypatch, given, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    save(tmp_path / "missin.png")
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=words) as caught:
        Wild(given).sources()
    assert "\n" not in str(caught.value)


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    Wild(str(tmp_path / "missing.png"), image_resize=(64, 32))


def test_the_sample_of_the_package():
    (panorama,) = Wild()
    assert panorama.name == "room"
    assert panorama.truth is not None
    rays = sphere.erp_rays(16, 32)
    hits = panorama.truth.trace(rays)
    assert hits.distance.shape == (16, 32)
    assert (hits.distance > 0).all()


# --- Names


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("room", "room"),
        ("a=1, (b)", "a_1_b"),
        ("-rf", "rf"),
        ("..", "panorama"),
        ("...", "panorama"),
        ("///", "panorama"),
        ("深度", "深度"),
        ("ñ", "ñ"),
        ("x" * 300, "x" * 100),
        ("é" * 100, "é" * 50),
        ("a\nb\x1b[31m", "a_b_31m"),
        ("caf\udce9", "caf"),
        ("v1.2-final", "v1.2-final"),
    ],
)
def test_safe_names(given, name):
    assert safe_name(given) == name
    assert len(safe_name(given).encode()) <= 100


def test_names_are_unique_and_do_not_depend_on_the_company(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for name in ("a.png", "A.png", "b.png"):
            save(tmp_path / folder / name)
    save(tmp_path / "one" / "c d.png")
    save(tmp_path / "one" / "c=d.png")
    names = [panorama.name for panorama in Wild(f"{tmp_path}/*/*.png")]
    assert len({name.casefold() for name in names}) == len(names) == 8
    assert all(len(name) < 20 for name in names)
    fewer = {p: n for p, n in zip(Wild(f"{tmp_path}/*/*.png").sources(), names, strict=True) if p.name != "b.png"}
    listed = Wild([str(p) for p in reversed(fewer)])
    assert [listed.load(p).name for p in fewer] == list(fewer.values())


# --- Whole spheres


@pytest.mark.parametrize("width", [199, 200, 201, 1990 // 10])
def test_nearly_2_to_1_becomes_exactly_2_to_1(tmp_path, width):
    path = save(tmp_path / "a.png", colours(100, width))
    panorama = Wild(str(path)).load(path)
    assert panorama.size == (100, 200)
    difference = np.abs(panorama.image.permute(1, 2, 0).numpy().astype(int) - colours(100, 200))
    assert difference.max() <= 3  # of a smooth picture: one step of rounding each in drawing and in resizing
    if width != 200:
        assert panorama.about["notes"] == [f"resized from {width}x100 to exactly 2:1"]
    else:
        assert "notes" not in panorama.about


@pytest.mark.parametrize(("width", "good"), [(1980, False), (1989, False), (1991, True), (2009, True), (2012, False)])
def test_half_a_percent_is_the_limit(tmp_path, width, good):
    path = save(tmp_path / "a.png", np.zeros((1000, width, 3), np.uint8))
    if good:
        assert Wild(str(path)).load(path).size == (1000, 2000)
    else:
        assert f"{width}x1000" in refused(path)


@pytest.mark.parametrize(
    ("width", "height", "words"),
    [
        (100, 100, "top-bottom stereo"),
        (400, 100, "side-by-side"),
        (600, 100, "six cube faces"),
        (100, 600, "six cube faces"),
        (150, 100, "cube faces or a photograph"),
        (400, 300, "cross of cube faces"),
        (300, 400, "cross of cube faces"),
        (100, 200, "lies on its side"),
        (1920, 1080, "GPano"),
        (1, 1, "too small"),
        (2, 1, "too small"),
        (30, 15, "too small"),
        (29, 15, "too small"),
    ],
)
def test_other_shapes_are_refused_with_a_hint(tmp_path, width, height, words):
    path = save(tmp_path / "a.png", np.full((height, width, 3), 99, np.uint8))
    line = refused(path)
    assert words in line
    assert f"{width}x{height}" in line
    refused(path, image_resize=(64, 32))


@pytest.mark.parametrize("size", [(32, 16), (33, 16), (31, 16), (35, 17), (70, 35), (69, 35)])
def test_the_smallest_that_work(tmp_path, size):
    path = save(tmp_path / "a.png", np.full((size[1], size[0], 3), 99, np.uint8))
    panorama = Wild(str(path)).load(path)
    assert panorama.size == (size[1], 2 * size[1])
    assert torch.equal(panorama.image.unique(), torch.tensor([99], dtype=torch.uint8))


def test_an_orientation_that_lays_it_on_its_side_is_named(tmp_path):
    tags = Image.Exif()
    tags[274] = 6
    assert "EXIF orientation (6)" in refused(save(tmp_path / "a.png", exif=tags))


@pytest.mark.parametrize("part", ["top", "bottom", "left", "right"])
def test_one_eye_of_a_stereo_picture(tmp_path, part):
    one, other = colours(), 255 - colours()
    axis = 0 if part in ("top", "bottom") else 1
    pair = np.concatenate([one, other] if part in ("top", "left") else [other, one], axis=axis)
    path = save(tmp_path / "a.png", pair)
    panorama = Wild(str(path), part=part).load(path)
    assert np.array_equal(panorama.image.permute(1, 2, 0).numpy(), one)
    assert panorama.about["part"] == part
    assert panorama.about["size"] == [pair.shape[1], pair.shape[0]]


def test_two_fisheyes_are_refused_unless_told(tmp_path):
    y, x = np.mgrid[:200, :400] + 0.5
    inside = np.hypot(x % 200 - 100, y - 100) < 100
    picture = (colours(200, 400) // 2 + 60) * inside[..., None].astype(np.uint8)
    path = save(tmp_path / "a.jpg", picture, quality=90)
    assert "fisheye" in refused(path)
    assert Wild(str(path), check_layout=False).load(path).size == (200, 400)


def test_dark_panoramas_are_no_fisheyes(tmp_path):
    night = np.zeros((200, 400, 3), np.uint8)
    bars = colours(200, 400) // 2 + 60
    bars[:60] = bars[140:] = 0
    lamp = night.copy()
    lamp[90:110, 150:250] = 255
    for picture in (night, bars, lamp, colours(200, 400)):
        path = save(tmp_path / "a.png", picture)
        assert Wild(str(path)).load(path).size == (200, 400)


def test_light_is_a_float_panorama(tmp_path):
    images.write_exr(tmp_path / "a.exr", colours().astype(np.float32))
    panorama = Wild(str(tmp_path / "a.exr")).load(tmp_path / "a.exr")
    assert panorama.image.dtype == torch.float32
    assert panorama.image.max() <= 1
    assert panorama.about["tone_mapped"] is True


# --- Sizes


@pytest.mark.parametrize("size", [(32, 16), (64, 32), (48, 24), (100, 50), (256, 128), (62, 31)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_resizing_agrees_with_the_slow_exact_way(size, kind):
    picture = colours(32, 64).astype(kind) / (1 if kind == np.uint8 else 255)
    found = panoramas.resize(picture.astype(kind), *size)
    exact = sphere.resize_erp(torch.from_numpy(picture.astype(kind)).permute(2, 0, 1), size[1], size[0])
    assert found.dtype == kind
    # Bytes are rounded, and OpenCV places bilinear samples to 1/32 of a pixel; a step of this picture is 12 levels.
    scale = 1 if kind == np.uint8 else 255
    assert np.abs(found.astype(float) - exact.permute(1, 2, 0).numpy()).max() * scale <= 1


def test_growing_goes_around_the_seam_and_over_the_poles():
    """Rolled by a quarter, the result is the same picture rolled: nothing is special about the border columns."""
    picture = np.random.default_rng(0).random((16, 32, 3)).astype(np.float32)
    grown = panoramas.resize(picture, 128, 64)
    rolled = panoramas.resize(np.roll(picture, 8, 1), 128, 64)
    np.testing.assert_allclose(np.roll(grown, 32, 1), rolled, atol=1e-6)
    flipped = panoramas.resize(np.roll(picture[::-1], 16, 1), 128, 64)
    np.testing.assert_allclose(np.roll(grown[::-1], 64, 1), flipped, atol=1e-6)
    # The first row lies between the first pixel and the one across the pole, at 3/8 of the way.
    across = np.roll(picture[0], 16, 0)
    column = picture[0] * 5 / 8 + across * 3 / 8
    expected = column[0] * 5 / 8 + column[-1] * 3 / 8
    np.testing.assert_allclose(grown[0, 0], expected, atol=1e-6)


def test_image_resize(tmp_path):
    path = save(tmp_path / "a.png", colours(100, 200))
    panorama = Wild(str(path), image_resize=(64, 32)).load(path)
    assert panorama.size == (32, 64)
    assert np.abs(panorama.image.permute(1, 2, 0).numpy().astype(int) - colours()).max() <= 2
    assert panorama.about["size"] == [200, 100]


@pytest.mark.parametrize("size", [(512, 1024), (1024, 500), (16, 8), (40000, 20000)])
def test_a_wrong_image_resize_is_an_error_of_the_config(size):
    with pytest.raises(ConfigError, match=r"dataset\.image_resize") as caught:
        Wild(image_resize=size)
    assert f"[{size[0]},{size[1]}]" in str(caught.value)


def test_the_limit_is_in_the_config(tmp_path):
    path = save(tmp_path / "a.png")
    assert "dataset.max_size" in refused(path, max_size=(60, 30))


# --- Parts of a sphere


def test_a_partial_panorama_is_placed_and_masked(tmp_path):
    whole = colours(64, 128)
    path = gpano(tmp_path / "a.webp", whole[10:50, 30:90], **crop_tags(64, 30, 10, 60, 40))
    panorama = Wild(str(path)).load(path)
    assert panorama.size == (64, 128)
    expected = torch.zeros(1, 64, 128, dtype=torch.bool)
    expected[:, 10:50, 30:90] = True
    assert torch.equal(panorama.mask, expected)
    assert np.array_equal(panorama.image.permute(1, 2, 0).numpy(), whole * expected[0, ..., None].numpy())
    assert panorama.about["gpano"]["CroppedAreaTopPixels"] == 10
    assert panorama.about["size"] == [60, 40]


def test_a_partial_panorama_that_was_shrunk_is_placed_to_scale(tmp_path, caplog):
    whole = colours(64, 128)
    path = gpano(tmp_path / "a.webp", whole[16:48, 32:96], **crop_tags(640, 320, 160, 640, 320))
    with caplog.at_level(logging.WARNING):
        panorama = Wild(str(path)).load(path)
    assert panorama.size == (64, 128)
    assert panorama.mask[0, 16:48, 32:96].all()
    assert panorama.mask.sum() == 32 * 64
    assert "scaled by 0.1" in caplog.text
    assert "scaled by 0.1" in panorama.about["notes"][0]


def test_only_whole_pixels_of_a_resized_part_count(tmp_path):
    whole = np.full((64, 128, 3), 200, np.uint8)
    path = gpano(tmp_path / "a.webp", whole[10:51, 31:90], **crop_tags(64, 31, 10, 59, 41))
    for size in ((64, 32), (256, 128)):
        panorama = Wild(str(path), image_resize=size).load(path)
        assert panorama.size == (size[1], size[0])
        seen = panorama.mask.expand(3, -1, -1)
        assert (panorama.image[seen] == 200).all()
        share = 59 * 41 / (64 * 128)
        assert share - 0.05 < float(panorama.mask.float().mean()) <= share


@pytest.mark.parametrize("height", [32, 100])
def test_tags_of_a_whole_sphere_change_nothing(tmp_path, height):
    path = gpano(tmp_path / "a.webp", colours(height, 2 * height), **crop_tags(height, 0, 0, 2 * height, height))
    panorama = Wild(str(path)).load(path)
    assert panorama.mask is None
    assert panorama.size == (height, 2 * height)
    assert "notes" not in panorama.about


CONTRADICTIONS = {
    "another size": crop_tags(64, 30, 10, 50, 50),
    "beyond the whole": crop_tags(64, 100, 10, 64, 32),
    "not 2:1": {**crop_tags(64, 0, 0, 64, 32), "FullPanoHeightPixels": 100},
    "missing": {"FullPanoWidthPixels": 128, "CroppedAreaLeftPixels": 3},
    "negative": crop_tags(64, -5, 10, 64, 32),
    "no number": {**crop_tags(64, 0, 0, 64, 32), "CroppedAreaLeftPixels": "nan"},
    "huge": crop_tags(10**9, 0, 0, 64, 32),
    "zero": crop_tags(64, 0, 0, 0, 0),
    "cylinder": {**crop_tags(64, 0, 0, 64, 32), "ProjectionType": "cylindrical"},
}


@pytest.mark.parametrize("tags", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_tags_that_do_not_fit_are_put_aside_or_refused(tmp_path, caplog, tags):
    whole = gpano(tmp_path / "whole.webp", colours(), **tags)
    with caplog.at_level(logging.WARNING):
        panorama = Wild(str(whole)).load(whole)
    assert np.array_equal(panorama.image.permute(1, 2, 0).numpy(), colours())
    assert "GPano tags ignored" in caplog.text
    assert "GPano tags ignored" in panorama.about["notes"][0]
    part = gpano(tmp_path / "part.webp", colours(32, 48), **tags)
    assert "GPano tags that do not fit" in refused(part)


def test_a_small_part_of_a_monstrous_whole_is_refused_before_it_is_placed(tmp_path):
    path = gpano(tmp_path / "a.webp", colours(32, 48), **crop_tags(32500, 0, 0, 48, 32))
    assert "65000x32500" in refused(path)


def test_placement_rounds_into_the_whole():
    place = placement(crop_tags(100, 150, 60, 50, 40), 33, 26)
    assert place.height * 2 >= place.left + 33
    assert place.height >= place.top + 26
    assert placement({}, 64, 32) is None
    assert placement({"PoseHeadingDegrees": 3}, 64, 32) is None
    whole = {k: v for k, v in crop_tags(32, 0, 0, 64, 32).items() if k != "FullPanoHeightPixels"}
    assert placement(whole, 64, 32) is None


def test_transparent_pixels_are_masked(tmp_path):
    picture = np.dstack([colours(), np.full((32, 64), 255, np.uint8)])
    picture[:8, :, 3] = 0
    path = save(tmp_path / "a.png", picture)
    panorama = Wild(str(path)).load(path)
    assert torch.equal(panorama.mask[0].any(1), torch.arange(32) >= 8)
    assert not panorama.image[:, :8].any()


# --- Truth


def test_the_recipe_of_a_world_beside_the_picture(tmp_path, monkeypatch):
    class World:
        def __init__(self, recipe):
            self.recipe = recipe

        def trace(self, rays):
            return Hits(distance=torch.ones(rays.shape[:-1]))

    fake = types.ModuleType("synthetic")
    fake.load_world = World
    monkeypatch.setitem(sys.modules, "immersivedepth.data.synthetic", fake)
    path = save(tmp_path / "a.png")
    recipe = {"kind": "room", "seed": 3, "pose": [0, 0, 0]}
    (tmp_path / "a.world.json").write_text(json.dumps(recipe))
    assert Wild(str(path)).load(path).truth.recipe == recipe
    for broken in ("{", "[]", "3", ""):
        (tmp_path / "a.world.json").write_text(broken)
        with pytest.raises(InputError, match=r"a\.world\.json is no recipe"):
            Wild(str(path)).load(path)


@pytest.mark.parametrize("suffix", ["exr", "npy"])
def test_a_measured_map_beside_the_picture(tmp_path, suffix):
    path = save(tmp_path / "a.png")
    distance = torch.rand(1, 48, 96, generator=torch.Generator().manual_seed(0)) + 1
    getattr(images, f"write_{suffix}")(tmp_path / f"a_distance.{suffix}", distance)
    truth = Wild(str(path), image_resize=(32, 16)).load(path).truth
    rays = sphere.erp_rays(48, 96)
    assert torch.equal(truth.trace(rays).distance, distance[0])
    assert torch.equal(truth.trace(rays * 7).distance, distance[0])


def test_a_measured_map_of_another_shape_is_refused(tmp_path):
    path = save(tmp_path / "a.png")
    images.write_npy(tmp_path / "a_distance.npy", torch.ones(1, 32, 32))
    with pytest.raises(InputError, match=r"a_distance\.npy is 32x32"):
        Wild(str(path)).load(path)


def test_measured_truth_takes_the_nearest_pixel_around_the_seam():
    distance = torch.arange(1.0, 33.0).reshape(1, 4, 8)
    truth = ErpTruth(distance)
    straight_back = torch.tensor([[-1.0, 1e-3, 0.01], [-1.0, -1e-3, 0.01]])
    assert truth.trace(straight_back).distance.tolist() == [9.0, 16.0]
    poles = torch.tensor([[1e-6, 0.0, 1.0], [1e-6, 0.0, -1.0]])
    assert truth.trace(poles).distance.tolist() == [distance[0, 0, 3:5].max(), distance[0, 3, 3:5].max()]
    exact = torch.tensor([[-1.0, 0.0, 0.0], [-1.0, -0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    assert truth.trace(exact).distance.isfinite().all()


def test_unknown_and_sky_in_measured_truth():
    distance = torch.tensor([[[0.0, float("nan"), float("inf"), -1.0]] * 2])
    hits = ErpTruth(distance).trace(sphere.erp_rays(2, 4))
    assert hits.distance[0].tolist() == [0, 0, float("inf"), 0]
    assert hits.sky[0].tolist() == [False, False, True, False]
