"""The networks that come with the package: their files, and what they are worth."""

import pytest
import torch

from benchmarks import bundled
from immersivedepth.config import build, compose
from immersivedepth.pipeline import assemble
from immersivedepth.weights import REGISTRY, Weights, fetch, read
from immersivedepth.weights.finding import BUNDLED

NAMES = ["depth_anything_v2_vitt", "midas_tiny"]


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


def test_the_default_run_looks_with_both_of_them():
    assert list(compose()["predict"]) == ["bundled_dav2", "bundled_midas"]


# AbsRel, middle relative error, delta1 when the weights were packed.
FIGURES = {"room": (0.4122, 0.105, 0.6889), "outdoor": (0.5488, 0.1079, 0.6391)}


@pytest.mark.parametrize("kind", ["room", "outdoor"])
def test_figures_on_a_small_fixed_set(kind):
    rule, found = bundled.protocol(), []
    small = ["project.resolution=128", "export=[]"]
    lines = {name: assemble(compose("config", [*bundled.ROWS[name], *small])) for name in ("both", "both, not aligned")}
    for panorama in bundled.worlds(kind, 2, 128):
        with torch.inference_mode():
            found.append({n: bundled.judged(p(panorama), panorama.about["distance"], rule) for n, p in lines.items()})
    mean = {k: sum(f["both"][k] for f in found) / len(found) for k in ("abs_rel", "median", "delta1")}
    abs_rel, median, delta = FIGURES[kind]
    assert mean["abs_rel"] < 1.1 * abs_rel
    assert mean["median"] < 1.1 * median
    assert mean["delta1"] > delta - 0.03
    apart = sum(f["both, not aligned"]["median"] for f in found) / len(found)
    assert mean["median"] < 0.8 * apart  # aligning helps


def test_a_view_of_a_floor_is_nearer_below():
    """The least that a network of depth has to know."""
    (panorama,) = bundled.worlds("room", 1, 128)
    config = compose("config", ["project=cube", "project.resolution=128", "export=[]"])
    views = build(config["project"], "project")(panorama)
    for node in config["predict"].values():
        values = build(node, "predict")(views).values[:4, 0]  # the four level views
        below, middle = values[:, -20:].mean((1, 2)), values[:, 54:74].mean((1, 2))
        assert (below > middle).all()
