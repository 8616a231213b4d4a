"""Pictures and maps: exact round trips in every format, and a clear refusal of everything that is not one."""

import io
import os
import resource
import signal
import struct
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import pytest
import torch
from PIL import Image

from immersivedepth.checks import InputError, ResourceError
from immersivedepth.data import images

HEIGHT, WIDTH = 24, 48


def smooth(height=HEIGHT, width=WIDTH):  # [H, W, 3] in 0..1, kind to lossy formats, different in all corners
    y, x = np.mgrid[:height, :width] + 0.5
    return np.stack([x / width, y / height, 0.2 + 0.6 * x * y / (width * height)], axis=-1)


def noise(seed=0, height=HEIGHT, width=WIDTH):  # [H, W, 3], uint8
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def eight(values):
    return np.rint(values * 255).astype(np.uint8)


def sixteen(values):
    return np.rint(values * 65535).astype(np.uint16)


def pixels(picture):  # [H, W, 3]
    return picture.image.permute(1, 2, 0).numpy()


def exr(path, planes, compression=OpenEXR.ZIP_COMPRESSION, **header):
    full = {"compression": compression, "type": OpenEXR.scanlineimage, **header}
    OpenEXR.File(full, {name: np.ascontiguousarray(plane) for name, plane in planes.items()}).write(str(path))
    return path


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, depth, colour, rows: bytes) -> bytes:
    """A PNG by hand, with whatever the header claims."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def refused(path, reader=images.read_image, **options) -> str:
    """The one line with which a file is refused, in less than two seconds."""
    start = time.perf_counter()
    with pytest.raises(InputError) as caught:
        reader(path, **options)
    assert time.perf_counter() - start < 2
    line = str(caught.value)
    assert "\n" not in line
    assert images.show(path) in line
    assert caught.value.code == 3
    return line


# --- Every format


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp", ".webp"])
def test_eight_bits_are_exact_and_stay_bytes(tmp_path, suffix):
    options = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(noise()).save(tmp_path / f"a{suffix}", **options)
    picture = images.read_image(tmp_path / f"a{suffix}")
    assert picture.image.dtype == torch.uint8
    assert np.array_equal(pixels(picture), noise())
    assert picture.mask is None
    assert picture.about["size"] == [WIDTH, HEIGHT]
    assert picture.about["bits"] == 8


def test_jpeg_and_lossy_webp_are_close(tmp_path):
    for suffix in (".jpg", ".webp"):
        Image.fromarray(eight(smooth())).save(tmp_path / f"a{suffix}", quality=95)
        difference = np.abs(pixels(images.read_image(tmp_path / f"a{suffix}")).astype(int) - eight(smooth()))
        assert difference.mean() < 2  # of 255: what quality 95 does to a smooth ramp


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_keep_every_bit(tmp_path, suffix):
    values = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / f"a{suffix}"), values[..., ::-1])
    picture = images.read_image(tmp_path / f"a{suffix}")
    assert picture.image.dtype == torch.float32
    assert np.array_equal(np.rint(pixels(picture).astype(np.float64) * 65535), values)
    assert float(picture.image.max()) <= 1


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_times_257_are_eight_bits(tmp_path, suffix):
    cv2.imwrite(str(tmp_path / f"a{suffix}"), noise()[..., ::-1].astype(np.uint16) * 257)
    deep = pixels(images.read_image(tmp_path / f"a{suffix}"))
    np.testing.assert_allclose(deep, noise() / 255, rtol=0, atol=1e-7)  # rounding to float32


def test_grey_sixteen_bit_png(tmp_path):
    values = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 50
    cv2.imwrite(str(tmp_path / "a.png"), values)
    found = pixels(images.read_image(tmp_path / "a.png"))
    assert all(np.array_equal(np.rint(found[..., k] * 65535), values) for k in range(3))


def test_radiance_hdr(tmp_path):
    light = (smooth() * 10).astype(np.float32)
    cv2.imwrite(str(tmp_path / "a.hdr"), light[..., ::-1])
    picture = images.read_image(tmp_path / "a.hdr", linear=True)
    # One byte of mantissa for the brightest channel, and the same step for the others.
    assert np.abs(pixels(picture) - light).max() < light.max() / 128
    assert picture.about["tone_mapped"] is False


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize(
    "names", [("R", "G", "B"), ("view.R", "view.G", "view.B"), ("r", "g", "b"), ("B", "G", "R", "A", "Z")]
)
def test_exr_colours(tmp_path, kind, names):
    light = {c: (smooth()[..., k] * 7).astype(kind) for k, c in enumerate("rgb")}
    light |= {"a": np.ones((HEIGHT, WIDTH), kind), "z": np.full((HEIGHT, WIDTH), 9, kind)}
    exr(tmp_path / "a.exr", {n: light[n.rpartition(".")[2].lower()] for n in names})
    picture = images.read_image(tmp_path / "a.exr", linear=True)
    assert np.array_equal(pixels(picture), np.stack([light[c] for c in "rgb"], -1).astype(np.float32))
    assert picture.mask is None
    assert picture.about["bits"] == 8 * kind().itemsize


@pytest.mark.parametrize("name", ["Y", "Z", "anything", "layer.Y"])
def test_exr_grey(tmp_path, name):
    plane = smooth()[..., 0].astype(np.float32)
    exr(tmp_path / "a.exr", {name: plane})
    found = images.read_image(tmp_path / "a.exr", linear=True)
    assert all(np.array_equal(found.image[k].numpy(), plane) for k in range(3))


@pytest.mark.parametrize("compression", ["NO", "RLE", "ZIPS", "ZIP", "PIZ"])
def test_lossless_exr_compressions(tmp_path, compression):
    values = noise().astype(np.float32)[..., 0]
    exr(tmp_path / "a.exr", {"Y": values}, getattr(OpenEXR, f"{compression}_COMPRESSION"))
    assert np.array_equal(images.read_map(tmp_path / "a.exr")[0].numpy(), values)


@pytest.mark.parametrize("order", ["<f4", ">f4"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pfm(tmp_path, order, channels):
    values = (smooth()[..., :channels] * 5).astype(order)
    scale = -1.0 if order[0] == "<" else 1.0
    head = f"{'PF' if channels == 3 else 'Pf'}\n# a comment\n{WIDTH} {HEIGHT}\n{scale}\n".encode()
    (tmp_path / "a.pfm").write_bytes(head + values[::-1].tobytes())
    assert np.array_equal(pixels(images.read_image(tmp_path / "a.pfm", linear=True))[..., :channels], values)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float16", "float32", "float64", ">f4", "bool"])
@pytest.mark.parametrize("first", [False, True], ids=["channels last", "channels first"])
def test_npy(tmp_path, kind, first):
    values = {"uint8": eight, "uint16": sixteen, "bool": lambda v: v > 0.5}.get(kind, lambda v: v.astype(kind))(
        smooth()
    )
    np.save(tmp_path / "a.npy", values.transpose(2, 0, 1) if first else values)
    found = pixels(images.read_image(tmp_path / "a.npy"))
    full = {"uint8": 1, "uint16": 65535, "bool": 1 / 255}.get(kind, 1)
    np.testing.assert_allclose(found.astype(np.float64), values.astype(np.float64) / full, rtol=1e-7)


def test_opencv_agrees_on_floating_tiff(tmp_path):
    light = (smooth() * 3 - 0.5).astype(np.float32)
    cv2.imwrite(str(tmp_path / "a.tif"), light[..., ::-1])
    assert np.array_equal(pixels(images.read_image(tmp_path / "a.tif", linear=True)), light)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "PA", "CMYK", "I;16", "transparent palette"])
def test_modes_have_the_same_mean_colour(tmp_path, mode):
    """Grey, palettes, one bit, alpha, CMYK: all come out as RGB that looks like the picture that was saved."""
    colour = Image.fromarray(eight(smooth()))
    suffix = {"CMYK": "tif", "PA": "png"}.get(mode, "png")
    if mode == "I;16":
        picture = Image.fromarray(sixteen(smooth().mean(-1)))
    elif mode in ("LA", "RGBA"):
        picture = colour.convert(mode)
    elif mode == "PA":
        picture = colour.convert("RGBA").quantize(256)
    elif mode == "transparent palette":
        picture = colour.quantize(64)
    else:
        picture = colour.convert(mode)
    transparency = {"transparency": bytes([255] * 64)} if mode == "transparent palette" else {}
    picture.save(tmp_path / f"a.{suffix}", **transparency)
    found = images.read_image(tmp_path / f"a.{suffix}")
    assert found.image.shape == (3, HEIGHT, WIDTH)
    mean = found.image.float().mean((1, 2)) / (1 if found.image.is_floating_point() else 255)
    grey = mode in ("1", "L", "LA", "I;16")
    expected = smooth().mean((0, 1))
    expected = np.full(3, expected @ [0.299, 0.587, 0.114] if mode != "I;16" else expected.mean()) if grey else expected
    # Dithering to one bit keeps the mean to about a level per row; a palette of 64 colours misses by a few levels.
    np.testing.assert_allclose(mean.numpy(), expected, atol={"1": 0.02, "I;16": 1e-4}.get(mode, 0.01))


def test_cmyk_jpeg(tmp_path):
    Image.fromarray(eight(smooth())).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    found = pixels(images.read_image(tmp_path / "a.jpg")) / 255
    assert np.abs(found - smooth()).mean() < 0.02  # JPEG loss; an inverted picture would be off by about a half


def test_grey_jpeg(tmp_path):
    Image.fromarray(eight(smooth()[..., 0])).save(tmp_path / "a.jpg", quality=95)
    found = pixels(images.read_image(tmp_path / "a.jpg"))
    assert np.array_equal(found[..., 0], found[..., 2])


def test_one_bit_is_black_and_white(tmp_path):
    Image.fromarray(np.eye(HEIGHT, dtype=bool)).save(tmp_path / "a.png")
    found = pixels(images.read_image(tmp_path / "a.png"))
    assert np.array_equal(found[..., 1], np.eye(HEIGHT, dtype=np.uint8) * 255)


# --- Transparency


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_transparent_pixels_are_black_and_masked(tmp_path, suffix):
    colour = np.full((HEIGHT, WIDTH, 4), 200, np.uint8)
    colour[:8, :, 3], colour[8:16, :, 3], colour[16:, :, 3] = 0, 128, 255
    Image.fromarray(colour).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    picture = images.read_image(tmp_path / f"a.{suffix}")
    assert picture.image[0, ::8, 0].tolist() == [0, round(200 * 128 / 255), 200]
    assert picture.mask.shape == (1, HEIGHT, WIDTH)
    assert picture.mask[0, ::8, 0].tolist() == [False, True, True]


@pytest.mark.parametrize("channels", [2, 4])
def test_sixteen_bit_alpha(tmp_path, channels):
    colour = np.full((HEIGHT, WIDTH, channels), 50000, np.uint16)
    colour[:8, :, -1], colour[8:16, :, -1], colour[16:, :, -1] = 0, 40000, 65535
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colour)
    (tmp_path / "a.png").write_bytes(png(WIDTH, HEIGHT, 16, 4 if channels == 2 else 6, rows))
    picture = images.read_image(tmp_path / "a.png")
    expected = [0, 50000 / 65535 * 40000 / 65535, 50000 / 65535]
    for k in range(3):
        np.testing.assert_allclose(picture.image[k, ::8, 0], expected, rtol=1e-6)
    assert picture.mask[0, ::8, 0].tolist() == [False, True, True]


def test_exr_colours_are_already_multiplied_by_their_alpha(tmp_path):
    half = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    clear = np.where(np.arange(HEIGHT)[:, None] < 8, 0.0, half).astype(np.float32)
    exr(tmp_path / "a.exr", {"R": half, "G": half, "B": half, "A": clear})
    picture = images.read_image(tmp_path / "a.exr", linear=True)
    assert float(picture.image.min()) == 0.5
    assert picture.mask[0, :, 0].sum() == HEIGHT - 8


def test_a_key_colour_is_transparent(tmp_path):
    colour = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    colour[3, 5] = (1, 2, 3)
    Image.fromarray(colour).save(tmp_path / "a.png", transparency=(1, 2, 3))
    picture = images.read_image(tmp_path / "a.png")
    assert picture.mask.logical_not().nonzero().tolist() == [[0, 3, 5]]


@pytest.mark.parametrize(("bits", "key"), [(1, 1), (2, 2), (4, 9), (8, 77), (16, 40001)])
def test_a_key_shade_of_grey_is_transparent(tmp_path, bits, key):
    other = 0 if bits < 16 else 40000
    levels = np.full((HEIGHT, WIDTH), other)
    levels[5, 8:11] = key
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in levels]
    else:
        per_byte = 8 // bits
        weights = 1 << (bits * np.arange(per_byte)[::-1])
        rows = [(row.reshape(-1, per_byte) * weights).sum(-1).astype(np.uint8).tobytes() for row in levels]
    data = png(WIDTH, HEIGHT, bits, 0, b"".join(b"\0" + row for row in rows))
    (tmp_path / "a.png").write_bytes(data[:33] + chunk(b"tRNS", struct.pack(">H", key)) + data[33:])
    picture = images.read_image(tmp_path / "a.png")
    assert picture.mask.logical_not().nonzero().tolist() == [[0, 5, 8], [0, 5, 9], [0, 5, 10]]


def test_opaque_alpha_needs_no_mask_and_nothing_but_transparency_is_refused(tmp_path):
    colour = np.full((HEIGHT, WIDTH, 4), 255, np.uint8)
    Image.fromarray(colour).save(tmp_path / "a.png")
    assert images.read_image(tmp_path / "a.png").mask is None
    colour[..., 3] = 0
    Image.fromarray(colour).save(tmp_path / "a.png")
    assert "transparent everywhere" in refused(tmp_path / "a.png")


# --- EXIF

# What a camera stores for each orientation, so that turning it upright gives the same picture.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "jpg"])
def test_eight_orientations_agree(tmp_path, suffix):
    found = {}
    for orientation, stored in STORED.items():
        tags = Image.Exif()
        tags[274] = orientation
        path = tmp_path / f"{orientation}.{suffix}"
        options = (
            {"lossless": True} if suffix == "webp" else {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
        )
        Image.fromarray(np.ascontiguousarray(stored(eight(smooth())))).save(path, exif=tags, **options)
        picture = images.read_image(path)
        found[orientation] = pixels(picture).astype(int)
        assert picture.about.get("exif_orientation", 1) == orientation
    for one in found.values():
        for other in found.values():
            assert one.shape == other.shape
            assert np.abs(one - other).max() <= (6 if suffix == "jpg" else 0)  # JPEG rounds blocks of turned pixels
    assert np.abs(found[1] - eight(smooth())).max() <= (6 if suffix == "jpg" else 0)


def test_orientation_of_sixteen_bit_png_and_of_the_mask(tmp_path):
    colour = np.zeros((HEIGHT, WIDTH, 4), np.uint16)
    colour[..., 3] = 65535
    colour[0, :5] = (65535, 30000, 1, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colour)
    data = png(WIDTH, HEIGHT, 16, 6, rows)
    tags = Image.Exif()
    tags[274] = 8
    turned = chunk(b"eXIf", tags.tobytes()[6:])
    (tmp_path / "a.png").write_bytes(data[:33] + turned + data[33:])
    picture = images.read_image(tmp_path / "a.png")
    assert picture.image.shape == (3, WIDTH, HEIGHT)
    assert not picture.mask[0, -5:, 0].any()
    assert picture.mask.sum() == HEIGHT * WIDTH - 5


def test_broken_exif_is_noted_and_harmless(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(noise()).save(buffer, "PNG")
    data = buffer.getvalue()
    (tmp_path / "a.png").write_bytes(data[:33] + chunk(b"eXIf", b"MM\0\x2a\xff\xff\xff\xff junk") + data[33:])
    assert np.array_equal(pixels(images.read_image(tmp_path / "a.png")), noise())


# --- GPano

PACKET = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" {attributes}>{elements}
</rdf:Description></rdf:RDF></x:xmpmeta>"""
TAGS = {"ProjectionType": "equirectangular", "FullPanoWidthPixels": 200, "PoseHeadingDegrees": 12.5}


def packet(form, tags=TAGS):
    if form == "attributes":
        return PACKET.format(attributes=" ".join(f'GPano:{k}="{v}"' for k, v in tags.items()), elements="").encode()
    return PACKET.format(
        attributes="", elements="".join(f"<GPano:{k}>{v}</GPano:{k}>" for k, v in tags.items())
    ).encode()


@pytest.mark.parametrize("form", ["attributes", "elements"])
@pytest.mark.parametrize("suffix", ["jpg", "webp", "png", "tif"])
def test_gpano_in_every_container(tmp_path, form, suffix):
    picture, path = Image.fromarray(noise()), tmp_path / f"a.{suffix}"
    if suffix == "png":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet(form).decode(), zip=True)
        picture.save(path, pnginfo=info)
    elif suffix == "tif":
        picture.save(path, tiffinfo={700: packet(form)})
    else:
        picture.save(path, xmp=packet(form))
    assert images.read_image(path).about["gpano"] == TAGS


def test_hostile_and_broken_xmp_is_noted_and_harmless(tmp_path):
    laughs = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><a>&c;</a>'
    for content in (laughs, b"<x:xmpmeta", b"\xff\xfe\x00", packet("attributes").replace(b"GPano:", b"Other:")):
        Image.fromarray(noise()).save(tmp_path / "a.jpg", xmp=content)
        about = images.read_image(tmp_path / "a.jpg").about
        assert "gpano" not in about
        assert any("XMP" in note for note in about["notes"])


def test_odd_numbers_in_gpano_are_kept_as_text():
    tags = {"FullPanoWidthPixels": "nan", "FullPanoHeightPixels": "1e999", "CroppedAreaTopPixels": "12.0"}
    found = images.read_gpano(packet("elements", tags))
    assert found == {"FullPanoWidthPixels": "nan", "FullPanoHeightPixels": "1e999", "CroppedAreaTopPixels": 12}


# --- Light


def test_tone_map_by_its_formula():
    """Reinhard's extended curve and sRGB, written out pixel by pixel."""
    light = np.exp(np.random.default_rng(3).normal(0, 2, (9, 18, 3))).astype(np.float32)
    weights = [0.2126, 0.7152, 0.0722]
    luminance = light.astype(np.float64) @ weights
    middle, white = np.median(luminance), np.percentile(luminance, 99)
    expected = np.empty(light.shape)
    for index in np.ndindex(*light.shape[:2]):
        shown = 0.18 * luminance[index] / middle
        top = max(0.18 * white / middle, 1)
        for k in range(3):
            value = min(0.18 * light[index][k] / middle * (1 + shown / top**2) / (1 + shown), 1)
            expected[index][k] = 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
    np.testing.assert_allclose(images.tone_map(light.copy()), expected, atol=1e-5)  # float32


@pytest.mark.parametrize("factor", [1e-6, 0.1, 1000.0])
def test_exposure_does_not_matter(factor):
    light = (smooth() * 4).astype(np.float32)
    bright = images.tone_map(light * np.float32(factor))
    np.testing.assert_allclose(bright, images.tone_map(light.copy()), atol=1e-5)  # float32


@pytest.mark.parametrize(
    "light",
    [
        np.zeros((4, 8, 3)),
        np.full((4, 8, 3), -1.0),
        np.full((4, 8, 3), 3e38),
        np.full((4, 8, 3), 1e-40),
        np.concatenate([np.full((1, 8, 3), 3e38), np.full((3, 8, 3), 1e-38)]),
        np.concatenate([np.full((1, 8, 3), 60000.0), np.zeros((3, 8, 3))]),
    ],
    ids=["black", "negative", "brightest", "denormal", "all there is", "lamp in the dark"],
)
def test_tone_map_of_extremes(light):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = images.tone_map(light.astype(np.float32))
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_tone_map_keeps_order_and_spreads_over_the_range():
    ramp = np.repeat(np.geomspace(0.01, 100, 512, dtype=np.float32)[None, :, None], 3, axis=2)
    found = images.tone_map(ramp.copy())[0, :, 0]
    assert (np.diff(found) >= 0).all()
    assert found[0] < 0.05
    assert 0.35 < found[256] < 0.55  # the median is middle grey
    assert found[-1] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("suffix", ["exr", "hdr", "tif", "pfm"])
def test_light_is_tone_mapped_unless_asked_for(tmp_path, suffix):
    light = (0.02 * 5000 ** smooth()).astype(np.float32)
    path = tmp_path / f"a.{suffix}"
    if suffix == "exr":
        images.write_exr(path, light)
    elif suffix == "pfm":
        images.write_pfm(path, light)
    else:
        cv2.imwrite(str(path), light[..., ::-1])
    shown = images.read_image(path)
    assert shown.image.dtype == torch.float32
    assert 0 <= shown.image.min() < 0.2
    assert 0.9 < shown.image.max() <= 1
    assert shown.about["tone_mapped"] is True
    assert images.read_image(path, linear=True).image.max() > 70


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
@pytest.mark.parametrize("suffix", ["exr", "half.exr", "tif", "pfm", "npy"])
def test_nan_pixels_are_refused_with_their_place(tmp_path, bad, suffix):
    light = (smooth() * 0.9).astype(np.float32)
    light[5, 7, 1] = light[5, 9, 0] = bad
    path = tmp_path / f"a.{suffix}"
    if "exr" in suffix:
        images.write_exr(path, light, half="half" in suffix)
    elif suffix == "pfm":
        images.write_pfm(path, light)
    elif suffix == "npy":
        images.write_npy(path, light)
    else:
        cv2.imwrite(str(path), light[..., ::-1])
    line = refused(path)
    if suffix == "npy" and bad == -np.inf:
        assert "from -inf" in line
    else:
        assert "2 NaN pixels of 1152, the first in column 7, row 5" in line


@pytest.mark.parametrize("half", [False, True])
def test_an_overflowing_sun_is_as_bright_as_the_brightest_pixel(tmp_path, half):
    light = (smooth() * 5).astype(np.float32)
    light[2, 3] = np.inf
    images.write_exr(tmp_path / "a.exr", light, half=half)
    picture = images.read_image(tmp_path / "a.exr", linear=True)
    assert picture.image.isfinite().all()
    assert picture.image[:, 2, 3].tolist() == [float(picture.image.max())] * 3
    assert "infinite" in picture.about["notes"][0]
    assert images.read_image(tmp_path / "a.exr").image.isfinite().all()


def test_floating_npy_beyond_one_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", smooth() * 255)
    assert "expected floats in 0..1" in refused(tmp_path / "a.npy")


# --- Maps


def special(height=HEIGHT, width=WIDTH):  # [H, W], numbers that clipping, rounding or cleaning would change
    values = np.random.default_rng(2).lognormal(0, 3, (height, width)).astype(np.float32)
    values[0, :6] = [0, -1.5, np.inf, -np.inf, np.nan, 1e10]
    values[1, :3] = [np.finfo(np.float32).max, np.finfo(np.float32).tiny, 1 / 3]
    return values


@pytest.mark.parametrize("suffix", ["exr", "npy", "pfm"])
def test_maps_keep_every_number(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    getattr(images, f"write_{suffix}")(path, torch.from_numpy(special())[None])
    found = images.read_map(path)
    assert found.dtype == torch.float32
    assert np.array_equal(found[0].numpy().view(np.uint32), special().view(np.uint32))


def test_half_float_maps(tmp_path):
    values = special()
    values[1, :3] = 65504
    values[0, 5] = 1000
    values = np.clip(values, -65504, 65504, where=np.isfinite(values), out=values)
    images.write_exr(tmp_path / "a.exr", torch.from_numpy(values)[None], half=True)
    expected = values.astype(np.float16).astype(np.float32)
    assert np.array_equal(images.read_map(tmp_path / "a.exr")[0].numpy(), expected, equal_nan=True)
    with pytest.raises(ValueError, match="65504"):
        images.write_exr(tmp_path / "a.exr", torch.full((1, 2, 4), 7e4), half=True)


@pytest.mark.parametrize("name", ["Y", "Z", "depth.Z", "distance"])
def test_names_of_map_channels(tmp_path, name):
    exr(tmp_path / "a.exr", {name: special()})
    assert np.array_equal(images.read_map(tmp_path / "a.exr")[0].numpy(), special(), equal_nan=True)


def test_maps_in_files_of_several_channels(tmp_path):
    exr(tmp_path / "a.exr", {"R": special(), "G": special(), "B": special()})
    assert np.array_equal(images.read_map(tmp_path / "a.exr")[0].numpy(), special(), equal_nan=True)
    exr(tmp_path / "b.exr", {"R": special(), "G": special() + 1, "B": special(), "Z": special() / 2})
    assert np.array_equal(images.read_map(tmp_path / "b.exr")[0].numpy(), special() / 2, equal_nan=True)
    exr(tmp_path / "c.exr", {"R": special(), "G": special() + 1, "B": special()})
    assert "different channels" in refused(tmp_path / "c.exr", images.read_map)
    exr(tmp_path / "d.exr", {"X": special(), "Y": special(), "Z": special()})
    assert "X, Y, Z" in refused(tmp_path / "d.exr", images.read_map)


def test_sixteen_bit_map_with_its_unit(tmp_path):
    values = torch.arange(HEIGHT * WIDTH).reshape(1, HEIGHT, WIDTH).float() / 50
    values[0, 0, :4] = torch.tensor([float("nan"), float("inf"), -1.0, 1e9])
    images.write_map_png(tmp_path / "a.png", values, unit=1 / 4000)
    found = images.read_map(tmp_path / "a.png", unit=1 / 4000)
    assert found[0, 0, :4].tolist() == [0, 0, 0, 0]
    good = (values < 65535 / 4000) & (values > 0)
    assert (found - values)[good].abs().max() <= 0.5 / 4000 + 1e-6  # half a step, and float32
    assert "unit" in refused(tmp_path / "a.png", images.read_map)


def test_dpt(tmp_path):
    head = struct.pack("<fii", 202021.25, WIDTH, HEIGHT)
    (tmp_path / "a.dpt").write_bytes(head + special().tobytes())
    assert np.array_equal(images.read_map(tmp_path / "a.dpt")[0].numpy(), special(), equal_nan=True)
    (tmp_path / "cut.dpt").write_bytes(head + special().tobytes()[:-4])
    assert "damaged" in refused(tmp_path / "cut.dpt", images.read_map)
    (tmp_path / "flow.dpt").write_bytes(head + special().tobytes() * 2)
    assert "flow" in refused(tmp_path / "flow.dpt", images.read_map)
    assert "is a map" in refused(tmp_path / "a.dpt")


def test_pictures_are_no_maps(tmp_path):
    Image.fromarray(noise()[..., 0]).save(tmp_path / "a.png")
    assert "uint8" in refused(tmp_path / "a.png", images.read_map, unit=1)
    Image.fromarray(noise()).save(tmp_path / "a.jpg")
    assert "expected a map" in refused(tmp_path / "a.jpg", images.read_map)
    np.save(tmp_path / "a.npy", special().astype(np.float64)[None])
    assert images.read_map(tmp_path / "a.npy").shape == (1, HEIGHT, WIDTH)
    np.save(tmp_path / "a.npy", noise().astype(np.int32)[..., 0])
    assert images.read_map(tmp_path / "a.npy", unit=0.5).max() == noise()[..., 0].max() / 2


# --- Refusals before decoding


def test_the_content_counts_and_not_the_name(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.exr")
    assert images.read_image(tmp_path / "a.exr").about["format"] == "PNG"


STRANGERS = {
    "empty": b"",
    "git-LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "git-annex": b"/annex/objects/MD5E-s123--abc.png\n",
    "HTML": b"  \n<!DOCTYPE html><html><body>404</body></html>",
    "HTML ": b"<HTML><head>",
    "XML": b'<?xml version="1.0"?><Error>AccessDenied</Error>',
    "JSON": b'{"message": "Not Found"}',
    "PDF": b"%PDF-1.7\n",
    "GIF": b"GIF89a" + bytes(20),
    "HEIC": b"\0\0\0\x18ftypheic" + bytes(20),
    "AVIF": b"\0\0\0\x18ftypavif" + bytes(20),
    "video": b"\0\0\0\x18ftypisom" + bytes(20),
    "ZIP": b"PK\x03\x04" + bytes(20),
    "gzip": b"\x1f\x8b\x08" + bytes(20),
    "zeros": bytes(5000),
    "no known": b"\x01\x02\x03\x04 something else entirely",
    "no known ": b"\x89PN",
}


@pytest.mark.parametrize("found", STRANGERS)
@pytest.mark.parametrize("suffix", ["png", "exr", "hdr", "npy"])
def test_strangers_are_named(tmp_path, found, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(STRANGERS[found])
    assert found.strip() in refused(tmp_path / f"a.{suffix}")
    refused(tmp_path / f"a.{suffix}", images.read_map)


def test_things_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "folder.png").mkdir()
    assert "pipe" in refused(tmp_path / "pipe.png")
    assert "cannot be opened" in refused(tmp_path / "loop.png")
    assert "link to" in refused(tmp_path / "gone.png")
    assert "folder" in refused(tmp_path / "folder.png")
    assert "device" in refused(Path("/dev/zero"))
    assert "device" in refused(Path("/dev/null"))
    refused(Path("a\0b.png"))
    refused(tmp_path / ("n" * 300 + ".png"))
    refused(tmp_path / "folder.png" / "a.png")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file" / "a.png")


def test_a_link_to_a_picture_is_followed(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert np.array_equal(pixels(images.read_image(tmp_path / "b.png")), noise())


def test_a_missing_file_is_met_with_similar_names(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "kitchen.png")
    assert "did you mean kitchen.png?" in refused(tmp_path / "kitchn.png")
    assert "did you mean" not in refused(tmp_path / "zzz.tif")
    assert f"there is no folder {tmp_path / 'no'}" in refused(tmp_path / "no" / "such" / "a.png")


def test_the_limit_is_the_callers(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.png")
    assert "limit of 47x24" in refused(tmp_path / "a.png", max_size=(47, 24))
    assert images.read_image(tmp_path / "a.png", max_size=(48, 24)).image.shape == (3, HEIGHT, WIDTH)


def test_pictures_beyond_pillows_own_limit_are_read_without_a_warning(tmp_path, monkeypatch):
    """Pillow warns above its limit and refuses above twice of it, while whole bands of ours lie below."""
    colour = noise(height=1024, width=100)
    for suffix in ("png", "bmp", "tif", "webp"):
        Image.fromarray(colour).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 256 * 100)
    for suffix in ("png", "bmp", "tif", "webp"):
        assert np.array_equal(pixels(images.read_image(tmp_path / f"a.{suffix}")), colour)


def test_a_huge_sparse_file_is_refused_unread(tmp_path):
    with (tmp_path / "a.bmp").open("wb") as handle:
        handle.write(b"BM")
        handle.truncate(2**40)
    assert "1024.0 GiB" in refused(tmp_path / "a.bmp")


def test_pickles_in_npy_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[{"a": 1}] * 4] * 2, dtype=object), allow_pickle=True)
    assert "plain numbers" in refused(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.zeros((2, 4), complex))
    assert "plain numbers" in refused(tmp_path / "b.npy")
    np.save(tmp_path / "c.npy", np.zeros(8))
    assert "shape [8]" in refused(tmp_path / "c.npy")
    np.save(tmp_path / "d.npy", np.zeros((0, 8)))
    assert "without pixels" in refused(tmp_path / "d.npy")
    np.save(tmp_path / "e.npy", np.zeros((5, 4, 8)))
    assert "shape" in refused(tmp_path / "e.npy")


def test_exr_of_other_kinds(tmp_path):
    plane = smooth()[..., 0].astype(np.float32)
    exr(tmp_path / "xyz.exr", {"X": plane, "Y": plane, "Z": plane})
    assert "expected R, G, B" in refused(tmp_path / "xyz.exr")
    window = (np.array([0, 0], np.int32), np.array([2 * WIDTH - 1, 2 * HEIGHT - 1], np.int32))
    exr(tmp_path / "crop.exr", {"Y": plane}, displayWindow=window)
    assert "data window" in refused(tmp_path / "crop.exr")
    exr(tmp_path / "many.exr", {f"layer{k}.Y": plane for k in range(20)})
    assert "20 channels" in refused(tmp_path / "many.exr", max_size=(WIDTH, HEIGHT))


# --- Damage


@pytest.mark.parametrize(("film", "frame_too"), [(False, False), (True, False), (True, True)])
def test_a_webp_canvas_of_another_size_than_its_pixels_is_refused(tmp_path, film, frame_too):
    """The decoder believes the canvas, takes memory for it, and gives back pixels that no byte stands for."""
    picture = Image.fromarray(eight(smooth()))
    more = {"save_all": True, "append_images": [picture.rotate(180)]} if film else {"exif": Image.Exif()}
    picture.save(tmp_path / "a.webp", lossless=True, **({"icc_profile": b"odd"} | more))
    data = bytearray((tmp_path / "a.webp").read_bytes())
    assert data[12:16] == b"VP8X"
    assert images.read_image(tmp_path / "a.webp").image.shape[-2:] == picture.size[::-1]
    wide = (11999).to_bytes(3, "little") + (5999).to_bytes(3, "little")
    for at in (24, data.index(b"ANMF") + 14) if frame_too else (24,):
        data[at : at + 6] = wide
    (tmp_path / "b.webp").write_bytes(data)
    assert "its canvas is 12000x6000, its pixels are not" in refused(tmp_path / "b.webp")


def test_a_webp_without_pixels_is_refused(tmp_path):
    head = b"VP8X" + (10).to_bytes(4, "little") + bytes(4) + (63).to_bytes(3, "little") + (31).to_bytes(3, "little")
    empty = b"JUNK" + (10).to_bytes(4, "little") + bytes(10)
    for body in (head, head + empty, head + 40 * empty):
        (tmp_path / "a.webp").write_bytes(b"RIFF" + (4 + len(body)).to_bytes(4, "little") + b"WEBP" + body)
        assert "it has no pixels" in refused(tmp_path / "a.webp")


def samples(folder):
    """One good file of every format, a few kilobytes each."""
    colour, light = eight(smooth()), (smooth() * 5).astype(np.float32)
    Image.fromarray(colour).save(folder / "a.png")
    Image.fromarray(colour).save(folder / "a.jpg", quality=95)
    Image.fromarray(colour).save(folder / "progressive.jpg", progressive=True, quality=95)
    Image.fromarray(colour).save(folder / "a.webp", lossless=True)
    Image.fromarray(colour).save(folder / "lossy.webp")
    Image.fromarray(colour).save(folder / "a.bmp")
    Image.fromarray(colour).save(folder / "raw.tif")
    Image.fromarray(colour).save(folder / "lzw.tif", compression="tiff_lzw")
    Image.fromarray(colour).quantize(16).save(folder / "palette.png")
    cv2.imwrite(str(folder / "deep.png"), sixteen(smooth()))
    cv2.imwrite(str(folder / "deep.tif"), sixteen(smooth()))
    cv2.imwrite(str(folder / "float.tif"), light)
    cv2.imwrite(str(folder / "a.hdr"), light)
    images.write_exr(folder / "a.exr", light)
    exr(folder / "raw.exr", {"Y": light[..., 0]}, OpenEXR.NO_COMPRESSION)
    exr(folder / "piz.exr", {"Y": light[..., 0]}, OpenEXR.PIZ_COMPRESSION)
    images.write_npy(folder / "a.npy", colour)
    images.write_pfm(folder / "a.pfm", light)
    return sorted(folder.iterdir())


def read_or_refuse(path, **options) -> images.Picture | str:
    """The picture, or the one line that says why there is none."""
    try:
        return images.read_image(path, **options)
    except InputError as error:
        line = str(error)
    assert str(path) in line
    assert "\n" not in line
    return line


def test_cut_files_of_every_format_are_refused_at_every_length(tmp_path):
    """The imread of OpenCV would fill cut JPEGs with grey; nothing may come back but the whole picture."""
    (tmp_path / "whole").mkdir()
    refusals = 0
    for whole in samples(tmp_path / "whole"):
        data = whole.read_bytes()
        assert images.read_image(whole).image.shape == (3, HEIGHT, WIDTH)
        cut = tmp_path / whole.name
        near_the_end = range(max(0, len(data) - 24), len(data))
        for length in sorted({*range(0, len(data), max(1, len(data) // 40)), *near_the_end}):
            cut.write_bytes(data[:length])
            found = read_or_refuse(cut)
            if isinstance(found, str):
                refusals += 1
            else:  # bytes after the last pixel may be missing: padding of WebP, metadata of TIFF
                assert torch.equal(found.image, images.read_image(whole).image), (whole.name, length, len(data))
                assert length >= len(data) - 24
    assert refusals > 500


def test_cut_jpeg_is_refused_even_where_another_library_told_pillow_to_fill_in(tmp_path, monkeypatch):
    Image.fromarray(noise()).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-100])
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    assert "no end marker" in refused(tmp_path / "a.jpg")


@pytest.mark.parametrize("name", ["a.pfm", "a.npy", "a.png"])
def test_a_cut_file_is_called_cut(tmp_path, name):
    WRITERS[name](tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-100])
    assert "cut short" in refused(tmp_path / name)


def test_checksums_of_png_count(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[-40] ^= 1
    (tmp_path / "a.png").write_bytes(bytes(data))
    assert "checksum in chunk IDAT" in refused(tmp_path / "a.png")


@pytest.mark.parametrize("depth", [8, 16])
def test_a_png_with_too_few_rows_is_refused(tmp_path, depth):
    rows = (b"\0" + bytes(range(144)) * (depth // 8)) * (HEIGHT // 2)
    (tmp_path / "a.png").write_bytes(png(WIDTH, HEIGHT, depth, 2, rows))
    refused(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(png(WIDTH, HEIGHT, depth, 2, rows * 2))
    assert images.read_image(tmp_path / "a.png").image.shape == (3, HEIGHT, WIDTH)


def test_the_libraries_do_not_speak_before_us(tmp_path, capfd):
    for name, content in (("a.hdr", 400), ("deep.tif", 300), ("deep.png", 300)):
        (tmp_path / "whole").mkdir(exist_ok=True)
        whole = next(p for p in samples(tmp_path / "whole") if p.name == name)
        (tmp_path / name).write_bytes(whole.read_bytes()[:content])
        refused(tmp_path / name)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


# --- Names


@pytest.mark.parametrize(
    "name", ["a=b,c", "-rf", "with space", "深度", "ñandú", "(1) {}'\"$[x]", "%s %d", "line\nbreak"]
)
def test_odd_names(tmp_path, name):
    for suffix, writer in ((".png", images.write_png), (".exr", images.write_exr), (".npy", images.write_npy)):
        path = writer(tmp_path / (name + suffix), torch.from_numpy(smooth().astype(np.float32)).permute(2, 0, 1))
        picture = images.read_image(path, linear=True)
        assert picture.image.shape == (3, HEIGHT, WIDTH)
        path.write_bytes(path.read_bytes()[:-20])
        assert images.show(path) in refused(path)


def test_undecodable_names(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    Image.fromarray(noise()).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(path)
    assert np.array_equal(pixels(images.read_image(path)), noise())
    path.write_bytes(b"")
    assert "caf\\xe9.png is empty" in refused(path)


def test_show_makes_one_line_of_any_path():
    assert images.show("a\nb\x1b[31m.png") == "a\\nb\\x1b[31m.png"
    assert images.show("深度.png") == "深度.png"


# --- Writing


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
def test_png_round_trips(tmp_path, channels, bits):
    values = torch.from_numpy(noise()).permute(2, 0, 1)[:channels]
    full = 255 if bits == 8 else 65535
    for given in (values, values.float() / 255, values.double() / 255, np.ascontiguousarray(values.permute(1, 2, 0))):
        path = images.write_png(tmp_path / "a.png", given, bits=bits)
        found = images.read_image(path).image
        assert (found.dtype == torch.uint8) == (bits == 8)
        whole = found if bits == 8 else (found.double() * 65535).round()
        assert torch.equal(whole[:channels].long(), values.long() * (full // 255))
    with Image.open(path) as other:
        assert other.size == (WIDTH, HEIGHT)


def test_sixteen_bit_png_keeps_sixteen_bits_of_floats(tmp_path):
    levels = torch.arange(65536).reshape(1, 128, 512)
    images.write_png(tmp_path / "a.png", levels.float() / 65535, bits=16)
    assert torch.equal((images.read_image(tmp_path / "a.png").image[:1].double() * 65535).round().long(), levels)


def test_masks_are_written_as_black_and_white(tmp_path):
    mask = torch.eye(HEIGHT, dtype=torch.bool)[None]
    found = images.read_image(images.write_png(tmp_path / "a.png", mask)).image
    assert torch.equal(found[0], mask[0].byte() * 255)


def test_jpeg_round_trip(tmp_path):
    image = torch.from_numpy(smooth()).permute(2, 0, 1)
    found = images.read_image(images.write_jpeg(tmp_path / "a.jpg", image)).image.double() / 255
    assert (found - image).abs().mean() < 0.01  # JPEG of quality 95 on a smooth ramp


def test_three_channel_exr_and_pfm_are_exact(tmp_path):
    values = torch.from_numpy(np.stack([special(), special() / 2, special() + 1])).nan_to_num(0, 1e9, 0)
    for writer, name in ((images.write_exr, "a.exr"), (images.write_pfm, "a.pfm")):
        assert torch.equal(images.read_image(writer(tmp_path / name, values), linear=True).image, values)


def test_other_programs_read_what_we_write(tmp_path):
    values = (smooth() * 9).astype(np.float32)
    images.write_pfm(tmp_path / "a.pfm", values)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.pfm"), cv2.IMREAD_UNCHANGED)[..., ::-1], values)
    images.write_npy(tmp_path / "a.npy", torch.from_numpy(values).permute(2, 0, 1))
    assert np.array_equal(np.load(tmp_path / "a.npy"), values.transpose(2, 0, 1))
    images.write_exr(tmp_path / "a.exr", values[..., :1], channel="Z")
    file = OpenEXR.File(str(tmp_path / "a.exr"), separate_channels=True)
    assert np.array_equal(file.channels()["Z"].pixels, values[..., 0])
    assert file.header()["compression"] == OpenEXR.ZIP_COMPRESSION


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(2, 4, 8),
        torch.zeros(4, 8),
        torch.zeros(3, 4, 8).long(),
        torch.full((3, 4, 8), torch.nan),
        torch.zeros(3, 0, 8),
    ],
    ids=["two channels", "no channels", "long", "nan", "empty"],
)
def test_what_is_no_picture_is_not_written(tmp_path, image):
    with pytest.raises(ValueError, match="expected"):
        images.write_png(tmp_path / "a.png", image)
    assert list(tmp_path.iterdir()) == []


WRITERS = {
    "a.png": lambda path: images.write_png(path, noise(height=200, width=400)),
    "a.jpg": lambda path: images.write_jpeg(path, noise(height=200, width=400)),
    "a.exr": lambda path: images.write_exr(path, noise(height=200, width=400).astype(np.float32)),
    "a.npy": lambda path: images.write_npy(path, noise(height=200, width=400)),
    "a.pfm": lambda path: images.write_pfm(path, noise(height=200, width=400).astype(np.float32)),
    "m.png": lambda path: images.write_map_png(path, noise(height=200, width=400)[..., 0].astype(np.float32), 1 / 99),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("most", [0, 100, 20_000])
def test_a_disk_that_is_full_keeps_the_old_file(tmp_path, name, most):
    """A limit on the size of files fails real writes of every library at the given byte."""
    (tmp_path / name).write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        with pytest.raises(ResourceError) as caught:
            WRITERS[name](tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(tmp_path / name) in str(caught.value)
    assert (tmp_path / name).read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_picture_too_wide_for_its_format_is_refused(tmp_path):
    with pytest.raises(ResourceError, match="70000x1"):
        images.write_jpeg(tmp_path / "a.jpg", torch.zeros(3, 1, 70000))
    assert list(tmp_path.iterdir()) == []


# --- Memory

LARGE = """
import resource, sys
import numpy as np
from immersivedepth.data import images
import cv2, PIL.Image, PIL.PngImagePlugin, torch
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
picture = images.read_image(sys.argv[1])
print(tuple(picture.image.shape), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)
"""


@pytest.mark.parametrize(("suffix", "bytes_per_pixel"), [("jpg", 3 + 4 + 1), ("png", 3 + 4 + 1), ("bmp", 3 + 4 + 3)])
def test_a_large_picture_is_held_once_beside_its_decoder(tmp_path, suffix, bytes_per_pixel):
    """Bytes stay bytes: the result takes 3 a pixel and Pillow's own copy 4; a float copy would take 12 more."""
    width, height = 4096, 2048
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), np.kron(eight(smooth(64, 128)), np.ones((32, 32, 1), np.uint8)))
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", LARGE, path], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    shape, grown = done.stdout.rsplit(" ", 1)
    assert shape == str((3, height, width))
    assert int(grown) * 1024 < bytes_per_pixel * width * height * 1.15


def test_png_with_alpha(tmp_path):
    import cv2

    colour = torch.tensor([200, 100, 50], dtype=torch.uint8).view(3, 1, 1).expand(3, 4, 6)
    alpha = torch.zeros(1, 4, 6)
    alpha[..., 3:] = 1
    stored = cv2.imread(str(images.write_png(tmp_path / "a.png", colour, alpha=alpha)), cv2.IMREAD_UNCHANGED)
    assert stored[0, 0].tolist() == [50, 100, 200, 0]
    assert stored[0, 5].tolist() == [50, 100, 200, 255]
    found = images.read_image(tmp_path / "a.png")
    assert found.mask.equal(alpha > 0)
    with pytest.raises(ValueError, match="one alpha of their size"):
        images.write_png(tmp_path / "b.png", colour, alpha=alpha[:, :2])


def test_heic_with_its_extra(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")

    ramp = np.zeros((32, 64, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(64) * 4, np.arange(32)[:, None] * 8
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right makes it upright
    stored = Image.fromarray(np.rot90(ramp).copy())
    heif.from_pillow(stored).save(tmp_path / "turned.heic", quality=-1, exif=exif.tobytes())
    found = images.read_image(tmp_path / "turned.heic").image.permute(1, 2, 0).numpy()
    assert found.shape == ramp.shape
    assert np.abs(found.astype(int) - ramp).max() < 12
    data = (tmp_path / "turned.heic").read_bytes()
    with pytest.raises(InputError, match="limit"):
        images.read_image(tmp_path / "turned.heic", max_size=(32, 16))
    for keep in (20, 200, len(data) // 2, len(data) - 20):
        (tmp_path / "cut.heic").write_bytes(data[:keep])
        with pytest.raises(InputError, match="HEIC"):
            images.read_image(tmp_path / "cut.heic")


def test_three_numbers_of_each_pixel_keep_their_signs(tmp_path):
    vectors = torch.randn(3, 5, 7)
    path = images.write_npy(tmp_path / "normal.npy", vectors.permute(1, 2, 0))
    assert torch.equal(images.read_vectors(path), vectors)
    images.write_npy(path, vectors[:, :, 0])
    with pytest.raises(InputError, match=r"expected floats \[H, W, 3\]"):
        images.read_vectors(path)
    images.write_png(path, np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match="expected NPY"):
        images.read_vectors(path)
