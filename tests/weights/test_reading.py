"""Reading is data in, tensors out: nothing runs, nothing damaged passes, every refusal says why in one line."""

import argparse
import collections
import io
import json
import pathlib
import random
import re
import sys
import threading
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save, save_file
from torch import nn

from immersivedepth.checks import WeightsError
from immersivedepth.weights import fit, read, read_checkpoint
from immersivedepth.weights.reading import _content, _Inert, digest, family

from .payloads import mutate, repack

ROOT = Path(__file__).resolve().parents[2]


def same(state, tensors):
    return state.keys() == tensors.keys() and all(torch.equal(state[k], tensors[k]) for k in tensors)


def refusal(path, **options):
    with pytest.raises(WeightsError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def attempt(path):
    """The tensors, or the one line that says why not."""
    try:
        return read(path), None
    except WeightsError as error:
        return None, one_line(str(error))


def one_line(message):
    assert "\n" not in message
    return message


# ---------------------------------------------------------------- layouts


def test_safetensors(tmp_path, tensors):
    save_file(tensors, tmp_path / "a.safetensors")
    assert same(read(tmp_path / "a.safetensors"), tensors)


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.bin", "a.tar", "a.ckpt", "a.safetensors", "a"])
def test_content_decides_and_not_the_name(tmp_path, tensors, name):
    torch.save(tensors, tmp_path / name)
    assert same(read(tmp_path / name), tensors)
    save_file(tensors, tmp_path / name)
    assert same(read(str(tmp_path / name)), tensors)


LAYOUTS = {
    "bare": lambda t: t,
    "ordered": lambda t: collections.OrderedDict(t),
    "state_dict": lambda t: {"state_dict": t, "epoch": 7},
    "model and optimizer": lambda t: {"optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "model": t},
    "model_state_dict": lambda t: {"model_state_dict": t, "epoch": 7, "loss": 0.5},
    "state_dict in model": lambda t: {"model": {"state_dict": t}},
    "module prefix": lambda t: {"state_dict": {f"module.{k}": v for k, v in t.items()}},
    "model prefix": lambda t: {"state_dict": {f"model.{k}": v for k, v in t.items()}},
    "compiled": lambda t: {f"_orig_mod.{k}": v for k, v in t.items()},
    "both prefixes": lambda t: {f"module.model.{k}": v for k, v in t.items()},
    "parameters": lambda t: {k: nn.Parameter(v) for k, v in t.items()},
    "namespace": lambda t: {"state_dict": t, "args": argparse.Namespace(lr=0.1, deep=argparse.Namespace(a=1))},
    "numpy scalar": lambda t: {"state_dict": t, "train_loss": np.float64(0.25), "flag": np.bool_(True)},
    "numpy array": lambda t: {"state_dict": t, "curve": np.arange(4.0), "ids": np.arange(3)},
    "path": lambda t: {"state_dict": t, "args": {"root": pathlib.PurePosixPath("/data")}, "here": pathlib.Path("x")},
    "omegaconf": lambda t: {"state_dict": t, "cfg": OmegaConf.create({"lr": 0.1, "layers": [1, 2], "name": "x"})},
    "defaultdict": lambda t: {"state_dict": t, "log": collections.defaultdict(list, {"a": [1]})},
    "counter": lambda t: {"state_dict": t, "seen": collections.Counter("abca")},
}  # fmt: skip


@pytest.mark.parametrize("old", [False, True], ids=["archive", "old"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, tensors, layout, old):
    torch.save(LAYOUTS[layout](tensors), tmp_path / "a.pt", _use_new_zipfile_serialization=not old)
    state = read(tmp_path / "a.pt")
    assert same(state, tensors)
    assert not any(value.requires_grad for value in state.values())


def test_lightning_checkpoint_with_an_attribute_dict(tmp_path, tensors, monkeypatch):
    """The class is made up here under Lightning's name, for Lightning itself is no requirement."""
    module = type(sys)("pytorch_lightning.utilities.parsing")
    kind = type("AttributeDict", (dict,), {"__module__": module.__name__})
    module.AttributeDict = kind
    for name in ("pytorch_lightning", "pytorch_lightning.utilities"):
        monkeypatch.setitem(sys.modules, name, type(sys)(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    content = {"state_dict": {f"model.{k}": v for k, v in tensors.items()}, "hyper_parameters": kind(lr=0.1)}
    torch.save(content, tmp_path / "a.ckpt")
    monkeypatch.delitem(sys.modules, module.__name__)  # whoever reads it has no Lightning
    assert same(read(tmp_path / "a.ckpt"), tensors)


def test_prefix_stays_unless_every_key_has_it(tmp_path):
    state = {"model.a": torch.zeros(1), "head": torch.zeros(1)}
    torch.save(state, tmp_path / "a.pt")
    assert read(tmp_path / "a.pt").keys() == state.keys()


def test_dtypes_and_shared_memory_survive(tmp_path):
    shared = torch.arange(6, dtype=torch.float16).reshape(2, 3)
    state = {"half": shared, "view": shared.t(), "int": torch.tensor(3), "bf16": torch.ones(2, dtype=torch.bfloat16)}
    torch.save(state, tmp_path / "a.pt")
    assert same(read(tmp_path / "a.pt"), state)
    assert {k: v.dtype for k, v in read(tmp_path / "a.pt").items()} == {k: v.dtype for k, v in state.items()}


def test_two_threads_at_once(tmp_path, tensors):
    """Torch keeps one list of what it lets through for the whole process."""
    torch.save({"state_dict": tensors, "hyper_parameters": argparse.Namespace(a=1)}, tmp_path / "a.ckpt")
    failures, before = [], torch.serialization.get_safe_globals()

    def many():
        for _ in range(30):
            try:
                assert same(read(tmp_path / "a.ckpt"), tensors)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert torch.serialization.get_safe_globals() == before


# ---------------------------------------------------------------- things that are not weights


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\n<HTML><body>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "neither a PyTorch file nor safetensors"),
        (b"hello", "neither a PyTorch file nor safetensors"),
        (b"PK\x03\x04" + bytes(99), "cut short or damaged"),
        (b"\x80\x02", "damaged or not a PyTorch weights file"),
        (b"\x80\x02}q\x00.", "damaged or not a PyTorch weights file"),
        ((8).to_bytes(8, "little") + b"{       ", "damaged safetensors"),
        ((2).to_bytes(8, "little") + b"{}", "nothing"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "neither"),
    ],
)
def test_other_files(tmp_path, content, says):
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    assert says in refusal(path)


def test_no_file_and_a_folder(tmp_path):
    assert "not found" in refusal(tmp_path / "gone.pt")
    assert "not a file" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([torch.zeros(1)], "it holds list"),
        (torch.zeros(1), "it holds Tensor"),
        (3, "it holds int"),
        ({}, "it holds nothing"),
        ({"epoch": 3, "lr": 0.1}, "epoch: int, lr: float"),
        ({"a": torch.zeros(1), "b": "text"}, "b: str"),
        ({0: torch.zeros(1)}, "0: Tensor"),
        ({str(i): i for i in range(9)}, "and 6 more"),
        ({"state_dict": {"model": {"model": {"model": {}}}}}, "expected named tensors"),
        (argparse.Namespace(a=1), "something else than weights"),
    ],
)
def test_other_content(tmp_path, content, says):
    torch.save(content, tmp_path / "a.pt")
    assert says in refusal(tmp_path / "a.pt")


def test_torchscript(tmp_path):
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is old is not the point
        torch.jit.script(Twice()).save(str(tmp_path / "a.pt"))
    assert "TorchScript" in refusal(tmp_path / "a.pt")


def test_plain_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("weights/model.pt", b"x")
    assert "unpack it" in refusal(tmp_path / "a.zip")


def test_sparse_tensors(tmp_path):
    torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "a.pt")
    assert "not a plain dense tensor" in refusal(tmp_path / "a.pt")


def test_zip_bomb(tmp_path, body):
    path = tmp_path / "a.pt"
    path.write_bytes(repack(body, bytes(50_000_000), zipfile.ZIP_DEFLATED))
    assert path.stat().st_size < 200_000
    assert "zip bomb" in refusal(path)


def test_overlapping_zip_bomb(tmp_path, body):
    """Many entries of the directory over the same bytes: more content than file, without compression."""
    buffer = io.BytesIO(body)
    with zipfile.ZipFile(buffer, "a") as archive:
        record = max(archive.infolist(), key=lambda e: e.file_size)
        archive.filelist.extend([record] * 10)
        archive._didModify = True
    path = tmp_path / "a.pt"
    path.write_bytes(buffer.getvalue())
    assert "more than its own size" in refusal(path)


def test_tensor_bomb(tmp_path):
    """A few bytes that claim to be a tensor of a terabyte."""
    torch.save({"a": torch.zeros(1).expand(10**6, 250_000)}, tmp_path / "a.pt")
    assert (tmp_path / "a.pt").stat().st_size < 5000
    assert "claims more bytes" in refusal(tmp_path / "a.pt")


def test_memory_bomb(tmp_path, body):
    """A call of bytearray, which the safe reader of torch lets through, for a petabyte."""
    pickled = b"\x80\x02c__builtin__\nbytearray\n\x8a\x07" + (10**15).to_bytes(7, "little") + b"\x85R."
    (tmp_path / "a.pt").write_bytes(repack(body, pickled))
    assert "cannot be read" in refusal(tmp_path / "a.pt")


# ---------------------------------------------------------------- hashes


def test_hash_is_compared_before_anything_is_unpickled(tmp_path, body, monkeypatch):
    path = tmp_path / "a.pt"
    path.write_bytes(body)
    right = digest(path)
    assert read(path, right)
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("unpickled"))
    message = refusal(path, sha256="00" * 32)
    assert "00" * 32 in message
    assert right in message


def test_mutations_without_a_hash_never_pass_as_other_tensors(tmp_path, tensors, body):
    """The checksums inside the archive: a flipped bit is refused, or it lies where it does not matter."""
    path = tmp_path / "a.pt"
    rng = random.Random(2)
    refused = 0
    for _ in range(400):
        path.write_bytes(mutate(body, rng))
        state, error = attempt(path)
        assert (error is None) == (state is not None and same(state, tensors))
        refused += state is None
    assert refused > 300


@pytest.mark.parametrize("kind", ["old", "safetensors"])
def test_mutations_of_formats_without_checksums_raise_nothing_else(tmp_path, tensors, kind):
    """These can load with other numbers: that is why a hash is kept of every file. But nothing else may happen."""
    buffer = io.BytesIO()
    torch.save(tensors, buffer, _use_new_zipfile_serialization=False)
    good = buffer.getvalue() if kind == "old" else save(tensors)
    path = tmp_path / "a.pt"
    rng = random.Random(3)
    for _ in range(400):
        path.write_bytes(mutate(good, rng))
        attempt(path)


# ---------------------------------------------------------------- malice


def test_stand_ins_are_inert(tmp_path):
    """Names that are let through beside the weights are bound to stand-ins: the real classes are never made."""
    beside = {
        "args": argparse.Namespace(x=1),
        "loss": np.float64(0.5),
        "curve": np.arange(3),
        "root": pathlib.PurePosixPath("/x"),
        "cfg": OmegaConf.create({"a": 1}),
    }
    torch.save({"state_dict": {"a": torch.zeros(1)}, **beside}, tmp_path / "a.pt")
    content = _content(tmp_path / "a.pt", None, lenient=True)
    assert {name: type(content[name]) for name in beside} == dict.fromkeys(beside, _Inert)
    assert all(vars(content[name]) == {} for name in beside)


def test_no_way_around(tmp_path):
    """Torch.load stands in one module, and nowhere without its safe reader."""
    for package in ("immersivedepth", "midas", "depth_anything_v2"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            assert not re.search(r"weights_only\s*=\s*False", text), path
            if path.parts[-2:] != ("weights", "reading.py"):
                assert not re.search(r"^[^#\"]*= *torch\.load\(|pickle\.loads?\(", text, re.MULTILINE), path


# ---------------------------------------------------------------- training checkpoints


def test_checkpoint(tmp_path):
    net = nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    content = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "step": 3, "rng": torch.get_rng_state()}
    torch.save(content, tmp_path / "a.pt")
    back = read_checkpoint(tmp_path / "a.pt", digest(tmp_path / "a.pt"))
    assert back.keys() == content.keys()
    assert torch.equal(back["rng"], content["rng"])
    assert torch.equal(back["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


def test_checkpoint_is_data_only(tmp_path):
    torch.save({"model": {}, "args": argparse.Namespace(a=1)}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"argparse\.Namespace"):
        read_checkpoint(tmp_path / "a.pt")  # what it drops silently, nobody could restore
    torch.save([1], tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="it holds list"):
        read_checkpoint(tmp_path / "a.pt")


# ---------------------------------------------------------------- fitting


def toy(width=4, depth=2):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))


def misfit(net, state, **options):
    with pytest.raises(WeightsError) as caught:
        fit(net, state, what="toy.pt", key="predict.toy.encoder is small", **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("toy.pt does not fit: ")
    assert "predict.toy.encoder is small" in message
    return message


def test_fit(tensors):
    net, other = toy(), toy()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    fit(net, other.state_dict(), what="toy.pt", key="")
    assert same(net.state_dict(), other.state_dict())


def test_fit_keeps_the_precision_of_the_network():
    net = toy()
    fit(net, {k: v.half() for k, v in toy().state_dict().items()}, what="toy.pt", key="")
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_fit_into_a_network_without_memory():
    with torch.device("meta"):
        net = toy()
    fit(net, toy().state_dict(), what="toy.pt", key="", assign=True)
    assert same(net.state_dict(), toy().state_dict())


def test_misfits_are_listed():
    state = toy().state_dict()
    missing = {k: v for k, v in state.items() if not k.startswith("0")}
    assert "2 missing (0.weight, 0.bias)" in misfit(toy(), missing)
    message = misfit(toy(depth=1), toy(depth=4).state_dict())
    assert "6 unexpected (1.weight, 1.bias, 2.weight, ...)" in message
    message = misfit(toy(width=5), state)
    assert "4 of another shape (0.weight [4, 4] instead of [5, 5], 0.bias [4] instead of [5]" in message
    message = misfit(toy(width=5), {**missing, "x": torch.zeros(1)})
    assert all(part in message for part in ("2 missing", "1 unexpected (x)", "2 of another shape"))


def test_scalar_of_another_shape():
    net = nn.BatchNorm1d(2)
    state = {**net.state_dict(), "num_batches_tracked": torch.zeros(3)}
    assert "1 of another shape (num_batches_tracked [3] instead of [])" in misfit(net, state)


def test_likely_cause():
    def recognise(state):
        return f"toy of width {state['0.weight'].shape[0]}" if "0.weight" in state else None

    message = misfit(toy(), toy(width=6).state_dict(), recognise=recognise)
    assert "this is a toy of width 6 file; predict.toy.encoder is small" in message
    assert "is it a file of this network?" in misfit(toy(), {"x": torch.zeros(1)}, recognise=recognise)


def test_networks_that_rename_official_keys():
    """A hook may translate old names: what counts is what the network makes of them."""
    net = toy()
    seen = []

    def rename(module, state, prefix, *args):
        seen.append(set(state))
        for key in list(state):
            state[key.removeprefix("old.")] = state.pop(key)

    net.register_load_state_dict_pre_hook(rename)
    official = {f"old.{k}": v for k, v in toy().state_dict().items()}
    fit(net, official, what="toy.pt", key="")
    assert all(k.startswith("old.") for k in official)  # the caller's mapping is not touched
    del official["old.0.bias"]
    assert "1 missing (0.bias)" in misfit(net, official)


FAMILIES = {
    "dav2": "Depth Anything", "dpt": "MiDaS DPT or Omnidata DPT", "midas": "MiDaS v2.1",
    "omnidata_dpt": "MiDaS DPT or Omnidata DPT", "omnidata_unet": "Omnidata UNet", "depthnet": "DepthNet",
    "psmnet": "PSMNet (stackhourglass)", "psmnet_basic": "PSMNet (basic)",
}  # fmt: skip


def test_families_of_the_released_files():
    keys = sorted((ROOT / "tests" / "parity" / "keys").glob("*.json"))
    assert keys
    for path in keys:
        state = json.loads(path.read_text())["keys"]
        expected = [name for prefix, name in FAMILIES.items() if path.stem.startswith(prefix)]
        assert family(state) == expected[-1], path.stem


def test_files_of_another_family_are_named():
    state = {k: torch.zeros(1) for k in ("pretrained.model.cls_token", "scratch.refinenet1.out_conv.weight")}
    assert "this is a MiDaS DPT or Omnidata DPT file" in misfit(toy(), state)
    state = {k: torch.zeros(1) for k in ("backbone.embeddings.cls_token", "neck.fusion_stage.x", "head.conv1.weight")}
    assert "predict=[hugging_face]" in misfit(toy(), state)
