"""The edges of the command line: what must not reach Hydra unseen, and errors as one line with a code."""

from __future__ import annotations

import errno
import re
import warnings
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import memory
from .checks import ConfigError, ResourceError, UserError
from .config import CONF, HYDRA, HYDRA_TRUSTED, check_targets, explain, nearest

# Classes a logging config may name; everything else could call any function with any argument.
_LOGGING = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "colorlog.ColoredFormatter")
_DISK = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO, errno.EFBIG)  # what disks say
_SEARCH_PATHS = ("pkg://immersivedepth.conf", "pkg://hydra.conf", "file://")


def preflight(arguments: list[str]) -> DictConfig | None:
    """The config of a single run; None where Hydra is to do more, such as --help or a multirun.

    Hydra builds its callbacks, launchers and loggers before the program gets a say, so its own part of the config is
    composed and checked first, without running anything.
    """
    from hydra import compose, initialize_config_dir
    from hydra._internal.utils import get_args_parser
    from hydra.core.global_hydra import GlobalHydra

    parser = get_args_parser()
    parser.error = _refuse
    parsed, strange = parser.parse_known_args(arguments)
    if strange:
        _refuse(f"{strange[0]} is not an option; options come before the first key=value")
    if parsed.help or parsed.hydra_help or parsed.info or parsed.shell_completion:
        return None
    overrides = list(parsed.overrides)
    for override in overrides:
        _check_search_path(override)
    if parsed.multirun:  # values with several choices are for the sweeper; each job is checked when it runs
        overrides = [o for o in overrides if o.lstrip("+~").startswith("hydra")]
    if parsed.config_dir:
        overrides.append(f"hydra.searchpath=['file://{parsed.config_dir}']")
    with (
        initialize_config_dir(str(parsed.config_path or CONF), version_base="1.3"),
        warnings.catch_warnings(action="ignore"),  # about where _self_ stands
    ):
        try:
            cfg = compose(parsed.config_name or "config", overrides, return_hydra_config=True)
        except (ValueError, TypeError, AssertionError) as error:  # what Hydra has no words of its own for
            raise ConfigError(f"{' '.join(overrides)}: {error}") from error
        groups = GlobalHydra.instance().config_loader().list_groups("")
    for group in cfg.hydra.runtime.choices:  # Hydra accepts any name where nothing is chosen
        if group.partition("/")[0] not in groups:
            raise ConfigError(f"{group} is not a group of options{nearest(group, groups)}")
    hydra_part = OmegaConf.to_container(cfg.hydra, resolve=False)
    check_targets(hydra_part, "hydra", HYDRA_TRUSTED)
    _check_logging(hydra_part, "hydra")
    return None if parsed.multirun or parsed.cfg else cfg


def _check_search_path(override: str) -> None:
    key, _, value = override.partition("=")
    if key.lstrip("+~") == "hydra.searchpath":
        entries = [e.strip(" '\"") for e in value.strip("[] ").split(",")]
        if wrong := [e for e in entries if e and not e.startswith(_SEARCH_PATHS)]:
            raise ConfigError(f"hydra.searchpath: {wrong[0]} is refused; name a folder as file:///path/to/folder")


def _check_logging(node: Any, path: str) -> None:
    """Refuse factories and foreign classes in logging configs, and interpolations that make nodes out of text."""
    if isinstance(node, str) and ("oc.create" in node or "oc.decode" in node):
        raise ConfigError(f"{path}: an interpolation that builds config nodes is refused here")
    if isinstance(node, list):
        for i, value in enumerate(node):
            _check_logging(value, f"{path}.{i}")
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "()" or (key == "class" and value not in _LOGGING):
                raise ConfigError(f"{path}.{key}: {value!r} is refused; a log handler can be {', '.join(_LOGGING)}")
            _check_logging(value, f"{path}.{key}")


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
