"""The one door from YAML to objects: composing, checking and building configs.

A config is code, so `build()` makes only what an allow-list admits, and nothing is imported before its name passed.
The signature of a class is its schema: unknown keys, wrong types and numbers out of range are refused by name.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import memory
from .checks import ConfigError, Range

# Modules whose classes a config may build, and whose functions it may bind with `_partial_: true`.
TRUSTED = (
    "immersivedepth.stages.",
    "immersivedepth.data.",
    "immersivedepth.nets.",
    "immersivedepth.render.",
    "immersivedepth.training.",
    "immersivedepth.systems.",
    "immersivedepth.losses.",
    "immersivedepth.metrics.",
    "immersivedepth.evaluation.",
    "immersivedepth.weights.",
    "immersivedepth.app.",
    "torch.optim.",
)
# What Hydra's own part of a config may name: the launchers and sweepers it ships, and those a user installed.
HYDRA_TRUSTED = ("hydra._internal.core_plugins.", "hydra_plugins.")
_MARKS = ("_target_", "_partial_")  # what is no key of a class
# torch does not say what its optimisers and schedulers take until a run has begun.
_TORCH: dict[str, Any] = {
    "lr": Annotated[float, Range(0)],
    "eps": Annotated[float, Range(0)],
    "weight_decay": Annotated[float, Range(0)],
    "momentum": Annotated[float, Range(0, 1)],
    "dampening": Annotated[float, Range(0, 1)],
    "betas": tuple[Annotated[float, Range(0, 1)], Annotated[float, Range(0, 1)]],
    "milestones": list[Annotated[int, Range(1)]],
    "last_epoch": Annotated[int, Range(-1)],
}
_TORCH |= dict.fromkeys(
    ("gamma", "factor", "pct_start", "base_momentum", "max_momentum"), Annotated[float, Range(0, 1)]
)
_TORCH |= dict.fromkeys(("threshold", "min_lr", "max_lr"), Annotated[float, Range(0)])
_TORCH |= dict.fromkeys(("div_factor", "final_div_factor"), Annotated[float, Range(1)])
_TORCH |= dict.fromkeys(("patience", "cooldown"), Annotated[int, Range(0)])
_TORCH |= dict.fromkeys(("total_steps", "epochs", "steps_per_epoch"), Annotated[int, Range(1)] | None)
_HUGE = 2**63 - 1  # what no number here may exceed, but for infinity
# Further prefixes, separated by commas, for a user's own stages: set by a person, never by a file.
TRUST_VARIABLE = "IMMERSIVEDEPTH_TRUST"

# Beside the package in a checkout, inside it when installed.
_HERE = Path(__file__).resolve().parent
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"


@dataclass
class Device:
    """Where results go and what computes them."""

    base_exp_dir: str = "outputs"
    kind: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    backend: Literal["torch", "openvino"] = "torch"
    compile: bool = False
    geometry: Literal["cpu", "same"] = "cpu"
    threads: Annotated[int, Range(1, 1024)] | None = None


@dataclass
class Run:
    """The root of a config; the stages are nodes with a `_target_`, checked against the classes they name."""

    mode: str
    device: Device
    dataset: Any
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    exp_name: str = "default"
    is_continue: bool = False
    debug: bool = False
    weights: Any = None
    enhance: dict[str, Any] = dataclasses.field(default_factory=dict)
    project: Any = None
    predict: dict[str, Any] = dataclasses.field(default_factory=dict)
    fuse: Any = None
    align: Any = None
    blend: Any = None
    refine: dict[str, Any] = dataclasses.field(default_factory=dict)
    segment: Any = None
    export: dict[str, Any] = dataclasses.field(default_factory=dict)
    system: Any = None
    trainer: Any = None
    lr_range: Any = None
    data: Any = None
    pose_sampler: Any = None
    render: Any = None
    scene: Any = None
    field: Any = None
    inpaint: Any = None
    view: Any = None
    protocol: Any = None
    evaluation: Any = None
    runs: list[str] = dataclasses.field(default_factory=list)
    app: Any = None

    def __post_init__(self) -> None:
        if not self.exp_name or self.exp_name.startswith((".", "-")) or set(self.exp_name) & set('/\\:*?"<>|\0'):
            raise ConfigError(f"exp_name={self.exp_name!r}: expected a plain folder name")
        if not self.device.base_exp_dir:
            raise ConfigError("device.base_exp_dir is empty: name a folder for the results")


HYDRA = ("hydra", "hydra/job_logging", "hydra/hydra_logging")  # names at the root that Hydra itself reads

# What is built, and what holds several by names of one's own.
_SEVERAL = ("enhance", "predict", "refine", "export")
_PLAIN = ("mode", "device", "seed", "exp_name", "is_continue", "debug", "runs")
_STAGES = [field.name for field in dataclasses.fields(Run) if field.name not in _PLAIN]


def compose(name: str = "config", overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The named config with overrides, resolved and checked, for use from Python."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolve(hydra_compose(name, overrides=list(overrides)))


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """A composed config as plain data with every interpolation followed, its root and every node checked."""
    cfg = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    _check_device(cfg.get("device"))
    plain = _plain(cfg)
    check_targets(plain)
    _check_marks(plain, "")
    _check_node({**plain, "_target_": f"{Run.__module__}.Run"}, "", Run)
    for name in _STAGES:
        value = plain.get(name)
        for key, node in (value or {}).items() if name in _SEVERAL else [("", value)]:
            where = f"{name}.{key}".rstrip(".")
            if node is not None and not isinstance(node, dict):
                raise ConfigError(f"{where}={_short(node)}: expected a node with a _target_")
            if node and "_target_" not in node:
                chosen = [k for k, v in plain[name].items() if isinstance(v, dict) and "_target_" in v] if key else []
                hint = nearest(key, chosen, where) if chosen else ""
                raise ConfigError(f"{where} has no _target_: no {name} of that name was chosen{hint}")
        _check_tree(value, name)
    _check_weights(plain)
    return plain


def _check_weights(plain: dict[str, Any]) -> None:
    """Refuse weights of models that were not chosen: they would count for nothing, and say nothing."""
    weights, models = (plain.get("fuse") or {}).get("weights"), list(plain.get("predict") or ())
    for name in weights if isinstance(weights, dict) else ():
        if name not in models:
            where = f"fuse.weights.{name}"
            raise ConfigError(f"{where}: no predictor of that name was chosen{nearest(str(name), models, where)}")


def _check_device(device: Any) -> None:
    """Refuse unknown keys of the device before interpolations of others miss the right ones."""
    known = [field.name for field in dataclasses.fields(Device)]
    for key in map(str, device if isinstance(device, DictConfig) else ()):
        if key not in known:
            raise ConfigError(f"device.{key} is not a key{nearest(key, known, f'device.{key}')}")


def run_of(plain: dict[str, Any]) -> Run:
    """The root of a checked config as an object; the stages stay plain data for `build`."""
    return Run(**{**plain, "device": Device(**plain["device"])})


def build(node: Any, path: str = "") -> Any:
    """Build the object that a config node describes. Constructors never see OmegaConf containers."""
    plain = _plain(node) if isinstance(node, DictConfig) else node
    check_targets(plain, path)
    _check_marks(plain, path)
    _check_tree(plain, path)
    return _make(plain, path)


def check_targets(node: Any, path: str = "", trusted: tuple[str, ...] = TRUSTED) -> None:
    """Refuse a `_target_` outside the allow-list, by name alone, before anything is imported."""
    for where, target in _targets(node, path):
        allowed = (*trusted, *_trusted_by_user())
        if not isinstance(target, str) or not target.startswith(allowed):
            raise ConfigError(f"{where}: _target_ {target!r} is refused; a config may only name {', '.join(allowed)}")


def _plain(cfg: DictConfig) -> dict[str, Any]:
    try:
        plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    return plain


def explain(error: OmegaConfBaseException) -> str:
    """What OmegaConf has to say, in one line that begins with the key."""
    first = str(error.msg or error).splitlines()[0]
    key = error.full_key or ""
    if type(error).__name__ == "MissingMandatoryValue":
        return f"{key} has no value: set {key}=..."
    parent = error.parent_node
    if type(error).__name__ in ("ConfigAttributeError", "ConfigKeyError") and isinstance(parent, DictConfig):
        marks = ["defaults"] if "." in key else ["defaults", *HYDRA]
        return f"{key} is not a key{nearest(str(error.key), [str(k) for k in parent], key, marks)}"
    return f"{key}: {first}" if key and key not in first else first


def nearest(name: str, known: Sequence[str], path: str = "", marks: Sequence[str] = ()) -> str:
    """The end of a sentence that names the closest valid choice, or all of them; `marks` are named only if close."""
    known = sorted(k for k in known if not k.startswith("_") and k != "hydra")
    prefix = path.rpartition(".")[0] + "." if "." in path else ""
    if close := _closest(name, marks, 0.75) or _closest(name, known, 0.5):
        return f"; did you mean {' or '.join(prefix + k for k in close)}?"
    return f"; it can be {', '.join(prefix + k for k in known)}" if known else "; it takes no keys"


def _closest(name: str, known: Sequence[str], least: float) -> list[str]:
    """The name most like another one; all that are equally like it and equally long."""
    likeness = {k: (difflib.SequenceMatcher(None, k, name).ratio(), -abs(len(k) - len(name))) for k in known}
    best = max(likeness.values(), default=(0.0, 0))
    return [k for k in known if best[0] >= least and likeness[k] == best]


def _trusted_by_user() -> tuple[str, ...]:
    return tuple(p for p in os.environ.get(TRUST_VARIABLE, "").replace(" ", "").split(",") if p)


def _targets(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every _target_ of plain data, with the dotted path to it."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path or "config", node["_target_"]
        for key, value in node.items():
            yield from _targets(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _targets(value, f"{path}.{i}".lstrip("."))


def _check_marks(node: Any, path: str) -> None:
    """Refuse keys that look like `_target_` or `_partial_`, or like others of Hydra's, and are not."""
    if isinstance(node, list):
        for i, value in enumerate(node):
            _check_marks(value, f"{path}.{i}".lstrip("."))
    for key, value in node.items() if isinstance(node, dict) else ():
        where = f"{path}.{key}".lstrip(".")
        if str(key) not in _MARKS and (str(key).startswith("_") or str(key).endswith("_")):
            close = difflib.get_close_matches(str(key), _MARKS, n=1, cutoff=0.75)
            hint = f"did you mean {where.removesuffix(str(key))}{close[0]}?" if close else "take it out"
            raise ConfigError(f"{where} is not a key; {hint}")
        _check_marks(value, where)


def _locate(target: str, path: str) -> Callable[..., Any]:
    """The class or function of a trusted name; a name re-exported from elsewhere is not trusted."""
    module_name, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        if memory.lacking(error):
            raise
        raise ConfigError(f"{path}: _target_ {target} does not exist ({error})") from error
    home = str(getattr(found, "__module__", ""))
    if not (inspect.isclass(found) or inspect.isfunction(found)) or not f"{home}.".startswith(
        (*TRUSTED, *_trusted_by_user())
    ):
        raise ConfigError(f"{path}: _target_ {target} is refused; it is not a class or function of its module")
    return typing.cast(Callable[..., Any], found)


def _check_tree(node: Any, path: str) -> None:
    """Check every node with a `_target_` against the signature it names."""
    if isinstance(node, list):
        for i, value in enumerate(node):
            _check_tree(value, f"{path}.{i}".lstrip("."))
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        _check_node(node, path, _locate(node["_target_"], path))
    for key, value in node.items():
        _check_tree(value, f"{path}.{key}".lstrip("."))


def _check_node(node: dict[str, Any], path: str, found: Callable[..., Any]) -> None:
    """Check the keys and values of one node against the signature of what it builds."""
    partial = node.get("_partial_", False)
    if inspect.isfunction(found) and partial is not True:
        raise ConfigError(f"{path}: {node['_target_']} is a function and is never called from a config; add _partial_")
    try:
        signature = inspect.signature(found)
    except ValueError as error:  # some classes written in C do not tell
        raise ConfigError(f"{path}: {node['_target_']} does not say which keys it takes") from error
    parameters = {p.name: p for p in signature.parameters.values() if p.kind is not p.VAR_POSITIONAL}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    hints = _hints(found)
    for key, value in node.items():
        if key in ("_target_", "_partial_"):
            continue
        where = f"{path}.{key}".lstrip(".")
        if key not in parameters and not open_ended:
            marks = ["defaults"] if path else ["defaults", *HYDRA]
            raise ConfigError(f"{where} is not a key{nearest(str(key), list(parameters), where, marks)}")
        if key in hints and (wanted := misfit(value, hints[key])):
            raise ConfigError(f"{where}={_short(value)}: expected {wanted}")
        for place, record, hint in _records(value, hints.get(key), where):
            _check_node({**record, "_target_": hint.__name__}, place, hint)
    required = [p.name for p in parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    if missing := [name for name in required if name not in node and not partial]:
        raise ConfigError(f"{f'{path}.{missing[0]}'.lstrip('.')} has no value: set it")


def _records(value: Any, hint: Any, path: str) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """The plain records that a value holds by its type: itself, or the values of a mapping from names to them."""
    if not isinstance(value, dict) or "_target_" in value:
        return
    if dataclass_hint(hint):
        yield path, value, hint
    elif typing.get_origin(hint) is dict and dataclass_hint(typing.get_args(hint)[1]):
        for name, record in value.items():
            if not isinstance(record, dict):
                raise ConfigError(f"{path}.{name}={_short(record)}: expected a mapping")
            yield f"{path}.{name}", record, typing.get_args(hint)[1]


def dataclass_hint(hint: Any) -> bool:
    """Whether a hint names a plain record of ours, whose keys stand in the YAML without a `_target_`."""
    return inspect.isclass(hint) and hasattr(hint, "__dataclass_fields__")


@functools.cache
def _hints(found: Callable[..., Any]) -> dict[str, Any]:
    source: Any = found
    if inspect.isclass(found) and not hasattr(found, "__dataclass_fields__"):
        source = found.__init__
    try:
        hints = typing.get_type_hints(source, include_extras=True)
    except NameError:  # hints of other libraries that exist for type checkers only
        hints = {}
    if str(found.__module__).startswith("torch.optim."):
        hints |= {name: _TORCH[name] for name in inspect.signature(found).parameters if name in _TORCH}
    return hints


def misfit(value: Any, hint: Any) -> str | None:  # noqa: C901 - one branch per kind of type
    """What was expected, if a value does not fit a type; None if it fits."""
    if isinstance(value, float) and math.isnan(value):
        return f"{_words(hint)}, not nan"
    if isinstance(value, int | float) and abs(value) > _HUGE and abs(value) != math.inf:
        return f"{_words(hint)}, at most {_HUGE:g}"
    if hint is Any or hint is inspect.Parameter.empty or isinstance(hint, str | typing.TypeVar):
        return None
    if isinstance(value, dict) and "_target_" in value and hint not in (bool, int, float, str):
        return None  # built and checked by itself
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        inner, *bounds = arguments
        ok = misfit(value, inner) is None and all(value in b for b in bounds if isinstance(b, Range))
        return None if ok else _words(hint)
    if origin in (typing.Union, types.UnionType):
        return None if any(misfit(value, a) is None for a in arguments) else _words(hint)
    if origin is Literal:
        return None if any(value == a and type(value) is type(a) for a in arguments) else _words(hint)
    if origin in (list, tuple) and isinstance(value, list):
        each = _each(origin, arguments, len(value))
        fits = each is not None and all(misfit(v, a) is None for v, a in zip(value, each, strict=True))
        return None if fits else _words(hint)
    if origin is dict and isinstance(value, dict):
        wrong = [misfit(v, arguments[1]) for v in value.values()] if arguments else []
        return next((w for w in wrong if w), None)
    simple: dict[Any, Any] = {bool: bool, int: int, float: int | float, str: str, Path: str, list: list, dict: dict}
    simple |= {type(None): type(None), None: type(None), tuple: list}
    if hint in simple:
        fits = isinstance(value, simple[hint]) and (hint is bool or not isinstance(value, bool))
        return None if fits else _words(hint)
    if dataclass_hint(hint) and isinstance(value, dict):
        return None
    return _words(hint)


def _each(origin: Any, arguments: tuple[Any, ...], count: int) -> list[Any] | None:
    """The type of each element of a list or tuple of that many; None if it cannot have so many."""
    if not arguments:
        return [Any] * count
    if origin is list or (len(arguments) == 2 and arguments[1] is Ellipsis):
        return [arguments[0]] * count
    return list(arguments) if len(arguments) == count else None


def _words(hint: Any) -> str:
    """A type in the words of a person who writes YAML."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return " ".join([_words(arguments[0]), *(str(b) for b in arguments[1:] if isinstance(b, Range))])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(a) for a in arguments)
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in arguments)
    if origin in (list, tuple):
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            return "[" + ", ".join(_words(a) for a in arguments) + "]"
        return f"a list of {_words(arguments[0])}" if arguments else "a list"
    names: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    names |= {Path: "a path", type(None): "null", None: "null", dict: "a mapping"}
    if hint in names:
        return names[hint]
    return "a mapping" if origin is dict else f"a node with a _target_ ({getattr(hint, '__name__', hint)})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _make(node: Any, path: str) -> Any:
    if isinstance(node, list):
        return [_make(v, path) for v in node]
    if not isinstance(node, dict):
        return node
    inside = {k: _make(v, f"{path}.{k}".lstrip(".")) for k, v in node.items() if k not in ("_target_", "_partial_")}
    if "_target_" not in node:
        return inside
    found = _locate(node["_target_"], path)
    hints = _hints(found)
    arguments = {k: _coerce(v, hints.get(k, Any)) for k, v in inside.items()}
    if node.get("_partial_", False):
        return functools.partial(found, **arguments)
    try:
        return found(**arguments)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _coerce(value: Any, hint: Any) -> Any:
    """YAML knows lists, texts and whole numbers; constructors may want tuples, paths and floats."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _coerce(value, arguments[0])
    if origin in (typing.Union, types.UnionType):
        return next((_coerce(value, a) for a in arguments if misfit(value, a) is None), value)
    if isinstance(value, list) and (origin is tuple or hint is tuple):
        each = _each(tuple, arguments, len(value)) or [Any] * len(value)
        return tuple(_coerce(v, a) for v, a in zip(value, each, strict=True))
    if dataclass_hint(hint) and isinstance(value, dict):
        inner = _hints(hint)
        return hint(**{k: _coerce(v, inner.get(k, Any)) for k, v in value.items()})
    if origin is dict and isinstance(value, dict) and len(arguments) == 2:
        return {k: _coerce(v, arguments[1]) for k, v in value.items()}
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
