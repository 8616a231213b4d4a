"""Where weights are looked for, and how a missing file comes to be there."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ..checks import Range, ResourceError, WeightsError
from ..files import write_text
from ..memory import human
from .download import Patience, download, locked, sweep_stale
from .reading import damage, digest, read, remember
from .registry import HUB, HUB_PAGE, REGISTRY, Source, known

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

VARIABLE = "IMMERSIVEDEPTH_WEIGHTS"
BUNDLED = Path(__file__).resolve().parent.parent / "assets" / "weights"  # what comes with the package
PIN = ".sha256.json"  # beside a file without a published hash: what it was when it was first used


@dataclass(frozen=True)
class Weights:
    """Where weight files lie and whether they may be fetched."""

    folder: str | None = None  # null: ./weights, then $IMMERSIVEDEPTH_WEIGHTS, then the user's cache
    offline: bool = False
    download: list[str] = field(default_factory=list)  # what mode=weights fetches
    timeout_s: Annotated[float, Range(0.01, 3600)] = 30.0  # without a byte, or below 1 kB/s
    retries: Annotated[int, Range(0, 100)] = 5  # attempts in a row that bring nothing new
    backoff_s: Annotated[float, Range(0, 60)] = 1.0  # doubles with each of them
    limit_gb: Annotated[float, Range(0.001, 1000)] = 8.0  # no file larger than this is fetched


def places(settings: Weights | None = None) -> list[Path]:
    """The folders that are searched, in their order."""
    settings = settings or Weights()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    named = [settings.folder or "weights", os.environ.get(VARIABLE), Path(cache) / "immersivedepth"]
    return [*(Path(place).expanduser() for place in named if place), BUNDLED]


def fetch(name: str, path: str | Path | None = None, settings: Weights | None = None) -> Path:
    """The verified file of a name: at `path` if given, else in the first place that has it, else downloaded."""
    return _obtain(known(name), path, settings or Weights())


def load(name: str, path: str | Path | None = None, settings: Weights | None = None) -> dict[str, Tensor]:
    """The state dict of a name, from wherever `fetch` finds it."""
    return read(fetch(name, path, settings))


def download_named(settings: Weights) -> list[Path]:
    """Fetch every file that `weights.download` names; those already present are verified."""
    sources = [known(name) for name in settings.download]  # a misspelt name is refused before anything is fetched
    return [_obtain(source, None, settings) for source in sources]


def table(settings: Weights | None = None) -> str:
    """What is known, where it is looked for and what is present, for a person."""
    folders = places(settings)
    rows = [("name", "size", "licence", "SHA-256", "file")]
    for source in REGISTRY.values():
        present = next((folder / source.file for folder in folders if (folder / source.file).is_file()), None)
        where = str(present) if present else "-" if source.url else "- (by hand)"
        rows.append((source.name, human(source.size), source.licence, (source.sha256 or "unknown")[:12], where))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(
        [
            *lines,
            "",
            "Looked for in: " + ", ".join(str(folder) for folder in folders),
            f"Fetched into: {_destination(settings or Weights())}, with weights.download=[name,...]",
        ]
    )


def _destination(settings: Weights) -> Path:
    """Where a download goes: a folder that someone named, or ./weights if it is there, or the user's cache."""
    folders = places(settings)
    if settings.folder or folders[0].is_dir():
        return folders[0]
    return folders[1]


def _obtain(source: Source, path: str | Path | None, settings: Weights) -> Path:
    folders = places(settings)
    if path is not None:
        given = Path(path).expanduser()
        if not given.is_dir():
            return _explicit(source, given)
        folders = [given]
    for folder in folders:
        if (folder / source.file).is_file():
            return _verify(source, folder / source.file)
    if path is not None or source.url is None:
        raise _missing(source, folders)
    if settings.offline:
        raise _missing(source, folders, "weights.offline=true forbids fetching it. ")
    return _download(source, _destination(settings) / source.file, settings, folders)


def _explicit(source: Source, path: Path) -> Path:
    """A file the user named: it may be one's own training, so only a pin that lies beside it binds it."""
    if not path.is_file():
        raise WeightsError(
            f"{path} not found. Put the released file there ({_facts(source)}), set {source.key}, or leave "
            f"{source.key} out to have it found or fetched."
        )
    if _pin(path).is_file():
        _check_pin(path)
    elif path.name == source.file and source.size not in (None, path.stat().st_size):
        log.warning("%s has the name of a released file but not its size; taken as weights of your own", path)
    return path


def _verify(source: Source, path: Path) -> Path:
    """Refuse a file that is not the released one; where no hash is published, the first use decides."""
    size = path.stat().st_size
    if source.size is not None and size != source.size:
        raise WeightsError(
            f"{path}: cut short or not the released file: expected {source.size} bytes, found {size}. {_remedy(source)}"
        )
    if source.sha256:
        if (found := digest(path)) != source.sha256:
            raise WeightsError(
                f"{path}: damaged or not the released file: SHA-256 expected {source.sha256} (from "
                f"{source.sha256_from}), found {found}. {_remedy(source)}"
            )
        remember(path)
    elif _pin(path).is_file():
        _check_pin(path)
    else:
        if reason := damage(path, thorough=True):
            raise WeightsError(f"{path}: {reason}. {_remedy(source)}")
        _write_pin(source, path, digest(path))
    return path


def _remedy(source: Source) -> str:
    if source.package == "bundled":
        return f"Install this program again, or give weights of your own with {source.key}."
    return f"Delete it and run `{_command(source)}`, or give weights of your own with {source.key}."


def _pin(path: Path) -> Path:
    return path.with_name(path.name + PIN)


def _check_pin(path: Path) -> None:
    try:
        wanted = json.loads(_pin(path).read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{_pin(path)}: cannot be read ({error}). Delete it if you trust {path.name}.") from error
    if (found := digest(path)) != wanted:
        raise WeightsError(
            f"{path}: changed since its first use: SHA-256 expected {wanted}, found {found}. Delete it and fetch it "
            f"again; if the change is meant, delete {_pin(path).name} beside it."
        )
    remember(path)


def _write_pin(source: Source, path: Path, found: str) -> None:
    log.warning(
        "%s: nobody published a SHA-256 of this file, so it is trusted at first use: %s (kept in %s)",
        path, found, _pin(path).name,
    )  # fmt: skip
    remember(path)
    record = {"sha256": found, "size": path.stat().st_size, "source": source.url or source.page}
    try:
        write_text(_pin(path), json.dumps(record, indent=1) + "\n")
    except ResourceError:
        log.warning("%s: cannot be written, so a later change of %s would go unseen", _pin(path), path.name)


def _download(source: Source, target: Path, settings: Weights, folders: list[Path]) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target):
            if target.is_file():  # another process was faster
                return _verify(source, target)
            sweep_stale(target)
            _fetch_into(target, source, settings, folders)
    except OSError as error:
        raise ResourceError(
            f"{target.parent}: cannot be written: {error.strerror or error}. Set weights.folder to a folder of yours."
        ) from error
    return target


def _fetch_into(target: Path, source: Source, settings: Weights, folders: list[Path]) -> None:
    patience = Patience(settings.timeout_s, settings.retries, settings.backoff_s, int(settings.limit_gb * 1e9))
    url = _mirrored(source)
    try:
        found = download(url, target, source.size, source.sha256, patience, lambda: _announce(source, target.parent))
    except WeightsError as error:
        raise _missing(source, folders, f"It could not be fetched: {error}. ") from error
    remember(target)
    if source.sha256 is None:
        _write_pin(source, target, found)


def _announce(source: Source, folder: Path) -> None:
    log.warning(
        "fetching %s (%s) into %s; licence %s: %s",
        source.file, human(source.size), folder, source.licence, source.licence_note,
    )  # fmt: skip
    if source.sha256 and source.sha256_from != HUB_PAGE:
        log.info("%s: SHA-256 from %s", source.file, source.sha256_from)


def _mirrored(source: Source) -> str:
    """The address of a file. HF_ENDPOINT names a mirror of the hub, taken for what a hash can vouch for."""
    url, endpoint = source.url or "", os.environ.get("HF_ENDPOINT", "").rstrip("/")
    if endpoint and source.sha256 and url.startswith(HUB + "/"):
        return url.replace(HUB, endpoint, 1)
    return url


def _missing(source: Source, folders: list[Path], why: str = "") -> WeightsError:
    if source.package == "bundled":
        return WeightsError(f"{source.file} not found, though it comes with this program. {_remedy(source)}")
    other = "midas" if source.package == "depth_anything_v2" else "depth_anything_v2"
    get = f"get it with `{_command(source)}`" if source.url else f"get it by hand from {source.page}"
    return WeightsError(
        f"{folders[0] / source.file} not found{_also(folders)}. {why}Put the released file there ({_facts(source)}), "
        f"{get}, set {source.key}, or run with predict=[{other}]."
    )


def _also(folders: list[Path]) -> str:
    return f" (nor in {', '.join(str(folder) for folder in folders[1:])})" if folders[1:] else ""


def _command(source: Source) -> str:
    return f"python core_exp_runner.py mode=weights weights.download=[{source.name}]"


def _facts(source: Source) -> str:
    size = f"{source.size} bytes" if source.size is not None else "size not published"
    return f"{size}, SHA-256 {source.sha256 or 'not published'}, licence {source.licence}"
