"""The library's front door: three lines of Python."""

import pytest

import immersivedepth
from immersivedepth.checks import ConfigError, InputError

SMALL = ["dataset.image_resize=[128,64]", "project.resolution=48"]


def test_the_sample_from_python():
    geometry = immersivedepth.estimate(overrides=SMALL)
    assert geometry.distance.shape == geometry.mask.shape == (1, 64, 128)
    assert geometry.normal.shape == (3, 64, 128)
    assert geometry.mask.float().mean() > 0.8


def test_errors_are_exceptions_from_python():
    with pytest.raises(InputError, match=r"nowhere\.png"):
        immersivedepth.estimate("nowhere.png", SMALL)
    with pytest.raises(ConfigError, match="segment.edge_ratio"):
        immersivedepth.estimate(overrides=["segment.edge_ratio=-1"])
    with pytest.raises(AttributeError, match="estimat"):
        _ = immersivedepth.estimat
