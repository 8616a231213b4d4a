"""Configs that are mistyped, out of range, torn or hostile: code 2, one line, and nothing has happened."""

import contextlib
import copy
import dataclasses
import functools
import inspect
import io
import itertools
import math
import operator
import os
import re
import shutil
import sys
import time
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import core_exp_runner
from immersivedepth import command_line, config
from immersivedepth.checks import ConfigError, Range
from immersivedepth.command_line import one_line, preflight
from immersivedepth.pipeline import assemble

from .limited import each_forked

SEVERAL = ("enhance", "predict", "refine", "export")  # names of one's own before the keys of a class
KEY = re.compile(r"^(\s*(?:- )?(?:override )?/?)([A-Za-z_][\w/]*)(\s*:)(?=\s|$)")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SECONDS = 3  # of processor time, for an answer


def chosen(group: str, option: str) -> str:
    return f"{group}=[{option}]" if group in SEVERAL else f"{group}={option}"


def arguments(file: Path) -> list[str]:
    """The command line that reads this YAML."""
    return ["--config-name", file.stem] if len(file.parts) == 1 else [chosen(file.parts[0], file.stem)]


def answer(*given: str) -> tuple[int, str]:
    """Exit code and line for a config, as far as anything but looking at it has to be done."""
    try:
        config.resolve(preflight(list(given)))
    except Exception as error:
        message, code = one_line(error)
        assert "\n" not in message
        return code, message
    return 0, "accepted"


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """A copy of all YAML files, which the program takes for its own."""
    copied = tmp_path / "conf"
    shutil.copytree(config.CONF, copied)
    monkeypatch.setattr(config, "CONF", copied)
    monkeypatch.setattr(command_line, "CONF", copied)
    return copied


@pytest.fixture
def no_models(monkeypatch):
    """Nothing that is looked at may build a network."""
    monkeypatch.setattr(torch.nn.Module, "__init__", lambda *_, **__: pytest.fail("a model was built"))


def mistyped(word: str, random: np.random.Generator) -> str:
    """One letter left out, put in, replaced, or swapped with the next."""
    while True:
        at, letter = int(random.integers(len(word))), LETTERS[int(random.integers(26))]
        head, tail = word[:at], word[at:]
        new = (head + tail[1:], head + letter + tail, head + letter + tail[1:], head + tail[1:2] + tail[:1] + tail[2:])
        word_now = new[int(random.integers(4))]
        if word_now != word and re.fullmatch(r"[A-Za-z_][\w/]*", word_now):
            return word_now


def keys_of(folder: Path) -> list[tuple[Path, int, re.Match]]:
    """Every key of every YAML but the names that are one's own choice: of options, and of the steps of filters."""
    found = []
    for path in sorted(folder.rglob("*.yaml")):
        file = path.relative_to(folder)
        text = named = -1  # how far the heads of a text and of a table of names are indented; -1: not in one
        for number, line in enumerate(path.read_text().splitlines()):
            indent = len(line) - len(line.lstrip())
            if text >= 0 and (indent > text or not line):
                continue
            match, text = KEY.match(line), -1
            if match and indent <= named:
                named = -1
            free = match and (indent == named + 2 if named >= 0 else file.parts[0] in SEVERAL and not indent)
            if match and not free:
                found.append((file, number, match))
            text = indent if line.endswith("|") else -1
            named = indent if match and match[2] == "steps" and line.endswith(":") else named
    return found


def test_every_key_mistyped_by_one_letter(conf, no_models, size, record):
    cases = keys_of(conf)
    picked = range(0, len(cases), size(90, 1))
    slowest, wrong = 0.0, []
    for k in picked:
        file, number, match = cases[k]
        before = (conf / file).read_text()
        word = mistyped(match[2], np.random.default_rng([1, k]))
        lines = before.splitlines()
        lines[number] = match[1] + word + lines[number][match.end(2) :]
        (conf / file).write_text("\n".join(lines) + "\n")
        begun = time.process_time()
        code, line = answer(*arguments(file))
        slowest = max(slowest, time.process_time() - begun)
        (conf / file).write_text(before)
        if code != 2 or word not in line or match[2] not in line.replace(word, "", 1):
            wrong.append((str(file), match[2], word, code, line))
    assert wrong == []
    assert slowest < SECONDS
    record(
        "keys mistyped by one letter", keys=len(picked), refused_by_name=len(picked), slowest_seconds=round(slowest, 2)
    )


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("+device.kicnd=cpu", "device.kicnd is not a key; did you mean device.kind?"),
        ("+hjydra.run.dir=x", "hjydra is not a key; did you mean hydra?"),
        ("hydra/job_loggng=none", "hydra/job_loggng is not a key; did you mean hydra/job_logging?"),
        ("+predict.bundled_dva2.batch_size=1", "did you mean predict.bundled_dav2?"),
        ("+trainer.optimiser.ar=1", "trainer.optimiser.ar is not a key; did you mean trainer.optimiser.lr?"),
        (
            "+fuse.weights.bundled_dva2=2",
            "bundled_dva2: no predictor of that name was chosen; did you mean fuse.weights.bundled_dav2?",
        ),
        ("+fuse.weights.oracle=1", "it can be fuse.weights.bundled_dav2, fuse.weights.bundled_midas"),
        ("+fuse.weights.bundled_dav2=-1", "expected a number at least 0"),
        ("+dataset.lists.vla=x", "dataset.lists.vla is not a key; did you mean dataset.lists.val?"),
    ],
)
def test_names_whose_likeness_is_not_plain(given, line, no_models):
    code, told = answer("system=stereo_3d60", "fuse=weighted_sum", given)
    assert code == 2
    assert line in told


# --- Values

BAD = {"wrong type": {"a": [1]}, "negative": -1, "zero": 0, "nan": math.nan, "huge": 10**30, "missing": "???"}
SIGNED = {"least_log", "height", "last_epoch"}  # a logarithm, a height over the centre, -1 for none
ANY = {"project", "predict", "blend", "steps"}  # stages inside stages: checked by the class that they name


def nodes(tree, path=()):
    if isinstance(tree, dict):
        if "_target_" in tree:
            yield path, tree
        for key, value in tree.items():
            yield from nodes(value, (*path, key))


def admits(hint, value) -> bool:
    """Whether the words of a signature admit a number: written once more, and simply."""
    if typing.get_origin(hint) is typing.Annotated:
        kind, *bounds = typing.get_args(hint)
        return admits(kind, value) and all(b.low <= value <= b.high for b in bounds if isinstance(b, Range))
    options = typing.get_args(hint)
    if options and typing.get_origin(hint) not in (list, tuple, dict):
        return any(value == o if typing.get_origin(hint) is typing.Literal else admits(o, value) for o in options)
    return hint in (int, float)


PLAIN = {"parts": {"one": {"root": "x"}}}  # of the tables of records that no YAML fills


def records(node, hints):
    """The node itself, and every record in it that stands without a `_target_`: where, and of which class."""
    yield (), config._locate(node["_target_"], "")
    for key, hint in hints.items():
        for place, _, found in config._records(node.get(key), hint, key):
            yield tuple(place.split(".")), found


def test_six_bad_values_of_every_field(no_models, size, record):
    options = sorted((p.parent.name, p.stem) for p in config.CONF.glob("*/*.yaml") if p.parent.name != "experiment")
    seen, tried, slowest, wrong = set(), 0, 0.0, []
    for group, option in options[:: size(40, 1)]:
        plain = config.resolve(preflight([chosen(group, option)]))
        for path, node in nodes(plain):
            hints = config._hints(config._locate(node["_target_"], ""))
            node |= {key: value for key, value in PLAIN.items() if key in hints}
            for place, found in records(node, hints):
                if (found, bool(place)) in seen:
                    continue
                seen.add((found, bool(place)))
                hints = config._hints(found)
                later = ("params", "optimizer") if node.get("_partial_") else ()  # given by the program
                names = [name for name in inspect.signature(found).parameters if name not in later]
                for name, (kind, value) in itertools.product(names, BAD.items()):
                    bad = copy.deepcopy(node)
                    functools.reduce(operator.getitem, place, bad)[name] = value
                    begun = time.process_time()
                    try:
                        config.build(OmegaConf.create(bad), ".".join(path))
                        line = ""
                    except ConfigError as error:
                        line = str(error)
                    slowest = max(slowest, time.process_time() - begun)
                    tried += 1
                    fine = kind in ("negative", "zero") and admits(hints.get(name), value)
                    unbounded = fine and kind == "negative" and name not in SIGNED
                    if unbounded or (not line and not fine and name not in ANY) or (line and name not in line):
                        wrong.append((".".join((*path, *place)), name, kind, line))
    assert wrong == []
    assert slowest < SECONDS
    plain = sum(inside for _, inside in seen)
    record(
        "bad values of fields", classes=len(seen), without_target=plain, values=tried, slowest_seconds=round(slowest, 2)
    )


@pytest.mark.parametrize("option", ["align=global_affine", "dataset=three_d60", "dataset=multitask", "predict=[unet]"])
def test_six_bad_values_of_records_without_a_target(option, no_models):
    group, name = option.replace("]", "").replace("[", "").split("=")
    node = config.resolve(preflight([option]))[group]
    node = node[name] if group in SEVERAL else node
    hints = config._hints(config._locate(node["_target_"], ""))
    node |= {key: value for key, value in PLAIN.items() if key in hints}
    inside = [(place, found) for place, found in records(node, hints) if place]
    assert inside
    for place, found in inside:
        for key, value in itertools.product(inspect.signature(found).parameters, BAD.values()):
            bad = copy.deepcopy(node)
            functools.reduce(operator.getitem, place, bad)[key] = value
            if not (isinstance(value, int) and admits(config._hints(found)[key], value)):
                with pytest.raises(ConfigError, match=rf"{'.'.join(place)}\.{key}"):
                    config.build(OmegaConf.create(bad), group)


def test_six_bad_values_of_the_root(no_models):
    plain = config.resolve(preflight([]))
    fields = [((), f.name) for f in dataclasses.fields(config.Run)]
    fields += [(("device",), f.name) for f in dataclasses.fields(config.Device)]
    for (path, name), (kind, value) in itertools.product(fields, BAD.items()):
        if (name, kind) in (("seed", "zero"),):
            continue
        bad = copy.deepcopy(plain)
        functools.reduce(operator.getitem, path, bad)[name] = value
        with pytest.raises(ConfigError, match=".".join((*path, name))):
            config.resolve(OmegaConf.create(bad))


def test_torn_yaml(conf, no_models, size, record):
    """Whatever becomes of the text of a YAML: it is taken, or refused with code 2 in one line."""
    files = sorted(p.relative_to(conf) for p in conf.rglob("*.yaml"))
    refused = 0
    count = size(10, 1000)
    for k in range(count):
        random = np.random.default_rng([2, k])
        file = files[int(random.integers(len(files)))]
        before = (conf / file).read_text()
        lines = before.splitlines()
        at, new = int(random.integers(len(lines))), list(lines)
        put = [
            "\t",
            "{",
            "}",
            ": ",
            "- ",
            "${nothing}",
            "${.}",
            "&a *a",
            "!!python/object:os.system",
            "'",
            "\0",
            "é: [",
            "??",
        ]
        harm = int(random.integers(5))
        if harm == 0:
            del new[at]
        elif harm == 1:
            new.insert(at, lines[int(random.integers(len(lines)))])  # a duplicate
        else:
            column = int(random.integers(len(lines[at]) + 1))
            new[at] = lines[at][:column] + put[int(random.integers(len(put)))] + lines[at][column + (harm == 2) :]
        (conf / file).write_text("\n".join(new) + "\n")
        code, line = answer(*arguments(file))
        (conf / file).write_text(before)
        assert code in (0, 2), (file, new[at : at + 1], code, line)
        refused += code == 2
    assert refused > count / 4
    record("torn YAML", files=count, refused=refused, taken=count - refused, tracebacks=0)


# --- Hostile targets

TARGETS = (
    "os.system", "posix.system", "subprocess.Popen", "subprocess.run", "builtins.eval", "builtins.exec",
    "builtins.open", "builtins.__import__", "pathlib.Path.touch", "shutil.rmtree", "numpy.load",
    "numpy.testing.rundocs", "sympy.sympify", "torch.load", "torch.hub.load", "pickle.loads", "runpy.run_path",
    "importlib.import_module", "ctypes.CDLL", "hostile_module.touch", "immersivedepth.config.os.system",
    "immersivedepth.stages.export.arrays.json", "torch.optim.lr_scheduler.partial", "immersivedepth.weights.reading.os",
    "immersivedepth.runs.Path",
)  # fmt: skip
CALL = "{{_target_: {t}, command: 'touch {c}', args: ['touch {c}'], path: '{c}', _args_: ['touch {c}']}}"
# What stands in a file of options of the attacker; %s is the node.
FILES = {
    "a stage": "align: %s",
    "a partial": "trainer: {{optimiser: {{_partial_: true, _target_: {t}, command: 'touch {c}'}}}}",
    "a list": "runs: [%s]",
    "a stage among several": "predict: {{evil: %s}}",
    "an interpolation": "exp_name: {t}\nalign: {{_target_: '${{exp_name}}', command: 'touch {c}'}}",
    "text that makes a node": "align: \"${{oc.create:'{{_target_: {t}, command: touch {c}}}'}}\"",
    "a callback": "hydra: {{callbacks: {{x: %s}}}}",
    "the launcher": "hydra: {{launcher: %s}}",
    "the sweeper": "hydra: {{sweeper: %s}}",
    "a log handler": "hydra: {{job_logging: {{handlers: {{x: {{'()': {t}, command: 'touch {c}'}}}}}}}}",
    "a log formatter": "hydra: {{hydra_logging: {{formatters: {{x: {{'()': {t}, command: 'touch {c}'}}}}}}}}",
    "a class of a handler": "hydra: {{job_logging: {{handlers: {{x: {{class: {t}}}}}}}}}",
}
FILES |= {
    "an interpolation for callbacks": 'hydra: {{callbacks: "${{data.x}}"}}\ndata: {{x: {{y: %s}}}}',
    "the environment of a job": "hydra: {{job: {{env_set: {{IMMERSIVEDEPTH_TRUST: {t}}}}}}}\nalign: %s",
}
HYDRAS = [way for way, text in FILES.items() if text.startswith("hydra")]
ENDS = {
    " in a sweep": ("-m", "evil"),
    " among swept options": ("-m", "other,evil"),
    " for the help": ("--help", "evil"),
}
SEARCHED = ("a search path", "the search path of the primary config", "a config folder with a quote", "a config path")
WAYS = (
    *FILES, *(way + end for way in HYDRAS for end in ENDS), *SEARCHED, *(way + " for the help" for way in SEARCHED),
    "an override", "an override in a sweep", "the config of a checkpoint",
)  # fmt: skip
FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "pty.spawn", "shutil.rmtree",
    "os.remove", "os.rename", "os.rmdir", "os.truncate", "socket.connect", "socket.getaddrinfo", "urllib.Request",
    "ctypes.dlopen", "webbrowser.open",
)  # fmt: skip


HARMLESS = ("/dev/null", "multirun.yaml")  # Hydra notes what it is about to do; every job is then checked


def hostile(way: str, target: str, folder: Path) -> list[str]:
    """The command line of an attack."""
    end = next((end for end in ENDS if way.endswith(end)), "")
    (flag, option), way = ENDS.get(end, ("--run", "evil")), way.removesuffix(end)
    if way in FILES:
        body = FILES[way].replace("%s", CALL).format(t=target, c=folder / "canary")
        (folder / "conf" / "experiment").mkdir(parents=True, exist_ok=True)
        (folder / "conf" / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{body}\n")
        (folder / "conf" / "experiment" / "other.yaml").write_text("# @package _global_\nseed: 1\n")
        return [flag, "--config-dir", str(folder / "conf"), f"experiment={option}"]
    if way == "the search path of the primary config":
        (folder / "evil.yaml").write_text(f"hydra: {{searchpath: ['pkg://{target}']}}\n")
        return [flag, "--config-path", str(folder), "--config-name", "evil"]
    searched = {
        "a search path": [f"hydra.searchpath=[pkg://{target}]"],
        "a config folder with a quote": ["--config-dir", f"x','pkg://{target}"],
        "a config path": ["--config-path", f"pkg://{target}"],
    }
    return [flag, *searched.get(way, [f"align._target_={target}"])]


def attacked(target: str, folder: Path) -> int:
    """A checkpoint with a config of its own is read, and that config is built as configs are."""
    from immersivedepth.weights import read_checkpoint

    node = {"_target_": target, "command": f"touch {folder / 'canary'}"}
    torch.save({"state_dict": {"a": torch.zeros(1)}, "config": {"align": node}}, folder / "last.pt")
    try:
        config.build(read_checkpoint(folder / "last.pt")["config"], "config")
    except ConfigError as error:
        return error.code
    return 0


def test_hostile_targets_have_no_effect(tmp_path, monkeypatch, size, record):
    """Every way in with every target in children that are watched from inside."""
    (tmp_path / "hostile_module.py").write_text(
        f"from pathlib import Path\ndef touch(*_, **__): Path({str(tmp_path / 'canary')!r}).touch()\ntouch()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    pairs = list(itertools.product(WAYS, TARGETS))
    cases = [pairs[i] for i in np.random.default_rng(6).permutation(len(pairs))[: size(12, 400)]]
    events: list[str] = []
    watching = [False, False]

    def watch(event, given):
        writes = event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if event == "import" and given[0] == "hostile_module":
            events.append("import of hostile_module")
        if watching[1] and (event in FORBIDDEN or (writes and not str(given[0]).endswith(HARMLESS))):
            events.append(f"{event} {given!r}")

    def work(case):
        way, target = case
        if not watching[0]:
            sys.addaudithook(watch)
            watching[0] = True
        events.clear()
        given = [] if way == "the config of a checkpoint" else hostile(way, target, tmp_path)
        if not given:
            code = attacked(target, tmp_path)
            return code, "", events
        sys.argv = ["core_exp_runner.py", *given]
        said = io.StringIO()
        watching[1] = True
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                core_exp_runner.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        watching[1] = False
        return code, said.getvalue(), events

    wrong = []
    for case, ended in zip(cases, each_forked(work, cases, 60, 4 * 2**30), strict=True):
        code, line, seen = ended.found or (None, ended.fault, [])
        if (
            code != 2
            or seen
            or (line.count("\n") > 1 and "sweep" not in case[0])
            or "Traceback" in line + ended.said
            or (tmp_path / "canary").exists()
        ):
            wrong.append((case, code, line, seen))
            (tmp_path / "canary").unlink(missing_ok=True)
    assert wrong == []
    assert {p.name for p in (tmp_path / "outputs").rglob("*") if p.is_file()} <= {"multirun.yaml"}
    record("hostile targets", attacks=len(cases), ways=len(WAYS), targets=len(TARGETS), side_effects=0)


# --- Combinations

STAGES = ("enhance", "project", "predict", "fuse", "align", "blend", "refine", "segment", "export")


def pairwise(options: list[list[str]], random: np.random.Generator) -> list[tuple[str, ...]]:
    """Rows in which every two options of different stages meet: the best of forty guesses, until none is missing."""
    pairs = itertools.combinations(range(len(options)), 2)
    missing = {((i, a), (j, b)) for i, j in pairs for a in options[i] for b in options[j]}

    def meets(row):
        return missing & set(itertools.combinations(enumerate(row), 2))

    rows = []
    while missing:
        first = min(missing)
        guesses = [[str(random.choice(o)) for o in options] for _ in range(40)]
        for guess in guesses:
            for place, option in first:
                guess[place] = option
        best = max(guesses, key=lambda row: len(meets(row)))
        missing -= meets(best)
        rows.append(tuple(best))
    return rows


GROUPS = {  # beside the pipeline: what is trained and how, and what a radiance field is made of
    "config": ("system", "optimiser", "scheduler"),
    "nerf": ("scene", "inpaint", "pose_sampler"),
}


@pytest.mark.parametrize("name", GROUPS)
def test_every_two_options_beside_the_pipeline_compose_together(name, size, record):
    groups = GROUPS[name]
    options = [sorted(p.stem for p in (config.CONF / group).glob("*.yaml")) for group in groups]
    rows = pairwise(options, np.random.default_rng(8))
    picked = rows[:: size(len(rows) // 5, 1)]
    for row in picked:
        plain = config.resolve(preflight(["--config-name", name, *map(chosen, groups, row)]))
        assemble(plain)
        for group in groups:
            config.build(plain.get(group), group)
        trainer = config.build(plain["trainer"], "trainer")
        optimiser = trainer.optimiser([torch.nn.Parameter(torch.zeros(2, 2))])
        if trainer.scheduler:
            trainer.scheduler(optimiser)
    record(f"combinations of {', '.join(groups)}", composed=len(picked), every_pair=len(picked) == len(rows))


def test_every_two_options_compose_together(size, record):
    options = [sorted(p.stem for p in (config.CONF / stage).glob("*.yaml")) for stage in STAGES]
    rows = pairwise(options, np.random.default_rng(7))
    picked = rows[:: size(len(rows) // 7, 1)]
    nodes_of: dict[tuple[str, str], object] = {}
    for row in picked:
        plain = config.resolve(preflight([chosen(*pair) for pair in zip(STAGES, row, strict=True)]))
        assemble(plain)
        nodes_of |= {pair: plain[pair[0]] for pair in zip(STAGES, row, strict=True)}
    # The product of what is chosen once: the nodes are those that were composed.
    single = [(s, [o for o in opts if (s, o) in nodes_of]) for s, opts in zip(STAGES, options, strict=True)]
    single = [(s, opts) for s, opts in single if s not in SEVERAL]
    product = list(itertools.product(*(opts for _, opts in single)))
    picked_product = product[:: size(max(1, len(product) // 40), 1)]
    for row in picked_product:
        assemble({**plain, **{s: copy.deepcopy(nodes_of[s, o]) for (s, _), o in zip(single, row, strict=True)}})
    record(
        "combinations of options",
        composed=len(picked),
        every_pair=len(picked) == len(rows),
        product_of_single_stages=len(picked_product),
    )
