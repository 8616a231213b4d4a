"""Errors worked out by hand."""

import math

import pytest
import torch

from immersivedepth.geometry import sphere
from immersivedepth.metrics import abs_rel
from immersivedepth.scene import Geometry, Hits


class Ball:
    """Everything is two metres away, but for the sky straight up."""

    def trace(self, rays):
        up = rays[..., 2] / rays.norm(dim=-1) > 0.99
        return Hits(torch.where(up, torch.inf, 2.0), sky=up)


def geometry(distance, metric=True, mask=None):
    return Geometry(distance, torch.ones_like(distance, dtype=torch.bool) if mask is None else mask, metric)


def test_a_hemisphere_that_is_wrong_counts_half():
    distance = torch.full((1, 64, 128), 2.0)
    distance[:, :, :64] = 3.0  # 50 % too far on one half of the sphere
    assert abs_rel(geometry(distance), Ball()) == pytest.approx(0.25, abs=1e-6)


def test_rows_count_by_their_solid_angle():
    distance = torch.full((1, 64, 128), 2.0)
    distance[:, 48:] = 4.0  # from 45 degrees below the horizon: (1 - sin 45) / 2 of the sphere
    cap, sky = (1 - math.sin(math.pi / 4)) / 2, float(sphere.solid_angles(64, 128)[:3].sum() * 128 / (4 * math.pi))
    assert abs_rel(geometry(distance), Ball()) == pytest.approx(cap / (1 - sky), rel=0.005)


def test_scale_is_free_unless_metric():
    distance = torch.full((1, 64, 128), 6.0)
    assert abs_rel(geometry(distance, metric=False), Ball()) == pytest.approx(0, abs=1e-6)
    assert abs_rel(geometry(distance), Ball()) == pytest.approx(2)


def test_distrusted_pixels_do_not_count():
    distance = torch.full((1, 64, 128), 2.0)
    distance[:, 32:] = 100.0
    mask = torch.zeros_like(distance, dtype=torch.bool)
    mask[:, :32] = True
    assert abs_rel(geometry(distance, mask=mask), Ball()) == pytest.approx(0, abs=1e-6)
    assert math.isnan(abs_rel(geometry(distance, mask=mask & False), Ball()))


def test_large_results_are_sampled():
    distance = torch.full((1, 1024, 2048), 2.0)
    distance[:, :, :1024] = 3.0
    assert abs_rel(geometry(distance), Ball(), rows=64) == pytest.approx(0.25, abs=1e-6)
