"""Companions of a view by name, by shared pixels and by what the middles show."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from immersivedepth.checks import InputError
from immersivedepth.data import images
from immersivedepth.data.multitask import MultiTask, Part
from immersivedepth.data.multiview import ByVisibleMiddles, Sight, of_same_point, read_sight, with_shared_pixels
from immersivedepth.training.sampling import loader

HEADER = "src.building,src.point,src.view,dst.building,dst.point,dst.view,valid_and_shared_prop\n"


def drawn(companions, view, count=200):
    return set(companions.draw(view, count, np.random.default_rng(0)))


def test_views_of_the_same_point_belong_together():
    views = [("a", 0, 0), ("a", 0, 1), ("a", 0, 2), ("a", 1, 0), ("b", 0, 0)]
    found = of_same_point(views)
    assert drawn(found, ("a", 0, 0)) == {("a", 0, 1), ("a", 0, 2)}
    assert [found.has(v) for v in views] == [True, True, True, False, False]


def test_shared_pixels_by_the_tables(tmp_path):
    path = tmp_path / "house.csv"
    shares = {"1,0": 0.9, "2,0": 0.3, "3,0": 0.2, "9,9": 0.8, "0,0": 1.0}
    rows = [("house,0,0", f"house,{end}", share) for end, share in shares.items()]
    rows.append(("house,1,0", "house,0,0", 0.25))
    path.write_text(HEADER + "".join(f"{a},{b},{share}\n" for a, b, share in rows))
    views = [("set/house", point, 0) for point in range(4)]
    tables = [("set/", path)]
    found = with_shared_pixels(views, tables)
    assert drawn(found, views[0]) == {views[1], views[2]}  # 0.2 is too little, one is not there, one is itself
    assert drawn(found, views[1]) == {views[0]}
    assert not found.has(views[3])
    assert drawn(with_shared_pixels(views, tables, most=1), views[0]) == {views[1]}
    assert drawn(with_shared_pixels(views, tables, least=0.1), views[0]) == set(views[1:])
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="house.csv:2: expected the columns src.building"):
        with_shared_pixels(views, tables)


# Camera c sees points 0, 1 and 2 from one place; camera d looks at 0 and at 2; camera e looks at 3, which nobody sees.
SIGHTS = {
    ("h", 0, 0): Sight("c", frozenset((0, 1, 2))),
    ("h", 1, 0): Sight("c", frozenset((1,))),
    ("h", 0, 1): Sight("d", frozenset((0,))),
    ("h", 2, 0): Sight("d", frozenset((2,))),
    ("h", 3, 0): Sight("e", frozenset((3,))),
}


def test_graph_of_visible_middles():
    start = ("h", 0, 0)
    assert drawn(ByVisibleMiddles(SIGHTS, "same"), start) == {("h", 1, 0)}
    assert drawn(ByVisibleMiddles(SIGHTS, "fixated"), start) == {("h", 0, 1)}
    assert drawn(ByVisibleMiddles(SIGHTS, "different"), start) == {("h", 2, 0)}
    assert drawn(ByVisibleMiddles(SIGHTS, "backoff"), start) == {("h", 2, 0)}
    assert drawn(ByVisibleMiddles(SIGHTS, "backoff"), ("h", 0, 1)) == {start}  # fixated: no other point in sight
    assert drawn(ByVisibleMiddles(SIGHTS, "backoff"), ("h", 3, 0)) == {("h", 3, 0)}  # itself
    assert not ByVisibleMiddles(SIGHTS, "different").has(("h", 3, 0))
    assert not ByVisibleMiddles(SIGHTS, "same").has(("h", 9, 9))
    assert drawn(ByVisibleMiddles(SIGHTS, "fixated", steps=2), start) == {start}  # there and back


def test_sights_are_read_from_point_info(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"camera_location": [1, 2.0, 3], "nonfixated_points_in_view": [4, "5"]}))
    assert read_sight(path, ("h", 7, 0)) == Sight("1.000000,2.000000,3.000000", frozenset((4, 5, 7)))
    path.write_text("{}")
    with pytest.raises(InputError, match="expected camera_location"):
        read_sight(path, ("h", 7, 0))


@pytest.fixture
def house(tmp_path):
    """Two points with two views each, told apart by their brightness, and one of another building."""
    greys = {("a", 0, 0): 0.1, ("a", 0, 1): 0.2, ("a", 1, 0): 0.6, ("a", 1, 1): 0.7, ("b", 0, 0): 0.9}
    for (building, point, view), grey in greys.items():
        stem = f"point_{point}_view_{view}_domain_"
        images.write_png(tmp_path / f"rgb/set/{building}/{stem}rgb.png", torch.full((3, 32, 32), grey))
        depth = torch.full((1, 32, 32), 1 + grey)
        images.write_map_png(tmp_path / f"depth_zbuffer/set/{building}/{stem}depth_zbuffer.png", depth, 1 / 512)
        info = tmp_path / f"point_info/set/{building}/{stem}point_info.json"
        info.parent.mkdir(parents=True, exist_ok=True)
        # Camera 0 stands still; view 1 of each point is taken from elsewhere. Everybody sees point 1.
        info.write_text(json.dumps({"camera_location": [view * (point + 1), 0, 0], "nonfixated_points_in_view": [1]}))
    (tmp_path / "cooccurrence/set").mkdir(parents=True)
    (tmp_path / "cooccurrence/set/a.csv").write_text(HEADER + "a,0,0,a,1,1,0.5\n")
    return MultiTask({"x": Part(str(tmp_path))}, ("rgb", "depth_zbuffer"), 32, mirror=False, augment=False, views=3)


@pytest.mark.parametrize(
    ("method", "camera", "count", "others"),
    [
        ("filename", "backoff", 4, {0.2}),
        ("shared_pixels", "backoff", 1, {0.7}),
        ("center_visible", "same", 4, {0.6}),
        ("center_visible", "different", 4, {0.7}),
    ],
)
def test_training_samples_of_several_views(house, method, camera, count, others):
    house.companions, house.camera = method, camera
    views = house.samples("train")
    if method != "center_visible":
        assert len(views) == count
    seen = Counter()
    for seed in range(10):
        sample = views.sample(0, np.random.default_rng(seed))
        assert sample["rgb"].shape == (3, 3, 32, 32)
        assert sample["valid"].shape == (3, 1, 32, 32)
        greys = sample["rgb"][:, 0, 16, 16]
        assert torch.allclose(sample["depth_zbuffer"][:, 0, 16, 16], 1 + greys, atol=0.005)
        assert float(greys[0]) == pytest.approx(0.1, abs=0.01)
        seen.update(round(float(g), 1) for g in greys[1:])
    assert set(seen) == others
    batch = next(loader(views, [[(0, 0)]], 0, 0, torch.device("cpu")))
    assert batch["rgb"].shape == (3, 3, 32, 32)  # one after another
    assert batch["valid"].shape == (3, 1, 32, 32)


def test_validation_looks_at_one_view_at_a_time(house):
    assert house.samples("val").sample(0, np.random.default_rng(0))["rgb"].shape == (3, 32, 32)


def test_without_tables_nothing_shares_pixels(house, tmp_path):
    (tmp_path / "cooccurrence/set/a.csv").unlink()
    house.companions = "shared_pixels"
    with pytest.raises(InputError, match="holds no tables"):
        house.samples("train")
