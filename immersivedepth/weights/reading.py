"""Reads weights as data: no file is unpickled before its hash is known to be right, and none may run code."""

from __future__ import annotations

import hashlib
import io
import pickletools
import re
import threading
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import memory
from ..checks import ResourceError, WeightsError

if TYPE_CHECKING:  # the registry and its table are shown without loading torch, which takes over a second
    from torch import Tensor, nn

INNER = ("state_dict", "model_state_dict", "model")  # where training scripts put the weights beside other things
PREFIXES = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile, Lightning
SHOWN = 3  # keys of each kind that a message lists


class _Inert:
    """Stands where a checkpoint wants a harmless class beside its weights: takes everything and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _empty(*args: Any) -> dict[Any, Any]:
    return {}


_NUMPY = [f"numpy.{core}.multiarray.{f}" for core in ("core", "_core") for f in ("scalar", "_reconstruct")]
_NUMPY += ["numpy.ndarray", "numpy.dtype"]
_NUMPY += [f"numpy.dtypes.{kind}DType" for kind in ("Bool", "Float16", "Float32", "Float64", "Object", "Str", "Void")]
_NUMPY += [f"numpy.dtypes.{sign}Int{bits}DType" for sign in ("", "U") for bits in (8, 16, 32, 64)]
_LIGHTNING = ("pytorch_lightning", "lightning.pytorch")
# What trainers leave in a checkpoint beside the weights. None of it is imported or called: each name is bound to
# a stand-in that ignores what it is given, so that the weights can be read without running foreign code.
_IGNORED = [
    "argparse.Namespace",
    *_NUMPY,
    *(f"pathlib.{kind}Path" for kind in ("Posix", "PurePosix", "Windows", "PureWindows")),
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
    "typing.Any",
    "builtins.dict",
    "builtins.list",
    "builtins.int",
    *(f"{root}.callbacks.{where}" for root in _LIGHTNING for where in (
        "model_checkpoint.ModelCheckpoint", "early_stopping.EarlyStopping",
    )),
]  # fmt: skip
_IGNORED_MAPPINGS = [
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
]
_STAND_INS: list[Any] = [
    *((_Inert, name) for name in _IGNORED),
    *((dict, name) for name in _IGNORED_MAPPINGS),
    (_empty, "collections.defaultdict"),
    _Inert,
]
# What the pickle of plain tensors mentions.
_HARMLESS = re.compile(
    r"torch\.(_utils\._rebuild\w+|(storage\.)?\w+Storage|nn\.parameter\.Parameter|Size|device|Tensor|"
    r"(b?float|u?int|bool|complex)\d*)|collections\.(OrderedDict|Counter)|_codecs\.encode"
)
_compared: set[tuple[int, ...]] = set()
_one_at_a_time = threading.Lock()  # the allow-list of torch is one for the whole process


def digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def remember(path: Path) -> None:
    """Note that the hash of a file has been compared, so that reading it need not look for damage again."""
    _compared.add(_stamp(path))


def _stamp(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def read(path: Path | str, sha256: str | None = None) -> dict[str, Tensor]:
    """The state dict of a `.safetensors` or PyTorch file, unwrapped, on the CPU; refused if it is not only tensors.

    Without a hash, and unless `fetch` has compared one, the checksums inside a PyTorch file are compared instead.
    """
    path = Path(path)
    content = _content(path, sha256, lenient=True)
    state = _unwrap(content, path)
    size = path.stat().st_size
    tensors = {key: _plain(value, key, path, size) for key, value in state.items()}
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def read_checkpoint(path: Path | str, sha256: str | None = None) -> dict[str, Any]:
    """A training checkpoint as it was saved: nested mappings, lists, numbers and tensors, and nothing else."""
    path = Path(path)
    content = _content(path, sha256, lenient=False)
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a mapping, it holds {_name(content)}.")
    return content


def damage(path: Path, thorough: bool = False) -> str | None:
    """Why a file cannot hold weights, as far as can be told without unpickling; None if it can.

    `thorough` also compares the checksum that a PyTorch archive keeps of each of its records.
    """
    with path.open("rb") as handle:
        head = handle.read(512)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "it is empty (0 bytes)"
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
        return "it is a web page (HTML), not weights"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; run `git lfs pull` or download the file itself"
    if head.startswith(b"PK\x03\x04"):
        return _zip_damage(path, thorough)
    if head.startswith(b"\x80\x02") or _is_safetensors(head, path):
        return None
    return "it is neither a PyTorch file nor safetensors"


def fit(
    net: nn.Module,
    state: dict[str, Tensor],
    *,
    what: str,
    key: str,
    recognise: Callable[[dict[str, Tensor]], str | None] | None = None,
    assign: bool = False,
) -> None:
    """Load a state dict strictly; a misfit is told in one line, with its likely cause.

    `what` names the file, `key` the choice it contradicts ("predict.depth_anything_v2.encoder is vits"), and
    `recognise` says what a state dict is ("Depth Anything V2 vitb"). After an error `net` is not to be used.
    """
    try:
        net.load_state_dict(dict(state), strict=True, assign=assign)
    except RuntimeError as error:
        found = (recognise(state) if recognise else None) or family(state)
        cause = f"this is a {found} file; {key}" if found else f"is it a file of this network? {key}"
        raise WeightsError(f"{what} does not fit: {_misfit(str(error))}; {cause}.") from error


def family(state: Mapping[str, Any]) -> str | None:
    """Which of the known networks a state dict is of, told by its keys."""
    signs = {
        "Depth Anything (transformers layout; use predict=[hugging_face])": ("backbone.embeddings.", "neck."),
        "DPT (transformers layout; use predict=[hugging_face])": ("dpt.", "neck."),
        "Depth Anything": ("pretrained.blocks.", "depth_head."),
        "MiDaS DPT or Omnidata DPT": ("pretrained.model.", "scratch.refinenet1."),
        "MiDaS v2.1": ("pretrained.layer1.", "scratch.refinenet1."),
        "Omnidata UNet": ("down_blocks.", "up_blocks.", "last_conv"),
        "PSMNet (stackhourglass)": ("feature_extraction.", "classif1."),
        "PSMNet (basic)": ("feature_extraction.", "classify."),
        "residual U-Net": ("down.", "bottleneck.", "up."),
        "DepthNet": ("conv6_1.", "predict_depth6."),
        "MaskNet3": ("background.", "picture.", "joint."),
        "DepthMaskNet8": ("background_stem.", "picture_stem."),
        "Mask R-CNN": ("backbone.", "rpn.", "roi_heads."),
    }
    for name, prefixes in signs.items():
        if all(any(key.startswith(prefix) for key in state) for prefix in prefixes):
            return name
    return None


def _content(path: Path, sha256: str | None, *, lenient: bool) -> Any:
    """What a file holds, after every check that can be made before it is unpickled."""
    if not path.is_file():
        raise WeightsError(f"{path}: not found, or not a file.")
    try:
        if sha256 and (found := digest(path)) != sha256:
            raise WeightsError(
                f"{path}: damaged or not the expected file: SHA-256 expected {sha256}, found {found}. "
                "Delete it and fetch it again."
            )
        if reason := damage(path, thorough=sha256 is None and _stamp(path) not in _compared):
            raise WeightsError(f"{path}: {reason}. Delete it and fetch it again.")
        with path.open("rb") as handle:
            head = handle.read(9)
        return _safetensors(path) if _is_safetensors(head, path) else _torch(path, head[:2] == b"PK", lenient)
    except (OSError, MemoryError) as error:
        size, free = path.stat().st_size, memory.left()
        if memory.lacking(error) and free is not None and free < 2 * size:  # else the file asks for more than it holds
            raise ResourceError(
                f"{path}: not enough memory to read it ({memory.shortage(error, size)}): choose a smaller network"
            ) from error
        raise WeightsError(f"{path}: cannot be read: {error or type(error).__name__}.") from error


def _is_safetensors(head: bytes, path: Path) -> bool:
    """Eight bytes of header length, then JSON."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= path.stat().st_size - 8


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        if memory.lacking(error):
            raise MemoryError(_first(error)) from error
        raise WeightsError(f"{path}: damaged safetensors file ({_first(error)}). Fetch it again.") from error


def _torch(path: Path, archive: bool, lenient: bool) -> Any:
    import torch

    names = _STAND_INS if lenient else []
    with _one_at_a_time, torch.serialization.safe_globals(names), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on pickle protocols; what matters is raised
        try:
            if archive and path.suffix != ".safetensors":
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            with path.open("rb") as handle:  # the old format cannot be mapped, and a name is not to decide the format
                return torch.load(handle, map_location="cpu", weights_only=True)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # a broken pickle can raise almost anything
            if memory.lacking(error):
                raise MemoryError(_first(error)) from error
            if wanted := _wanted(path, archive, error):
                raise WeightsError(
                    f"{path}: refused, it wants to run code: {wanted}. Only plain tensors are read; ask its maker for "
                    "a state dict or a .safetensors file."
                ) from error
            raise WeightsError(f"{path}: damaged or not a PyTorch weights file ({_first(error)}).") from error


def _wanted(path: Path, archive: bool, error: Exception) -> str | None:
    """The names of the code that a refused pickle asked for."""
    import torch

    names: set[str] = set()
    if match := re.search(r"(?:GLOBAL|function) <?(?:built-in |function |class )?'?([\w.]+)", str(error)):
        names.add(match[1])
    try:
        names |= set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) if archive else set()
    except Exception:  # its parser knows fewer opcodes than pickles may have
        names |= _globals(path)
    if not archive and names:
        names |= _globals(path)
    if not names:
        return None
    listed = sorted({_modern(name) for name in names})
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")


def _modern(name: str) -> str:
    """Old pickle protocols call things by the names they had in Python 2."""
    module, _, function = name.rpartition(".")
    module, function = NAME_MAPPING.get((module, function), (IMPORT_MAPPING.get(module, module), function))
    return f"{module}.{function}".removeprefix("builtins.").lstrip(".")


def _globals(path: Path) -> set[str]:
    """Every name a pickle mentions for import, read off its opcodes without running them."""
    names: set[str] = set()
    with suppress(Exception):  # what could be read is enough for a message
        stream = io.BytesIO(_pickles(path))
        while True:  # the old format is a row of pickles; what follows them ends the loop as an error
            texts: list[str] = []
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST"):
                    names.add(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL" and len(texts) >= 2:
                    names.add(f"{texts[-2]}.{texts[-1]}")
                elif isinstance(argument, str):
                    texts.append(argument)
    return {name for name in names if not _HARMLESS.fullmatch(name) and name not in _IGNORED}


def _pickles(path: Path) -> bytes:
    """The pickled part of a PyTorch file, without its numbers where they can be told apart."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as handle:
            return handle.read(64 << 20)
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))


def _zip_damage(path: Path, thorough: bool) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if any(name.endswith("/constants.pkl") for name in names):
                return "it is a TorchScript program, not weights; save its state dict instead"
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                return "it is a compressed archive, which PyTorch never writes; refused as a possible zip bomb"
            if sum(entry.file_size for entry in entries) > path.stat().st_size:
                return "it claims to hold more than its own size; refused as a possible zip bomb"
            if not any(name.endswith("data.pkl") for name in names):
                return "it is a zip archive without weights; unpack it if the weights are inside"
            if thorough and (broken := archive.testzip()):
                return f"it is damaged: {broken} does not match its checksum"
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OverflowError) as error:
        return f"it is cut short or damaged ({_first(error)})"
    return None


def _unwrap(content: Any, path: Path) -> dict[str, Any]:
    """The mapping from name to tensor inside what training scripts save around it."""
    import torch

    for _ in range(3):
        if not isinstance(content, dict):
            raise WeightsError(f"{path}: expected named tensors, it holds {_name(content)}.")
        if inner := next((k for k in INNER if isinstance(content.get(k), dict)), None):
            content = content[inner]
        else:
            break
    # dict.items: an OrderedDict from a file may carry attributes that hide its own methods
    state = {k: v for k, v in dict.items(content)}
    wrong = [k for k, v in state.items() if not isinstance(k, str) or not isinstance(v, torch.Tensor)]
    if not state or wrong:
        listed = ", ".join(f"{k!s:.40}: {_name(state[k])}" for k in wrong[:SHOWN]) or "nothing"
        raise WeightsError(
            f"{path}: expected named tensors, bare or under {', '.join(INNER)}; it holds {listed}"
            f"{f' and {len(wrong) - SHOWN} more' if len(wrong) > SHOWN else ''}."
        )
    return state


def _plain(value: Tensor, key: str, path: Path, size: int) -> Tensor:
    """A tensor as data: dense, on the CPU, backed by bytes that are really in the file."""
    import torch

    if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
        raise WeightsError(f"{path}: {key} is not a plain dense tensor ({value.layout}, {value.device}).")
    if value.numel() * value.element_size() > size:
        raise WeightsError(f"{path}: {key} claims more bytes than the whole file has; refused.")
    return value.detach()


def _misfit(text: str) -> str:
    """What `load_state_dict` said, shortened to the first few keys of each kind."""
    parts = []
    for kind, pattern in (("missing", r"Missing key\(s\) in state_dict: (.*)"),
                          ("unexpected", r"Unexpected key\(s\) in state_dict: (.*)")):  # fmt: skip
        if match := re.search(pattern, text):
            parts.append(_few(kind, re.findall(r'"([^"]+)"', match[1])))
    shapes = re.findall(r"size mismatch for (\S+): .*?torch\.Size\((\[[^]]*])\).*?torch\.Size\((\[[^]]*])\)", text)
    if shapes:
        parts.append(_few("of another shape", [f"{k} {have} instead of {want}" for k, have, want in shapes]))
    return "; ".join(parts) or _first(text)


def _few(kind: str, names: list[str]) -> str:
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} {kind} ({', '.join(names[:SHOWN])}{more})"


def _first(error: object) -> str:
    """The first line of what went wrong, short enough for one line of ours."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]


def _name(value: Any) -> str:
    return "something else than weights" if isinstance(value, _Inert) else type(value).__name__
