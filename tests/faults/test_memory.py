"""When memory ends: one line with what was needed and what was left, code 5, and nothing half done."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from immersivedepth import memory
from immersivedepth.checks import ResourceError, WeightsError
from immersivedepth.data import images
from immersivedepth.stages.predict.running import Runner, Running
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
