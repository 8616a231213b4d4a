"""When memory ends: one line with what was needed and what was left, code 5, and nothing half done."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from immersivedepth import memory
from immersivedepth.checks import ResourceError, WeightsError
from immersivedepth.command_line import one_line
from immersivedepth.data import images
from immersivedepth.stages.predict.running import Runner, Running
from immersivedepth.training import sampling
from immersivedepth.weights import read

from . import children

resource = pytest.importorskip("resource", reason="limits of this kind exist on POSIX systems only")
SIZES = re.compile(
    r"(\S+ [kMG]?B|more) needed, (\S+ [kMG]?B) left|limited to (\S+ [kMG]?B) .* about (\S+ [kMG]?B) are needed"
)


def told(said: str) -> re.Match[str]:
    """The one line, and no traceback."""
    lines = [line for line in said.splitlines() if "memory" in line.lower()]
    assert len(lines) == 1, said
    assert "Traceback" not in said
    match = SIZES.search(lines[0])
    assert match, lines[0]
    return match


def nothing_half(base: Path) -> None:
    for path in base.rglob("*"):
        assert ".part" not in path.name
        assert path.name != "result.json"


@pytest.mark.parametrize("gigabytes", [2, 3, 4])
def test_limits_on_all_addresses(gigabytes, tmp_path, record):
    """As set by `ulimit -v`. Builds of torch for CUDA take 4 GB of addresses before any work; those are told so."""
    done = subprocess.run(
        ["sh", "-c", f'ulimit -v {gigabytes * 1000000}; exec "$@"', "sh", sys.executable,
         str(children.ROOT / "core_exp_runner.py"), "dataset.image_resize=[64,32]", "project.resolution=32",
         "export=[arrays]", f"device.base_exp_dir={tmp_path}"],
        env={**os.environ, "PYTHONPATH": str(children.ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, ResourceError.code), (done.returncode, done.stderr)
    if done.returncode:
        told(done.stderr)
        nothing_half(tmp_path)
    else:
        assert next(tmp_path.rglob("result.json"))
    record(f"{gigabytes} GB of addresses", code=done.returncode)


def limit(more: float) -> None:
    """No more than so many bytes beside what is loaded already."""
    most = int(memory._used() + more)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    memory.HEADROOM = 0


@pytest.mark.skipif(not memory._used(), reason="this system does not tell what a process has taken")
@pytest.mark.parametrize("gigabytes", [0.2, 2, 3, 4])
def test_limits_beside_what_is_loaded(gigabytes, tmp_path, size, record):
    """A panorama of a size that does not fit."""
    if gigabytes > 1 and not size(0, 1):
        pytest.skip("at full size only")
    pixels = "[16384,8192]" if gigabytes > 1 else "[2048,1024]"
    arguments = (f"dataset.image_resize={pixels}", "export=[arrays]", f"device.base_exp_dir={tmp_path}/out")
    process = children.command(tmp_path, *arguments, before=partial(limit, gigabytes * 1e9))
    assert children.ended(process, 1500) == ResourceError.code, children.errors(tmp_path)
    found = told(children.errors(tmp_path))
    nothing_half(tmp_path / "out")
    record(f"{gigabytes} GB beside what is loaded, {pixels}", needed=found[1], left=found[2])


def reading(path: Path, answer: Path, more: float) -> None:
    limit(more)
    try:
        images.read_image(path) if path.suffix == ".png" else read(path)
    except (ResourceError, WeightsError) as error:
        answer.write_text(f"{error.code} {error}")


@pytest.mark.parametrize("name", ["a.png", "a.pt", "old.pt"])
def test_good_files_are_not_called_damaged(name, tmp_path):
    """Files of 64 MB, read where 20 MB are left."""
    path, answer = tmp_path / name, tmp_path / "answer"
    if path.suffix == ".png":
        images.write_png(path, torch.zeros(3, 4096, 5120))
    else:
        torch.save({"a": torch.ones(16_000_000)}, path, _use_new_zipfile_serialization=name == "a.pt")
    assert children.ended(children.start(reading, path, answer, 20e6)) == 0
    text = answer.read_text()
    assert text.startswith("5 "), text
    assert str(path) in text
    assert "damaged" not in text
    told(text)


# ---- readers of samples ------------------------------------------------------------------------------------------

SAID = (  # by torch, before and after what it says beside
    "DataLoader worker (pid 41) is killed by signal: Killed. ",
    "DataLoader worker (pid 41) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
    "shared memory. Please try to raise your shared memory limit.",
    "DataLoader worker (pid 41) exited unexpectedly with exit code 1. Details are lost due to multiprocessing.",
    "DataLoader worker (pid(s) 41, 42) exited unexpectedly",
    "unable to write to file </torch_41_2_0>: No space left on device (28)",
    "unable to allocate shared memory(shm) for file </torch_41_2_0>: No space left on device (28)",
    "unable to open shared memory object </torch_41_2_0> in read-write mode: Too many open files (24)",
    "unable to mmap 400 bytes from file </torch_41_2_0>: Cannot allocate memory (12)",
)
WRAPPED = (
    'Caught {0} in DataLoader worker process 1.\nOriginal Traceback (most recent call last):\n  File "a"\n{0}: {1}'
)


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_worker_that_cannot_go_on_is_told(said, wrapped):
    line, code = one_line(RuntimeError(WRAPPED.format("RuntimeError", said) if wrapped else said))
    assert code == ResourceError.code
    assert "41" in line
    assert "trainer.workers=0" in line
    assert "--shm-size" in line
    assert "File" not in line
    assert ("worker process 1: " in line) == wrapped


def test_a_fault_in_a_worker_stays_a_fault():
    """Only the last line counts."""
    wrapped = WRAPPED.format("KeyError", "'a'").replace('File "a"', "out of shared memory")
    assert one_line(RuntimeError(wrapped))[1] == 1
    assert one_line(KeyError("out of shared memory"))[1] == 1
    assert one_line(RuntimeError())[1] == 1


@dataclass
class Sized:
    """Samples of one array, or of many numbers."""

    what: dict[str, Any]

    def __len__(self) -> int:
        return 40

    def sample(self, index: int, random: np.random.Generator) -> dict[str, Any]:
        return self.what


def reading_samples(answer: Path, kilobytes: int, what: dict[str, Any]) -> None:
    children.mount(memory.SHARED, kilobytes)
    try:
        read = len(list(sampling.loader(Sized(what), [[(0, i)] for i in range(40)], 0, 2, torch.device("cpu"))))
        answer.write_text(f"0 {read}")
    except Exception as error:
        line, code = one_line(error)
        answer.write_text(f"{code} {line}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize(
    ("kilobytes", "what", "told"),
    [
        (4, {"a": 1.0}, "5 2 workers cannot start: "),
        (400, {"a": np.zeros(1_000_000)}, "5 DataLoader worker process 0: unable to "),
        (400, {f"{i}": float(i) for i in range(200)}, "5 DataLoader worker process 0: unable to "),
        (400, {"a": 1.0}, "0 40"),
    ],
)
def test_shared_memory_too_small(kilobytes, what, told, tmp_path, record):
    """One line instead of a loop that waits forever."""
    code = children.ended(children.start(reading_samples, tmp_path / "answer", kilobytes, what), 60)
    if code == children.NO_MOUNTS:
        pytest.skip("mounting is not permitted here")
    assert (tmp_path / "answer").read_text().startswith(told)
    record(f"{kilobytes} kB of shared memory, samples of {len(what)}", told=told)


# ---- devices -----------------------------------------------------------------------------------------------------


class Small:
    """A device whose memory holds so many views at a time."""

    def __init__(self, net: torch.nn.Module, most: int) -> None:
        self.net, self.most, self.refused = net, most, 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which 1.50 "
                "GiB is free."
            )
        found: torch.Tensor = self.net(x)
        return found


def test_a_device_that_is_too_small_gives_the_same_result(record):
    """Twenty views through a real network, with room for 20, 7, 3 and 1 at a time; and for none."""
    from midas import create

    runner = Runner(create("midas_tiny", 0), Running(kind="cpu", precision="fp32", batch_size=20))
    net: Any = runner.net
    x = torch.rand(20, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    whole, worst = runner(x), 0.0
    for most, halvings in ((20, 0), (7, 2), (3, 3), (1, 5)):
        runner.batch_size, runner.net = 20, Small(net, most)
        found = runner(x)
        assert runner.net.refused == halvings
        worst = max(worst, float(((found - whole).abs() / whole.abs().clamp_min(1e-6)).max()))
    assert worst < 1e-5
    runner.net = Small(net, 0)
    with pytest.raises(ResourceError, match=r"64x64 does not fit the memory of cpu \(2.15 GB needed, 1.61 GB left\)"):
        runner(x)
    record("a device too small for 20 views at once", largest_relative_difference=worst)
