"""Killed at any moment: what was saved is whole, and what goes on ends as what was never stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from immersivedepth.checks import ResourceError
from immersivedepth.data import images
from immersivedepth.data.making import MakeData
from immersivedepth.training import checkpoints

from . import children

TOY = ("--config-dir", str(children.ROOT / "tests/training/conf"), "system=toy")
TRAINED = (
    "mode=train", "device.kind=cpu", "trainer.workers=0", "trainer.save_every=1", "trainer.log_every=1",
    "trainer.pictures=1", "trainer.precision=fp32", "trainer.epochs=2",
)  # fmt: skip
SMALL = ("trainer.batch_size=2", "trainer.epoch_samples=4")
# What a run is made of: the kind and size of the data set that is made for it, and the arguments.
RUNS: dict[str, tuple[tuple[str, int, int] | None, tuple[str, ...]]] = {
    "toy": (None, (*TOY, *TRAINED, "trainer.epochs=3", "trainer.batch_size=8")),
    "toy_with_workers": (
        None, (*TOY, *TRAINED, "trainer.epochs=3", "trainer.batch_size=8", "trainer.workers=2"),
    ),
    "foreground_modest": (
        ("modest", 8, 32),
        ("system=foreground_modest", *TRAINED, *SMALL, "system.network=mask", "dataset.root={}", "dataset.size=32",
         "dataset.augment=true"),
    ),
    "unet_diode": (
        ("diode", 2, 64),
        ("system=unet_diode", *TRAINED, *SMALL, "dataset.root={}", "dataset.size=32"),
    ),
    "motion_stillbox": (
        ("stillbox", 2, 32),
        ("system=motion_stillbox", *TRAINED, *SMALL, "dataset.root={}", "dataset.train_share=0.5"),
    ),
    "omnidata_depth": (
        ("omnidata", 4, 64),
        ("system=omnidata_depth", *TRAINED, *SMALL, "system.model=midas_tiny", "+dataset.parts.a.root={}",
         "dataset.size=64"),
    ),
    "omnidata_normal": (
        ("omnidata", 4, 64),
        ("system=omnidata_normal", *TRAINED, *SMALL, "system.model=midas_tiny_normal", "+dataset.parts.a.root={}",
         "dataset.size=64"),
    ),
    "stereo_3d60": (
        ("3d60", 2, 64),
        ("system=stereo_3d60", *TRAINED, *SMALL, "system.kind=basic", "system.max_disparity=16", "dataset.root={}",
         "dataset.split=all", "dataset.crop_rows=32"),
    ),
    "tiny_depth": (
        None,
        ("system=tiny_depth", *TRAINED, *SMALL, "system.model=midas_tiny", "scheduler=none", "dataset.size=32",
         "dataset.small=32", "dataset.height=64", "dataset.window=2", "dataset.views=4", "dataset.validation=1"),
    ),
    "field": (
        None,
        ("--config-name", "nerf", "mode=train", "scene=voxel", "scene.rows=16", "dataset.image_resize=[64,32]",
         "field.geometry_steps=4", "field.appearance_steps=4", "field.rays=64", "field.log_every=1",
         "field.save_minutes=0.0"),
    ),
}  # fmt: skip
PATIENCE = 1800.0  # seconds for a whole run of the largest, on a slow machine
QUICK = {"toy": 5, "toy_with_workers": 1, "foreground_modest": 1}

Start = Callable[[Path, Path], BaseProcess]  # (folder of runs, folder of what is said) -> a child at work


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, int, int] | None], str]:
    """The folder of a made data set."""

    def make(wanted: tuple[str, int, int] | None) -> str:
        if wanted is None:
            return ""
        kind, count, pixels = wanted
        root = tmp_path_factory.mktemp(kind)
        MakeData(kind, str(root), count=count, size=pixels, workers=1)()  # type: ignore[arg-type]
        return str(root)

    return make


def starting(arguments: tuple[str, ...], before: Callable[[], Any] | None = None) -> Start:
    """The command line, going on with the newest run of a folder."""

    def start(base: Path, said: Path) -> BaseProcess:
        own = (f"device.base_exp_dir={base}", "is_continue=true")
        return children.command(said, *arguments, *own, before=before, IMMERSIVEDEPTH_TRUST="tests.")

    return start


def unbroken(start: Start, home: Path) -> float:
    """Run to the end once; how many seconds it took."""
    children.ended(children.start(time.sleep, 0))  # the first of all children waits for the imports
    begun = time.monotonic()
    assert children.ended(start(home / "whole", home / "said"), PATIENCE) == 0, children.errors(home / "said")
    return time.monotonic() - begun


def unfinished(base: Path) -> list[Path]:
    return [path for path in base.rglob("*") if ".part" in path.name]


def survived(
    start: Start,
    home: Path,
    kills: int,
    wait: Callable[[], float],
    same: Callable[[Path], None],
    grace: Callable[[], float] | None = None,
    number: int = signal.SIGTERM,
) -> dict[str, int]:
    """Kill at random moments and go on, as often as is asked; each run that comes to its end is compared.

    With `grace`, the signal `number` comes first, and SIGKILL so many seconds later if it is still needed.
    """
    seen = {"kills": 0, "runs": 0, "in the middle of a write": 0, "by themselves": 0}
    while True:
        base = home / f"cut{seen['runs']}"
        while True:
            process = start(base, home / "said")
            if seen["kills"] < kills:
                process.join(wait())
            else:
                children.ended(process, PATIENCE)
            if process.exitcode is not None:
                break
            if grace:
                os.kill(process.pid or 0, number)
                process.join(grace())
            process.kill()
            process.join()
            # A child that has not begun yet ends by SIGTERM itself, and with code 1 by the exception of SIGINT.
            early = 1 if number == signal.SIGINT else -number
            assert process.exitcode in (-signal.SIGKILL, 0, *((128 + number, early) if grace else ()))
            seen["kills"] += 1
            seen["by themselves"] += process.exitcode == 128 + number
            seen["in the middle of a write"] += bool(unfinished(base))
            for path in base.rglob("*.ckpt"):
                if ".part" not in path.name:
                    checkpoints.load(path)  # raises if it is not whole
        assert process.exitcode == 0, children.errors(home / "said")
        assert unfinished(base) == []
        (found,) = base.glob("*/*")  # one run folder, however often it was started
        same(found)
        seen["runs"] += 1
        if seen["kills"] >= kills:
            return seen


# ---- training ----------------------------------------------------------------------------------------------------


def equal(a: Any, b: Any) -> bool:
    """Whether two checkpoints hold the same bits."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and (a == b or a != a)


def same_training(whole: Path, cut: Path) -> None:
    """Checkpoints, their optimisers, schedules and positions to the bit; every figure; every picture."""
    names = {path.relative_to(whole) for path in whole.rglob("*") if path.suffix in (".ckpt", ".jsonl", ".csv", ".png")}
    assert {p.relative_to(cut) for p in cut.rglob("*") if p.suffix in (".ckpt", ".jsonl", ".csv", ".png")} == names
    for name in sorted(names):
        if name.suffix == ".ckpt":
            a, b = checkpoints.load(whole / name), checkpoints.load(cut / name)
            for content in (a, b):
                content["training"].pop("config", None)  # names the folder
            assert equal(a, b), name
        else:
            assert (whole / name).read_bytes() == (cut / name).read_bytes(), name


@pytest.mark.parametrize("name", RUNS)
def test_training_that_is_killed_ends_with_the_same_bits(name, made, tmp_path, size, record):
    kills = size(QUICK.get(name, 0), 200)
    if not kills:
        pytest.skip("at full size only")
    kind, arguments = RUNS[name]
    root = made(kind)
    start = starting(tuple(a.format(root) if a.endswith("{}") else a for a in arguments))
    took = unbroken(start, tmp_path)
    (whole,) = (tmp_path / "whole").glob("*/*")
    drawn = random.Random(1)
    seen = survived(start, tmp_path, kills, lambda: drawn.uniform(0, 1.2 * took), partial(same_training, whole))
    record(f"kill -9 in training of {name}", **seen, unreadable_checkpoints=0, runs_with_other_bits=0)


# ---- batches -----------------------------------------------------------------------------------------------------


def digest(run: Path) -> str:
    """One hash of all names and contents of a run, but for when and where it was made and how long it took."""
    total = hashlib.sha256()
    for path in sorted(p for p in run.glob("*/**/*") if p.is_file()):
        content = path.read_bytes()
        if path.name == "result.json":
            facts = json.loads(content)
            assert facts.pop("seconds") >= 0
            content = json.dumps(facts, sort_keys=True).encode()
        total.update(f"{path.relative_to(run)}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def test_a_batch_that_is_killed_leaves_the_same_files(tmp_path, size, record):
    count, kills = size(8, 200), size(4, 100)
    drawn, pictures = np.random.default_rng(0), tmp_path / "pictures"
    for k in range(count):
        picture = np.repeat(np.repeat(drawn.integers(0, 256, (8, 16, 3), np.uint8), 8, 0), 8, 1)
        images.write_png(pictures / f"{k:03d}.png", picture)
        images.write_npy(pictures / f"{k:03d}_distance.npy", drawn.uniform(1, 5) + np.zeros((64, 128), np.float32))
    arguments = (f"dataset.image_path={pictures}", "project.resolution=32", "export=[arrays,pointcloud]")
    start = starting((*arguments, "refine=[]", "align=identity"))
    took = unbroken(start, tmp_path)
    (whole,) = (tmp_path / "whole").glob("*/*")
    assert len(list(whole.glob("*/result.json"))) == count
    wanted, moments = digest(whole), random.Random(2)

    def same(run: Path) -> None:
        assert digest(run) == wanted

    # early enough that many are needed for one run to come to its end
    seen = survived(start, tmp_path, kills, lambda: moments.uniform(0, 0.4 + 3 * took / kills), same)
    record("kill -9 in a batch", panoramas=count, **seen, runs_with_other_files=0)


# ---- requests to stop ----------------------------------------------------------------------------------------------


def slow_disk() -> None:
    """Every sync takes its time, as on a disk of a cluster."""
    fsync = os.fsync
    os.fsync = lambda handle: (time.sleep(0.03), fsync(handle))[1]  # type: ignore[assignment]


@pytest.mark.parametrize(("name", "quick"), [("SIGTERM", 4), ("SIGINT", 1)])
def test_a_request_and_then_sigkill(name, quick, tmp_path, size, record):
    """What a cluster does to a job whose time is over: the run goes on in the same folder, to the same bits."""
    stops = size(quick, 50)
    arguments = (*TOY, *TRAINED, "trainer.epochs=3", "trainer.batch_size=8", "dataset.delay=0.005")
    start = starting(arguments, slow_disk)
    took = unbroken(start, tmp_path)
    (whole,) = (tmp_path / "whole").glob("*/*")
    drawn = random.Random(3)
    same = partial(same_training, whole)
    moments, grace = partial(drawn.uniform, 0, took), partial(drawn.uniform, 0, 0.2)
    seen = survived(start, tmp_path, stops, moments, same, grace, getattr(signal, name))
    if stops >= 50:
        assert 0 < seen["by themselves"] < stops  # both ends were met
    record(f"{name}, then SIGKILL", **seen, runs_in_another_folder=0)


# ---- readers of samples ----------------------------------------------------------------------------------------------


def readers(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="no list of children here")
def test_a_reader_that_is_killed_ends_the_run(tmp_path, record):
    """As the system does when memory ends: one line with code 5 within a minute, and the run goes on from there."""
    arguments = (*TOY, *TRAINED, "trainer.epochs=400", "trainer.workers=2", "dataset.delay=0.02")
    process = starting(arguments)(tmp_path / "runs", tmp_path / "said")
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("last.ckpt")):
        assert process.is_alive(), children.errors(tmp_path / "said")
        assert time.monotonic() < deadline
        time.sleep(0.02)
    begun = time.monotonic()
    while process.is_alive() and time.monotonic() < begun + 60:  # again, if it was one that had done its work
        with contextlib.suppress(OSError, IndexError):
            os.kill(readers(process.pid or 0)[0], signal.SIGKILL)
        process.join(2)
    assert children.ended(process, 0) == ResourceError.code, children.errors(tmp_path / "said")
    said = children.errors(tmp_path / "said")
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if "DataLoader worker (pid" in line]
    assert "trainer.workers=0" in line
    (last,) = tmp_path.rglob("last.ckpt")
    step = checkpoints.load(last)["training"]["position"].step
    again = starting((*arguments, f"trainer.steps={step + 2}"))(tmp_path / "runs", tmp_path / "said")
    assert children.ended(again) == 0, children.errors(tmp_path / "said")
    assert checkpoints.load(last)["training"]["position"].step == step + 2
    record("kill -9 of a reader of samples", seconds_to_its_end=round(time.monotonic() - begun, 1))
