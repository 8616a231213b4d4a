"""What is refused before anything is decoded: what is no regular file, in no known format, or too large."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ... import memory
from ...checks import InputError, ResourceError

MAX_SIZE = (16384, 8192)  # width and height; the product counts
SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".tif",
    ".tiff",
    ".webp",
    ".bmp",
    ".hdr",
    ".pic",
    ".exr",
    ".npy",
    ".pfm",
    ".heic",
    ".heif",
)
READABLE = "PNG, JPEG, TIFF, WebP, BMP, HDR, EXR, NPY or PFM"

_FORMATS: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"#?", "HDR"),
    (b"v/1\x01", "EXR"),
    (b"\x93NUMPY", "NPY"),
    (b"PF\n", "PFM"),
    (b"Pf\n", "PFM"),
    (b"PF\r", "PFM"),
    (b"Pf\r", "PFM"),
    (b"PIEH", "DPT"),  # the float 202021.25
)

# Things that are often found under the name of a picture, by how they begin (lower case, white space dropped).
_STRANGERS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a git-LFS pointer instead of the picture: run `git lfs pull`"),
    (b"/annex/objects/", "a git-annex pointer instead of the picture: run `git annex get`"),
    (b"<!doctype html", "a web page (HTML) instead of a picture: download the file itself again"),
    (b"<html", "a web page (HTML) instead of a picture: download the file itself again"),
    (b"<svg", "an SVG drawing: convert it to PNG"),
    (b"<?xml", "an XML text: convert it to PNG if it is a drawing"),
    (b"{", "a JSON text instead of a picture"),
    (b"%pdf", "a PDF document: export its picture as PNG"),
    (b"gif8", "a GIF: convert it to PNG"),
    (b"pk\x03\x04", "a ZIP archive: unpack it first"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"rar!", "a RAR archive: unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive: unpack it first"),
    (b"8bps", "a Photoshop document: export it as PNG or TIFF"),
    (b"\xff\x0a", "a JPEG XL picture: convert it to PNG or JPEG"),
    (b"\x1aE\xdf\xa3".lower(), "a Matroska or WebM video: take a frame out as PNG"),
)
_ISO_BRANDS = {
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"mif1": "HEIC",
    b"avif": "AVIF",
    b"avis": "AVIF",
}


@dataclass
class Source:
    """An open file of a known format."""

    path: Path
    handle: BinaryIO
    format: str
    length: int  # bytes
    max_size: tuple[int, int]
    decoded: int | None = None  # bytes that the pixels take, once the header is read

    def error(self, found: str) -> InputError:
        return InputError(f"{show(self.path)} {found}")

    def check_size(self, width: int, height: int, channels: int = 3) -> None:
        most, self.decoded = self.max_size[0] * self.max_size[1], 4 * channels * width * height
        if width < 1 or height < 1:
            raise self.error(f"is damaged: its header says {width}x{height} pixels")
        if width * height > most:
            raise self.error(
                f"has {width}x{height} pixels ({12 * width * height / 2**30:.1f} GiB as numbers), more than the "
                f"limit of {self.max_size[0]}x{self.max_size[1]}; make it smaller or raise dataset.max_size"
            )
        if channels * width * height > 8 * most:
            raise self.error(f"has {channels} channels of {width}x{height} pixels; expected at most 8, save only RGB")

    def bytes(self) -> bytes:
        self.handle.seek(0)
        return self.handle.read()

    def damaged(self, why: object) -> InputError:
        reason = " ".join(str(why).split())[:160]
        return self.error(f"is a damaged {self.format} ({reason}); copy or download it again")


def show(path: str | Path) -> str:
    """A path as one line of printable text, whatever bytes its name is made of."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace") if "\0" not in str(path) else str(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextlib.contextmanager
def opened(path: str | Path, max_size: tuple[int, int]) -> Iterator[Source]:
    """Open a regular file, tell its format, and turn whatever a decoder raises into one line."""
    path = Path(path)
    check_file(path)
    try:
        handle = path.open("rb")
    except OSError as error:
        raise InputError(f"{show(path)} cannot be opened: {error.strerror or error}") from error
    with handle:
        length = os.fstat(handle.fileno()).st_size
        try:
            head = handle.read(64)
        except OSError as error:
            raise InputError(f"{show(path)} cannot be read: {error.strerror or error}") from error
        source = Source(path, handle, _sniff(path, head, length), length, max_size)
        if length > 2**26 + 16 * max_size[0] * max_size[1]:  # four floats per pixel and a generous header
            raise source.error(f"has {length / 2**30:.1f} GiB, more than any picture of {max_size[0]}x{max_size[1]}")
        try:
            yield source
        except InputError:
            raise
        except Exception as error:  # decoders raise nearly anything on damaged files
            if memory.lacking(error):
                what = f"a {source.format} of {memory.human(length)} ({memory.shortage(error, source.decoded)})"
                raise ResourceError(f"{show(path)}: not enough memory to decode {what}; make it smaller") from error
            raise source.damaged(error or type(error).__name__) from error


def check_file(path: Path) -> None:
    """Raise InputError unless the path leads to a regular file; a missing one is met with similar names."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise InputError(_missing(path)) from error
    except (OSError, ValueError) as error:  # loops of links, names too long, no permission; NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{show(path)} cannot be opened: {reason}") from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{show(path)} is a folder; expected a picture file")
    if not stat.S_ISREG(mode):
        what = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}.get(stat.S_IFMT(mode), "a device")
        raise InputError(f"{show(path)} is {what}; expected a regular file, so copy it to one first")


def _missing(path: Path) -> str:
    if path.is_symlink():
        return f"{show(path)} is a link to {show(path.readlink())}, which does not exist; mend the link"
    folder = path.parent
    if not folder.is_dir():
        while not folder.parent.is_dir():
            folder = folder.parent
        return f"{show(path)} does not exist: there is no folder {show(folder)}"
    with contextlib.suppress(OSError):
        close = difflib.get_close_matches(path.name, sorted(os.listdir(folder))[:20000], n=3)  # noqa: PTH208
        if close:
            return f"{show(path)} does not exist; did you mean {' or '.join(show(name) for name in close)}?"
    return f"{show(path)} does not exist; check the name (relative to {show(Path.cwd())})"


def _sniff(path: Path, head: bytes, length: int) -> str:
    if length == 0:
        raise InputError(f"{show(path)} is empty (0 bytes); copy or download it again")
    for magic, name in _FORMATS:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    found = "in no known picture format"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head.strip(b"\0"):
        found = "filled with zeros, as after a broken copy"
    elif head[4:8] == b"ftyp":
        brand = _ISO_BRANDS.get(head[8:12])
        if brand == "HEIC" and importlib.util.find_spec("pillow_heif"):
            return brand
        extra = ", or install immersivedepth[heic]" if brand == "HEIC" else ""
        found = (
            f"a {brand} picture: convert it to PNG or JPEG{extra}" if brand else "an MP4 video: take a frame out as PNG"
        )
    elif head[4:12] == b"JXL \r\n\x87\n":
        found = "a JPEG XL picture: convert it to PNG or JPEG"
    else:
        found = next((text for magic, text in _STRANGERS if start.startswith(magic)), found)
    raise InputError(f"{show(path)} is {found}; expected {READABLE}")
