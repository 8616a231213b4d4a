"""The miniature of 3D60: files, frames and lists are those of the real one."""

import numpy as np
import OpenEXR
import pytest
import torch

from immersivedepth.data import images
from immersivedepth.data.making import MakeData
from immersivedepth.data.making.three_d60 import ThreeD60
from immersivedepth.geometry.sphere import erp_rays

SIZE = 16
OFFSET = {"Left_Down": (0.0, 0.0, 0.0), "Right": (0.0, -0.26, 0.0), "Up": (0.0, 0.0, 0.26)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    maker = ThreeD60(MakeData("3d60", str(tmp_path_factory.mktemp("d60")), count=3, size=SIZE, workers=1))
    maker.make(0)
    return maker


@pytest.mark.parametrize("place", OFFSET)
def test_maps_are_what_a_camera_at_its_place_sees(made, place):
    """Right is 0.26 m towards column 3W/4, up 0.26 m above; all three look the same way."""
    world = made.world(0)
    towards = torch.tensor(OFFSET[place])
    assert (
        towards.norm() == 0
        or (erp_rays(64, 128) @ towards).argmax()
        in ({"Right": [31 * 128 + 95, 31 * 128 + 96, 32 * 128 + 95, 32 * 128 + 96], "Up": range(128)}[place])
    )
    hits = world.at(world.position + world.rotation @ towards).trace(erp_rays(SIZE, 2 * SIZE))
    distance = images.read_map(made.path(0, "depth", place))[0]
    seen = hits.distance < 20
    assert torch.equal(distance[seen], hits.distance[seen])
    assert (distance[~seen] == 1e10).all()
    normal = np.asarray(OpenEXR.File(str(made.path(0, "normal", place))).channels()["RGB"].pixels)
    assert np.array_equal(normal[seen], hits.normal[seen].numpy())


def test_depth_files_are_stored_as_the_real_ones(made):
    file = OpenEXR.File(str(made.path(0, "depth", "Right")))
    pixels = np.asarray(file.channels()["RGB"].pixels)
    assert pixels.dtype == np.float32
    assert pixels.shape == (SIZE, 2 * SIZE, 3)
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()
    assert file.header()["compression"] == OpenEXR.ZIP_COMPRESSION


def test_a_viewpoint_is_done_when_its_last_file_is_there(made):
    assert made.done(0)
    assert not made.done(1)


def test_cameras_stand_clear_of_everything(made):
    for task in made.tasks():
        world = made.world(task)
        places = world.position + torch.tensor(list(OFFSET.values())) @ world.rotation.T
        assert world.clearance(places).min() > 0.1


def test_lists_name_each_viewpoint_once_with_nine_files_in_the_published_order(made):
    lines = [line for path in made.finish() for line in path.read_text("utf-8").splitlines()]
    assert len(lines) == len(set(lines)) == 3
    for line in lines:
        names = line.split(" ")
        assert len(names) == 9
        assert all(name.startswith(".\\") and "/" not in name for name in names)
        kinds = [next(k for k in ("color", "depth", "normal") if f"_{k}_" in name) for name in names]
        places = [next(p for p in OFFSET if f"_{p}_" in name) for name in names]
        assert kinds == ["color"] * 3 + ["depth"] * 3 + ["normal"] * 3
        assert places == list(OFFSET) * 3
