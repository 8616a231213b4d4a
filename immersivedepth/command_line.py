"""The edges of the command line: what must not reach Hydra unseen, and errors as one line with a code."""

from __future__ import annotations

import errno
import os
import re
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import memory
from .checks import ConfigError, ResourceError, UserError
from .config import CONF, HYDRA, HYDRA_TRUSTED, check_targets, explain, nearest

# Classes a logging config may name; everything else could call any function with any argument.
_LOGGING = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "colorlog.ColoredFormatter")
_DISK = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO, errno.EFBIG)  # what disks say
_SEARCH_PATHS = ("pkg://immersivedepth.conf", "pkg://hydra.conf")  # and any file://
_BUILT = ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging")  # what Hydra makes objects of


def preflight(arguments: list[str]) -> DictConfig | None:
    """The config of a single run; None where Hydra is to do more, such as --help or a multirun.

    Hydra imports search paths and builds its callbacks, launchers and loggers before the program gets a say, even for
    --help, so its own part of the config is composed and checked first, without running anything.
    """
    from hydra import initialize_config_dir
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.utils import create_config_search_path, get_args_parser
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.types import RunMode

    parser = get_args_parser()
    parser.error = _refuse
    parsed, strange = parser.parse_known_args(arguments)
    if strange:
        _refuse(f"{strange[0]} is not an option; options come before the first key=value")
    folder, name = str(parsed.config_path or CONF), parsed.config_name or "config"
    overrides = [] if parsed.shell_completion else list(parsed.overrides)  # there they are words for Hydra
    _check_options(parsed, folder)
    search_path = create_config_search_path(folder)
    if parsed.config_dir:
        added = f"file://{Path(parsed.config_dir).absolute()}"
        search_path.prepend("command-line", added, SearchPathQuery(provider="schema"))
    with (
        initialize_config_dir(folder, version_base="1.3"),
        warnings.catch_warnings(action="ignore"),  # about where _self_ stands
    ):
        loader = ConfigLoaderImpl(search_path)
        try:
            _check_search_path(loader, name, overrides)
            mode = RunMode.MULTIRUN if parsed.multirun else RunMode.RUN
            cfg = loader.load_configuration(name, overrides, mode, from_shell=False)
            _check_hydra(cfg, loader.list_groups(""))
            for job in _jobs(loader, cfg) if parsed.multirun else ():
                _check_hydra(job, loader.list_groups(""))
        except RecursionError as error:
            raise ConfigError(_cycle(error)) from error
        except (ValueError, TypeError, AssertionError) as error:  # what Hydra has no words of its own for
            raise ConfigError(f"{' '.join(overrides)}: {error}") from error
    more = (parsed.multirun, parsed.cfg, parsed.help, parsed.hydra_help, parsed.info, parsed.shell_completion)
    return None if any(more) else cfg


def _check_options(parsed: Any, folder: str) -> None:
    """Refuse what is no folder on a disk, for it would be imported, and what reads a pickle."""
    if parsed.experimental_rerun:
        _refuse("--experimental-rerun is refused, for it reads a pickle")
    if not (Path(folder).is_absolute() and Path(folder).is_dir()):
        _refuse(f"--config-path {folder}: expected the full path of a folder")
    if parsed.config_dir and not Path(parsed.config_dir).is_dir():
        _refuse(f"--config-dir {parsed.config_dir}: expected a folder")
    if parsed.shell_completion and "hydra.searchpath" in os.environ.get("COMP_LINE", ""):
        _refuse("hydra.searchpath is not completed")


def _check_search_path(loader: Any, name: str, overrides: list[str]) -> None:
    """Refuse search paths that are imported; Hydra takes them from the command line and from the primary config."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    asked = [o.value() for o in OverridesParser.create().parse_overrides(overrides) if _key(o) == "hydra.searchpath"]
    primary = loader.repository.load_config(name)
    if primary and OmegaConf.is_dict(primary.config):
        asked.append(OmegaConf.select(primary.config, "hydra.searchpath"))
    for entries in asked:
        for entry in map(str, entries if isinstance(entries, Sequence) and not isinstance(entries, str) else ()):
            if not entry.startswith("file://") and entry not in _SEARCH_PATHS:
                raise ConfigError(f"hydra.searchpath: {entry} is refused; name a folder as file:///path/to/folder")


def _key(override: Any) -> str:
    return str(override.key_or_group)


def _jobs(loader: Any, cfg: DictConfig) -> Iterator[DictConfig]:
    """The jobs of a sweep, as far as they can differ in Hydra's own part: by the groups that are swept."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    params = [f"{key}={value}" for key, value in (cfg.hydra.sweeper.get("params") or {}).items()]
    overrides = OverridesParser.create(loader).parse_overrides([*params, *cfg.hydra.overrides.task])
    groups = loader.list_groups("")
    chosen = [
        o for o in overrides if not o.is_sweep_override() or o.is_discrete_sweep() and _key(o).split("/")[0] in groups
    ]
    for job in BasicSweeper.split_arguments(chosen, None)[0]:
        yield loader.load_sweep_config(cfg, list(job))


def _check_hydra(cfg: DictConfig, groups: list[str]) -> None:
    """Refuse what Hydra's own part of a config could run."""
    for group in cfg.hydra.runtime.choices:  # Hydra accepts any name where nothing is chosen
        if group.partition("/")[0] not in groups:
            raise ConfigError(f"{group} is not a group of options{nearest(group, groups)}")
    hydra_part: Any = OmegaConf.to_container(cfg.hydra, resolve=False)
    if hydra_part["job"]["env_set"]:  # what is trusted and which programs are found is set by a person
        raise ConfigError("hydra.job.env_set is refused; set variables before the program starts")
    check_targets(hydra_part, "hydra", HYDRA_TRUSTED)
    for name in _BUILT:
        _check_built(hydra_part[name], f"hydra.{name}")


def _check_built(node: Any, path: str) -> None:
    """Refuse factories and foreign classes in logging configs, and interpolations that stand for whole nodes."""
    if isinstance(node, str) and re.match(r"\$\{(?!hydra[.:])", node) and node.endswith("}"):
        raise ConfigError(f"{path}: an interpolation that builds config nodes is refused here")
    if isinstance(node, list):
        for i, value in enumerate(node):
            _check_built(value, f"{path}.{i}")
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "()" or (key == "class" and value not in _LOGGING):
                raise ConfigError(f"{path}.{key}: {value!r} is refused; a log handler can be {', '.join(_LOGGING)}")
            _check_built(value, f"{path}.{key}")


def _cycle(error: RecursionError) -> str:
    """The files whose defaults name each other in a ring, out of the frames of Hydra's walk over them."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    walk = [f.f_locals.get("path") for f in frames if f.f_code.co_name == "_create_defaults_tree_impl"]
    ring = [path for path in walk if path and walk.count(path) > 1]
    if not ring:
        return "the config is nested too deeply"
    names = " -> ".join([*dict.fromkeys(ring), ring[0]])
    return f"{names}: these defaults name each other without end; take one of them out"


def _refuse(message: str) -> NoReturn:
    raise ConfigError(f"{message}; see --help")


def one_line(error: BaseException) -> tuple[str, int]:
    """What went wrong in one line, and the exit code."""
    import yaml
    from hydra.errors import HydraException, OverrideParseException

    if isinstance(error, OverrideParseException):
        hint = "put file names with = or , or brackets into a list file: dataset.image_path=list.txt"
        return f"{error.override}: {_join(str(error)).partition('; See')[0]}; {hint}", ConfigError.code
    if isinstance(error, UserError):
        return _join(str(error)), error.code
    if isinstance(error, HydraException | OmegaConfBaseException | yaml.YAMLError):
        return _of_hydra(error), ConfigError.code
    if worker := memory.of_worker(error):
        return worker, ResourceError.code
    if memory.lacking(error):
        detail = _join(str(error))[:200] or type(error).__name__
        return (
            f"out of memory: {memory.shortage(error)}: try a smaller dataset.image_resize, project.resolution, "
            f"predict.<name>.batch_size or trainer.batch_size, or device.kind=cpu ({detail})",
            ResourceError.code,
        )
    if isinstance(error, OSError) and error.errno in _DISK:
        return f"{error.filename or 'disk'}: {error.strerror}: choose another device.base_exp_dir", ResourceError.code
    return f"{type(error).__name__}: {_join(str(error))} (a fault of the program; debug=true shows where)", 1


def _of_hydra(error: BaseException) -> str:
    """Hydra's message without its advice on appending keys and without its blank lines."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return explain(cause)
    if isinstance(error, OmegaConfBaseException):
        return explain(error)
    text = str(error)
    text = text.partition("Config search path")[0].removeprefix("In 'config': ")
    head, _, options = text.partition("Available options in")
    if options:  # Could not find 'align/foo' ... Available options in 'align': and one option a line
        group, _, names = options.partition(":")
        wanted = head.split("'")[1].rpartition("/")[2] if "'" in head else ""
        return f"{_join(head)} in group {group.strip()}{nearest(wanted, names.split())}"
    if named := re.search(r"Could not (find|load|override) '([^']+)'", text):
        group, _, wanted = ("", "", named[2]) if named[1] == "override" else named[2].rpartition("/")
        if group and (CONF / group).is_dir():  # lists of options are not explained by Hydra
            known = [path.stem for path in (CONF / group).glob("*.yaml")]
            return f"{group}=[{wanted}] is not an option{nearest(wanted, known)}"
        wanted = group or wanted
        known = [path.name for path in CONF.iterdir() if path.is_dir()] + [*HYDRA]
        return f"{text[: named.start()]}{wanted} is not a group of options{nearest(wanted, known, '', ['_self_'])}"
    return _join(text.partition("To append to your")[0])


def _join(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    return "; ".join(line for line in lines if line)
