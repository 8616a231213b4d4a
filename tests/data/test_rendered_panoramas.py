"""Panoramas and what is said of them at first, rendered while a network learns to mend it."""

import numpy as np
import torch

from immersivedepth.data.rendered_panoramas import (
    RenderedPanoramas,
    as_sample,
    mirrored,
    seen,
    surface,
    turned,
    with_hole,
)
from immersivedepth.data.rendered_views import drawn
from immersivedepth.scene import Geometry

CPU = torch.device("cpu")


class Looks:
    """Says that everything is three metres away, and counts."""

    def __init__(self):
        self.asked = 0

    def __call__(self, panorama):
        self.asked += 1
        distance = torch.full((1, *panorama.size), 3.0)
        return Geometry(distance, distance > 0)


def _data(**more):
    return RenderedPanoramas(
        **{
            "shares": {"cube_room": 1.0},
            "first": Looks(),
            "height": 64,
            "window": 3,
            "uses": 4,
            "validation": 2,
            **more,
        }
    )


def test_a_batch_is_a_function_of_its_number_alone():
    stream = _data().stream()
    first = [stream.batch(n, 2, CPU) for n in range(5)]
    alone = _data().stream().batch(4, 2, CPU)
    assert all(torch.equal(alone[k], first[4][k]) for k in alone)
    assert not torch.equal(first[3]["image"], first[4]["image"])
    assert not torch.equal(_data(seed=1).stream().batch(4, 2, CPU)["image"], alone["image"])


def test_each_panorama_is_looked_at_once_and_the_window_forgets():
    data = _data()
    stream = data.stream()
    for number in range(30):
        stream.batch(number, 2, CPU)
    newest = max(stream.kept)
    assert data.first.asked <= newest + 1
    assert len(stream.kept) <= 6
    assert 14 <= newest <= 17  # 60 samples, four of each


def test_truth_turns_with_the_picture():
    data = _data(strength=0.0, holes=0.0)
    batch = data.stream().batch(0, 2, CPU)
    pools = [drawn(data.worlds, n) for n in range(3)]
    for image, truth in zip(batch["image"], batch["truth"], strict=True):
        # One turn and maybe mirror of one panorama of the window gives both.
        assert any(
            torch.equal((image * 255).round(), colours.roll(turn, -1)) and torch.equal(truth[0], metres.roll(turn, -1))
            for pool in pools
            for colours, metres in (
                (pool.image.float(), pool.distance),
                (pool.image.float().flip(-1), pool.distance.flip(-1)),
            )
            for turn in range(128)
        )


def test_normals_turn_and_mirror_with_the_truth():
    sample = as_sample(seen(_data(), 0))
    inside = sample["sure"] > 0.9
    for change in (lambda s: turned(s, 21), mirrored, lambda s: mirrored(turned(s, 50))):
        changed = change(sample)
        again = surface(changed["truth"])[:3].float()
        where = change({**sample, "sure": inside})["sure"].expand_as(again)
        torch.testing.assert_close(changed["normal"][where], again[where], atol=0.03, rtol=0)


def test_nothing_is_told_where_a_hole_is():
    random, sample = np.random.default_rng(0), as_sample(seen(_data(), 0))
    shares = []
    for _ in range(12):
        holed = with_hole(sample, random)
        lost = (holed["first"] == 0)[0]
        shares.append(float(lost.float().mean()))
        for name, part in holed.items():
            assert not part[..., lost].any(), name
            assert torch.equal(part[..., ~lost], sample[name][..., ~lost]), name
    assert 0.02 < min(shares) < max(shares) < 0.62


def test_sky_has_no_distance_and_is_marked():
    data = _data(shares={"outdoor": 1.0}, repaint=0.0)
    one = seen(data, 0)
    sample = as_sample(one)
    assert sample["sky"].any()
    assert torch.equal(sample["sky"], one.truth.isinf())
    assert (sample["truth"][sample["sky"]] == 0).all()
    assert sample["truth"].isfinite().all()


def test_validation_is_fixed():
    fixed = _data().fixed()
    assert len(fixed) == 2
    a, b = fixed.sample(1, None), _data().fixed().sample(1, None)
    assert all(torch.equal(a[k], b[k]) for k in a)
