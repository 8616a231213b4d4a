"""The one writer: a file appears whole under its name, or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .checks import ResourceError

TEMPORARY = ".part"  # suffix of unfinished files; swept when a run folder is opened again
_UNFINISHED = re.compile(rf"\..+\.(\d+)-[0-9a-f]{{8}}{re.escape(TEMPORARY)}(\..*)?", re.DOTALL)
_LONGEST_NAME = 255  # bytes, on all common file systems


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the same suffix; when the block ends well it is synced and renamed to `path`."""
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise ResourceError(
            f"{path}: cannot be written: {error.strerror or error}. Free some space or choose another "
            "folder with device.base_exp_dir."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def new_folder(path: Path, name: str, text: str) -> bool:
    """Make a folder that appears with one text file in it; False if there is one of that name already."""
    temporary = _beside(path)
    try:
        temporary.mkdir(parents=True)
        (temporary / name).write_text(text, "utf-8")
        _sync(temporary / name)
        temporary.rename(path)  # refused where a folder with files is
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        return False
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def write_bytes(path: Path, data: bytes) -> Path:
    """Write bytes at once."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text at once; halves of characters, as in undecodable file names, are written as escapes."""
    return write_bytes(path, text.encode("utf-8", "backslashreplace"))


def sweep(folder: Path, deep: bool = True) -> list[Path]:
    """Remove what killed runs of the past left unfinished; returns what went. Living processes keep theirs."""
    gone = []
    for path in list((folder.rglob if deep else folder.glob)(f".*{TEMPORARY}*")):
        match = _UNFINISHED.fullmatch(path.name)
        if match and not _another_lives(int(match[1])):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                gone.append(path)
    return gone


def _beside(path: Path) -> Path:
    """A hidden name in the same folder, of this process, with the same suffix."""
    mark = f".{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}{path.suffix}"
    stem = os.fsencode(path.stem)[: _LONGEST_NAME - 1 - len(os.fsencode(mark))].decode(errors="ignore")
    return path.with_name(f".{stem}{mark}")


def _another_lives(process: int) -> bool:
    """Whether this is another process at work; in a container a killed run often had the number of the new one."""
    return process != os.getpid() and os.name == "posix" and process_lives(process)


def process_lives(process: int) -> bool:
    """Whether there is a process of that number (POSIX)."""
    try:
        os.kill(process, 0)  # signal 0 only asks
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _sync(path: Path) -> None:
    """Force a file to the disk, so that a power cut cannot reorder the rename before the data."""
    handle = os.open(path, os.O_RDWR)  # Windows syncs only what could be written
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    """Force the new name to the disk, where the system can: Windows and some network disks cannot."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
