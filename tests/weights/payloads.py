"""Pickles that want to run code, each of which would leave a file, the canary, if obeyed; and files with a flaw."""

from __future__ import annotations

import argparse
import builtins
import codecs
import collections
import functools
import importlib
import io
import operator
import os
import pathlib
import pickle
import random
import runpy
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy
import torch


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced

    def __call__(self) -> None:
        """Only what can be called may stand as a function in a pickle."""


def payloads(canary: Path, folder: Path) -> dict[str, tuple[Any, str]]:
    """By name: the object to pickle and a name that the refusal has to mention."""
    shell = f"touch {canary}"
    code = f"open({str(canary)!r}, 'w').close()"
    script = folder / "script.py"
    script.write_text(code)
    inner = folder / "inner.bin"
    torch.save(Call(os.system, shell), inner)
    array = folder / "array.npy"
    with array.open("wb") as handle:
        numpy.save(handle, numpy.array([Call(os.system, shell)], dtype=object), allow_pickle=True)
    (folder / "hub").mkdir()
    (folder / "hub" / "hubconf.py").write_text(f"{code}\ndef net(): pass")
    victim = folder / "victim"
    victim.mkdir()
    load = functools.partial(torch.load, weights_only=False)
    hub = functools.partial(torch.hub.load, source="local")
    unsafe = functools.partial(numpy.load, allow_pickle=True)
    return {
        "os.system": (Call(os.system, shell), "system"),
        "os.popen": (Call(os.popen, shell), "os.popen"),
        "os.mkdir": (Call(os.mkdir, str(canary)), "mkdir"),
        "subprocess": (Call(subprocess.call, ["touch", str(canary)]), "subprocess.call"),
        "subprocess.Popen": (Call(subprocess.Popen, ["touch", str(canary)]), "subprocess.Popen"),
        "eval": (Call(eval, code), "eval"),
        "exec": (Call(exec, code), "exec"),
        "builtins.open": (Call(builtins.open, str(canary), "w"), "open"),
        "getattr": (Call(getattr, Call(importlib.import_module, "os"), "system"), "getattr"),
        "__import__": (Call(__import__, "os"), "__import__"),
        "importlib": (Call(importlib.import_module, "this"), "importlib.import_module"),
        "runpy": (Call(runpy.run_path, str(script)), "runpy.run_path"),
        "pickle.loads": (Call(pickle.loads, pickle.dumps(Call(os.system, shell))), "pickle"),
        "torch.load": (Call(load, str(inner)), "torch.serialization.load"),
        "torch.load bare": (Call(torch.load, str(inner)), "torch.serialization.load"),
        "torch.hub": (Call(hub, str(folder / "hub"), "net"), "torch.hub.load"),
        "torch.hub download": (Call(torch.hub.download_url_to_file, "file:///etc/hostname", str(canary)), "torch.hub"),
        "add_safe_globals": (Call(torch.serialization.add_safe_globals, [os.system]), "add_safe_globals"),
        "numpy.load": (Call(unsafe, str(array)), "numpy.load"),
        "numpy object array": (numpy.array([Call(os.system, shell)], dtype=object), "system"),
        "partial": (Call(functools.partial(os.system, shell)), "functools.partial"),
        "attrgetter": (Call(operator.attrgetter("system"), Call(__import__, "os")), "operator.attrgetter"),
        "methodcaller": (Call(operator.methodcaller("touch"), canary), "operator.methodcaller"),
        "Path.touch": (Call(pathlib.Path.touch, canary), "pathlib.Path"),
        "shutil.rmtree": (Call(shutil.rmtree, str(victim)), "shutil.rmtree"),
        "codecs": (Call(codecs.open, str(canary), "w"), "codecs.open"),
        "state of a Namespace": (Call(argparse.Namespace, state={"x": Call(os.system, shell)}), "system"),
        "factory of a defaultdict": (Call(collections.defaultdict, Call(os.system, shell)), "system"),
        "chain": (Call(Call(getattr, Call(__import__, "os"), "system"), shell), "__import__"),
        "module": (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    }


def files(canary: Path, folder: Path) -> dict[str, tuple[Path, str]]:
    """Every payload as a PyTorch archive, as a PyTorch file of the old kind and as a bare pickle."""
    written = {}
    for i, (name, (item, mentioned)) in enumerate(payloads(canary, folder).items()):
        content = {"state_dict": {"a": torch.zeros(2), "b": item}, "epoch": 3}
        for kind in ("archive", "old", "protocol 2", "protocol 4"):
            path = folder / f"{i}-{kind}.pt"
            if kind == "archive":
                torch.save(content, path)
            elif kind == "old":
                torch.save(content, path, _use_new_zipfile_serialization=False)
            else:
                path.write_bytes(pickle.dumps({"b": item}, protocol=int(kind[-1])))
            written[f"{name}, {kind}"] = (path, mentioned)
        # torch.save writes protocol 2; a newer one inside the archive has opcodes that the safe reader does not know
        path = folder / f"{i}-archive4.pt"
        path.write_bytes(repack(written[f"{name}, archive"][0].read_bytes(), pickle.dumps({"b": item}, protocol=4)))
        written[f"{name}, archive of protocol 4"] = (path, mentioned)
    return written


def repack(archive: bytes, data: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    """The same archive with another data.pkl."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, data if entry.filename.endswith("data.pkl") else old.read(entry))
    return buffer.getvalue()


def mutate(given: bytes, rng: random.Random) -> bytes:
    """One of the harms that disks and networks do."""
    data = bytearray(given)
    at = rng.randrange(len(data))
    match rng.randrange(6):
        case 0:
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            data[at] = (data[at] + rng.randrange(1, 256)) % 256
        case 2:
            del data[at:]
        case 3:
            end = min(at + 1 + rng.randrange(500), len(data))
            if not any(data[at:end]):
                data[at] = 1
            else:
                data[at:end] = bytes(end - at)
        case 4:
            data[at:at] = rng.randbytes(1 + rng.randrange(50))
        case 5:
            data[at : at + 16] = data[at : at + 16][::-1] + b"\0"
    return bytes(data)
