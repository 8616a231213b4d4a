"""Disks that fill or fail: what is under a name is the old state or the new one, and the answer is one line, code 5."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import yaml

from immersivedepth.checks import ResourceError
from immersivedepth.config import build, run_of
from immersivedepth.data import images
from immersivedepth.pipeline import Pipeline, assemble
from immersivedepth.runs import RunFolder
from immersivedepth.training import checkpoints
from immersivedepth.training.checkpoints import Position
from immersivedepth.training.loop import Loop

from . import children

TOY = ("--config-dir", str(children.ROOT / "tests/training/conf"), "system=toy")
EXPORTS = "arrays,png16,preview,contact_sheet,pointcloud,mesh,labels,quality,report,cameras,splats"
FEW = "arrays,png16,pointcloud"
CODES = (errno.ENOSPC, errno.EIO, errno.EROFS)


# ---- the k-th call fails -----------------------------------------------------------------------------------------


class Handle:
    """A file that is open for writing; each of its calls may be the one that fails."""

    def __init__(self, file: Any, turn: Callable[[], None]) -> None:
        self.file, self.turn = file, turn

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, data: Any) -> Any:
        self.turn()
        return self.file.write(data)

    def flush(self) -> None:
        self.turn()
        self.file.flush()

    def close(self) -> None:
        """As Linux does: the handle is gone, the error stays."""
        closed = self.file.closed
        self.file.close()
        if not closed:
            self.turn()


@contextlib.contextmanager
def failing(at: int, code: int) -> Iterator[list[str]]:
    """The call number `at` that changes the disk fails; gives the names of those that were made."""
    made: list[str] = []

    def turn(name: str) -> None:
        made.append(name)
        if len(made) - 1 == at:
            raise OSError(code, os.strerror(code))

    def opening(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
            if not set(mode) & set("wxa+"):
                return original(file, mode, *more, **options)
            turn("open")
            return Handle(original(file, mode, *more, **options), lambda: turn("write"))

        return call

    def failing_call(name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def call(*given: Any, **options: Any) -> Any:
            turn(name)
            return original(*given, **options)

        return call

    with contextlib.ExitStack() as stack:
        for module in (io, builtins):
            stack.enter_context(mock.patch.object(module, "open", opening(io.open)))
        for name in ("fsync", "replace", "rename", "mkdir"):
            stack.enter_context(mock.patch.object(os, name, failing_call(name)))
        yield made


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def every_call(before: Callable[[], Any], act: Callable[[], Any], check: Callable[[bool], None], step: int = 1) -> int:
    """Let one call after the other fail; `check` is told whether the act went through. How many failed."""
    at = failures = 0
    while True:
        before()
        done = True
        with failing(at, CODES[failures % len(CODES)]) as made:
            try:
                act()
            except ResourceError as error:
                done = False
                line = str(error)
        check(done)
        if at >= len(made):
            assert done
            return failures
        assert done or "\n" not in line
        failures, at = failures + 1, at + step


def test_a_checkpoint_is_the_old_or_the_new_one(tmp_path, record):
    path = tmp_path / "last.ckpt"

    def save(step: int) -> bytes:
        checkpoints.save(path, {"w": torch.full((40, 50), float(step))}, Position(step=step), optimiser={"a": [step]})
        return path.read_bytes()

    old, new = save(1), save(2)

    def check(done: bool) -> None:
        assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
        assert path.read_bytes() in ((new,) if done else (old, new))

    failures = every_call(lambda: path.write_bytes(old), lambda: save(2), check)
    assert failures > 5
    record("the k-th call of a save fails", k=failures, torn=0)


def test_products_are_the_old_or_the_new_ones(tmp_path, compose, size, record):
    """All kinds of products at once; three of them in quick size."""
    config = compose(
        "dataset.image_resize=[64,32]", "project.resolution=32", f"export=[{size(0, 1) and EXPORTS or FEW}]"
    )
    dataset, pipeline, folder = build(config["dataset"], "dataset"), assemble(config), tmp_path / "room"
    panorama = dataset.load(dataset.sources()[0])
    geometry = pipeline(panorama)
    farther = dataclasses.replace(geometry, distance=geometry.distance * 1.5)
    states = []
    for each in (geometry, farther):
        pipeline.save(each, panorama, folder)
        states.append(files(folder))
    old, new = states
    assert old.keys() == new.keys()
    assert old != new

    def before() -> None:
        shutil.rmtree(folder)
        for name, data in old.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)

    def check(done: bool) -> None:
        found = files(folder)
        assert found.keys() == old.keys()
        assert found == new if done else all(data in (old[name], new[name]) for name, data in found.items())

    failures = every_call(before, lambda: pipeline.save(farther, panorama, folder), check, size(5, 1))
    record("the k-th call of an export fails", files=len(old), k=failures, torn=0)


@pytest.mark.parametrize("continued", [False, True])
def test_a_run_folder_is_whole_or_not_there(tmp_path, compose, continued, record):
    home = tmp_path / "default"
    more = (f"device.base_exp_dir={tmp_path}", f"is_continue={str(continued).lower()}")
    first, second = (compose(*more, f"seed={seed}") for seed in (1, 2))
    log = logging.getLogger("immersivedepth")
    handlers = list(log.handlers)

    def before() -> None:
        shutil.rmtree(home, ignore_errors=True)
        if continued:
            RunFolder.open(run_of(first), first)

    def check(done: bool) -> None:
        assert [p for p in tmp_path.rglob("*") if ".part" in p.name] == []
        folders = list(home.glob("*"))
        assert len(folders) == 1 if done or continued else len(folders) <= 1
        for folder in folders:
            found = yaml.safe_load((folder / "config.yaml").read_text())
            assert found["seed"] in ((2,) if done or not continued else (1, 2))

    try:
        failures = every_call(before, lambda: RunFolder.open(run_of(second), second), check)
    finally:
        for handler in [h for h in log.handlers if h not in handlers]:
            log.removeHandler(handler)
            handler.close()  # raises nothing, though its disk has failed
    record(f"the k-th call of a run's start fails{', continued' if continued else ''}", k=failures, torn=0)


# ---- small disks -------------------------------------------------------------------------------------------------


def on_a_small_disk(said: Path, disk: Path, pages: int, arguments: tuple[str, ...]) -> None:
    """The command line on a disk of so many pages, which vanishes with the process; what is left goes into `said`."""
    children.mount(disk, 4 * pages)
    code: Any = 0
    try:
        children.run(said, (*arguments, f"device.base_exp_dir={disk}"))
    except SystemExit as stop:
        code = stop.code or 0
    run = next(disk.glob("*/*/"), disk)
    left = {name: hashlib.sha256(data).hexdigest() for name, data in files(run).items()}
    for name in left:
        if name.endswith(".json"):
            json.loads((run / name).read_text())
        if name.endswith(".ckpt"):
            checkpoints.load(run / name)
    (said / "left.json").write_text(json.dumps(left))
    (said / "pages").write_text(
        str(sum(-(-len(data) // 4096) for name, data in files(run).items() if name != "run.log"))
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


DISKS: dict[str, tuple[str, ...]] = {
    "a panorama": ("dataset.image_path={}", "project.resolution=32", "export=[arrays,pointcloud,preview]", "refine=[]"),
    "a training": (*TOY, "mode=train", "trainer.epochs=2", "trainer.log_every=1"),
}
# By the clock, or growing.
CHANGING = ("run.json", "run.lock", "run.log", "result.json", "config.yaml", ".jsonl", ".csv")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("name", DISKS)
def test_disks_too_small(name, tmp_path, size, record):
    """From one page to nearly enough: code 5, one line, and every file that is there is one of an unbroken run."""
    disk, said, picture = tmp_path / "disk", tmp_path / "said", tmp_path / "a.png"
    images.write_png(picture, np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8))
    images.write_npy(tmp_path / "a_distance.npy", np.full((32, 64), 2.0, np.float32))
    arguments = tuple(argument.format(picture) for argument in DISKS[name])
    for folder in (disk, said):
        folder.mkdir()

    def attempt(pages: int) -> tuple[int, dict[str, str]]:
        (said / "left.json").unlink(missing_ok=True)
        process = children.start(on_a_small_disk, said, disk, pages, arguments, IMMERSIVEDEPTH_TRUST="tests.")
        code = children.ended(process)
        if code == children.NO_MOUNTS:
            pytest.skip("mounting is not permitted here")
        assert (said / "left.json").exists(), children.errors(said)
        return code, json.loads((said / "left.json").read_text())

    code, whole = attempt(20_000)
    assert code == 0, children.errors(said)
    needed = int((said / "pages").read_text())  # by what lies there in the end, but for the log, which may be cut
    refused = sorted({int(pages) for pages in np.linspace(1, needed - 1, size(3, 15))})
    for pages in refused:
        code, left = attempt(pages)
        assert code == ResourceError.code, (pages, children.errors(said))
        lines = [line for line in children.errors(said).splitlines() if "cannot" in line or "space" in line.lower()]
        assert len(lines) == 1, (pages, children.errors(said))
        assert "Traceback" not in children.errors(said)
        assert "Logging error" not in children.errors(said)
        for file, found in left.items():
            assert ".part" not in file
            if not file.endswith(CHANGING) and "tensorboard" not in file and "ckpt" not in file:
                assert found == whole[file], (pages, file)
    record(f"disks too small for {name}", sizes=len(refused), from_kB=4, to_kB=4 * refused[-1], torn=0)


def on_a_disk_for_reading(said: Path, disk: Path, arguments: tuple[str, ...]) -> None:
    """The command line on such a disk; whatever is computed would be told as a fault of the program."""
    children.mount(disk, 1000, f"mount -o remount,ro '{disk}'")
    with (
        mock.patch.object(Pipeline, "__call__", side_effect=AssertionError("computed")),
        mock.patch.object(Loop, "__call__", side_effect=AssertionError("computed")),
    ):
        children.run(said, (*arguments, f"device.base_exp_dir={disk}"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize("name", DISKS)
def test_a_disk_for_reading_only(name, tmp_path, record):
    """Told in one line, before anything is computed."""
    disk, said, picture = tmp_path / "disk", tmp_path / "said", tmp_path / "a.png"
    images.write_png(picture, np.zeros((32, 64, 3), np.uint8))
    for folder in (disk, said):
        folder.mkdir()
    arguments = tuple(argument.format(picture) for argument in DISKS[name])
    process = children.start(on_a_disk_for_reading, said, disk, arguments, IMMERSIVEDEPTH_TRUST="tests.")
    code = children.ended(process)
    if code == children.NO_MOUNTS:
        pytest.skip("mounting is not permitted here")
    assert code == ResourceError.code, children.errors(said)
    (line,) = children.errors(said).splitlines()
    assert str(disk) in line
    assert "Read-only file system" in line
    assert "device.base_exp_dir" in line
    record(f"a disk for reading only, {name}", code=code)
