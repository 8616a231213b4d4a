"""Figures and pictures of quality on results whose flaws are planted."""

import json
import math

import pytest
import torch

from immersivedepth.geometry import sphere
from immersivedepth.scene import Geometry
from immersivedepth.stages import quality


def _geometry(height: int = 64, **more: object) -> Geometry:
    distance = 2 + sphere.erp_rays(height, 2 * height)[None, ..., 0]
    mask = torch.ones(1, height, 2 * height, dtype=torch.bool)
    return Geometry(**{"distance": distance, "mask": mask, "spread": torch.full_like(distance, 0.01), **more})


def test_a_smooth_sphere_has_no_seam_and_one_value_at_each_pole():
    figures = quality.figures(_geometry())
    assert figures["coverage"] == pytest.approx(1, abs=1e-6)
    assert figures["seam"] < 1e-4  # third differences of a smooth function
    assert max(figures["poles"].values()) < 0.01  # half a pixel from the pole, the rays still differ
    assert figures["spread"] == {"mean": 0.01, "median": 0.01, "p95": 0.01}
    assert figures["advice"] == []
    json.dumps(figures)


def test_a_step_at_the_seam_is_seen():
    distance = _geometry().distance * torch.linspace(1, 1.05, 128)
    assert quality.figures(_geometry(distance=distance))["seam"] == pytest.approx(math.log(1.05), rel=0.02)


def test_a_torn_pole_is_seen():
    distance = _geometry().distance.clone()
    distance[0, 0, :64] *= 1.2
    poles = quality.figures(_geometry(distance=distance))["poles"]
    assert poles["top"] == pytest.approx(math.log(1.2) / 2, rel=0.02)
    assert poles["bottom"] < 0.01


def test_coverage_counts_area_and_spread_its_quantiles():
    mask = torch.ones(1, 64, 128, dtype=torch.bool)
    mask[:, :32] = False
    spread = torch.full((1, 64, 128), 0.01)
    spread[:, 40:] = 0.5
    figures = quality.figures(_geometry(mask=mask, spread=spread))
    assert figures["coverage"] == pytest.approx(0.5, abs=1e-6)
    assert figures["spread"]["p95"] == pytest.approx(0.5)
    assert any("unknown" in line for line in figures["advice"])
    assert any("disagree" in line for line in figures["advice"])


def test_the_odd_view_is_named():
    views = [{"residual": 0.01}] * 4 + [{"residual": 0.2}, {"residual": None}]
    report = {"views": views, "notes": ["a prior was used"]}
    assert quality.figures(_geometry(report=report))["advice"] == [
        "a prior was used",
        "views [4] do not agree with their neighbours",
    ]


def test_pictures_show_spread_and_what_is_known():
    sky = torch.zeros(1, 64, 128, dtype=torch.bool)
    sky[:, :10] = True
    spread = torch.zeros(1, 64, 128)
    spread[:, 20:] = 1.0
    pictures = quality.pictures(_geometry(mask=~sky, sky=sky, spread=spread))
    assert pictures["coverage"][:, 0, 0].tolist() == [0, 0, 255]
    assert pictures["coverage"][:, 30, 0].tolist() == [255, 255, 255]
    assert pictures["spread"][:, 5, 0].tolist() == [0, 0, 0]
    assert pictures["spread"][:, 30, 0].tolist() == [255, 255, 0]
