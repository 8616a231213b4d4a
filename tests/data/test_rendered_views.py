"""Views that are rendered while a network trains."""

import math

import numpy as np
import pytest
import torch

from immersivedepth.checks import ConfigError
from immersivedepth.data.rendered_views import KEPT_OUT, Pool, RenderedViews, cut, drawn
from immersivedepth.data.synthetic import STYLES, erp_maps, make_world, repainted, shapes

CPU = torch.device("cpu")


def _data(**more):
    return RenderedViews({"cube_room": 1.0}, size=28, height=64, window=3, views=4, validation=1, **more)


def test_a_batch_is_a_function_of_its_number_alone():
    stream = _data().stream()
    first = [stream.batch(n, 4, CPU) for n in range(5)]
    alone = _data().stream().batch(4, 4, CPU)
    assert all(torch.equal(alone[k], first[4][k]) for k in alone)
    assert not torch.equal(first[3]["image"], first[4]["image"])
    assert not torch.equal(_data(seed=1).stream().batch(4, 4, CPU)["image"], alone["image"])


def test_the_window_slides_and_forgets():
    stream = _data().stream()
    for number in range(20):
        stream.batch(number, 4, CPU)
    seen = sorted(n for n, _ in stream.pools)
    assert len(seen) <= 2 * 3
    assert seen[-1] >= 19


def test_depth_is_that_of_the_walls():
    # A room of known size, looked at without any roll: along the axis of the view the depth is that of the wall ahead.
    world = make_world("cube_room", half=[2.0, 3.0, 1.5])
    maps = erp_maps(world, 256, 512)
    pool = Pool((maps.image * 255).to(torch.uint8), maps.distance[0])
    data = RenderedViews({"cube_room": 1.0}, size=33, height=256, roll=0.0)

    class Ahead:
        """Random numbers of a view that looks along +x with 90 degrees."""

        def normal(self, *at, size=None):
            return np.array([[1.0, 0.0, 0.0]]) if size == (1, 3) else np.zeros(1)

        def uniform(self, low, high, n):
            return np.full(n, 90.0)

        def random(self, n):
            return np.ones(n)

    view = cut([pool], Ahead(), data, 33)
    assert view["depth"].shape == (1, 1, 33, 33)
    middle = view["depth"][0, 0, 12:21, 12:21]
    torch.testing.assert_close(middle, torch.full_like(middle, 2.0), rtol=0.02, atol=0)
    torch.testing.assert_close(view["disparity"], 1 / view["depth"])
    assert math.isclose(float(view["depth"][0, 0, 0, 16]), 1.5, rel_tol=0.05)  # the ceiling at the upper border
    assert not view["sky"].any()


def test_sky_is_disparity_0_and_styles_are_kept_apart():
    data = RenderedViews({"outdoor": 1.0}, size=28, height=32, window=2, views=4, validation=2)
    pool = drawn(data, 0)
    batch = cut([pool] * 6, np.random.default_rng(0), data, data.size)
    assert bool(batch["sky"].any())
    assert torch.equal(batch["disparity"] == 0, batch["sky"])
    assert batch["depth"].isfinite().all()
    for kind, styles in KEPT_OUT.items():
        assert set(styles) < set(STYLES[kind])
    fixed = data.fixed()
    assert len(fixed) == 8
    random = np.random.default_rng(0)
    assert torch.equal(fixed.sample(3, random)["image"], data.fixed().sample(3, random)["image"])
    assert not torch.equal(fixed.sample(3, random)["image"], fixed.sample(2, random)["image"])


def test_unknown_worlds_are_refused():
    with pytest.raises(ConfigError, match=r"dataset\.shares"):
        RenderedViews({"castle": 1.0})


def test_first_batches_are_small():
    data = RenderedViews({"room": 1.0}, size=56, height=64, window=2, views=4, small=28, small_batches=2)
    stream = data.stream()
    sides = [stream.batch(n, 2, torch.device("cpu"))["image"].shape[-1] for n in range(4)]
    assert sides == [28, 28, 56, 56]


def test_repainting_changes_materials_and_light_but_no_shape():
    world = make_world("room", 3, "modern")
    random = np.random.default_rng(0)
    other = repainted(world, random)
    before, after = erp_maps(world, 32, 64), erp_maps(other, 32, 64)
    for name in ("distance", "normal", "instance", "sky"):
        assert torch.equal(getattr(before, name), getattr(after, name))
    assert float((before.image - after.image).abs().mean()) > 0.05
    rows, painted = world.tables.rows[0], other.tables.rows[0]
    lamps = rows[:, shapes.EMISSION] > 0
    assert lamps.any()
    assert torch.equal(rows[lamps], painted[lamps])
    assert float(painted[:, shapes.COLOURS].min()) >= 0
    assert float(painted[:, shapes.COLOURS].max()) <= 1
    # What was of one material still is.
    look = slice(shapes.TEXTURE, shapes.COLOURS.stop)
    dull, painted = rows[~lamps][:, look], painted[~lamps][:, look]
    for material in dull.unique(dim=0)[:20]:
        assert len(painted[(dull == material).all(1)].unique(dim=0)) == 1
    assert torch.equal(repainted(world, np.random.default_rng(0), 0.0).tables.rows, world.tables.rows)
    again = repainted(world, np.random.default_rng(0))
    assert torch.equal(again.tables.rows, other.tables.rows)
    assert torch.equal(again.tables.sky, other.tables.sky)


def test_only_training_worlds_are_repainted():
    plain, painted = (RenderedViews({"room": 1.0}, height=64, repaint=share) for share in (0.0, 1.0))
    assert torch.equal(drawn(plain, 1, kept_out=True).image, drawn(painted, 1, kept_out=True).image)
    assert torch.equal(drawn(plain, 1).distance, drawn(painted, 1).distance)
    assert any(not torch.equal(drawn(plain, n).image, drawn(painted, n).image) for n in range(3))
