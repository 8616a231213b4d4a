"""The networks that come with the package: their files, and what they are worth."""

import pytest
import torch

from benchmarks import bundled
from immersivedepth.checks import ConfigError
from immersivedepth.config import build, compose
from immersivedepth.pipeline import assemble
from immersivedepth.weights import REGISTRY, Weights, fetch, read
from immersivedepth.weights.finding import BUNDLED

NAMES = ["depth_anything_v2_vitt", "midas_tiny", "whole_sphere"]


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_whole_small_and_half_precision_and_found_without_a_network(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("IMMERSIVEDEPTH_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    path = fetch(name, settings=Weights(offline=True))  # compares size and SHA-256
    assert path.parent == BUNDLED
    assert path.stat().st_size < 12e6
    assert REGISTRY[name].licence == "MIT"
    assert {t.dtype for t in read(path).values() if t.is_floating_point()} == {torch.float16}
    assert (BUNDLED / f"{name}.md").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_what_ships_was_packed_on_even_grids(name):
    for value in read(BUNDLED / f"{name}.safetensors").values():
        if value.ndim in (2, 4):
            assert torch.equal(bundled.evened(value.float()).half(), value)


def test_even_grids_stay_within_half_a_step_of_the_largest_weight():
    weights = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    largest = weights.flatten(1).abs().amax(1).view(5, 1, 1, 1)
    found = bundled.evened(weights)
    assert ((found - weights).abs() <= largest / 128 * 1.0001).all()
    assert all(len(row.unique()) <= 257 for row in found.flatten(1))
    assert torch.equal(bundled.evened(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_the_default_run_looks_with_all_of_them():
    assert list(compose()["predict"]) == ["bundled_dav2", "bundled_midas"]
    assert list(compose()["refine"]) == ["normals", "whole_sphere"]


# AbsRel, middle relative error, delta1 when the weights were packed.
FIGURES = {"room": (0.1546, 0.0304, 0.9148), "outdoor": (0.3025, 0.0238, 0.7268)}


ROWS = ("both", "both, not aligned", "views of both")


@pytest.mark.parametrize("kind", ["room", "outdoor"])
def test_figures_on_a_small_fixed_set(kind):
    rule, found = bundled.protocol(), []
    small = ["project.resolution=128", "export=[]"]
    lines = {name: assemble(compose("config", [*bundled.ROWS[name], *small])) for name in ROWS}
    for panorama in bundled.worlds(kind, 2, 128):
        with torch.inference_mode():
            truth, limit = panorama.about["distance"], bundled.LIMITS[kind]
            found.append({n: bundled.judged(p(panorama), truth, rule, limit) for n, p in lines.items()})
    mean = {k: sum(f["both"][k] for f in found) / len(found) for k in ("abs_rel", "median", "delta1")}
    abs_rel, median, delta = FIGURES[kind]
    assert mean["abs_rel"] < 1.1 * abs_rel
    assert mean["median"] < 1.1 * median
    assert mean["delta1"] > delta - 0.03
    apart = sum(f["both, not aligned"]["median"] for f in found) / len(found)
    assert mean["median"] < 0.9 * apart  # aligning helps
    views = {k: sum(f["views of both"][k] for f in found) / len(found) for k in ("median", "delta1")}
    assert mean["median"] < 0.6 * views["median"]  # so does mending the whole
    assert mean["delta1"] > views["delta1"] + 0.03
    up = {k: sum(f["both"][k] for f in found) / len(found) for k in ("sky", "false_sky")}
    assert up["sky"] > (0.65 if kind == "room" else 0.8)  # the sky is found, behind windows too
    assert up["false_sky"] < 0.01


def test_a_view_of_a_floor_is_nearer_below():
    """The least that a network of depth has to know."""
    (panorama,) = bundled.worlds("room", 1, 128)
    config = compose("config", ["project=cube", "project.resolution=128", "export=[]"])
    views = build(config["project"], "project")(panorama)
    for node in config["predict"].values():
        values = build(node, "predict")(views).values[:4, 0]  # the four level views
        below, middle = values[:, -20:].mean((1, 2)), values[:, 54:74].mean((1, 2))
        assert (below > middle).all()


def test_sky_is_what_lies_below_a_disparity_and_nothing_without_one():
    (panorama,) = bundled.worlds("outdoor", 1, 64)
    for name in ("bundled_dav2", "bundled_midas"):
        config = compose("config", [f"predict=[{name}]", "project=cube", "project.resolution=64", "export=[]"])
        views, node = build(config["project"], "project")(panorama), dict(config["predict"][name])
        found = build(node, "predict")(views)
        assert torch.equal(found.sky, found.values < 0.001)
        assert found.sky.any()
        assert not found.sky.all()
        node["sky_below"] = None
        assert build(node, "predict")(views).sky is None


def test_distances_have_no_sky_below_a_disparity():
    given = ["predict=[depth_anything_v2_outdoor]", "predict.depth_anything_v2.sky_below=0.1"]
    with pytest.raises(ConfigError, match="sky_below is for disparities"):
        build(compose("config", given)["predict"]["depth_anything_v2"], "predict")
