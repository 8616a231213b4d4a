"""Weights: what is damaged is not loaded, what is malicious does not run, what arrives is whole."""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

import depth_anything_v2
import midas
from depth_anything_v2 import ENCODERS
from immersivedepth.checks import WeightsError
from immersivedepth.nets.depthnet import DepthNet
from immersivedepth.nets.mask_depth import DepthMaskNet8, MaskNet3
from immersivedepth.nets.psmnet import PSMNet
from immersivedepth.nets.residual_unet import ResidualUNet
from immersivedepth.stages.predict import depth_anything_v2 as depth_anything_door
from immersivedepth.stages.predict import midas as midas_door
from immersivedepth.stages.predict import motion as motion_door
from immersivedepth.stages.predict import residual_unet as unet_door
from immersivedepth.stages.predict.depth_anything_v2 import DepthAnythingV2
from immersivedepth.stages.predict.motion import Motion
from immersivedepth.stages.predict.residual_unet import UNet
from immersivedepth.stages.segment import foreground as foreground_door
from immersivedepth.stages.segment.foreground import Foreground
from immersivedepth.systems.foreground_modest import ForegroundModest
from immersivedepth.systems.stereo_3d60 import Stereo3D60
from immersivedepth.systems.unet_diode import UNetDiode
from immersivedepth.training import checkpoints
from immersivedepth.training import system as system_door
from immersivedepth.training.system import System
from immersivedepth.weights import REGISTRY, Source, Weights, fetch, read, read_checkpoint
from immersivedepth.weights.finding import PIN
from immersivedepth.weights.reading import digest
from tests.weights.payloads import files, mutate
from tests.weights.server import Answer, Liar, cut, flipped, honest, sends, stall, status

from . import children

PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "HF_ENDPOINT")


@pytest.fixture(scope="module")
def good() -> bytes:
    """A weights file of 200 kB."""
    buffer = io.BytesIO()
    torch.save({"a.weight": torch.arange(50_000.0), "b.bias": torch.ones(7)}, buffer)
    return buffer.getvalue()


@pytest.fixture
def server(good: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Liar]:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    with Liar(good) as liar:
        yield liar


def source(url: str, size: int, sha256: str) -> Source:
    return Source("toy", "p", "v", "toy.pt", "page", "MIT", "free", "k", url, size, sha256, "this test")


# ---- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_no_damaged_file_is_loaded(kind, tmp_path, monkeypatch, size, record):
    """Through three doors: a hash that is given, one that is published, one noted beside a file of one's own."""
    count, seen = size(90, 1000), {"loaded": 0, "refused": 0}
    tensors = {"a.weight": torch.randn(50, 60, generator=torch.Generator().manual_seed(0)), "b.bias": torch.ones(7)}
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    whole = buffer.getvalue() if kind == "pt" else save(tensors)
    path = tmp_path / "toy.pt"
    path.write_bytes(whole)
    sha256 = digest(path)
    monkeypatch.setitem(REGISTRY, "toy", source("https://example.org/toy.pt", len(whole), sha256))
    own = tmp_path / "own.pt"
    own.with_name(own.name + PIN).write_text(json.dumps({"sha256": sha256}))
    settings = Weights(folder=str(tmp_path), offline=True)
    doors: list[tuple[Path, Callable[[], Any]]] = [
        (path, lambda: read(path, sha256)),
        (path, lambda: read(fetch("toy", settings=settings))),
        (own, lambda: read(fetch("toy", own, settings))),
    ]
    drawn = random.Random(1)
    for turn in range(count):
        damaged, door = doors[turn % 3]
        damaged.write_bytes(bad := mutate(whole, drawn))
        assert bad != whole
        try:
            door()
        except WeightsError as error:
            message = str(error)
        else:
            seen["loaded"] += 1
            continue
        assert str(damaged) in message
        assert "\n" not in message
        seen["refused"] += 1
    record(f"mutations of .{kind}", **seen)
    assert seen == {"loaded": 0, "refused": count}
    for undamaged, door in doors:
        undamaged.write_bytes(whole)
        assert torch.equal(door()["a.weight"], tensors["a.weight"])


# ---- another network ---------------------------------------------------------------------------------------------

DEPTH_ANYTHING = [f"depth_anything_v2_{encoder}" for encoder in ENCODERS]
OWN: dict[str, tuple[Callable[[], torch.nn.Module], Callable[[str], Any], str]] = {
    # name: (the network, the door through which a file comes to it, what its files are called)
    "unet": (lambda: ResidualUNet("linear"), lambda f: UNet(weights=f)._runner, "residual U-Net"),
    "depthnet": (DepthNet, lambda f: Motion(batch_norm=False, weights=f)._runner, "DepthNet"),
    "depthnet with norms": (lambda: DepthNet(True), lambda f: Motion(weights=f)._runner, "DepthNet"),
    "mask": (MaskNet3, lambda f: Foreground(network="mask", weights=f)._runner, "MaskNet3"),
    "mask_depth": (DepthMaskNet8, lambda f: Foreground(weights=f)._runner, "DepthMaskNet8"),
    "psmnet": (PSMNet, lambda f: trained(Stereo3D60(), f), "PSMNet (stackhourglass)"),
    "psmnet basic": (lambda: PSMNet("basic"), lambda f: trained(Stereo3D60(kind="basic"), f), "PSMNet (basic)"),
    "trained unet": (ResidualUNet, lambda f: trained(UNetDiode(), f), "residual U-Net"),
    "trained masks": (DepthMaskNet8, lambda f: trained(ForegroundModest(), f), "DepthMaskNet8"),
}
# One set of keys and shapes; a file of them may be any.
ALIKE = [{"unet", "trained unet"}, {"mask_depth", "trained masks"}]


def trained(system: System, file: str) -> None:
    system.read_weights(system.net(), file)


def opened(name: str, file: str) -> Any:
    """A file through the door of a network, as a run reads it."""
    if name in OWN:
        return OWN[name][1](file)
    if name in DEPTH_ANYTHING:
        return DepthAnythingV2(encoder=name.rpartition("_")[2], weights=file)._runner
    return midas_door.loaded(name, file, Weights(), f"predict.midas.model is {name}")


def title(given: str, door: str) -> str:
    """What a file is to be called at a door: by its own name where the door knows it, else by its family's."""
    if given in OWN:
        return OWN[given][2]
    if given in DEPTH_ANYTHING:
        return f"Depth Anything V2 {given[-4:]}" if door in DEPTH_ANYTHING else "Depth Anything"
    if door not in midas.MODELS:
        families = {"convolutional": "MiDaS v2.1", "unet": "Omnidata UNet"}
        return families.get(midas.SPECS[given].family, "MiDaS DPT or Omnidata DPT")
    if given == "omnidata_dpt_depth":  # it has the keys of the other, and only the file's name tells
        return "omnidata_dpt_depth_v2" if door == "dpt_hybrid_384" else "dpt_hybrid_384"
    return given


def test_no_network_takes_the_weights_of_another(tmp_path, monkeypatch, size, record):
    """Every file through every door: one line that says what the file is and which choice it contradicts."""
    names = [*midas.MODELS, *DEPTH_ANYTHING][:: size(7, 1)] + list(OWN)[:: size(3, 1)]
    monkeypatch.setattr(midas, "create", functools.cache(midas.create))  # a network without memory serves many times
    monkeypatch.setattr(depth_anything_v2, "DepthAnythingV2", functools.cache(depth_anything_v2.DepthAnythingV2))
    states: dict[Path, dict[str, torch.Tensor]] = {}
    for module in (midas_door, depth_anything_door, unet_door, motion_door, foreground_door, system_door):
        monkeypatch.setattr(module, "read", lambda path: dict(states[Path(path)]))
    seen = 0
    with torch.device("meta"):
        for name in names:
            path = tmp_path / f"{midas_door._FILES.get(name, name)}.pt"
            path.touch()
            states[path] = made(name).state_dict()
        for given, file in zip(names, list(states), strict=True):
            for name in names:
                if name == given or {name, given} in ALIKE:
                    continue
                with pytest.raises(WeightsError) as caught:
                    opened(name, str(file))
                message = str(caught.value)
                assert "\n" not in message
                assert message.startswith(f"{file} does not fit: "), (name, message)
                assert re.search(rf"this is a {re.escape(title(given, name))} file; (predict|segment|system)", message)
                seen += 1
    record("weights of another network", files=len(names), refused_in_one_line=seen)


def made(name: str) -> torch.nn.Module:
    if name in OWN:
        return OWN[name][0]()
    if name in DEPTH_ANYTHING:
        return depth_anything_v2.DepthAnythingV2(name.rpartition("_")[2], max_depth=None)
    return midas.create(name, seed=None)


# ---- malice ------------------------------------------------------------------------------------------------------

WATCHED = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "pty.spawn",
    "socket.connect",
    "shutil.rmtree",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "ctypes.dlopen",
    "exec",
    "import",
)


def watched(paths: list[Path], answer: Path) -> None:
    """Read every file in every way; note what was done on the way, and how each was refused."""
    import encodings.cp437  # whatever is imported lazily is imported before the watch begins
    import encodings.latin_1  # noqa: F401

    events: list[tuple[str, str]] = []
    answers: dict[str, str | None] = {}
    watching = False

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        writes = name == "open" and str(arguments[1] or "r").strip("rbt")
        if watching and (name in WATCHED or writes):
            events.append((name, repr(arguments)[:200]))

    def attempt(path: Path) -> None:
        for reader in (read, read_checkpoint, checkpoints.load):
            try:
                reader(path)
                answers[str(path)] = None
            except WeightsError as error:
                answers.setdefault(str(path), str(error))

    sys.addaudithook(hook)
    for path in paths[:5]:
        attempt(path)
    watching = True
    for path in paths:
        attempt(path)
    watching = False
    answer.write_text(json.dumps({"events": events, "answers": answers}))


def test_no_pickle_runs(tmp_path, record):
    canary, folder, answer = tmp_path / "canary", tmp_path / "files", tmp_path / "answer.json"
    folder.mkdir()
    written = files(canary, folder)
    assert len(written) == 150
    assert children.ended(children.start(watched, [path for path, _ in written.values()], answer)) == 0
    found = json.loads(answer.read_text())
    assert found["events"] == []
    assert not canary.exists()
    assert (folder / "victim").is_dir()
    for name, (path, mentioned) in written.items():
        message = found["answers"][str(path)]
        assert message is not None, f"{name} was loaded"
        assert "\n" not in message
        if "archive" in name or "old" in name:
            assert "wants to run code" in message, f"{name}: {message}"
            assert mentioned in message, f"{name}: {message}"
    record("malicious pickles, each in 5 containers", payloads=30, files=150, side_effects=0, loaded=0)


def test_the_pickles_would_run(tmp_path):
    """The test above means something only if the canary does sing when a payload is obeyed."""
    canary = tmp_path / "canary"
    written = files(canary, tmp_path)
    for name in ("os.system", "eval", "runpy", "numpy.load", "torch.load", "Path.touch", "chain", "torch.hub"):
        path, _ = written[f"{name}, protocol 2"]
        pickle.loads(path.read_bytes())  # noqa: S301 - obeyed on purpose
        assert canary.exists(), name
        canary.unlink()


# ---- downloads ---------------------------------------------------------------------------------------------------


def fetching(url: str, folder: str, size: int, sha256: str) -> None:
    """Fetch with locks that lock nothing; exit code 4 if it was refused."""
    import fcntl

    for name in PROXIES:
        os.environ.pop(name, None)
    fcntl.flock = lambda *_: None  # type: ignore[assignment]
    REGISTRY["toy"] = source(url, size, sha256)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        fetch("toy", settings=Weights(folder=folder, timeout_s=0.5, backoff_s=0.01, retries=3))
    except WeightsError as error:
        sys.exit(error.code)


def child(server: Liar, folder: Path) -> BaseProcess:
    return children.start(fetching, server.url, str(folder), len(server.body), server.sha256)


def faults(body: bytes, drawn: random.Random) -> Answer:
    """One of the ways in which a server fails."""
    at = drawn.randrange(len(body))
    return drawn.choice(
        [cut(at), stall(at), status(drawn.choice([500, 503])), sends(flipped(body, at)), sends(body[:at]), honest]
    )


def test_processes_that_fetch_at_once_from_a_bad_server(server, good, tmp_path, size, record):
    """Whenever a file is seen under the final name, in the middle of it all or at the end, it is the right one."""
    rounds, processes, drawn = size(2, 25), 8, random.Random(5)
    seen = {"fetched": 0, "refused": 0, "looks": 0}
    server.pace = 0.002
    for turn in range(rounds):
        folder = tmp_path / str(turn)
        folder.mkdir()
        server.script = [faults(good, drawn) for _ in range(2 * processes)]
        running = [child(server, folder) for _ in range(processes)]
        while any(process.exitcode is None for process in running):
            if (folder / "toy.pt").exists():
                assert (folder / "toy.pt").read_bytes() == good
                seen["looks"] += 1
            time.sleep(0.01)
        codes = [process.exitcode for process in running]
        assert set(codes) <= {0, WeightsError.code}
        assert (0 in codes) is (folder / "toy.pt").exists()
        assert [p.name for p in folder.iterdir() if not p.name.endswith(".lock")] == ["toy.pt"] * (0 in codes)
        seen["fetched"] += codes.count(0)
        seen["refused"] += codes.count(WeightsError.code)
    record("8 processes fetch at once", rounds=rounds, **seen, bad_files=0)
    assert seen["fetched"]
    assert seen["refused"]


def test_downloads_that_are_killed(server, good, tmp_path, monkeypatch, size, record):
    """Kill -9 while a file comes in; what is under its name is whole, and the next start fetches the rest."""
    rounds, drawn, target = size(6, 200), random.Random(3), tmp_path / "toy.pt"
    server.pace, killed = 0.004, 0  # about 0.1 s for the whole file
    for _ in range(rounds):
        target.unlink(missing_ok=True)
        before = len(server.asked)
        process = child(server, tmp_path)
        while len(server.asked) == before and process.exitcode is None:
            time.sleep(0.001)
        process.join(drawn.uniform(0, 0.15))
        process.kill()
        process.join()
        killed += process.exitcode == -9
        if target.exists():
            assert target.read_bytes() == good
    assert killed >= rounds // 2  # else the killing came too late to show anything
    target.unlink(missing_ok=True)
    server.pace = 0.0
    monkeypatch.setitem(REGISTRY, "toy", source(server.url, len(good), server.sha256))
    fetch("toy", settings=Weights(folder=str(tmp_path)))
    assert target.read_bytes() == good
    record("kill -9 while fetching", kills=killed, bad_files=0)
