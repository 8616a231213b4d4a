"""From the bytes of a file to the numbers it holds, strictly: what is cut short or fails a checksum is refused."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .doors import Source
from .metadata import ORIENTATION, read_gpano, upright

Array = NDArray[Any]
_XMP_KEY = b"XML:com.adobe.xmp\0"
_LARGEST_XMP = 2**24  # bytes
# Every marker but those between the bits of a scan: an escaped 0xFF, and the restarts 0xD0 to 0xD7.
_JPEG_MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]", re.DOTALL)
_MORE_BITS = b"".join(b"\x55\xa9" * 32 + bytes((0xFF, 0xD0 + k)) for k in range(8))  # for a scan with any restarts
_WEBP_CHUNKS = 16  # of which one holds the pixels
_WEBP_FRAME = 16  # bytes that describe a frame of a film; then chunks follow as in a picture
_BAND = 256  # rows copied at once, so that a large picture is never held in several forms


_QUIET = threading.RLock()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """C libraries complain on the standard error by themselves, and Pillow warns; ours is to be the only line."""
    with _QUIET, warnings.catch_warnings(action="ignore"):
        try:
            kept = os.dup(2)
        except OSError:  # there is no standard error
            yield
            return
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nothing)


@dataclass
class Decoded:
    """What a decoder found."""

    pixels: Array  # [H, W, C], 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha
    bits: int
    linear: bool = False  # light, not display values
    premultiplied: bool = False
    orientation: int = 1  # EXIF
    turned: bool = False  # the pixels are upright already
    gpano: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    input_damaged: bool = False  # incomplete, but read


def _decode_png(source: Source) -> Decoded:
    """By OpenCV, which keeps 16 bits; it gets only the chunks that make the picture, each with a right checksum."""
    chunks = _png_chunks(source)
    bits, colour = chunks["IHDR"][0][16:18]
    core = [chunk for name in ("IHDR", "PLTE", "tRNS", "IDAT", "IEND") for chunk in chunks.get(name, ())]
    pixels = _decode_opencv(source, b"".join([b"\x89PNG\r\n\x1a\n", *core]))
    if colour == 0 and "tRNS" in chunks:  # OpenCV overlooks a transparent shade of grey
        full = 65535 if bits == 16 else 255
        key = int.from_bytes(chunks["tRNS"][0][8:10], "big") * full // (2**bits - 1)
        alpha = np.where(pixels == key, 0, full).astype(pixels.dtype)
        pixels = np.concatenate([pixels, alpha], axis=-1)
    decoded = Decoded(pixels, bits=max(bits, 8))
    for chunk in chunks.get("eXIf", ()):
        _read_exif(decoded, bytes(chunk[8:-4]))
    for chunk in chunks.get("iTXt", ()):
        _read_xmp(decoded, _png_xmp(bytes(chunk[8:-4])))
    return decoded


def _png_chunks(source: Source) -> dict[str, list[memoryview]]:
    """All chunks by name, with length and checksum; the size is checked first, then every checksum."""
    source.handle.seek(0)
    head = source.handle.read(24)
    if head[12:16] != b"IHDR" or len(head) < 24:
        raise source.damaged("it does not begin with its header")
    source.check_size(*struct.unpack(">II", head[16:24]))
    data = memoryview(source.bytes())
    chunks: dict[str, list[memoryview]] = {}
    at = 8
    while "IEND" not in chunks:
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if len(data) < max(end, at + 12):
            raise source.damaged("cut short: there is no end marker")
        name = bytes(data[at + 4 : at + 8]).decode("latin-1")
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise source.damaged(f"wrong checksum in chunk {name}")
        chunks.setdefault(name, []).append(data[at:end])
        at = end
    return chunks


def _png_xmp(text: bytes) -> bytes | None:
    """The packet inside an iTXt chunk: key, compression flag and method, language, translated key, text."""
    if not text.startswith(_XMP_KEY) or len(text) < len(_XMP_KEY) + 2:
        return None
    compressed, rest = text[len(_XMP_KEY)], text[len(_XMP_KEY) + 2 :].split(b"\0", 2)[-1]
    try:
        return zlib.decompressobj().decompress(rest, _LARGEST_XMP) if compressed else rest
    except zlib.error:
        return b"damaged"  # which the parser will say in its words


def _decode_jpeg(source: Source) -> Decoded:
    from PIL import JpegImagePlugin

    source.handle.seek(0)
    with JpegImagePlugin.JpegImageFile(source.handle) as picture:  # Image.open has a limit of its own
        source.check_size(*picture.size)
        data = source.bytes()
        end, complete = _jpeg_end(source, data)
        if 8 * end < picture.width * picture.height / 64 and b"\xff\xcc" not in data:  # arithmetic coding needs less
            raise source.damaged(f"cut short: {end} bytes hold no {picture.width}x{picture.height} pixels")
        decoded = _decode_pillow(picture)
    if not complete:
        decoded.input_damaged = True
        decoded.notes.append("its last scans are missing, so that fine detail is lost")
    # Where bits are missing, libjpeg makes some up in silence; then more bits before the end change the picture.
    with JpegImagePlugin.JpegImageFile(io.BytesIO(data[:end] + _MORE_BITS + data[end:])) as longer:
        if any(not np.array_equal(decoded.pixels[top : top + _BAND], band) for top, band in _bands(longer)):
            raise source.damaged("cut short: the end marker comes before the last pixels")
    return decoded


def _jpeg_end(source: Source, data: bytes) -> tuple[int, bool]:
    """Where the end marker of the picture lies, and whether its scans give every bit of every coefficient.

    Headers are skipped by their length, and with them the small pictures that they hold.
    """
    at = 2
    found: dict[int, set[int]] = {}  # by component
    while marker := _JPEG_MARKER.search(data, at):
        at, kind = marker.end(), data[marker.end() - 1]
        if kind == 0xD9:
            return marker.start(), all(len(known) == 64 for known in found.values())
        if kind == 0xDA:  # a scan: how many components, two bytes for each, first and last coefficient, lowest bit
            parts = 2 * data[at + 2]
            first, last, bits = data[at + 3 + parts : at + 6 + parts]
            for component in data[at + 3 : at + 3 + parts : 2]:
                found.setdefault(component, set()).update(range(first, last + 1) if bits & 15 == 0 else ())
        at += int.from_bytes(data[at : at + 2], "big")
    raise source.damaged("cut short: there is no end marker")


def _decode_webp(source: Source) -> Decoded:
    from PIL import WebPImagePlugin

    # By hand, since opening it takes memory for the whole canvas, and believes what a canvas says of its pixels.
    (canvas, size), *pixels = _webp_sizes(source)
    source.check_size(*size)
    if canvas == b"VP8X" and (not pixels or pixels[0][1] != size):
        claimed = "x".join(map(str, size))
        raise source.damaged(f"its canvas is {claimed}, its pixels are not" if pixels else "it has no pixels")
    source.handle.seek(0)
    with WebPImagePlugin.WebPImageFile(source.handle) as picture:
        decoded = _decode_pillow(picture)
        if getattr(picture, "is_animated", False):
            decoded.notes.append("animated: only the first frame is used")
        return decoded


def _webp_sizes(source: Source) -> list[tuple[bytes, tuple[int, int]]]:
    """Width and height by the first chunk of a WebP, and where that is only a canvas, by the first chunk of pixels."""
    found: list[tuple[bytes, tuple[int, int]]] = []
    at = 12
    for _ in range(_WEBP_CHUNKS):
        source.handle.seek(at)
        head = source.handle.read(18)
        kind, body = head[:4], head[8:]
        if len(head) < 18:
            break
        if kind == b"VP8X":
            found.append((kind, (1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little"))))
        elif kind == b"VP8L":
            packed = int.from_bytes(body[1:5], "little")
            return [*found, (kind, (1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)))]
        elif kind == b"VP8 ":
            width, height = (int.from_bytes(body[k : k + 2], "little") & 0x3FFF for k in (6, 8))
            return [*found, (kind, (width, height))]
        elif not found:
            break
        length = _WEBP_FRAME if kind == b"ANMF" else int.from_bytes(head[4:8], "little")
        at += 8 + length + length % 2
    if not found:
        raise source.damaged("its header is not one of WebP")
    return found


def _decode_heic(source: Source) -> Decoded:
    import pillow_heif

    source.handle.seek(0)
    try:
        heif = pillow_heif.open_heif(source.handle, convert_hdr_to_8bit=True)
        source.check_size(*heif.size)  # only the headers have been read
        picture = heif.to_pillow()
    except Exception as error:  # the library has a limit of its own, which says no remedy
        if claimed := re.search(r"Image size (\d+)x(\d+) exceeds", str(error)):
            source.check_size(*map(int, claimed.groups()))
        raise
    decoded = _decode_pillow(picture)
    decoded.orientation = 1  # the library has turned it already
    return decoded


def _decode_bmp(source: Source) -> Decoded:
    from PIL import BmpImagePlugin

    source.handle.seek(0)
    with BmpImagePlugin.BmpImageFile(source.handle) as picture:
        source.check_size(*picture.size)
        return _decode_pillow(picture)


@_quiet()
def _decode_tiff(source: Source) -> Decoded:
    """Common ones by OpenCV, as Pillow drops bits, knows no floating RGB and has a limit of its own; others by it."""
    from PIL import TiffImagePlugin

    source.handle.seek(0)
    head = source.handle.read(16)
    tags = TiffImagePlugin.ImageFileDirectory_v2(head[: 16 if head[2:4] in (b"+\0", b"\0+") else 8])
    source.handle.seek(tags.next)
    tags.load(source.handle)
    source.check_size(int(tags[256]), int(tags[257]), int(tags.get(277, 1)))
    bits, samples, colour = max(tags.get(258, (1,))), int(tags.get(277, 1)), tags.get(262)
    plain = bits == 8 and samples in (1, 3) and colour in (1, 2) and tags.get(ORIENTATION, 1) == 1
    if bits <= 8 and not plain:
        source.handle.seek(0)
        with TiffImagePlugin.TiffImageFile(source.handle) as picture:
            decoded = _decode_pillow(picture)
            decoded.turned = picture.getexif().get(ORIENTATION, 1) == 1  # Pillow turns TIFF upright by itself
    else:
        if colour not in (1, 2):  # grey or RGB
            raise source.error(f"is a {bits}-bit TIFF in a rare colour space; save it as RGB or as 16-bit PNG")
        pixels = _decode_opencv(source, source.bytes())
        if pixels.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
            raise source.error(f"is a TIFF of {pixels.dtype} samples; save it with 8 or 16 bits, or as 32-bit float")
        decoded = Decoded(pixels, bits=bits, linear=pixels.dtype.kind == "f")
    decoded.orientation = tags.get(ORIENTATION, 1) if tags.get(ORIENTATION) in range(1, 9) else 1
    _read_xmp(decoded, tags.get(700))
    return decoded


def _decode_pillow(picture: Any) -> Decoded:
    """Pixels of 8 bits and metadata of an open picture."""
    exif = picture.info.get("exif")
    bands = _bands(picture)
    _, first = next(bands)
    pixels = np.empty((picture.height, *first.shape[1:]), np.uint8)
    pixels[: len(first)] = first
    for top, band in bands:
        pixels[top : top + _BAND] = band
    decoded = Decoded(pixels, bits=8)
    _read_exif(decoded, exif)
    _read_xmp(decoded, picture.info.get("xmp"))
    return decoded


def _bands(picture: Any) -> Iterator[tuple[int, Array]]:  # [H, W, 3 or 4], uint8
    """The pixels and their first row, in bands, since Pillow hands out copies."""
    has_alpha = picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info
    mode = "RGBA" if has_alpha else "RGB"
    picture.load()
    plain = picture if picture.mode == mode else picture.convert(mode)
    for top in range(0, plain.height, _BAND):
        yield top, np.asarray(plain.crop((0, top, plain.width, min(top + _BAND, plain.height))))


def _read_exif(decoded: Decoded, data: bytes | None) -> None:
    """The orientation; a picture is not refused for broken metadata, but the record says so."""
    if not data:
        return
    from PIL import Image

    try:
        tags = Image.Exif()
        tags.load(data)
        orientation = tags.get(ORIENTATION, 1)
    except Exception as error:  # any parser error: EXIF is a whole TIFF of its own
        decoded.notes.append(f"EXIF cannot be read ({type(error).__name__})")
    else:
        decoded.orientation = orientation if orientation in range(1, 9) else 1


def _read_xmp(decoded: Decoded, xmp: bytes | str | None) -> None:
    if xmp:
        try:
            decoded.gpano = read_gpano(xmp)
        except ValueError as error:
            decoded.notes.append(f"XMP cannot be read ({error})")


@_quiet()
def _decode_opencv(source: Source, data: bytes) -> Array:  # [H, W, C], RGB
    import cv2

    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise source.damaged("its data cannot be decoded")
    if pixels.ndim == 2:
        return pixels[..., None]
    if pixels.shape[2] == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA, dst=pixels)


def _decode_hdr(source: Source) -> Decoded:
    header, _, rest = source.bytes()[:65536].partition(b"\n\n")
    line = rest.split(b"\n", 1)[0].split()
    if b"32-bit_rle_xyze" in header:
        raise source.error("is a Radiance picture in XYZ colours; convert it to RGB (ra_xyze -r)")
    if len(line) != 4 or not (line[1].isdigit() and line[3].isdigit()):
        raise source.damaged("there is no line with its size")
    if (line[0], line[2]) != (b"-Y", b"+X"):
        raise source.error("is a Radiance picture in an unusual pixel order; expected -Y +X, save it again upright")
    source.check_size(int(line[3]), int(line[1]))
    return Decoded(_decode_opencv(source, source.bytes()), bits=32, linear=True)


def _decode_exr(source: Source) -> Decoded:
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
        return Decoded(pixels, bits=bits, linear=True, premultiplied=True)
    raise source.error(f"has the channels {', '.join(sorted(channels)[:12])}; expected R, G, B or one grey channel")


@_quiet()
def _exr_channels(source: Source) -> dict[str, Array]:
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


def _decode_npy(source: Source) -> Decoded:
    pixels = load_npy(source)
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
    return Decoded(pixels, bits=8 * pixels.dtype.itemsize)


def load_npy(source: Source) -> Array:
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


def _decode_pfm(source: Source) -> Decoded:
    return Decoded(_load_pfm(source), bits=32, linear=True)


def _load_pfm(source: Source) -> Array:  # [H, W, 1 or 3]
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


def _load_dpt(source: Source) -> Array:  # [H, W]
    source.handle.seek(4)
    width, height = struct.unpack("<ii", source.handle.read(8))
    source.check_size(width, height)
    expected = 12 + 4 * width * height
    if source.length == expected + 4 * width * height:
        raise source.error("has two numbers per pixel: it is optical flow (.flo), not a map")
    if source.length != expected:
        raise source.damaged(f"{source.length} bytes; expected {expected} for {width}x{height}")
    return np.fromfile(source.handle, "<f4", width * height).reshape(height, width)


def _map_upright(source: Source, decoded: Decoded) -> Array:
    values = _one_channel(source, decoded.pixels)
    return values if decoded.turned else upright(values, decoded.orientation)


def _map_npy(source: Source) -> Array:
    array = load_npy(source)
    if array.ndim == 3 and array.shape[0] == 1:
        return array[0]
    return _one_channel(source, array if array.ndim == 3 else array[..., None])


def _map_exr(source: Source) -> Array:
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


def _one_channel(source: Source, pixels: Array) -> Array:  # [H, W, C] -> [H, W]
    if any(not np.array_equal(pixels[..., 0], pixels[..., k], equal_nan=True) for k in range(1, pixels.shape[-1])):
        raise source.error(f"has {pixels.shape[-1]} different channels; expected a map of one number per pixel")
    return pixels[..., 0]


PICTURES: dict[str, Callable[[Source], Decoded]] = {
    "PNG": _decode_png,
    "JPEG": _decode_jpeg,
    "TIFF": _decode_tiff,
    "WEBP": _decode_webp,
    "HEIC": _decode_heic,
    "BMP": _decode_bmp,
    "HDR": _decode_hdr,
    "EXR": _decode_exr,
    "NPY": _decode_npy,
    "PFM": _decode_pfm,
}
MAPS: dict[str, Callable[[Source], Array]] = {
    "PNG": lambda source: _map_upright(source, _decode_png(source)),
    "TIFF": lambda source: _map_upright(source, _decode_tiff(source)),
    "EXR": _map_exr,
    "NPY": _map_npy,
    "PFM": lambda source: _one_channel(source, _load_pfm(source)),
    "DPT": _load_dpt,
}
