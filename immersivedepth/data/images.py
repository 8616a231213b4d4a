"""Pictures and maps, to and from files; the only place that opens image files.

Reading
- What a file is, is told by its first bytes, never by its name: PNG, JPEG, TIFF, WebP, BMP, Radiance HDR, OpenEXR,
  NPY, PFM, and for maps also the .dpt files of 360MonoDepth.
- The size is read from the header and held against `max_size` before anything is decoded.
- A file that is cut short or fails a checksum is refused; nothing is ever filled in.
- Pictures come out upright (EXIF) as RGB. 8 bits per channel stay uint8; 16 bits become float32 = value / 65535.
- HDR, EXR, PFM and floating TIFF hold linear light, which networks do not know: it is tone-mapped to 0..1, or handed
  out as it is with `linear=True`. Floating NPY holds display values and must lie in 0..1.
- Transparent pictures are laid over black, and what is less than half opaque is False in the mask.
- NaN in a picture is an error; positive infinity (the sun in a half-float file) counts as its brightest finite pixel.
- Maps keep every number: no tone map, no clipping, NaN and infinity included.
Writing goes through `files.atomic`: a file is there whole, or not at all.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import math
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import files
from ..checks import InputError, ResourceError, check_shapes

Array = NDArray[Any]

MAX_SIZE = (16384, 8192)  # width and height; the product counts
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".webp", ".bmp", ".hdr", ".pic", ".exr", ".npy", ".pfm")
GPANO = "{http://ns.google.com/photos/1.0/panorama/}"
_BAND = 256  # rows converted at once, so that a large picture is never held in several forms
_ORIENTATION = 274  # EXIF tag
_READABLE = "PNG, JPEG, TIFF, WebP, BMP, HDR, EXR, NPY or PFM"

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


@dataclass(frozen=True)
class Picture:
    """A decoded picture and what its file said about it."""

    image: Tensor  # [3, H, W], RGB, uint8, or float32 in 0..1 (any positive value when read with linear=True)
    mask: Tensor | None = None  # [1, H, W], bool, False where the picture is transparent
    about: dict[str, Any] = field(default_factory=dict)  # for the records: path, format, size [W, H], bits, ...


def read_image(path: str | Path, *, linear: bool = False, max_size: tuple[int, int] = MAX_SIZE) -> Picture:
    """Read a picture as upright RGB; raises InputError for whatever cannot be one."""
    with _opened(path, max_size) as source:
        decode = _PICTURES.get(source.format)
        if decode is None:
            raise source.error(f"is a map ({source.format}), not a picture; expected {_READABLE}")
        pixels, mask, about = _finish(source, decode(source), linear)
    image = torch.from_numpy(pixels).permute(2, 0, 1)  # [3, H, W], laid out as the decoder wrote it
    return Picture(image, None if mask is None else torch.from_numpy(mask)[None], about)


def read_map(path: str | Path, *, unit: float | None = None, max_size: tuple[int, int] = MAX_SIZE) -> Tensor:
    """Read one number per pixel as float32 [1, H, W], with every value kept; `unit` scales integer files (PNG, NPY)."""
    with _opened(path, max_size) as source:
        decode = _MAPS.get(source.format)
        if decode is None:
            raise source.error(f"is a {source.format} picture; expected a map: EXR, NPY, PFM, TIFF, DPT or 16-bit PNG")
        values = decode(source)
        if values.dtype == np.uint8 or values.dtype.kind not in "fiu":
            raise source.error(f"has {values.dtype} values, too few for a map; expected 16-bit integers or floats")
        if values.dtype.kind in "iu":
            if unit is None:
                raise source.error(f"holds {values.dtype} numbers of unknown unit; say what one step is (unit=0.001)")
            scaled = np.multiply(values, np.float64(unit))
        else:
            scaled = values
        with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, as it is for any use here
            exact = np.ascontiguousarray(scaled, dtype=np.float32)
    return torch.from_numpy(exact)[None]


# --- Doors: what is refused before anything is decoded


@dataclass
class _Source:
    path: Path
    handle: BinaryIO
    format: str
    length: int  # bytes
    max_size: tuple[int, int]

    def error(self, found: str) -> InputError:
        return InputError(f"{show(self.path)} {found}")

    def check_size(self, width: int, height: int, channels: int = 3) -> None:
        most = self.max_size[0] * self.max_size[1]
        if width < 1 or height < 1:
            raise self.error(f"is damaged: its header says {width}x{height} pixels")
        if width * height > most:
            raise self.error(
                f"has {width}x{height} pixels, more than the limit of {self.max_size[0]}x{self.max_size[1]}; "
                "make it smaller or raise dataset.max_size"
            )
        if channels * width * height > 8 * most:
            raise self.error(f"has {channels} channels of {width}x{height} pixels; expected at most 8, save only RGB")

    def bytes(self) -> bytes:
        self.handle.seek(0)
        return self.handle.read()

    def damaged(self, why: object) -> InputError:
        reason = " ".join(str(why).split())[:160]
        return self.error(f"is a damaged {self.format} ({reason}); copy or download it again")


@dataclass
class _Decoded:
    pixels: Array  # [H, W, C], 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha
    bits: int
    linear: bool = False  # light, not display values
    premultiplied: bool = False
    orientation: int = 1
    gpano: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def show(path: str | Path) -> str:
    """A path as one line of printable text, whatever bytes its name is made of."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace") if "\0" not in str(path) else str(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextlib.contextmanager
def _opened(path: str | Path, max_size: tuple[int, int]) -> Iterator[_Source]:
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
        source = _Source(path, handle, _sniff(path, head, length), length, max_size)
        if length > 2**26 + 16 * max_size[0] * max_size[1]:  # four floats per pixel and a generous header
            raise source.error(f"has {length / 2**30:.1f} GiB, more than any picture of {max_size[0]}x{max_size[1]}")
        try:
            yield source
        except InputError:
            raise
        except MemoryError as error:
            need = f"a {source.format} of {length / 2**20:.0f} MiB"
            raise ResourceError(f"{show(path)}: not enough memory to decode {need}; make it smaller") from error
        except Exception as error:  # decoders raise nearly anything on damaged files
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
        found = f"a {brand} picture: convert it to PNG or JPEG" if brand else "an MP4 video: take a frame out as PNG"
    elif head[4:12] == b"JXL \r\n\x87\n":
        found = "a JPEG XL picture: convert it to PNG or JPEG"
    else:
        found = next((text for magic, text in _STRANGERS if start.startswith(magic)), found)
    raise InputError(f"{show(path)} is {found}; expected {_READABLE}")


# --- Decoders of pictures


def _decode_pillow(source: _Source) -> _Decoded:
    """PNG, JPEG, TIFF, WebP and BMP. Pillow's classes are used directly: `Image.open` has a limit of its own."""
    from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

    opener: dict[str, Callable[[Any], Any]] = {
        "PNG": PngImagePlugin.PngImageFile,
        "JPEG": JpegImagePlugin.JpegImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
    }
    if source.format == "WEBP":  # its decoder takes memory for the whole canvas when it is opened
        source.check_size(*_webp_size(source))
    if source.format == "PNG":
        source.handle.seek(16)
        source.check_size(*struct.unpack(">II", source.handle.read(8)))
    source.handle.seek(0)
    with opener[source.format](source.handle) as picture:
        source.check_size(*picture.size)
        _check_whole(source, picture)
        deep = _deep_bits(source, picture)
        if deep:
            decoded = _decode_deep(source, picture, deep)
        else:
            has_alpha = picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info
            decoded = _Decoded(_pillow_pixels(picture, "RGBA" if has_alpha else "RGB"), bits=8)
        if getattr(picture, "is_animated", False) and source.format == "WEBP":
            decoded.notes.append("animated: only the first frame is used")
        _read_metadata(picture, decoded)
    return decoded


def _pillow_pixels(picture: Any, mode: str) -> Array:
    """The pixels as a writable array, copied band by band."""
    picture.load()
    if picture.mode != mode:
        picture = picture.convert(mode)
    width, height = picture.size
    pixels = np.empty((height, width, len(mode)), np.uint8)
    for top in range(0, height, _BAND):
        below = min(top + _BAND, height)
        pixels[top:below] = np.asarray(picture.crop((0, top, width, below)))
    return pixels


def _check_whole(source: _Source, picture: Any) -> None:
    """What the decoders overlook: bytes missing at the end, and checksums."""
    if source.format == "PNG":
        _check_png(source)
    elif source.format == "JPEG":
        data = source.bytes()
        if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
            raise source.damaged("cut short: there is no end marker")
    elif source.format == "TIFF":
        for offsets, counts in ((273, 279), (324, 325)):  # strips, tiles
            ends = zip(picture.tag_v2.get(offsets, ()), picture.tag_v2.get(counts, ()), strict=False)
            if any(start + size > source.length for start, size in ends):
                raise source.damaged("cut short: its strips reach beyond the end of the file")


def _check_png(source: _Source) -> None:
    data = memoryview(source.bytes())
    at = 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        name = bytes(data[at + 4 : at + 8])
        end = at + 8 + size
        if end + 4 > len(data):
            break
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise source.damaged(f"wrong checksum in chunk {name.decode('ascii', 'replace')}")
        if name == b"IEND":
            return
        at = end + 4
    raise source.damaged("cut short: there is no end marker")


def _webp_size(source: _Source) -> tuple[int, int]:
    source.handle.seek(12)
    head = source.handle.read(18)
    kind, body = head[:4], head[8:]
    if len(head) < 18 or kind not in (b"VP8X", b"VP8L", b"VP8 "):
        raise source.damaged("its header is not one of WebP")
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        packed = int.from_bytes(body[1:5], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF


def _deep_bits(source: _Source, picture: Any) -> int:
    """Bits of a sample where Pillow would drop some, else 0."""
    if source.format == "PNG":
        source.handle.seek(24)
        return 16 if source.handle.read(1) == b"\x10" else 0
    if source.format == "TIFF":
        bits = max(picture.tag_v2.get(258, (1,)))
        return bits if bits > 8 else 0
    return 0


def _decode_deep(source: _Source, picture: Any, bits: int) -> _Decoded:
    """16-bit PNG and TIFF and floating TIFF, by OpenCV, which keeps their bits."""
    if source.format == "TIFF" and picture.tag_v2.get(262) not in (1, 2):  # photometric: grey or RGB
        raise source.error(f"is a {bits}-bit TIFF in a rare colour space; save it as RGB or as 16-bit PNG")
    pixels = _decode_opencv(source)
    if pixels.dtype not in (np.uint16, np.float32, np.float64):
        raise source.error(f"is a TIFF of {pixels.dtype} samples; save it with 8 or 16 bits, or as 32-bit float")
    return _Decoded(pixels, bits=bits, linear=pixels.dtype.kind == "f")


def _decode_opencv(source: _Source) -> Array:  # [H, W, C], RGB
    import cv2

    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)  # its complaints would come before ours
    try:
        pixels = cv2.imdecode(np.frombuffer(source.bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if pixels is None:
        raise source.damaged("its data cannot be decoded")
    if pixels.ndim == 2:
        return pixels[..., None]
    if pixels.shape[2] == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA, dst=pixels)


def _decode_hdr(source: _Source) -> _Decoded:
    header, _, rest = source.bytes()[:65536].partition(b"\n\n")
    line = rest.split(b"\n", 1)[0].split()
    if b"32-bit_rle_xyze" in header:
        raise source.error("is a Radiance picture in XYZ colours; convert it to RGB (ra_xyze -r)")
    if len(line) != 4 or not (line[1].isdigit() and line[3].isdigit()):
        raise source.damaged("there is no line with its size")
    if (line[0], line[2]) != (b"-Y", b"+X"):
        raise source.error("is a Radiance picture in an unusual pixel order; expected -Y +X, save it again upright")
    height, width = int(line[1]), int(line[3])
    source.check_size(width, height)
    pixels = _decode_opencv(source)
    if pixels.shape != (height, width, 3):
        raise source.damaged("its size is not that of its header")
    return _Decoded(pixels, bits=32, linear=True)


def _decode_exr(source: _Source) -> _Decoded:
    channels = _exr_channels(source)
    for layer in sorted({name.rpartition(".")[0] for name in channels}, key=lambda name: (name != "", name)):
        prefix = f"{layer}." if layer else ""
        mine = {n[len(prefix) :].upper(): a for n, a in channels.items() if n.rpartition(".")[0] == layer}
        grey = [mine[n] for n in ("Y", "L", "Z", "V") if n in mine] if len(mine) <= 2 else []
        if {"R", "G", "B"} <= mine.keys():
            colours = [mine["R"], mine["G"], mine["B"]]
        elif grey or len(mine) == 1:
            colours = grey[:1] or list(mine.values())
        else:
            continue
        planes = colours + ([mine["A"]] if "A" in mine and mine["A"] is not colours[0] else [])
        bits = 8 * max(plane.dtype.itemsize for plane in colours)
        pixels = np.empty((*planes[0].shape, len(planes)), np.result_type(*planes))
        for k, plane in enumerate(planes):
            pixels[..., k] = plane
        return _Decoded(pixels, bits=bits, linear=True, premultiplied=True)
    raise source.error(f"has the channels {', '.join(sorted(channels)[:12])}; expected R, G, B or one grey channel")


def _exr_channels(source: _Source) -> dict[str, Array]:
    """All channels of the first part, by name; cv2 has no OpenEXR, or one that crashes on damaged files."""
    import OpenEXR

    name = str(source.path)
    samples = 0
    header: dict[str, Any] = {}
    for part in OpenEXR.File(name, separate_channels=True, header_only=True).parts:
        if part.type() not in (OpenEXR.scanlineimage, OpenEXR.tiledimage):
            raise source.error("is a deep EXR; flatten it to one value per pixel")
        (left, top), (right, bottom) = (corner.tolist() for corner in part.header["dataWindow"])
        samples += len(part.header["channels"])
        source.check_size(right - left + 1, bottom - top + 1, samples)
        header = header or part.header
    (left, top), (right, bottom) = (corner.tolist() for corner in header["dataWindow"])
    (x0, y0), (x1, y1) = (corner.tolist() for corner in header["displayWindow"])
    if (left, top, right, bottom) != (x0, y0, x1, y1):
        raise source.error(
            f"holds the pixels {left},{top} to {right},{bottom} of a picture of {x0},{y0} to {x1},{y1}; "
            "save it with the data window equal to the display window"
        )
    if any(c.xSampling != 1 or c.ySampling != 1 for c in header["channels"]):
        raise source.error("is an EXR with subsampled colour (luminance-chroma); save it as RGB")
    with contextlib.redirect_stdout(io.StringIO()) as said:  # the package prints its warnings
        parts = OpenEXR.File(name, separate_channels=True).parts
    shape = (bottom - top + 1, right - left + 1)
    channels = {c: v.pixels for c, v in parts[0].channels.items()} if parts else {}
    if not channels or any(pixels is None or pixels.shape != shape for pixels in channels.values()):
        raise source.damaged(said.getvalue().removeprefix("Warning: ") or "its pixels cannot be read")
    return channels


def _decode_npy(source: _Source) -> _Decoded:
    pixels = _load_npy(source)
    if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4):
        raise source.error(f"has the shape {list(pixels.shape)}; expected [H, W, 3] or [3, H, W]")
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype not in (np.uint8, np.uint16) and pixels.dtype.kind != "f":
        raise source.error(f"has {pixels.dtype} values; expected uint8, uint16 or floats in 0..1")
    if pixels.dtype.kind == "f":
        low, high = float(np.min(pixels)), float(np.max(pixels))
        if low < 0 or high > 1:  # NaN is neither, and is found with the other formats'
            raise source.error(f"has values from {low:g} to {high:g}; expected floats in 0..1 or uint8 (0..255)")
    return _Decoded(pixels, bits=8 * pixels.dtype.itemsize)


def _load_npy(source: _Source) -> Array:
    source.handle.seek(0)
    version = np.lib.format.read_magic(source.handle)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = reader(source.handle)
    if kind.hasobject or kind.kind not in "fiub":
        raise source.error(f"is an array of {kind}; expected plain numbers")
    if not 2 <= len(shape) <= 3:
        raise source.error(f"is an array of shape {list(shape)}; expected a picture or a map")
    if 0 in shape:
        raise source.error(f"is an array of shape {list(shape)} without pixels")
    sides = sorted(shape)
    source.check_size(sides[-1], sides[-2], sides[0] if len(shape) == 3 else 1)
    if source.handle.tell() + math.prod(shape) * kind.itemsize > source.length:
        raise source.damaged("cut short")
    source.handle.seek(0)
    array = np.load(source.handle, allow_pickle=False)
    return array.astype(kind.newbyteorder("="), copy=False)


def _decode_pfm(source: _Source) -> _Decoded:
    return _Decoded(_load_pfm(source), bits=32, linear=True)


def _load_pfm(source: _Source) -> Array:  # [H, W, 1 or 3]
    """PFM keeps its rows from the bottom up; the sign of the third number is the byte order."""
    source.handle.seek(0)
    words: list[bytes] = []
    while len(words) < 4:
        line = source.handle.readline(256)
        if not line.endswith(b"\n"):
            raise source.damaged("its header is incomplete")
        words += line.split(b"#")[0].split()
    width, height, scale = int(words[1]), int(words[2]), float(words[3])
    channels = 3 if words[0] == b"PF" else 1
    source.check_size(width, height)
    count = width * height * channels
    if scale == 0 or not math.isfinite(scale):
        raise source.damaged(f"its scale is {scale}")
    if source.length - source.handle.tell() < 4 * count:
        raise source.damaged("cut short")
    values = np.fromfile(source.handle, "<f4" if scale < 0 else ">f4", count)
    return values.reshape(height, width, channels)[::-1].astype(np.float32, copy=False)


def _load_dpt(source: _Source) -> Array:  # [H, W]
    source.handle.seek(4)
    width, height = struct.unpack("<ii", source.handle.read(8))
    source.check_size(width, height)
    expected = 12 + 4 * width * height
    if source.length == expected + 4 * width * height:
        raise source.error("has two numbers per pixel: it is optical flow (.flo), not a map")
    if source.length != expected:
        raise source.damaged(f"{source.length} bytes; expected {expected} for {width}x{height}")
    return np.fromfile(source.handle, "<f4", width * height).reshape(height, width)


def _map_pillow(source: _Source) -> Array:
    decoded = _decode_pillow(source)
    return _upright(_one_channel(source, decoded.pixels), decoded.orientation)


def _map_npy(source: _Source) -> Array:
    array = _load_npy(source)
    if array.ndim == 3 and array.shape[0] == 1:
        return array[0]
    return _one_channel(source, array if array.ndim == 3 else array[..., None])


def _map_exr(source: _Source) -> Array:
    channels = _exr_channels(source)
    names = {name.rpartition(".")[2].lower(): pixels for name, pixels in channels.items()}
    names.pop("a", None)
    if len(names) == 1:
        return next(iter(names.values()))
    for name in ("z", "depth", "distance", "y"):
        if name in names and not {"x", "y", "z"} <= names.keys():
            return names[name]
    if names.keys() == {"r", "g", "b"}:
        return _one_channel(source, np.stack([names[c] for c in "rgb"], axis=-1))
    raise source.error(f"has the channels {', '.join(sorted(channels)[:12])}; expected one, or one called Z")


def _one_channel(source: _Source, pixels: Array) -> Array:  # [H, W, C] -> [H, W]
    if any(not np.array_equal(pixels[..., 0], pixels[..., k], equal_nan=True) for k in range(1, pixels.shape[-1])):
        raise source.error(f"has {pixels.shape[-1]} different channels; expected a map of one number per pixel")
    return pixels[..., 0]


_PICTURES: dict[str, Callable[[_Source], _Decoded]] = {
    **dict.fromkeys(("PNG", "JPEG", "TIFF", "WEBP", "BMP"), _decode_pillow),
    "HDR": _decode_hdr,
    "EXR": _decode_exr,
    "NPY": _decode_npy,
    "PFM": _decode_pfm,
}
_MAPS: dict[str, Callable[[_Source], Array]] = {
    **dict.fromkeys(("PNG", "TIFF"), _map_pillow),
    "EXR": _map_exr,
    "NPY": _map_npy,
    "PFM": lambda source: _one_channel(source, _load_pfm(source)),
    "DPT": _load_dpt,
}


# --- What the file says besides its pixels


def _read_metadata(picture: Any, decoded: _Decoded) -> None:
    """EXIF orientation and GPano XMP; a picture is not refused for broken metadata, but the record says so."""
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
        decoded.orientation = orientation if orientation in range(1, 9) else 1
    except Exception as error:  # any parser error: EXIF is a whole TIFF of its own
        decoded.notes.append(f"EXIF cannot be read ({type(error).__name__})")
    xmp = picture.info.get("xmp") or (picture.tag_v2.get(700) if hasattr(picture, "tag_v2") else None)
    if xmp:
        try:
            decoded.gpano = read_gpano(xmp)
        except ValueError as error:
            decoded.notes.append(f"XMP cannot be read ({error})")


def read_gpano(xmp: bytes | str) -> dict[str, Any]:
    """The GPano properties of an XMP packet, written as attributes or as elements; numbers as int or float."""
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    data = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    try:
        root = fromstring(data.strip(b"\0 \t\r\n"))
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:
        raise ValueError(f"{type(error).__name__}: {error}"[:120]) from error
    found: dict[str, Any] = {}
    for element in root.iter():
        pairs = [*element.attrib.items(), (element.tag, element.text or "")]
        found |= {key[len(GPANO) :]: _number(value) for key, value in pairs if str(key).startswith(GPANO)}
    return found


def _number(text: str) -> int | float | str:
    text = text.strip()[:100]
    with contextlib.suppress(ValueError):
        value = float(text)
        if math.isfinite(value):
            return int(value) if value == int(value) else value
    return text


# --- From what a decoder gives to what a network takes


def _finish(source: _Source, decoded: _Decoded, linear: bool) -> tuple[Array, Array | None, dict[str, Any]]:
    height, width, channels = decoded.pixels.shape
    pixels, mask = _over_black(source, decoded)
    if pixels.dtype != np.uint8:
        if _replace_infinity(source, pixels):
            decoded.notes.append("infinite pixels count as the brightest finite one")
        if decoded.linear and not linear:
            tone_map(pixels)
    about: dict[str, Any] = {
        "path": str(source.path),
        "format": source.format,
        "size": [width, height],
        "bits": decoded.bits,
    }
    if decoded.linear:
        about["tone_mapped"] = not linear
    if decoded.orientation != 1:
        about["exif_orientation"] = decoded.orientation
    about |= {key: value for key in ("gpano", "notes") if (value := getattr(decoded, key))}
    return _upright(pixels, decoded.orientation), None if mask is None else _upright(mask, decoded.orientation), about


def _over_black(source: _Source, decoded: _Decoded) -> tuple[Array, Array | None]:
    """Three channels, uint8 or float32, without transparency; and where the picture is at least half opaque."""
    given = decoded.pixels
    height, width, channels = given.shape
    small = given.dtype == np.uint8
    colours = 3 if channels >= 3 else 1
    if small and channels == 3:
        return np.ascontiguousarray(given), None
    has_alpha = channels in (2, 4)
    full = {"u": np.iinfo(given.dtype).max if given.dtype.kind == "u" else 1, "f": 1}[given.dtype.kind]
    out = np.empty((height, width, 3), np.uint8 if small else np.float32)
    mask = np.empty((height, width), bool) if has_alpha else None
    for top in range(0, height, _BAND):
        band = given[top : top + _BAND]
        colour, target = band[..., :colours], out[top : top + _BAND]
        with np.errstate(over="ignore"):
            if mask is not None:
                mask[top : top + _BAND] = band[..., -1] * 2.0 >= full
            if mask is None or decoded.premultiplied:
                target[...] = colour if small or full == 1 else np.divide(colour, full, dtype=np.float32)
            elif small:
                target[...] = (colour.astype(np.uint16) * band[..., -1:] + 127) // 255
            else:
                target[...] = np.divide(colour, full, dtype=np.float32)
                target *= np.divide(band[..., -1:], full, dtype=np.float32)
    if mask is not None and not mask.any():
        raise source.error("is transparent everywhere; save it without its alpha channel")
    return out, None if mask is None or mask.all() else mask


def _replace_infinity(source: _Source, pixels: Array) -> bool:
    """Refuse NaN and -inf, and give +inf the brightest finite value; says whether there was any."""
    endless = False
    high = 0.0
    for top in range(0, len(pixels), _BAND):
        band = pixels[top : top + _BAND]
        finite = np.isfinite(band)
        if finite.all():
            high = max(high, float(band.max()))
            continue
        bad = np.isnan(band) | (band == -np.inf)
        if bad.any():
            row, column = (int(i[0]) for i in np.nonzero(bad.any(-1)))
            count = sum(int((np.isnan(b) | (b == -np.inf)).any(-1).sum()) for b in _bands(pixels))
            raise source.error(
                f"has {count} NaN pixel{'s' * (count > 1)} of {pixels.shape[0] * pixels.shape[1]}, the first in column "
                f"{column}, row {top + row}; fill them in or make them transparent"
            )
        endless = True
        high = max(high, float(band[finite].max(initial=0)))
    if endless:
        for band in _bands(pixels):
            np.minimum(band, np.float32(high), out=band)
    return endless


def _bands(pixels: Array) -> Iterator[Array]:
    return (pixels[top : top + _BAND] for top in range(0, len(pixels), _BAND))


def tone_map(light: Array) -> Array:  # [H, W, 3]
    """Linear light to display values in 0..1, in place: median luminance to middle grey, Reinhard's curve, sRGB.

    The luminance of the brightest hundredth becomes white, and hues are kept below it. A common factor of all pixels
    changes nothing, so the exposure of the file does not matter.
    """
    weights = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Rec. 709
    step = max(1, math.isqrt(light.shape[0] * light.shape[1] // 2**20))
    sample = np.maximum(light[::step, ::step], 0).astype(np.float64) @ weights.astype(np.float64)
    sample = sample[sample > 0]
    middle = float(np.median(sample)) if len(sample) else 1.0
    white = max(float(np.percentile(sample, 99)) / middle * 0.18, 1.0) if len(sample) else 1.0
    for band in _bands(light):
        np.clip(band, 0, min(middle * 1e6, 3e38), out=band)  # more than this above the median is white anyhow
        band *= 0.18
        band /= np.float32(max(middle, 1e-30))
        luminance = np.maximum(band @ weights, np.float32(1e-12))[..., None]
        band *= (1 + luminance / np.float32(white**2)) / (1 + luminance)
        np.minimum(band, 1, out=band)
        band[...] = np.where(band <= 0.0031308, 12.92 * band, 1.055 * band ** np.float32(1 / 2.4) - 0.055)
        np.clip(band, 0, 1, out=band)
    return light


def _upright(pixels: Array, orientation: int) -> Array:
    """Undo an EXIF orientation: 5 to 8 lie on their side, the others may be mirrored or upside down."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


# --- Writing


def write_png(path: str | Path, image: Tensor, bits: Literal[8, 16] = 8) -> Path:  # [1 or 3, H, W]
    """Write uint8, or floats in 0..1 (rounded to 8 or 16 bits, clipped)."""
    return _write_encoded(Path(path), ".png", _levels(image, bits))


def write_map_png(path: str | Path, values: Tensor, unit: float) -> Path:  # [1, H, W]
    """Write a map as 16-bit PNG of round(value / unit); unknown (0, NaN), negative and too large values become 0."""
    check_shapes("write_map_png", values=(values, "1 _ _"))
    steps = np.rint(values[0].detach().cpu().double().numpy() / unit)
    fits = (steps >= 0) & (steps <= 65535)  # False for NaN
    return _write_encoded(Path(path), ".png", np.where(fits, steps, 0).astype(np.uint16)[..., None])


def write_jpeg(path: str | Path, image: Tensor, quality: int = 95) -> Path:  # [1 or 3, H, W]
    """Write uint8, or floats in 0..1."""
    import cv2

    return _write_encoded(Path(path), ".jpg", _levels(image, 8), cv2.IMWRITE_JPEG_QUALITY, quality)


def write_exr(path: str | Path, values: Tensor, *, half: bool = False, channel: str = "Y") -> Path:  # [1 or 3, H, W]
    """Write float32 or half floats, ZIP-compressed; three channels are R, G, B, a single one has the name given."""
    import OpenEXR

    pixels = _channels_last(values).astype(np.float32, copy=False)
    if half:
        if (np.abs(pixels[np.isfinite(pixels)]) > np.finfo(np.float16).max).any():
            raise ValueError("write_exr: values above 65504 do not fit half floats; write float32")
        pixels = pixels.astype(np.float16)
    names = "RGB" if pixels.shape[2] == 3 else (channel,)
    planes = {name: np.ascontiguousarray(pixels[..., k]) for k, name in enumerate(names)}
    with files.atomic(Path(path)) as temporary:
        try:
            header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
            OpenEXR.File(header, planes).write(str(temporary))
        except RuntimeError as error:  # how the package reports a full disk
            raise OSError(" ".join(str(error).split())) from error
    return Path(path)


def write_npy(path: str | Path, values: Tensor) -> Path:
    """Write a tensor of any shape as it is."""
    with files.atomic(Path(path)) as temporary, temporary.open("wb") as handle:
        np.save(handle, values.detach().cpu().numpy(), allow_pickle=False)
    return Path(path)


def write_pfm(path: str | Path, values: Tensor) -> Path:  # [1 or 3, H, W]
    """Write float32, little-endian, rows from the bottom up as the format wants them."""
    pixels = _channels_last(values).astype("<f4", copy=False)
    height, width, channels = pixels.shape
    with files.atomic(Path(path)) as temporary, temporary.open("wb") as handle:
        handle.write(f"{'PF' if channels == 3 else 'Pf'}\n{width} {height}\n-1.0\n".encode())
        handle.write(np.ascontiguousarray(pixels[::-1]).data)
    return Path(path)


def _channels_last(values: Tensor) -> Array:  # [H, W, 1 or 3]
    if values.ndim != 3 or values.shape[0] not in (1, 3):
        raise ValueError(f"expected 1 or 3 channels first, got {list(values.shape)}")
    array: Array = values.detach().cpu().permute(1, 2, 0).numpy()
    return array


def _levels(image: Tensor, bits: int) -> Array:  # [H, W, 1 or 3], uint8 or uint16
    pixels = _channels_last(image)
    if pixels.dtype == np.uint8:
        return pixels if bits == 8 else pixels.astype(np.uint16) * np.uint16(257)
    if pixels.dtype.kind != "f":
        raise ValueError(f"expected uint8 or floats in 0..1, got {image.dtype}")
    if not np.isfinite(pixels).all():
        raise ValueError("expected floats in 0..1, got NaN or infinity")
    top = 2**bits - 1
    return np.rint(pixels.clip(0, 1) * np.float64(top)).astype(np.uint8 if bits == 8 else np.uint16)


def _write_encoded(path: Path, suffix: str, pixels: Array, *options: int) -> Path:
    """Encode in memory: `cv2.imwrite` answers a full disk with False and a torn file."""
    import cv2

    pixels = np.ascontiguousarray(pixels[..., ::-1])
    try:
        done, data = cv2.imencode(suffix, pixels, options)
    except cv2.error:
        done = False
    if not done:
        raise ResourceError(f"{show(path)}: {pixels.shape[1]}x{pixels.shape[0]} pixels cannot be encoded as {suffix}")
    with files.atomic(path) as temporary:
        temporary.write_bytes(data.data)
    return path
