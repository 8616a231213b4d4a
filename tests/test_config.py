"""The config door: what it builds, what it refuses, and in which words."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from omegaconf import OmegaConf

from immersivedepth.checks import ConfigError, Range
from immersivedepth.config import build, check_targets, misfit, nearest, resolve
from immersivedepth.stages.export.arrays import Arrays
from immersivedepth.stages.segment.valid_geometry import ValidGeometry

TARGET = "immersivedepth.stages.segment.valid_geometry.ValidGeometry"


def test_builds_a_stage_with_plain_values():
    stage = build(OmegaConf.create({"_target_": TARGET, "edge_ratio": 2}))
    assert stage == ValidGeometry(edge_ratio=2.0)
    assert type(stage.edge_ratio) is float


def test_lists_become_tuples_and_mappings_stay():
    built = build({"a": {"_target_": "immersivedepth.stages.export.arrays.Arrays", "formats": ["npy"]}, "b": [1, 2]})
    assert built == {"a": Arrays(formats=("npy",)), "b": [1, 2]}


def test_records_inside_a_stage_stand_without_a_target():
    target = "immersivedepth.stages.align.global_affine.GlobalAffine"
    built = build({"_target_": target, "anchors": {"camera_height": 2, "points": [[0, 1, 2]]}})
    assert built.anchors.camera_height == 2.0
    assert built.anchors.points == [[0, 1, 2]]
    with pytest.raises(ConfigError, match="align.anchors.camera_hight is not a key; did you mean"):
        build({"_target_": target, "anchors": {"camera_hight": 2}}, "align")


def test_partial_of_a_function():
    build({"_target_": "immersivedepth.metrics.abs_rel", "_partial_": True})
    with pytest.raises(ConfigError, match="never called"):
        build({"_target_": "immersivedepth.metrics.abs_rel"})


HOSTILE = [
    "os.system",
    "subprocess.run",
    "builtins.eval",
    "builtins.open",
    "pathlib.Path.unlink",
    "shutil.rmtree",
    "torch.load",
    "torch.hub.load",
    "numpy.load",
    "immersivedepth",
    "immersivedepth.config.os.system",
    "immersivedepth.runs.Path",
    "immersivedepthx.stages.a.B",
    "",
    None,
    3,
    ["os.system"],
]


@pytest.mark.parametrize("target", HOSTILE, ids=str)
@pytest.mark.parametrize("wrap", ["plain", "list", "nested", "partial", "deep list"])
def test_foreign_targets_are_refused_by_path(target, wrap, tmp_path):
    node = {"_target_": target, "command": f"touch {tmp_path / 'canary'}"}
    tree, path = {
        "plain": (node, "align"),
        "list": ([1, node], "align.1"),
        "nested": ({"inner": node}, "align.inner"),
        "partial": ({**node, "_partial_": True}, "align"),
        "deep list": ({"a": [[{"b": node}]]}, "align.a.0.0.b"),
    }[wrap]
    with pytest.raises(ConfigError) as error:
        build(tree, "align")
    assert str(error.value).startswith(f"{path}: _target_")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "target",
    [
        "immersivedepth.data.os.system",
        "immersivedepth.stages.export.arrays.Path",  # a class, but re-exported
        "immersivedepth.stages.export.arrays.images.read_image",
        "immersivedepth.stages.export.arrays.json",
        "torch.optim.lr_scheduler.partial",
        "immersivedepth.stages.nothing.Here",
    ],
)
def test_names_behind_a_trusted_prefix_must_live_there(target):
    with pytest.raises(ConfigError, match="_target_"):
        build({"_target_": target})


@pytest.mark.parametrize(
    "node",
    [
        {"a": "${b}", "b": {"_target_": "os.system"}},
        {"a": {"_target_": "${b}"}, "b": "os.system"},
        {"a": "${oc.create:'{_target_: os.system, command: true}'}"},
    ],
)
def test_interpolations_are_followed_before_the_check(node):
    with pytest.raises(ConfigError, match="os.system"):
        build(OmegaConf.create(node))


def test_an_escaped_interpolation_stays_text():
    node = OmegaConf.create({"a": r"\${oc.create:'{_target_: os.system}'}", "b": 1})
    assert build(node)["a"] == "${oc.create:'{_target_: os.system}'}"


def test_nothing_is_imported_before_its_name_passed(monkeypatch):
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"imported {name}"))
    with pytest.raises(ConfigError):
        build({"first": {"_target_": TARGET}, "second": {"_target_": "antigravity.fly"}})


def test_users_may_trust_their_own_package(monkeypatch):
    monkeypatch.setenv("IMMERSIVEDEPTH_TRUST", "argparse.")
    built = build({"_target_": "argparse.Namespace"})
    assert type(built).__name__ == "Namespace"
    monkeypatch.delenv("IMMERSIVEDEPTH_TRUST")
    with pytest.raises(ConfigError):
        check_targets({"_target_": "argparse.Namespace"})


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"edge_ration": 2}, "segment.edge_ration is not a key; did you mean segment.edge_ratio"),
        ({"edge_ratio": "abc"}, "segment.edge_ratio='abc': expected a number"),
        ({"edge_ratio": math.nan}, "not nan"),
        ({"edge_ratio": -1}, "at least 1"),
        ({"edge_ratio": None}, "expected a number"),
        ({"edge_ratio": True}, "expected a number"),
        ({"_recursive_": False}, "segment._recursive_"),
        ({"_args_": [1]}, "segment._args_"),
    ],
)
def test_values_are_refused_by_key(overrides, words):
    with pytest.raises(ConfigError) as error:
        build({"_target_": TARGET, **overrides}, "segment")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        (1, int, True),
        (1.0, int, False),
        (True, int, False),
        (1, float, True),
        ("1", float, False),
        (math.inf, float, True),
        (math.nan, float, False),
        (None, int | None, True),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        (1, Literal[True], False),
        ([1, 2], tuple[int, int], True),
        ([1], tuple[int, int], False),
        ([1, "a"], list[int], False),
        ([], list[int], True),
        ([1, 2, 3], tuple[int, ...], True),
        ({"a": 1}, dict[str, int], True),
        ({"a": "x"}, dict[str, int], False),
        (5, Annotated[int, Range(1, 5)], True),
        (6, Annotated[int, Range(1, 5)], False),
        (None, Annotated[int, Range(1, 5)] | None, True),
        (0, Annotated[int, Range(1, 5)] | None, False),
        ("x", Path, True),
        (3, Path, False),
        ({"x": 1}, str, False),
        ("anything", Any, True),
    ],
)
def test_misfit(value, hint, fits):
    assert (misfit(value, hint) is None) is fits


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mod": "depth"}, "mod is not a key; did you mean mode?"),
        ({"seed": -1}, "seed=-1: expected a whole number from 0"),
        ({"seed": "x"}, "seed='x'"),
        ({"exp_name": "../up"}, "exp_name"),
        ({"exp_name": ""}, "exp_name"),
        ({"device": {"base_exp_dir": "x", "kinds": "cpu"}}, "device.kinds is not a key; did you mean device.kind?"),
        ({"device": {"kind": "tpu"}}, "device.kind='tpu': expected one of auto, cpu, cuda, mps"),
        ({"device": {"threads": 0}}, "device.threads=0"),
        ({"device": {"base_exp_dir": ""}}, "device.base_exp_dir"),
        ({"is_continue": "maybe"}, "is_continue"),
        ({"mode": "???"}, "mode has no value: set mode=..."),
        ({"exp_name": "${nothing}"}, "exp_name: "),
    ],
)
def test_root(change, words):
    from immersivedepth.config import run_of

    base = {"mode": "depth", "device": {"base_exp_dir": "x"}, "dataset": {}}
    with pytest.raises(ConfigError) as error:
        run_of(resolve(OmegaConf.create({**base, **change})))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_names_that_are_equally_near_are_all_named():
    assert nearest("raes", ["rate", "rays", "steps"], "align.raes") == "; did you mean align.rate or align.rays?"
