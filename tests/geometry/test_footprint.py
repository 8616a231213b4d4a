import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from immersivedepth.geometry import footprint, icosahedron, pinhole, sphere
from immersivedepth.scene import Rig


def rolled(seed, count=3):
    """Rotations at random, roll included."""
    q, _ = torch.linalg.qr(torch.randn(count, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    return (q * torch.linalg.det(q).sign()[:, None, None]).float()


def towards(*directions):
    return pinhole.look_along(torch.tensor(directions, dtype=torch.float64))


def check_cover(rig, height):
    rays = sphere.erp_rays(height, 2 * height)
    count = torch.zeros(len(rig), height, 2 * height, dtype=torch.int)
    rows_met = []
    for rows, pieces in footprint.bands(rig, height, 2 * height):
        rows_met += range(rows.start, rows.stop)
        assert [p.view for p in pieces] == sorted(p.view for p in pieces)
        for piece in pieces:
            count[piece.view, piece.rows, piece.columns] += 1
    assert rows_met == list(range(height))
    assert count.max() <= 1
    seen = torch.stack(
        [pinhole.project_rays(rays, r, t)[1] for r, t in zip(rig.rotation, rig.tan_half_fov, strict=True)]
    )
    assert not (seen & (count == 0)).any()
    return float(count.sum()) / float(seen.sum().clamp_min(1))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.floats(0.05, 3.7), st.integers(2, 40), st.sampled_from([1, 3, 64]))
def test_pieces_cover_what_views_see_once(seed, tan, height, tall):
    old, footprint.BAND_PIXELS = footprint.BAND_PIXELS, tall * 2 * height
    try:
        check_cover(Rig(rolled(seed), torch.full((3,), tan), 8), height)
    finally:
        footprint.BAND_PIXELS = old


@pytest.mark.parametrize("lean", [0.0, 1e-7, 1e-3, 0.3])
@pytest.mark.parametrize("tan", [0.1, 1.0, 2.0])
def test_poles_and_the_seam(lean, tan):
    rotation = towards([lean, 0, 1], [lean, lean, -1], [-1, lean, 0], [-1, 0, 0.5], [1, 0, 0])
    check_cover(Rig(rotation, torch.full((5,), tan), 8), 37)


def test_pieces_are_hardly_larger_than_what_is_seen(monkeypatch):
    monkeypatch.setattr(footprint, "BAND_PIXELS", 1 << 10)
    rig = Rig(pinhole.look_along(icosahedron.face_centres()), torch.ones(20), 8)
    assert check_cover(rig, 128) < 1.25  # whole rows would be at 6 / 2, boxes around the views at 2.4


def test_sight_is_the_projection():
    rig = Rig(rolled(1), torch.tensor([0.5, 1.0, 2.0]), 10)
    grid = footprint.grid_of(rig, 20, 40)
    rays = sphere.erp_rays(20, 40)
    for _, pieces in footprint.bands(rig, 20, 40):
        for piece in pieces:
            at = footprint.sight(piece, grid)
            xy, seen = pinhole.project_rays(
                rays[piece.rows, piece.columns], rig.rotation[piece.view], rig.tan_half_fov[piece.view]
            )
            cosine = rays[piece.rows, piece.columns] @ rig.rotation[piece.view, :, 2]
            assert torch.equal(at.border >= 0, seen)
            assert torch.allclose(torch.stack([at.x, at.y], -1)[seen] / 5, xy[seen], atol=1e-5)
            assert torch.allclose(at.cosine[seen], cosine[seen], atol=1e-6)
            assert torch.allclose(at.border[seen], 1 - xy.abs().amax(-1)[seen], atol=1e-5)


@pytest.mark.parametrize("nearest", [False, True])
def test_both_readers_agree(monkeypatch, nearest):
    maps = torch.rand(2, 5, 9, 9, generator=torch.Generator().manual_seed(0))
    # Positions inside and a little beyond the view, none on the edge between two pixels.
    x = torch.linspace(-4.7, 4.71, 23).expand(11, -1).contiguous()
    at = footprint.Sight(x, x.T[:11].flip(0).contiguous().expand(11, 11)[:, :1].expand(11, 23).contiguous(), x, x)
    fast = footprint.reader(maps)
    monkeypatch.setattr(footprint, "remap_is_exact", lambda: False)
    slow = footprint.reader(maps)
    for view in range(2):
        assert torch.allclose(fast(view, at, nearest), slow(view, at, nearest), atol=1e-5)


def test_bands_run_in_threads_with_the_callers_mode():
    rig = Rig(rolled(0, 1), torch.ones(1), 8)
    modes = []
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.inference_mode():
            footprint.over_bands(lambda rows, _: modes.append(torch.is_inference_mode_enabled()), rig, 512, 1024)
        with torch.no_grad():
            footprint.over_bands(lambda rows, _: modes.append(not torch.is_grad_enabled()), rig, 512, 1024)
        with pytest.raises(ZeroDivisionError):
            footprint.over_bands(lambda rows, _: 1 // 0, rig, 8, 16)
    finally:
        torch.set_num_threads(threads)
    assert len(modes) >= 16
    assert all(modes)


def test_spans_of_a_view_ahead():
    rotation = towards([1.0, 0, 0]).double().numpy()
    spans = footprint.row_spans(rotation, np.array([1.0]), 4, 360)
    # Latitudes 67.5 and 22.5: above, out of sight; below, 45 degrees to either side and a column to spare.
    assert (spans[0, 0, 1] - spans[0, 0, 0]) == 0
    low, high = spans[0, 1]
    assert 180 - 45 - 2 <= low <= 180 - 45
    assert 180 + 45 <= high <= 180 + 45 + 2
    assert math.isclose(low + high, 360)
