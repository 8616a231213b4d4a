"""Layouts of evaluation data by files written by hand: units, holes, limits, lists; a plain list in every format."""

import numpy as np
import pytest
import torch

from immersivedepth.checks import ConfigError, InputError
from immersivedepth.data import images
from immersivedepth.data.layouts import Matterport, Pano3D, Replica, Stanford, ThreeD60Mono
from immersivedepth.data.measured import PairList, measured_of, read_pairs
from immersivedepth.files import write_text
from immersivedepth.scene import Hits

H, W = 16, 32
PICTURE = torch.rand(3, H, W, generator=torch.Generator().manual_seed(0))


def steps(path, **pixels):
    """A 16-bit PNG of 1000 with some other pixels in its first row."""
    values = np.full((H, W), 1000, np.float64)
    for place, value in pixels.items():
        values[0, int(place[1:])] = value
    images.write_map_png(path, values, 1.0)


def picture(path):
    (images.write_jpeg if path.suffix == ".jpg" else images.write_png)(path, PICTURE)
    return path


def only(dataset):
    (source,) = dataset.sources()
    return measured_of(dataset, source)


def test_matterport(tmp_path):
    path = picture(tmp_path / "17DRP5sb8fy" / "pano_skybox_color" / "ab12.jpg")
    steps(tmp_path / "17DRP5sb8fy" / "pano_depth" / "ab12.png", p0=0, p1=40000, p2=65535)
    found = only(Matterport(str(tmp_path)))
    assert found.distance[0, 1, 0] == pytest.approx(0.25)
    assert found.distance[0, 0, 1] == 10
    assert not found.valid[0, 0, 0]
    assert found.valid[0, 0, 2]  # the largest step is a distance here, not a hole
    assert found.panorama.name == "ab12"
    write_text(tmp_path / "test.txt", "17DRP5sb8fy/pano_skybox_color/ab12.jpg 17DRP5sb8fy/pano_depth/ab12.png\n")
    assert Matterport(str(tmp_path), list="test.txt").sources() == [path]
    with pytest.raises(InputError, match="not found, neither here nor in"):
        Matterport(str(tmp_path), list="val.txt").sources()


def test_stanford(tmp_path):
    for area in ("5a", "1"):
        for kind in ("rgb", "depth"):
            name = f"camera_0123abcd_office_1_frame_equirectangular_domain_{kind}.png"
            path = tmp_path / f"area_{area}" / "pano" / kind / name
            picture(path) if kind == "rgb" else steps(path, p0=65535, p1=5120, p2=0)
    found = only(Stanford(str(tmp_path)))
    assert found.distance[0, 0, 1] == 10
    assert found.distance[0, 1, 0] == pytest.approx(1000 / 512)
    assert found.valid[0, 0, :3].tolist() == [False, True, False]
    assert len(Stanford(str(tmp_path), areas=("1", "5a")).sources()) == 2
    with pytest.raises(ConfigError, match="7 is no area"):
        Stanford(str(tmp_path), areas=("7",)).sources()


def test_replica_leaves_out_lines_without_a_map(tmp_path):
    picture(tmp_path / "a_rgb.png")
    values = torch.linspace(0, 3, H * W).view(1, H, W)
    images.write_dpt(tmp_path / "a_depth.dpt", values)
    assert (tmp_path / "a_depth.dpt").read_bytes()[:4] == np.float32(202021.25).tobytes()
    write_text(tmp_path / "list.txt", "a_rgb.png a_depth.dpt\nb_rgb.png None\n")
    for dataset in (Replica(list=str(tmp_path / "list.txt")), Replica(root=str(tmp_path), list="list.txt")):
        found = only(dataset)
        assert torch.equal(found.distance, values)
        assert int((~found.valid).sum()) == 1


def test_pano3d_cuts_at_eight_metres(tmp_path):
    for n in (0, 1):
        picture(tmp_path / "Allensville" / f"{n}_spherical_1_emission_center_0.png")
        depth = torch.full((1, H, W), 8.0)
        depth[0, 0, :2] = torch.tensor([8.001, 0.0])
        images.write_exr(tmp_path / "Allensville" / f"{n}_spherical_1_depth_center_0.exr", depth)
    write_text(tmp_path / "tiny.yaml", "Allensville:\n  - 1_spherical_1_emission_center_0.png\n")
    assert len(Pano3D(str(tmp_path)).sources()) == 2
    found = only(Pano3D(str(tmp_path), split="tiny.yaml"))
    assert found.valid[0, 0, :3].tolist() == [False, False, True]
    write_text(tmp_path / "bad.yaml", "- 3\n")
    with pytest.raises(InputError, match="is no split of Pano3D"):
        Pano3D(str(tmp_path), split="bad.yaml").sources()


def test_three_d60_by_single_panoramas(tmp_path):
    for place in ("Left_Down", "Up"):
        picture(tmp_path / "Matterport3D" / f"0_{'a' * 32}0_color_0_{place}_0.0.png")
        depth = torch.full((3, H, W), 2.0)
        depth[:, 0, 0] = 1e10
        images.write_exr(tmp_path / "Matterport3D" / f"0_{'a' * 32}0_depth_0_{place}_0.0.exr", depth)
    found = only(ThreeD60Mono(str(tmp_path), split="all"))
    assert found.valid.sum() == H * W - 1
    assert (found.distance[found.valid] == 2).all()


@pytest.mark.parametrize("kind", ["png", "exr", "npy", "pfm", "dpt"])
def test_a_plain_list_in_every_format(tmp_path, kind):
    values = 1 + torch.arange(H * W).view(1, H, W) / 1000
    values[0, 0, 0], values[0, 0, 1] = 0, 60
    write = {"exr": images.write_exr, "npy": images.write_npy, "pfm": images.write_pfm, "dpt": images.write_dpt}
    path = tmp_path / f"a.{kind}"
    images.write_map_png(path, values, 0.001) if kind == "png" else write[kind](path, values)
    picture(tmp_path / "a b.png")
    write_text(tmp_path / "l.txt", f"# a tab keeps blanks in names\n\na b.png\ta.{kind}\n")
    found = only(PairList(list=str(tmp_path / "l.txt"), png_unit=0.001, hole_beyond=50.0))
    assert found.valid[0, 0, :3].tolist() == [False, False, True]
    assert torch.allclose(found.distance[found.valid], values[found.valid], atol=1e-6)
    assert isinstance(found.panorama.truth.trace(torch.tensor([1.0, 0, 0])), Hits)


def test_distances_take_the_nearest_pixel_when_resized(tmp_path):
    images.write_exr(tmp_path / "a.exr", (torch.arange(4 * H * W) % 7 + 1.0).view(1, 2 * H, 2 * W))
    picture(tmp_path / "a.png")
    write_text(tmp_path / "l.txt", "a.png a.exr")
    found = only(PairList(list=str(tmp_path / "l.txt")))
    assert found.distance.shape == (1, H, W)
    assert set(found.distance.unique().tolist()) <= set(range(1, 8))
    small = only(PairList(list=str(tmp_path / "l.txt"), image_resize=(32, 16)))
    assert small.panorama.size == (16, 32)


@pytest.mark.parametrize(
    ("line", "text"),
    [("a.png", "expected a picture and a map"), ("", "names no pair"), ("a.png a.png", "png_unit has no value")],
)
def test_lists_that_cannot_be_used(tmp_path, line, text):
    write_text(tmp_path / "l.txt", line + "\n")
    with pytest.raises((InputError, ConfigError), match=text):
        PairList(list=str(tmp_path / "l.txt")).sources()


def test_lists_of_windows_and_names_that_occur_twice(tmp_path):
    write_text(tmp_path / "l.txt", ".\\x\\rgb.png .\\x\\d.exr\r\ny\\rgb.png y\\d.exr\r\n")
    found = read_pairs(tmp_path / "l.txt", tmp_path)
    assert [pair.depth for pair in found] == [tmp_path / "x" / "d.exr", tmp_path / "y" / "d.exr"]
    dataset = PairList(list=str(tmp_path / "l.txt"))
    assert [dataset.name(source) for source in dataset.sources()] == ["x-rgb", "y-rgb"]


def test_maps_of_another_shape_are_refused(tmp_path):
    picture(tmp_path / "a.png")
    images.write_exr(tmp_path / "a.exr", torch.ones(1, H, H))
    write_text(tmp_path / "l.txt", "a.png a.exr")
    with pytest.raises(InputError, match="twice as wide as high"):
        only(PairList(list=str(tmp_path / "l.txt")))
