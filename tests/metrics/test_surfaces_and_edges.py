"""Edges, normals, the seam and the poles against values worked out by hand or by slow loops."""

import math

import numpy as np
import pytest
import torch

from immersivedepth.metrics import boundary, surfaces

RANDOM = np.random.default_rng(7)


def test_sobel_of_a_step_goes_around_the_seam():
    step = torch.ones(6, 12)
    step[:, 6:] = 2.0
    found = boundary.sobel(step)
    assert torch.equal(found[0], torch.tensor([4.0, 0, 0, 0, 0, 4, 4, 0, 0, 0, 0, 4]))


def test_edges_beside_holes_are_not_edges():
    step = torch.ones(6, 12)
    step[:, 6:] = 2.0
    valid = torch.ones(6, 12, dtype=torch.bool)
    valid[2, 6] = False
    found = boundary.edges(step, valid, 0.5)
    assert not found[1:4, 5:8].any()
    assert found[5, 5]


def test_precision_and_recall():
    true, found = (torch.zeros(4, 8, dtype=torch.bool) for _ in range(2))
    assert boundary.precision_recall(found, true) == (1, 1)  # nothing to find
    true[0, :4] = True
    assert boundary.precision_recall(found, true) == (0, 0)
    found[0, 2:8] = True
    assert boundary.precision_recall(found, true) == pytest.approx((2 / 6, 2 / 4))


def test_distances_of_edges_equal_a_slow_search():
    true, found = (torch.from_numpy(RANDOM.random((12, 24)) < 0.03) for _ in range(2))
    assert true.any()
    assert found.any()

    def nearest(points, others):
        return np.array([min(math.dist(p, o) for o in others) for p in points])

    a, b = (np.argwhere(v.numpy()) for v in (found, true))
    to_true, to_found = nearest(a, b), nearest(b, a)
    accuracy = to_true[to_true < 10].mean()
    complete = (np.minimum(to_true, 10).sum() + np.minimum(to_found, 10).sum()) / (len(a) + len(b))
    assert boundary.edge_distances(found, true) == pytest.approx((accuracy, complete))
    assert boundary.edge_distances(found & False, true) == (10, 10)


def test_moge_boundary_equals_a_slow_loop():
    p, g = (torch.from_numpy(RANDOM.uniform(1, 1.3, (6, 7))) for _ in range(2))
    valid = torch.from_numpy(RANDOM.random((6, 7)) < 0.9)
    radius, weights, scores = 2, np.linspace(0.05, 0.25, 10), []
    for t in weights:
        both = true = found = 0
        for y in range(radius, 6 - radius):
            for x in range(radius, 7 - radius):
                for v in range(-radius, radius + 1):
                    for u in range(-radius, radius + 1):
                        if v * v + u * u > radius**2 or not (valid[y, x] and valid[y + v, x + u]):
                            continue
                        a, b = p[y + v, x + u] / p[y, x] > 1 + t, g[y + v, x + u] / g[y, x] > 1 + t
                        both, true, found = both + int(a and b), true + int(b), found + int(a)
        scores.append(2 * both / max(true + found, 1))
    assert boundary.moge(p, g, valid, radius) == pytest.approx((weights * scores).sum() / weights.sum())
    assert boundary.moge(g, g, valid, 1) == pytest.approx(1)


def test_pano3d_of_a_perfect_map():
    g = torch.from_numpy(RANDOM.uniform(1, 6, (8, 16)))
    found = boundary.pano3d(g, g, g > 0)
    assert found["precision_0.25"] == found["recall_1"] == found["boundary_f_0.5"] == 1
    assert found["edge_accuracy"] == found["edge_completeness"] == 0


def test_normals_by_known_angles():
    angles = torch.tensor([0.0, 10, 20, 29]).deg2rad()
    target = torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 1, 4)
    prediction = torch.stack([angles.cos(), angles.sin(), torch.zeros(4)])[:, None]
    every = torch.ones(1, 4, dtype=torch.bool)
    found = surfaces.normal_angles(prediction, target, every, torch.ones(1, 4, dtype=torch.float64))
    wanted = {"mean": 14.75, "median": 15, "rmse": math.sqrt((100 + 400 + 841) / 4)}
    wanted |= {"within_11.25": 0.5, "within_22.5": 0.75, "within_30": 1.0}
    assert found == pytest.approx({f"normal_{k}": v for k, v in wanted.items()}, abs=1e-4)
    weighted = surfaces.normal_angles(prediction, target, every, torch.tensor([[3.0, 1, 1, 1]]).double())
    assert weighted["normal_mean"] == pytest.approx(59 / 6, abs=1e-4)
    assert surfaces.normal_angles(prediction * 0, target, every, torch.ones(1, 4)) == {}


def test_a_step_at_the_seam_is_found_there_only():
    g = torch.full((24, 48), 2.0)
    ramp = torch.linspace(0, 0.47, 48).exp()  # grows by 0.01 a column, and falls at the seam
    found = surfaces.seam_and_poles(g * ramp, g, g > 0)
    assert found["seam"] == pytest.approx(0.47, abs=1e-5)
    assert found["seam_inside"] == pytest.approx(0.01, abs=1e-5)
    p = g.clone()
    p[:2] = 3.0
    found = surfaces.seam_and_poles(p, g, g > 0)
    assert found["pole_top"] == pytest.approx(0.5)
    assert found["pole_bottom"] == 0


def test_likeness_of_maps():
    g = torch.from_numpy(RANDOM.uniform(1, 6, (32, 64)))
    found = surfaces.likeness(g + 0.5, g, g > 0, 10.0)
    assert found["psnr"] == pytest.approx(10 * math.log10(100 / 0.25))
    assert 0 < found["ssim"] < 1
    assert surfaces.likeness(g, g, g > 0, 10.0)["ssim"] == pytest.approx(1)
