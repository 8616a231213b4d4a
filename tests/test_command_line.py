"""The command line: what comes out, where, with which exit code, and how fast a mistake is answered."""

import json
import logging
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

import core_exp_runner
from immersivedepth.data import images

ROOT = Path(__file__).parents[1]
SMALL = ("dataset.image_resize=[128,64]", "project.resolution=48")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command line in this process; returns exit code, stdout and stderr."""

    def call(*arguments, base=tmp_path / "out"):
        extra = [f"device.base_exp_dir={base}"] if base else []
        monkeypatch.setattr(sys, "argv", ["core_exp_runner.py", *arguments, *extra])
        code = 0
        try:
            core_exp_runner.main()
        except SystemExit as stop:
            code = stop.code or 0
        out = capsys.readouterr()
        return code, out.out, out.err

    log = logging.getLogger("immersivedepth")
    level, root = log.level, list(logging.root.handlers)
    yield call
    log.setLevel(level)
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    logging.root.handlers[:] = root


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_the_default_run_writes_what_it_names(run, tmp_path):
    code, out, err = run(*SMALL)
    assert code == 0, err
    (folder,) = (tmp_path / "out" / "default").iterdir()
    named = [Path(line) for line in out.splitlines()]
    assert named
    assert all(p.is_file() for p in named)
    assert {p.name for p in named} >= {"distance.exr", "mask.png", "overview.png", "points.ply", "result.json"}
    assert {"config.yaml", "run.json", "run.log"} <= {p.name for p in folder.iterdir()}
    assert not [p for p in folder.rglob("*") if ".part" in p.name]
    facts = json.loads((folder / "run.json").read_text())
    assert facts["seed"] == 0
    assert facts["versions"]["torch"]
    resolved = yaml.safe_load((folder / "config.yaml").read_text())
    assert resolved["dataset"]["image_resize"] == [128, 64]
    assert "${" not in (folder / "config.yaml").read_text()


def test_same_seed_same_bits(run, tmp_path):
    for name in ("a", "b"):
        assert run(*SMALL, f"exp_name={name}")[0] == 0
    (a,), (b,) = ((tmp_path / "out" / n).iterdir() for n in ("a", "b"))
    products = [f for f in files(a) if "/" in f and not f.endswith("result.json")]
    assert len(products) > 5
    for product in products:
        assert (a / product).read_bytes() == (b / product).read_bytes(), product


WRONG = [  # arguments, code, words that must stand in the one line
    (["alin=foo"], 2, ["alin", "align"]),
    (["align=foo"], 2, ["foo", "align", "global_affine"]),
    (["align=global_afine"], 2, ["global_afine", "did you mean", "global_affine"]),
    (["predict=[nobody]"], 2, ["predict=[nobody] is not an option"]),
    (["predict=[oracl]"], 2, ["did you mean oracle"]),
    (["mode=fly"], 2, ["mode=fly", "depth"]),
    (["modee=depth"], 2, ["modee", "mode"]),
    (["+foo=1"], 2, ["foo"]),
    (["+align.foo=1"], 2, ["align.foo"]),
    (["segment.edge_ratoi=2"], 2, ["segment.edge_ratoi", "segment.edge_ratio"]),
    (["segment.edge_ratio=abc"], 2, ["segment.edge_ratio", "a number"]),
    (["segment.edge_ratio=nan"], 2, ["segment.edge_ratio", "nan"]),
    (["seed=-3"], 2, ["seed", "from 0"]),
    (["device.kind=tpu"], 2, ["device.kind", "cuda"]),
    (["predict=[]"], 2, ["predict"]),
    (["align=null"], 2, ["align"]),
    (["project.resolution=0"], 2, ["project.resolution"]),
    (["exp_name=../x"], 2, ["exp_name"]),
    (["dataset.image_path=a=b.png"], 2, ["dataset.image_path=a=b.png"]),
    (["dataset.image_path=${nothing}"], 2, ["dataset.image_path"]),
    (["exp_name=${mode}", "mode=${exp_name}"], 2, ["mode", "Recursive interpolation"]),
    (["--config-name", "nothing"], 2, ["nothing"]),
    (["--nonsense"], 2, ["--nonsense"]),
    (["align._target_=os.system"], 2, ["align", "os.system"]),
    (["+hydra.callbacks.x._target_=os.system"], 2, ["hydra.callbacks.x", "os.system"]),
    (["hydra.launcher._target_=os.system"], 2, ["hydra.launcher", "os.system"]),
    (["hydra.searchpath=[pkg://os]"], 2, ["hydra.searchpath"]),
    (["dataset.image_path=missing.png"], 3, ["missing.png"]),
]


@pytest.mark.parametrize(
    ("arguments", "code", "words"), WRONG, ids=lambda v: "_".join(v) if isinstance(v, list) else ""
)
def test_a_mistake_is_answered_in_one_line(run, tmp_path, arguments, code, words):
    got, out, err = run(*arguments)
    assert got == code, err
    assert out == ""
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word in err, err
    if code == 2:
        assert not (tmp_path / "out").exists(), "a run folder was made for a config that is wrong"


def test_missing_weights_are_told_before_anything_is_written(run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("IMMERSIVEDEPTH_WEIGHTS", raising=False)
    code, out, err = run("predict=[depth_anything_v2]", "weights.offline=true")
    assert code == 4
    assert err.count("\n") == 1
    assert "depth_anything_v2_vits.pth" in err
    assert "mode=weights" in err
    assert not (tmp_path / "out").exists()


def test_weights_are_listed_with_their_licences(run, tmp_path):
    code, out, _ = run("mode=weights", f"weights.folder={tmp_path}")
    assert code == 0
    assert "dpt_beit_large_512" in out
    assert "CC-BY-NC-4.0" in out
    assert str(tmp_path) in out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hydra:\n  job_logging:\n    handlers: {x: {'()': os.system, command: 'touch CANARY'}}", "handlers.x.()"),
        ("hydra:\n  job_logging:\n    handlers: {x: {class: logging.os.system}}", "handlers.x.class"),
        ("hydra:\n  callbacks: {x: {_target_: os.system, command: 'touch CANARY'}}", "hydra.callbacks.x"),
        ("hydra:\n  callbacks: {x: \"${oc.create:'{_target_: os.system}'}\"}", "hydra.callbacks.x"),
    ],
)
def test_a_config_folder_cannot_run_code_through_hydra(run, tmp_path, text, words):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    text = text.replace("CANARY", str(tmp_path / "canary"))
    (tmp_path / "conf" / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{text}\n")
    code, _, err = run("--config-dir", str(tmp_path / "conf"), "experiment=evil")
    assert code == 2
    assert words in err
    assert not (tmp_path / "canary").exists()


HOSTILE = {  # file: text; each would import or call `hostile` if Hydra went on
    "primary.yaml": "hydra: {searchpath: ['pkg://hostile']}",
    "by_reference.yaml": "hydra: {searchpath: ['${place}']}\nplace: structured://hostile",
    "experiment/callback.yaml": "hydra: {callbacks: {x: {_target_: hostile.call}}}",
    "experiment/reference.yaml": "hydra: {callbacks: '${data.x}'}\ndata: {x: {y: {_target_: hostile.call}}}",
    "experiment/logged.yaml": "hydra: {hydra_logging: {version: 1, handlers: {x: {'()': hostile.call}}}}",
    "experiment/job.yaml": "hydra: {job_logging: {version: 1, handlers: {x: {'()': hostile.call}}}}",
    "experiment/trust.yaml": "hydra: {job: {env_set: {IMMERSIVEDEPTH_TRUST: hostile}}}\nalign: {_target_: hostile.X}",
    "experiment/own.yaml": "defaults: [own]",
    "experiment/fine.yaml": "seed: 1",
    "experiment/sown.yaml": "hydra: {searchpath: ['pkg://hostile']}",
    "round.yaml": "defaults: [config, round_again]",
    "round_again.yaml": "defaults: [round]",
}
ATTACKS = [  # the command line, with . for the folder of these files, and what must be named
    ("--config-path . --config-name primary", "pkg://hostile is refused"),
    ("--help --config-path . --config-name primary", "pkg://hostile is refused"),
    ("--config-path . --config-name primary --shell-completion query=bash", "pkg://hostile is refused"),
    ("--config-path . --config-name by_reference", "structured://hostile is refused"),
    ("-m --config-dir . --config-name primary", "pkg://hostile is refused"),
    ("--config-dir . experiment=sown", "searchpath is only supported from the primary config"),
    ("--config-dir x','pkg://hostile", "--config-dir x','pkg://hostile"),
    ("--help --config-path pkg://hostile", "--config-path pkg://hostile"),
    ("--help hydra.searchpath=[pkg://hostile]", "pkg://hostile is refused"),
    ("--hydra-help hydra.searchpath=[pkg://hostile]", "pkg://hostile is refused"),
    ("--info all hydra.searchpath=[structured://hostile]", "structured://hostile is refused"),
    ("-m --config-dir . experiment=callback", "hydra.callbacks.x"),
    ("-m --config-dir . experiment=reference", "hydra.callbacks: an interpolation"),
    ("--help --config-dir . experiment=logged", "handlers.x.()"),
    ("-m --config-dir . experiment=fine,job seed=1,2", "handlers.x.()"),
    ("-m --config-dir . experiment=trust", "hydra.job.env_set"),
    ("--help --experimental-rerun x.pickle", "--experimental-rerun"),
    ("--config-dir . experiment=own", "experiment/own -> experiment/own"),
    ("--config-dir . --config-name round", "round -> round_again -> round"),
    ("-m --config-dir . experiment=own", "experiment/own"),
]


@pytest.mark.parametrize(("given", "words"), ATTACKS, ids=lambda v: v.replace("/", "_"))
def test_hydra_neither_imports_nor_calls_what_a_config_names(run, tmp_path, monkeypatch, given, words):
    for name, text in HOSTILE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"# @package _global_\n{text}\n")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "hostile.py").write_text("def call(*_, **__): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    code, _, err = run(*[str(tmp_path) if word == "." else word for word in given.split()])
    imported = sys.modules.pop("hostile", None)
    assert code == 2, err
    assert words in err
    assert err.count("\n") == 1
    assert not imported
    assert not (tmp_path / "out").exists()


def test_completion_imports_no_search_path(run, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "immersivedepth hydra.searchpath=[pkg://hostile] ali")
    code, _, err = run("--shell-completion", "query=bash", base=None)
    assert code == 2
    assert "hydra.searchpath" in err


def test_debug_shows_the_traceback(run):
    with pytest.raises(Exception, match="align"):
        run("+align.foo=1", "debug=true")


def test_a_fault_of_the_program_is_in_the_log(run, tmp_path, monkeypatch):
    def fail(self, panorama):
        raise RuntimeError("a planted fault")

    monkeypatch.setattr("immersivedepth.pipeline.Pipeline.__call__", fail)
    code, _, err = run(*SMALL)
    assert code == 1
    assert "a planted fault" in err
    assert "Traceback" not in err
    (log,) = (tmp_path / "out").rglob("run.log")
    assert "Traceback" in log.read_text()


def test_out_of_memory_is_a_resource_error(run, monkeypatch):
    def fail(self, panorama):
        raise MemoryError("64 GiB")

    monkeypatch.setattr("immersivedepth.pipeline.Pipeline.__call__", fail)
    code, _, err = run(*SMALL)
    assert code == 5
    assert "dataset.image_resize" in err


def test_a_folder_that_cannot_be_made_is_a_resource_error(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, err = run(*SMALL, base=tmp_path / "file")
    assert code == 5
    assert str(tmp_path / "file") in err


def test_a_batch_goes_on_past_a_bad_picture(run, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    sample = np.zeros((32, 64, 3), np.uint8)
    for name in ("a.png", "c.png"):
        images.write_png(folder / name, sample)
        images.write_npy(folder / f"{Path(name).stem}_distance.npy", np.full((32, 64), 2.0, np.float32))
    (folder / "b.png").write_bytes(b"<html>not a picture</html>")
    code, out, err = run(f"dataset.image_path={folder}", "project.resolution=48", "export=[arrays]")
    assert code == 3
    assert "b.png" in err
    assert "2 of 3" in out
    assert "failed: " in out
    (place,) = (tmp_path / "out" / "default").iterdir()
    assert (place / "a" / "result.json").is_file()
    assert (place / "c" / "result.json").is_file()

    code, out, _ = run(f"dataset.image_path={folder}", "project.resolution=48", "export=[arrays]", "is_continue=true")
    assert code == 3
    assert out.count("skipped") == 2
    assert len(list((tmp_path / "out" / "default").iterdir())) == 1


def test_runs_of_the_same_second_have_their_own_folders(run, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda *_: "20260101-000000")
    for _ in range(3):
        assert run(*SMALL, "export=[arrays]")[0] == 0
    assert len(list((tmp_path / "out" / "default").iterdir())) == 3


def test_multirun_compares_stages(run, tmp_path):
    code, out, err = run("-m", "align=identity,global_affine", "export=[arrays]", *SMALL)
    assert code == 0, err
    places = [p for p in (tmp_path / "out" / "default").iterdir() if p.is_dir()]
    chosen = {yaml.safe_load((p / "config.yaml").read_text())["align"]["_target_"] for p in places}
    assert len(places) == len(chosen) == 2
    # Hydra's own loggers must not silence those of the program.
    assert all("pixels" in (place / "run.log").read_text() for place in places)


def test_presets_run(run):
    for name in ("depth", "normal"):
        code, _, err = run("--config-name", name, *SMALL)
        assert code == 0, err


def shell(*arguments, cwd):
    """Code, stdout, stderr, and the processor time it took: other programs may be busy at the same time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, str(ROOT / "core_exp_runner.py"), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.returncode, done.stdout, done.stderr, spent


def test_from_a_shell_in_another_folder(tmp_path):
    code, out, err, _ = shell("device.base_exp_dir=results", *SMALL, cwd=tmp_path)
    assert code == 0, err
    assert [p.name for p in tmp_path.iterdir()] == ["results"]
    assert all((tmp_path / line).is_file() for line in out.splitlines())


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["align=foo"], 2), (["nonsense=1"], 2)])
def test_answers_within_about_a_second(tmp_path, arguments, code, monkeypatch):
    # Torch alone takes longer than all of this, so it must not creep in; the bound is for slow machines.
    runs = [shell(*arguments, cwd=tmp_path) for _ in range(3)]
    assert {r[0] for r in runs} == {code}
    assert min(r[3] for r in runs) < 5
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    imported = {line.rpartition("|")[2].strip() for line in shell(*arguments, cwd=tmp_path)[2].splitlines()}
    assert "hydra" in imported
    assert imported.isdisjoint({"torch", "cv2", "scipy"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGUSR1", 138)])
def test_interrupted(tmp_path, name, code):
    import signal

    if not hasattr(signal, name):
        pytest.skip(f"no {name} on this system")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "core_exp_runner.py"), "device.base_exp_dir=results"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not list(tmp_path.rglob("run.json")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(getattr(signal, name))
    process.communicate(timeout=60)
    assert process.returncode == code
