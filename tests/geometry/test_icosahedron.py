import math

import pytest
import torch

from immersivedepth.geometry import icosahedron


def test_the_order_is_pinned():
    # Files and reports number the views; the order must never change. Longitude and latitude in degrees.
    centres = icosahedron.face_centres()
    longitude = torch.rad2deg(torch.atan2(centres[:, 1], centres[:, 0]))
    latitude = torch.rad2deg(torch.asin(centres[:, 2]))
    high, low = 52.6226, 10.8123
    assert latitude.tolist() == pytest.approx([high] * 5 + [low] * 5 + [-low] * 5 + [-high] * 5, abs=1e-3)
    even, odd = [0, 72, 144, 216, 288], [36, 108, 180, 252, 324]
    assert [round(a) % 360 for a in longitude.tolist()] == [*even, *even, *odd, *odd]


def test_every_face_has_three_neighbours_and_one_opposite():
    cosine = icosahedron.face_centres().double() @ icosahedron.face_centres().double().T
    angle = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
    edge = 41.8103  # between the centres of neighbouring faces, 180 minus the dihedral angle
    assert ((angle - edge).abs() < 1e-2).sum(1).tolist() == [3] * 20
    assert ((angle - 180).abs() < 0.1).sum(1).tolist() == [1] * 20


def test_the_corner_of_a_face():
    # The corner is the vertex straight up: as far from the five highest centres as CORNER says.
    assert pytest.approx(90 - 52.6226, abs=1e-3) == icosahedron.CORNER


def test_ring_fields_of_view():
    fovs = [icosahedron.ring_fov(ratio) for ratio in icosahedron.RING_RATIOS]
    assert [round(f, 1) for f in fovs] == [80.1, 93.8, 104.8]
    assert math.isclose(icosahedron.ring_fov(1), 2 * icosahedron.CORNER)
