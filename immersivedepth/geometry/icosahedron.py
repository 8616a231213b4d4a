"""The icosahedron whose twenty faces the views look at."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

CORNER = math.degrees(math.atan(3 - math.sqrt(5)))  # angle from the centre of a face to its corners, 37.377 degrees
RING_RATIOS = (1.1, 1.4, 1.7)  # half fields of view of PeRF's sixty views, as multiples of the face circumradius


def ring_fov(ratio: float) -> float:
    """Field of view in degrees whose half tangent is `ratio` times the circumradius of the face."""
    return 2 * math.degrees(math.atan(ratio * math.tan(math.radians(CORNER))))


def face_centres() -> Tensor:  # [20, 3]
    """Unit directions, five in each of four rings from north to south, each ring from +x towards +y."""
    golden = (1 + math.sqrt(5)) / 2
    points: list[tuple[float, ...]] = list(itertools.product((-1, 1), repeat=3))
    for a, b in itertools.product((-1, 1), repeat=2):
        points += [(0, a / golden, b * golden), (a / golden, b * golden, 0), (a * golden, 0, b / golden)]
    # These are the vertices of a dodecahedron, the dual solid; turn one of its faces to +z.
    tilt = math.atan(1 / golden)
    turn = torch.tensor(
        [[math.cos(tilt), 0, -math.sin(tilt)], [0, 1, 0], [math.sin(tilt), 0, math.cos(tilt)]], dtype=torch.float64
    )
    centres = F.normalize(torch.tensor(points, dtype=torch.float64), dim=-1) @ turn.T
    ring = (-centres[:, 2] * 1000).round()
    around = torch.atan2(centres[:, 1], centres[:, 0]).remainder(2 * math.pi - 1e-6)
    return centres[(ring * 10 + around).argsort()].float()
