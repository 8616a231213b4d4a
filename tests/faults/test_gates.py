"""What no line of the program may do: read, write and load by other doors than the one, or run what it was given.

Names are followed through imports, so that `from os import system as s` is found where `os.system` is looked for.
Every gate is shown to close, on a line that breaks it.
"""

import ast
import functools
import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [p for folder in ("immersivedepth", "midas", "depth_anything_v2") for p in (ROOT / folder).rglob("*.py")]
FILES += [ROOT / "core_exp_runner.py", *(ROOT / "spaces").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
CODE = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in sorted(FILES)}
PRODUCT = {name: tree for name, tree in CODE.items() if not name.startswith("benchmarks/")}


def names_of(tree, name):
    """What each name of a module stands for, where an import says it."""
    found, package = {}, name.removesuffix(".py").split("/")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                base = package[: -node.level] if node.level else []
                found[alias.asname or alias.name] = ".".join([*base, *filter(None, [node.module]), alias.name])
    return found


def dotted(node, names):
    """The full name of a function that is called; a method of an unknown thing begins with a point."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        base = dotted(node.value, names)
        return f"{base}.{node.attr}"
    return ""


@functools.cache
def calls(tree, name):
    """Every call of a module, with its full name."""
    names = names_of(tree, name)
    return [(dotted(node.func, names), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def keyword(call, name):
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


def starts(name, *prefixes):
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


# --- The gates: each yields the lines of a module that break it

READERS = (
    "cv2.imread", "cv2.imreadmulti", "cv2.imdecode", "cv2.VideoCapture", "PIL.Image.open", "OpenEXR.File",
    "OpenEXR.InputFile", "cv2.imwrite", "OpenEXR.OutputFile",
    "imageio", "tifffile", "skimage.io", "matplotlib.image", "torchvision.io", "rasterio", "pyvips",
)  # fmt: skip
UNPICKLERS = (
    "torch.load", "torch.jit.load", "torch.package", "safetensors.torch.load_file", "safetensors.torch.load",
    "safetensors.safe_open", "joblib.load",
)  # fmt: skip
PICKLES = (
    "pickle",
    "_pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "marshal",
    "shelve",
    "joblib",
    "jsonpickle",
    "torch.package",
)
RUNNERS = (
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.execve", "os.spawnv", "runpy",
    "code.interact", "torch.hub.load", "torch.hub.download_url_to_file", "torch.hub.load_state_dict_from_url",
    "tempfile.mktemp", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all",
    "ssl._create_unverified_context", "numpy.testing.rundocs", "sympy.sympify", "xml.etree.ElementTree.parse",
    "xml.etree.ElementTree.fromstring", "xml.dom.minidom.parse", "xml.dom.minidom.parseString", "xml.sax.parse",
)  # fmt: skip
BUILDERS = (
    "hydra.utils.instantiate", "hydra.utils.call", "hydra.utils.get_class", "hydra.utils.get_method",
    "hydra.utils.get_object", "hydra._internal.instantiate",
)  # fmt: skip
WRITERS = (
    "numpy.save", "numpy.savez", "numpy.savez_compressed", "torch.save", "safetensors.torch.save_file",
    "json.dump", "shutil.copy", "shutil.copy2", "shutil.copyfile", "shutil.move", "os.rename",
    "os.replace", "zipfile.ZipFile", "tarfile.open", "gzip.open", "av.open", "cv2.imwrite", "cv2.VideoWriter",
    "OpenEXR.OutputFile",
)  # fmt: skip
WRITING_METHODS = (
    "write_text",
    "write_bytes",
    "tofile",
    "touch",
    "rename",
    "symlink_to",
    "hardlink_to",
    "replace_with",
)
# Who else may write, and why.
OWN_WRITING = {
    ("immersivedepth/training/records.py", "self._lines.open"): "a log that grows; torn last lines are dropped",
    ("immersivedepth/weights/download.py", "self.temporary.open"): "a download that goes on; renamed once verified",
    ("immersivedepth/weights/download.py", ".open"): "an empty file to lock",
    ("immersivedepth/app/work.py", "shutil.copyfile"): "uploads, into the folder of a run that nobody continues",
}
OWN_IMPORTS = (
    "immersivedepth/config.py",
    "midas/__init__.py",
    "immersivedepth/data/making/__init__.py",
)  # of ourselves


def images(name, tree):
    for called, node in calls(tree, name):
        if starts(called, *READERS) and not name.startswith("immersivedepth/data/images/"):
            yield node.lineno, called


def weights(name, tree):
    for called, node in calls(tree, name):
        if starts(called, *UNPICKLERS) and not name.startswith("immersivedepth/weights/"):
            yield node.lineno, called
        if starts(called, "torch.load") and keyword(node, "weights_only") != "True":
            yield node.lineno, f"{called} without weights_only=True"


def nothing_runs(name, tree):
    for module in imported(tree):
        if starts(module, *PICKLES):
            yield 0, f"imports {module}"
    for called, node in calls(tree, name):
        if starts(called, *RUNNERS) or called.endswith(".run_module"):
            yield node.lineno, called
        for argument in ("allow_pickle", "trust_remote_code", "shell"):
            if keyword(node, argument) not in (None, "False"):
                yield node.lineno, f"{called}({argument}={keyword(node, argument)})"
        if keyword(node, "verify") == "False" or keyword(node, "weights_only") == "False":
            yield node.lineno, f"{called} unsafe"


def building(name, tree):
    for called, node in calls(tree, name):
        if starts(called, *BUILDERS):
            yield node.lineno, called
        if starts(called, "importlib.import_module") and name not in OWN_IMPORTS:
            yield node.lineno, called


def opened_to_write(called, node):
    """Whether a call opens a file for writing."""
    if called == "open" or called.endswith((".open", ".fdopen")):
        at = 1 if called in ("open", "io.open", "os.fdopen", "zipfile.ZipFile") else 0
        mode = keyword(node, "mode") or (ast.unparse(node.args[at]) if len(node.args) > at else "'r'")
        return mode.startswith(("'", '"')) and any(letter in mode for letter in "wax+")
    return False


def inside(tree, *contexts):
    """Lines within `with atomic(...)` and the like."""
    for node in ast.walk(tree):
        if isinstance(node, ast.With) and any(
            isinstance(item.context_expr, ast.Call) and ast.unparse(item.context_expr.func).split(".")[-1] in contexts
            for item in node.items
        ):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)


def in_memory(tree):
    """Names that stand for files in memory."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.value) in ("io.BytesIO()", "io.StringIO()"):
            yield from (ast.unparse(target) for target in node.targets)


def writing(name, tree):
    if name == "immersivedepth/files.py":  # the one writer itself
        return
    safe, memory = set(inside(tree, "atomic")), set(in_memory(tree))
    for called, node in calls(tree, name):
        method = called.rpartition(".")[2]
        writes = (
            starts(called, *WRITERS)
            or opened_to_write(called, node)
            or ("." in called and method in WRITING_METHODS and not called.startswith("immersivedepth."))
        )
        if called in ("zipfile.ZipFile", "av.open", "tarfile.open", "gzip.open"):
            writes = len(node.args) > 1 and ast.unparse(node.args[1])[1:2] in ("w", "a", "x")
        writes = writes and not (node.args and ast.unparse(node.args[0]) in memory)
        if writes and node.lineno not in safe and (name, called) not in OWN_WRITING:
            yield node.lineno, called


GATES = {
    "one reader of images": (images, PRODUCT),
    "one reader of weights": (weights, CODE),
    "nothing is run or unpickled": (nothing_runs, CODE),
    "one builder of objects": (building, PRODUCT),
    "one writer of files": (writing, PRODUCT),
}


@pytest.mark.parametrize("gate", GATES)
def test_no_line_breaks_a_gate(gate):
    check, modules = GATES[gate]
    broken = [f"{name}:{line} {what}" for name, tree in modules.items() for line, what in check(name, tree)]
    assert not broken, "\n".join(broken)


OFFENCES = {
    "one reader of images": [
        "import cv2 as c; c.imread('a')", "from PIL import Image; Image.open('a')", "import cv2; cv2.imdecode(b, 1)",
        "from PIL.Image import open as o; o('a')",
        "import OpenEXR; OpenEXR.File('a')", "import imageio.v3 as iio; iio.imread('a')",
    ],
    "one reader of weights": [
        "import torch; torch.load('a', weights_only=True)", "from safetensors.torch import load_file as l; l('a')",
        "from safetensors import safe_open; safe_open('a')", "import torch as t; t.jit.load('a')",
    ],
    "nothing is run or unpickled": [
        "import pickle", "from pickle import loads", "import joblib", "eval('1')", "exec('1')",
        "compile('1', '', 'exec')",
        "from os import system as s; s('ls')", "import numpy as np; np.load('a', allow_pickle=True)",
        "import subprocess; subprocess.run('ls', shell=True)", "import yaml; yaml.load('a')", "__import__('os')",
        "from torch.hub import load as h; h('a')", "import torch; torch.load('a', weights_only=False)",
        "m.from_pretrained('a', trust_remote_code=True)", "import xml.etree.ElementTree as E; E.parse('a')",
    ],
    "one builder of objects": [
        "from hydra.utils import instantiate as i; i(c)", "import hydra; hydra.utils.instantiate(c)",
        "import importlib; importlib.import_module(x)",
    ],
    "one writer of files": [
        "open('a', 'w')", "open('a', mode='ab')", "from pathlib import Path; Path('a').open('x')", "p.write_text('a')",
        "import numpy as np; np.save('a', x)", "from torch import save; save(x, 'a')",
        "import shutil as s; s.copy('a', 'b')",
        "import zipfile; zipfile.ZipFile('a', 'w')", "import os; os.replace('a', 'b')", "open('a', 'r+')",
    ],
}  # fmt: skip


@pytest.mark.parametrize("gate", GATES)
def test_every_gate_closes(gate):
    for line in OFFENCES[gate]:
        assert list(GATES[gate][0]("immersivedepth/some.py", ast.parse(line))), line


def test_the_safe_ways_pass():
    safe = """
from immersivedepth.files import atomic, write_text
write_text(path, "a")
with atomic(path) as temporary, temporary.open("wb") as handle:
    handle.write(b"a")
open("a"), open("a", "rb"), path.open(), yaml.safe_load(text), np.load("a", allow_pickle=False), re.compile("a")
"""
    for check, _ in GATES.values():
        assert not list(check("immersivedepth/some.py", ast.parse(safe))), check


def test_the_exceptions_are_still_needed():
    """An exception that nobody uses any more goes."""
    used = {(name, called) for name, tree in PRODUCT.items() for called, _ in calls(tree, name)}
    assert OWN_WRITING.keys() <= used
    assert set(OWN_IMPORTS) == {
        name for name, tree in PRODUCT.items() if any(c == "importlib.import_module" for c, _ in calls(tree, name))
    }


# --- The audit of the packages that are installed


@pytest.fixture
def audit():
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(vulnerabilities, code=1):
    found = [
        {"name": "torch", "version": "1.0", "vulns": vulnerabilities},
        {"name": "numpy", "version": "2.0", "vulns": []},
    ]
    return subprocess.CompletedProcess([], code, json.dumps({"dependencies": found, "fixes": []}), "")


@pytest.mark.parametrize(
    ("found", "code", "words"),
    [
        (answer([], 0), 0, "2 packages, no known vulnerability"),
        (
            answer([{"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": [], "description": ""}]),
            1,
            "torch 1.0: PYSEC-1, mended in 1.1",
        ),
        (
            answer([{"id": "PYSEC-2", "fix_versions": [], "aliases": [], "description": ""}]),
            0,
            "PYSEC-2, not mended yet",
        ),
        (
            subprocess.CompletedProcess([], 1, "", "ConnectionError: no route\n"),
            0,
            "not audited: ConnectionError: no route",
        ),
        (subprocess.CompletedProcess([], 1, "", "/x/python: No module named pip_audit\n"), 0, "not audited"),
        (subprocess.CompletedProcess([], 1, "[1, 2]", ""), 0, "not audited"),
        (subprocess.TimeoutExpired("pip-audit", 300), 0, "not audited"),
        (OSError("no such file"), 0, "not audited"),
    ],
    ids=["good", "mended", "not mended", "no network", "not installed", "another format", "slow", "no python"],
)
def test_the_audit_fails_for_what_can_be_mended_alone(audit, monkeypatch, capsys, found, code, words):
    def run(*arguments, **options):
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(audit.subprocess, "run", run)
    assert audit.main() == code
    assert words in capsys.readouterr().out


def test_continuous_integration_audits():
    assert "make audit" in (ROOT / ".ci" / "run").read_text()
    assert ".ci/audit.py" in (ROOT / "Makefile").read_text()
