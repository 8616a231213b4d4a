"""One small picture of every supported kind, and seeded ways to damage its file."""

import importlib.util
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
from PIL import Image

WIDTH, HEIGHT = 96, 48
FLOATING = ("exr", "hdr", "pfm", "npy", "tif")


def scene(seed: int = 0) -> np.ndarray:  # [H, W, 3] in 0..1, closes at the seam and at the poles
    generator = np.random.default_rng(seed)
    y, x = (np.mgrid[:HEIGHT, :WIDTH] + 0.5) * [[[np.pi / HEIGHT]], [[2 * np.pi / WIDTH]]]
    waves = [np.sin(y) ** 2 * np.sin(generator.integers(1, 6) * x + k) for k in range(3)]
    return np.clip(0.5 + 0.4 * np.stack(waves, -1) + 0.04 * generator.standard_normal((HEIGHT, WIDTH, 3)), 0, 1)


def _encoded(suffix: str, values: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(suffix, values[..., ::-1], options)[1].tobytes()


def _pillow(colour: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    colour.save(buffer, form, **options)
    return buffer.getvalue()


def _exr(folder: Path, planes: dict[str, np.ndarray], compression: int, kind: int = OpenEXR.scanlineimage) -> bytes:
    path = folder / "made.exr"
    header = {"compression": compression, "type": kind}
    if kind == OpenEXR.tiledimage:
        header["tiles"] = OpenEXR.TileDescription()
    OpenEXR.File(header, {n: np.ascontiguousarray(p) for n, p in planes.items()}).write(str(path))
    return path.read_bytes()


def pictures(folder: Path) -> dict[str, bytes]:
    """Whole files by name; the suffix is the usual one of the format."""
    eight = np.rint(scene() * 255).astype(np.uint8)
    sixteen = np.rint(scene() * 65535).astype(np.uint16)
    light = (scene() * 5).astype(np.float32)
    colour = Image.fromarray(eight)
    cover = colour.copy()
    cover.putalpha(
        Image.fromarray(np.where(np.arange(HEIGHT)[:, None] < 9, 0, np.full((HEIGHT, WIDTH), 255)).astype(np.uint8))
    )
    found = {
        "a.png": _pillow(colour, "PNG"),
        "grey.png": _pillow(colour.convert("L"), "PNG"),
        "bits.png": _pillow(colour.convert("1"), "PNG"),
        "palette.png": _pillow(colour.quantize(32), "PNG"),
        "alpha.png": _pillow(cover, "PNG"),
        "deep.png": _encoded(".png", sixteen),
        "a.jpg": _pillow(colour, "JPEG", quality=90),
        "full.jpg": _pillow(colour, "JPEG", quality=95, subsampling=0, restart_marker_blocks=4),
        "grey.jpg": _pillow(colour.convert("L"), "JPEG"),
        "cmyk.jpg": _pillow(colour.convert("CMYK"), "JPEG"),
        "progressive.jpg": _pillow(colour, "JPEG", progressive=True, quality=90),
        "raw.tif": _pillow(colour, "TIFF"),
        "lzw.tif": _pillow(colour, "TIFF", compression="tiff_lzw"),
        "deflate.tif": _pillow(colour, "TIFF", compression="tiff_adobe_deflate"),
        "jpeg.tif": _pillow(colour, "TIFF", compression="jpeg"),
        "fax.tif": _pillow(colour.convert("1"), "TIFF", compression="group4"),
        "alpha.tif": _pillow(cover, "TIFF", compression="tiff_lzw"),
        "deep.tif": _encoded(".tif", sixteen),
        "float.tif": _encoded(".tif", light),
        "a.webp": _pillow(colour, "WEBP", lossless=True),
        "lossy.webp": _pillow(colour, "WEBP", quality=90),
        "alpha.webp": _pillow(cover, "WEBP", quality=90),
        "film.webp": _pillow(colour, "WEBP", save_all=True, append_images=[colour.rotate(180)], lossless=True),
        "a.bmp": _pillow(colour, "BMP"),
        "palette.bmp": _pillow(colour.quantize(32), "BMP"),
        "a.hdr": _encoded(".hdr", light),
        "rgb.pfm": b"PF\n%d %d\n-1.0\n" % (WIDTH, HEIGHT) + light[::-1].astype("<f4").tobytes(),
        "grey.pfm": b"Pf\n%d %d\n1.0\n" % (WIDTH, HEIGHT) + light[::-1, :, 0].astype(">f4").tobytes(),
    }
    for name, values in (("a", eight), ("deep", sixteen), ("float", scene().astype(np.float32))):
        buffer = io.BytesIO()
        np.save(buffer, values)
        found[f"{name}.npy"] = buffer.getvalue()
    if importlib.util.find_spec("pillow_heif"):  # the extra `heic`
        import pillow_heif

        buffer = io.BytesIO()
        pillow_heif.from_pillow(colour).save(buffer, quality=90)
        found["a.heic"] = buffer.getvalue()
    planes = {c: light[..., k] for k, c in enumerate("RGB")}
    for name in ("NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "DWAA"):
        found[f"{name.lower()}.exr"] = _exr(folder, planes, getattr(OpenEXR, f"{name}_COMPRESSION"))
    half = {c: p.astype(np.float16) for c, p in planes.items()}
    found["half.exr"] = _exr(folder, half, OpenEXR.ZIP_COMPRESSION)
    found["tiles.exr"] = _exr(folder, planes, OpenEXR.ZIP_COMPRESSION, OpenEXR.tiledimage)
    return found


# --- Damage: each takes the bytes of a file and a generator


def cut(data: bytes, random: np.random.Generator) -> bytes:
    return data[: random.integers(0, len(data))]


def cut_and_ended(data: bytes, random: np.random.Generator) -> bytes:
    """As a rescue tool leaves it: the end is missing, and the file ends as such files do."""
    kept = data[: random.integers(len(data) // 8, len(data) - 16)]
    if data.startswith(b"\xff\xd8"):
        return kept + b"\xff\xd9"
    if data.startswith(b"\x89PNG"):
        return kept + data[-12:]
    return kept


def zero_tail(data: bytes, random: np.random.Generator) -> bytes:
    """As after a full disk or a broken download into a file of the right length."""
    at = int(random.integers(0, len(data)))
    return data[:at] + bytes(len(data) - at)


def flip(data: bytes, random: np.random.Generator) -> bytes:
    broken = bytearray(data)
    for place in random.integers(0, len(data), random.integers(1, 9)):
        broken[place] ^= 1 << int(random.integers(8))
    return bytes(broken)


def overwrite(data: bytes, random: np.random.Generator) -> bytes:
    at, length = int(random.integers(0, len(data))), int(random.integers(1, 200))
    new = random.choice([bytes(length), b"\xff" * length, random.bytes(length)])
    return data[:at] + new[: len(data) - at] + data[at + length :]


def shift(data: bytes, random: np.random.Generator) -> bytes:
    """Bytes lost or doubled in the middle."""
    a, b = sorted(int(i) for i in random.integers(0, len(data), 2))
    b = min(b, a + 300)
    return data[:a] + data[b:] if random.random() < 0.5 else data[:b] + data[a:]


def extreme_number(data: bytes, random: np.random.Generator) -> bytes:
    """A number of the header becomes zero, one, negative or enormous: bombs."""
    at, size = int(random.integers(2, min(len(data) - 4, 400))), int(random.choice([2, 4]))
    value = int(random.choice([0, 1, 0x7FFF, 0x8000, 0xFFFF, 16000, 40000, 2**31 - 1, 2**31, 2**32 - 1]))
    order = "little" if random.random() < 0.5 else "big"
    return data[:at] + (value % 256**size).to_bytes(size, order) + data[at + size :]


def digits(data: bytes, random: np.random.Generator) -> bytes:
    """A number in a textual header becomes another."""
    places = [i for i, c in enumerate(data[:200]) if chr(c).isdigit()]
    if not places:
        return extreme_number(data, random)
    at = int(random.choice(places))
    new = random.choice([b"0", b"-1", b"9", b"99999999", b"1e9", b"nan", b""])
    return data[:at] + bytes(new) + data[at + 1 :]


def checksummed(data: bytes, random: np.random.Generator) -> bytes:
    """Damage to one chunk of a PNG whose checksum is then made right again."""
    if not data.startswith(b"\x89PNG"):
        return flip(data, random)
    chunks = list(png_chunks(data))
    k = int(random.integers(len(chunks)))
    name, body = chunks[k]
    damage = (flip, extreme_number, shift, cut)[int(random.integers(4))]
    chunks[k] = (name, damage(body, random) if len(body) > 8 else random.bytes(len(body)))
    return data[:8] + b"".join(png_chunk(*c) for c in chunks)


def not_a_number(data: bytes, random: np.random.Generator) -> bytes:
    """NaN and infinity as half, float and double, at places where samples may lie."""
    kind = random.choice(["<f2", "<f4", ">f4", "<f8"])
    bad = np.array([random.choice([np.nan, np.inf, -np.inf])], kind).tobytes()
    at = int(random.integers(len(data) // 4, len(data) - 8)) // len(bad) * len(bad)
    return data[:at] + bad + data[at + len(bad) :]


DAMAGES: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (
    cut,
    cut_and_ended,
    zero_tail,
    flip,
    overwrite,
    shift,
    extreme_number,
    digits,
    checksummed,
    not_a_number,
)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


# --- Headers that lie


def claim(data: bytes, width: int, height: int) -> bytes:
    """The file with another size in its header, up to what the format can say."""
    old_sides, sides = (WIDTH, HEIGHT), (width, height)
    if data.startswith(b"\x89PNG"):
        chunks = list(png_chunks(data))
        chunks[0] = (b"IHDR", struct.pack(">II", *sides) + chunks[0][1][8:])
        return data[:8] + b"".join(png_chunk(*c) for c in chunks)
    if data.startswith(b"BM"):
        return data[:18] + struct.pack("<ii", *sides) + data[26:]
    if data.startswith(b"\xff\xd8"):
        return data.replace(struct.pack(">HH", HEIGHT, WIDTH), struct.pack(">HH", height, width))
    if data.startswith(b"RIFF"):
        return _claim_webp(data, *sides)
    if data.startswith(b"v/1\x01"):
        return data.replace(
            struct.pack("<4i", 0, 0, WIDTH - 1, HEIGHT - 1), struct.pack("<4i", 0, 0, width - 1, height - 1)
        )
    if data.startswith(b"II"):
        return _claim_tiff(data, *sides)
    if data[4:8] == b"ftyp":
        at = data.index(b"ispe") + 8
        return data[:at] + struct.pack(">II", *sides) + data[at + 8 :]
    head, rest = data[:128], data[128:]
    for old, new in zip(old_sides, sides, strict=True):
        head = head.replace(b"%d" % old, b"%d" % new, 1)
    if data.startswith(b"\x93NUMPY"):  # its header is padded to a fixed length
        end = head.index(b"}") + 1
        head = head[:end] + b" " * (127 - end) + b"\n"
    return head + rest


def _claim_webp(data: bytes, width: int, height: int) -> bytes:
    most = 2**14
    width, height = min(width, most), min(height, most)
    kind = data[12:16]
    if kind == b"VP8X":
        both = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        return data[:24] + both + data[30:]
    if kind == b"VP8L":
        rest = int.from_bytes(data[21:25], "little") >> 28 << 28
        return data[:21] + (rest | width - 1 | height - 1 << 14).to_bytes(4, "little") + data[25:]
    return data[:26] + struct.pack("<HH", min(width, most - 1), min(height, most - 1)) + data[30:]


def _claim_tiff(data: bytes, width: int, height: int) -> bytes:
    new = bytearray(data)
    at = struct.unpack_from("<I", data, 4)[0]
    for entry in range(struct.unpack_from("<H", data, at)[0]):
        place = at + 2 + 12 * entry
        tag = struct.unpack_from("<H", data, place)[0]
        if tag in (256, 257):
            struct.pack_into("<HII", new, place + 2, 4, 1, width if tag == 256 else height)
    return bytes(new)


def gpano(width: int, height: int, crop_width: int, crop_height: int, left: int, top: int) -> dict[str, object]:
    """The tags of a part of a panorama."""
    return {
        "ProjectionType": "equirectangular",
        "FullPanoWidthPixels": width,
        "FullPanoHeightPixels": height,
        "CroppedAreaImageWidthPixels": crop_width,
        "CroppedAreaImageHeightPixels": crop_height,
        "CroppedAreaLeftPixels": left,
        "CroppedAreaTopPixels": top,
    }
