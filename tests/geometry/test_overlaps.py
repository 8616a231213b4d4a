"""Sample directions, who sees them, and what is read there, against plain loops."""

import math

import pytest
import torch

from immersivedepth.geometry import icosahedron, overlaps, pinhole


def test_a_grid_fills_the_solid_angle_of_a_view():
    rotation, tan = pinhole.look_along(torch.tensor([[1.0, 2, 3], [0, 0, -1]])), torch.tensor([1.0, 0.5])
    directions, angle = overlaps.grid_directions(rotation, tan, 64)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(2 * 64**2, dtype=torch.float64))
    for v, t in enumerate(tan.tolist()):
        exact = 4 * math.asin(t**2 / (1 + t**2))
        assert angle[v * 64**2 : (v + 1) * 64**2].sum().item() == pytest.approx(exact, rel=1e-3)  # midpoint rule


def test_grid_samples_are_pixel_centres_and_turn_with_the_view():
    rotation = pinhole.look_along(torch.tensor([[0.3, -0.5, 0.8]]))
    directions, _ = overlaps.grid_directions(rotation, torch.tensor([0.7]), 8)
    rays = pinhole.view_rays(rotation, torch.tensor([0.7]), 8)[0].reshape(-1, 3)
    want = torch.nn.functional.normalize(rays, dim=-1).double()
    torch.testing.assert_close(directions, want, rtol=0, atol=1e-6)  # rays are float32


def test_rows_and_pairs_are_those_of_plain_loops():
    rotation, tan = pinhole.look_along(icosahedron.face_centres()[:7]), torch.full((7,), 0.9)
    directions, _ = overlaps.grid_directions(rotation, tan, 6)
    view, direction, xy, cosine = overlaps.see(directions, rotation, tan, 0.01)
    rows = {}
    for v in range(7):
        for n, d in enumerate(directions):
            x, y, z = (rotation[v].double().T @ d).tolist()
            if z > 0 and abs(x) < 0.99 * 0.9 * z and abs(y) < 0.99 * 0.9 * z:
                rows[v, n] = (x / z / 0.9, y / z / 0.9, z)
    found = list(zip(view.tolist(), direction.tolist(), strict=True))
    assert found == sorted(rows)
    want = torch.tensor([rows[key] for key in found], dtype=torch.float64)
    torch.testing.assert_close(torch.cat([xy, cosine[:, None]], 1), want, rtol=0, atol=1e-6)
    first, second, groups = overlaps.pairs(view, direction, 7, len(directions))
    met = [(found[a], found[b]) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    assert set(met) == {(a, b) for a in rows for b in rows if a[1] == b[1] and a[0] < b[0]}
    assert len(met) == len(set(met))
    for i, j, start, stop in groups:
        assert {(a[0], b[0]) for a, b in met[start:stop]} == {(i, j)}
    assert sum(stop - start for *_, start, stop in groups) == len(met)


def test_views_apart_have_no_pairs():
    rotation, tan = pinhole.look_along(torch.tensor([[1.0, 0, 0], [-1, 0, 0]])), torch.full((2,), 0.5)
    directions, _ = overlaps.grid_directions(rotation, tan, 4)
    view, direction, _, _ = overlaps.see(directions, rotation, tan, 0.0)
    first, second, groups = overlaps.pairs(view, direction, 2, len(directions))
    assert (len(first), len(second), groups) == (0, 0, [])


def test_taps_read_a_linear_map_exactly_and_one_pixel_as_itself():
    side = 9
    t = (torch.arange(side, dtype=torch.float64) + 0.5) / side * 2 - 1
    maps = torch.stack([3 * t[None, :] - 2 * t[:, None] + k for k in range(3)])
    xy = (torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1) * (1 - 1 / side)
    view = torch.arange(50) % 3
    index, weight = overlaps.taps(view, xy, side)
    torch.testing.assert_close((maps.reshape(-1)[index] * weight).sum(-1), 3 * xy[:, 0] - 2 * xy[:, 1] + view)
    index, weight = overlaps.taps(torch.zeros(1, dtype=torch.long), torch.zeros(1, 2), 1)
    assert index.max() == 0
    assert weight.sum() == 1
