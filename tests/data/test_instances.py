"""Instances of Omnidata's pictures."""

import numpy as np
import pytest
import torch

from immersivedepth.checks import InputError
from immersivedepth.data import images
from immersivedepth.data.instances import decode, draw_file, drawn, read_instances
from immersivedepth.data.making import MakeData


def packed():
    """Class 3 twice, once with a number beyond a byte, class 5 once, and what is no instance."""
    rgb = torch.zeros(3, 10, 12, dtype=torch.uint8)
    for (top, bottom, left, right), colour in (
        ((1, 3, 2, 6), (3, 0, 1)),
        ((5, 9, 0, 2), (3, 1, 4)),
        ((4, 10, 8, 12), (5, 0, 1)),
        ((0, 1, 0, 1), (255, 255, 255)),  # nothing
        ((0, 1, 3, 4), (7, 0, 0)),  # a class without a number
        ((0, 1, 5, 6), (0, 0, 7)),  # a number without a class
        ((0, 1, 7, 8), (7, 255, 255)),
    ):
        rgb[:, top:bottom, left:right] = torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1)
    return rgb


def test_classes_numbers_boxes_and_masks(tmp_path):
    found = read_instances(images.write_png(tmp_path / "a.png", packed()))
    assert found.classes.tolist() == [3, 3, 5]
    assert found.numbers.tolist() == [1, 260, 1]
    assert found.boxes.tolist() == [[2, 1, 6, 3], [0, 5, 2, 9], [8, 4, 12, 10]]
    assert [int(m.sum()) for m in found.masks] == [8, 8, 24]
    for (x1, y1, x2, y2), mask in zip(found.boxes.tolist(), found.masks, strict=True):
        assert mask[y1:y2, x1:x2].all()
    assert found.labels.unique().tolist() == [0, 1, 2, 3]
    none = decode(torch.zeros(1, 4, 5, dtype=torch.int64))
    assert (len(none), none.boxes.shape, none.masks.shape) == (0, (0, 4), (0, 4, 5))


def test_drawing_from_files(tmp_path):
    rgb = torch.full((3, 10, 12), 100, dtype=torch.uint8)
    paths = images.write_png(tmp_path / "rgb.png", rgb), images.write_png(tmp_path / "seg.png", packed())
    out = images.read_image(draw_file(*paths, tmp_path / "out.png", ("", "", "", "chair"))).image
    assert out.shape == (3, 20, 24)
    assert (out[:, 12, 20] != 100).any()  # inside class 5
    assert (out[:, 18, 10] == 100).all()  # nothing there
    one = decode(torch.zeros(1, 10, 12, dtype=torch.int64))
    picture = rgb.movedim(0, -1).numpy()
    assert np.array_equal(drawn(picture, one, scale=1), picture)
    with pytest.raises(InputError, match="instances of 5x12 pixels"):
        drawn(picture[:5], one)


def test_made_data_hold_instances(tmp_path):
    MakeData("omnidata", str(tmp_path), count=1, size=48, workers=1)()
    (path,) = (tmp_path / "segment_instance").rglob("*.png")
    found = read_instances(path)
    assert len(found) > 0
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert found.masks.sum(0).max() == 1
