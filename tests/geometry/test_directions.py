import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from immersivedepth.geometry import directions


def test_cube_order():
    assert directions.cube_faces().tolist() == [[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]


@settings(deadline=None, max_examples=20)
@given(st.integers(4, 200))
def test_fibonacci_spreads_evenly(count):
    points = directions.fibonacci(count).double()
    assert torch.allclose(points.norm(dim=-1), torch.ones(count).double(), atol=1e-6)
    assert points.mean(0).norm() < 1.5 / count  # a random set would be at about 1 / sqrt(count)
    distance = torch.cdist(points, points) + 10 * torch.eye(count).double()
    # Packed at least half as wide as hexagons would be, whose spacing is sqrt(8 pi / (sqrt(3) count)).
    assert distance.min() > 0.5 * math.sqrt(8 * math.pi / (math.sqrt(3) * count))


def test_covering_angle_of_the_cube():
    # The emptiest points are the corners, at acos(1 / sqrt 3); the grid is 2 degrees wide.
    assert directions.covering_angle(directions.cube_faces()) == pytest.approx(54.7356, abs=1.5)
    assert directions.covering_angle(directions.cube_faces()) >= 54.7356


def test_yaw_turns_ahead_to_the_left():
    turned = directions.yaw(math.pi / 2) @ torch.tensor([1.0, 0, 0])
    assert torch.allclose(turned, torch.tensor([0.0, 1, 0]), atol=1e-7)
    assert directions.yaw(torch.zeros(4, 2)).shape == (4, 2, 3, 3)
