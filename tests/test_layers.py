"""Who may import whom. The order of LAYERS is the architecture; forbidden words are forbidden everywhere.

What no line may read, write or run stands in tests/faults/test_gates.py.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A module may import those of earlier lines, never its own line, unless it is in the same folder.
LAYERS = [
    {"checks"},
    {"scene", "files", "memory", "hardware"},
    {"geometry", "weights", "config"},
    {"losses", "visual"},
    {"metrics"},
    {"nets", "data"},
    {"render"},
    {"stages"},
    {"pipeline", "runs", "command_line"},
    {"training"},
    {"systems"},
    {"batch"},
    {"dense", "evaluation"},
    {"viewer", "field"},
    {"app"},
]
RANK = {name: i for i, layer in enumerate(LAYERS) for name in layer}
NETWORKS = {"midas", "depth_anything_v2"}
CODE = sorted(p for folder in ("immersivedepth", *NETWORKS) for p in (ROOT / folder).rglob("*.py"))
FORBIDDEN = {
    "moves to CUDA by name": r"\.cuda\(\)",
    "changes a default for everybody": r"set_default_(dtype|tensor_type|device)",
    "imports everything": r"^\s*from \S+ import \*",
    "uses numpy's global random numbers": r"np\.random\.(seed|rand\w*|uniform|normal|shuffle|choice)\(",
    "squeezes without naming an axis": r"\.squeeze\(\)",
    "names a machine's path": r"""["'](/home|/root|/work|/tmp|/opt|[A-Z]:\\)""",
}


def imports(path: Path):
    """Dotted names that a file imports, made absolute."""
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (tuple(a.name.split(".")) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: -node.level] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            yield from ((*base, a.name) for a in node.names)


def part(path: Path) -> str:
    inside = path.relative_to(ROOT / "immersivedepth").parts
    return inside[0].removesuffix(".py")


@pytest.mark.parametrize("path", [p for p in CODE if "immersivedepth" in p.parts], ids=lambda p: "/".join(p.parts[-2:]))
def test_imports_point_down(path):
    here = part(path)
    if here == "__init__":
        return
    for name in imports(path):
        if name[0] == "immersivedepth" and len(name) > 1 and name[1] != here:
            assert RANK[name[1]] < RANK[here], f"{here} must not import {'.'.join(name)}"
        if name[0] in NETWORKS:
            # The networks are used by predictors, and trained by systems.
            allowed = [ROOT / "immersivedepth" / folder for folder in ("stages/predict", "systems")]
            assert path.parent in allowed, f"only stages/predict and systems may import {name[0]}"


@pytest.mark.parametrize(
    "path", [p for p in CODE if "immersivedepth" not in p.parts], ids=lambda p: "/".join(p.parts[-2:])
)
def test_networks_know_nothing_of_us(path):
    own = path.relative_to(ROOT).parts[0]
    for name in imports(path):
        assert name[0] not in {"immersivedepth", *NETWORKS} - {own}, f"{own} must not import {name[0]}"


def test_every_module_has_a_layer():
    names = {part(p) for p in CODE if "immersivedepth" in p.parts} - {"__init__"}
    assert names <= RANK.keys(), f"no layer is stated for {names - RANK.keys()}"


@pytest.mark.parametrize("reason", FORBIDDEN)
def test_forbidden(reason):
    pattern = re.compile(FORBIDDEN[reason], re.MULTILINE)
    offences = [str(p.relative_to(ROOT)) for p in CODE if pattern.search(p.read_text())]
    assert not offences, f"{offences} {reason}"


def calls(path: Path, *names: str):
    """Lines of calls to functions such as print."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
            yield node


def test_nothing_prints_but_the_command_line():
    for path in CODE:
        for call in calls(path, "print"):
            pytest.fail(f"{path}:{call.lineno} prints; use logging")
