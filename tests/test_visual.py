"""Pictures say what they are told to say."""

import base64

import cv2
import numpy as np
import pytest
import torch

from immersivedepth.visual import colours, curves, embedding, grids, lettering


def test_near_is_red_far_is_blue_unknown_black_and_sky_white():
    distance = np.array([[1.0, 2.0, 4.0, 0.0, np.inf, np.nan]], np.float32)
    near, middle, far, unknown, sky, broken = colours.colour_distance(distance, colours.Scale(1.0, 4.0))[0].tolist()
    assert near[0] > near[2]
    assert far[2] > far[0]
    assert middle == pytest.approx(colours.colour_map(np.array([0.5]))[0, 0].tolist(), abs=4)  # even in the logarithm
    assert (unknown, sky, broken) == ([0, 0, 0], [255, 255, 255], [0, 0, 0])


def test_the_range_ignores_outliers_and_untrusted_pixels():
    distance = np.linspace(1, 2, 1000, dtype=np.float32).reshape(20, 50)
    distance[0, 0], distance[5, 5] = 1e6, np.inf
    mask = np.ones_like(distance, bool)
    mask[10:] = False
    scale = colours.distance_scale(distance, mask)
    assert 1.0 < scale.low < 1.03
    assert 1.47 < scale.high < 1.51
    assert colours.distance_scale(np.zeros((2, 4))).high > colours.distance_scale(np.zeros((2, 4))).low > 0


@pytest.mark.parametrize("name", ["turbo", "jet", "viridis", "magma", "inferno", "bone", "rainbow", "gray"])
def test_every_colour_map_is_one_to_one(name):
    picture = colours.colour_map(np.linspace(0, 1, 32), name)
    assert picture.shape == (1, 32, 3)
    assert len({tuple(c) for c in picture[0].tolist()}) == 32


def test_scales_go_both_ways():
    for scale in (colours.Scale(0.5, 8.0), colours.Scale(0.5, 8.0, logarithmic=False, reverse=False)):
        for share in (0.0, 0.3, 1.0):
            place = float(scale.place(np.array(scale.value(share))))
            assert place == pytest.approx(1 - share if scale.reverse else share)


def test_normals_as_rgb():
    normal = np.array([[[1, 0, 0], [0, -1, 0], [0, 0, 1], [0, 0, 0]]], np.float32)
    assert colours.colour_normal(normal)[0].tolist() == [[255, 128, 128], [128, 0, 128], [128, 128, 255], [0, 0, 0]]


def test_differences_are_white_at_zero():
    picture = colours.colour_difference(np.array([[-1.0, 0, 0.1, np.nan]]), 0.1)
    assert picture[0].tolist() == [[0, 0, 255], [255, 255, 255], [255, 0, 0], [0, 0, 0]]


def test_instances_have_colours_of_their_own():
    picture = colours.colour_labels(np.arange(40)[None])
    assert len({tuple(c) for c in picture[0].tolist()}) == 40
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture[0, 7].tolist() == list(colours.instance_colour(7))


def test_the_bar_runs_from_near_to_far():
    bar = lettering.colour_bar(800, 40, colours.Scale(1.0, 4.0), " m")
    assert bar.shape == (40, 800, 3)
    left, right = bar[12, 60], bar[12, 740]
    assert left[0] > left[2]
    assert right[2] > right[0]
    assert (bar[22:] > 200).any()  # the letters


def test_overlay_goes_on_beyond_the_seam():
    picture = np.full((40, 80, 3), 100, np.uint8)
    labels = np.zeros((40, 80), int)
    labels[10:20, 75:], labels[10:20, :5] = 1, 1
    out = lettering.overlay(picture, labels, [[75, 10, 85, 20]], ["thing"])
    colour = list(colours.instance_colour(1))
    assert out[10, 77].tolist() == out[10, 3].tolist() == out[15, 4].tolist() == colour
    assert out[30, 40].tolist() == [100, 100, 100]
    assert (lettering.overlay(picture, labels)[15, 77] != picture[15, 77]).any()


def test_a_grid_has_rows_of_tasks_and_columns_of_views():
    batch = {
        "rgb": torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
        "distance": torch.full((3, 1, 32, 32), 2.0),
        "normal": torch.tensor([0.0, 0, 1])[None, :, None, None].expand(2, 3, 32, 32),
        "mask": torch.ones(3, 1, 32, 32, dtype=torch.bool),
        "instance": torch.ones(3, 1, 32, 32, dtype=torch.int32),
    }
    picture = grids.show_batch_images(batch, titles=["a", "b", "c"], side=64)
    assert picture.dtype == np.uint8
    rows, columns = (64 + 4) * 5, 3 * (64 + 4)
    assert rows < picture.shape[0] < rows + 60
    assert picture.shape[1] > columns
    right = picture.shape[1] - columns
    third = picture.shape[0] - 3 * 68 + 32  # middle of the row of normals
    assert picture[third, right + 32].tolist() == [128, 128, 255]
    assert picture[third, right + 2 * 68 + 32].tolist() == list(lettering.PAPER)  # only two were given
    assert picture[third + 68, right + 32].tolist() == [255, 255, 255]


def test_an_empty_grid_is_refused():
    with pytest.raises(ValueError, match="at least one picture"):
        grids.show_batch_images({})


def test_embedded_pictures_come_back():
    picture = np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    head, _, data = embedding.data_url(picture).partition(",")
    assert head == "data:image/png;base64"
    found = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert (found == picture).all()
    assert embedding.data_url(picture, "jpeg").startswith("data:image/jpeg;base64,")


def test_a_chart_draws_its_curve_where_its_values_are():
    x = [1.0, 10.0, 100.0]
    picture = curves.chart([curves.Curve("a", x, [0.0, 1.0, 0.5])], log_x=True, size=(400, 300))
    assert picture.shape == (300, 400, 3)
    ink = (picture == colours.instance_colour(1)).all(-1)
    ink[:120, 200:] = False  # the legend
    rows, columns = np.nonzero(ink)
    assert columns[rows.argmax()] - columns.min() < 4  # the first value is the least, up to the width of the line
    assert (picture == picture[0, 0]).mean() > 0.8


def test_a_chart_leaves_out_what_has_no_place():
    picture = curves.chart([curves.Curve("a", [0, 1, 2], [float("nan"), float("inf"), 1.0])], title="t", log_y=True)
    assert picture.std() > 0
    assert curves.chart([]).shape == (400, 640, 3)
