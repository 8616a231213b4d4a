"""The one writer: a file appears whole under its name, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .checks import ResourceError

TEMPORARY = ".part"  # suffix of unfinished files; swept when a run folder is opened again


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the same suffix; when the block ends well it is synced and renamed to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:100]}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}{path.suffix}")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise ResourceError(
            f"{path}: cannot be written: {error.strerror or error}. Free some space or choose another "
            "folder with device.base_exp_dir."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> Path:
    """Write bytes at once."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text at once."""
    return write_bytes(path, text.encode())


def sweep(folder: Path) -> list[Path]:
    """Remove what a killed run of the past left unfinished; returns what went."""
    gone = [p for p in folder.rglob(f".*{TEMPORARY}*") if p.is_file()]
    for path in gone:
        path.unlink(missing_ok=True)
    return gone


def _sync(path: Path) -> None:
    """Force a file or a folder to the disk, so that a power cut cannot reorder the rename before the data."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
