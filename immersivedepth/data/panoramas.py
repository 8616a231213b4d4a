"""Panoramas out of picture files: which files are meant, whether each is a whole sphere, and what is known about it.

A picture is taken when it is twice as wide as high, within 0.5 % or one pixel; it is then resized to exactly 2:1 around
the seam (its height stays). A partial panorama is taken when GPano tags say where on the sphere it lies. Everything
else is refused with a hint at what it seems to be; nothing is stretched silently.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checks import ConfigError, InputError, Range
from ..geometry import sphere
from ..scene import Hits, Panorama, Truth
from . import images

log = logging.getLogger(__name__)

Array = NDArray[Any]
Size = Annotated[int, Range(1, 65536)]

MIN_HEIGHT = 16  # below this a panorama holds nothing that a network could use
TOLERANCE = 0.005  # of the width
WORLD = ".world.json"  # beside a picture: the recipe of the synthetic world it was rendered from
MEASURED = ("_distance.exr", "_distance.npy")  # beside a picture: its measured distance


@dataclass
class Wild:
    """Any pictures: a file, a folder, a pattern, a text file with one path per line, or a list of these.

    Names with "=", "," or brackets are best given in a folder or a text file, since the command line reads those signs.
    """

    image_path: str | list[str] | None = None  # None: the sample that ships with the package
    image_resize: tuple[Size, Size] | None = None  # [width, height]; None keeps the size
    max_size: tuple[Size, Size] = images.MAX_SIZE  # larger pictures are refused before they are decoded
    part: Literal["whole", "top", "bottom", "left", "right"] = "whole"  # of a stereo picture: the eye to use
    check_layout: bool = True  # refuse what looks like two fisheye circles

    def __post_init__(self) -> None:
        if self.image_resize is not None:
            width, height = self.image_resize
            if width != 2 * height or height < MIN_HEIGHT:
                raise ConfigError(
                    f"dataset.image_resize=[{width},{height}]: expected [width, height] with width = 2 * height, "
                    f"at least [{2 * MIN_HEIGHT},{MIN_HEIGHT}], e.g. [1024,512]"
                )
            if width * height > self.max_size[0] * self.max_size[1]:
                raise ConfigError(f"dataset.image_resize=[{width},{height}] is larger than dataset.max_size")

    def sources(self) -> list[Path]:
        """The files, sorted within a folder or pattern; each is opened only by `load`."""
        return list(self._named)

    def name(self, path: Path) -> str:
        """What the panorama of a source is called, without opening it."""
        return self._named.get(path) or safe_name(path.stem)

    def load(self, path: str | Path) -> Panorama:
        """One panorama; raises InputError when this file cannot be used, so that a batch can go on with the next."""
        path = Path(path)
        picture = images.read_image(path, max_size=self.max_size)
        pixels = picture.image.permute(1, 2, 0).numpy()  # [H, W, 3]
        mask = None if picture.mask is None else picture.mask[0].numpy()  # [H, W]
        about = {**picture.about, "notes": list(picture.about.get("notes", ()))}
        del picture
        if self.part != "whole":
            pixels, mask = _half(pixels, self.part), None if mask is None else _half(mask, self.part)
            about["part"] = self.part
        elif about.get("gpano"):
            pixels, mask = self._place(path, pixels, mask, about)
        pixels, mask = self._shape(path, pixels, mask, about)
        if self.check_layout and mask is None and looks_like_two_fisheyes(pixels):
            raise InputError(
                f"{images.show(path)} looks like two fisheye circles side by side; convert it to an equirectangular "
                "picture with the camera's software first (dataset.check_layout=false if it is one)"
            )
        if self.check_layout and mask is None and not edges_meet(pixels):
            _note(path, about, "its left and right edges do not meet: it seems to be no whole panorama, take care")
        if not about["notes"]:
            del about["notes"]
        return Panorama(
            image=torch.from_numpy(pixels).permute(2, 0, 1),
            name=self.name(path),
            mask=None if mask is None else torch.from_numpy(mask)[None],
            truth=truth_beside(path),
            about=about,
        )

    def __len__(self) -> int:
        return len(self._named)

    def __iter__(self) -> Iterator[Panorama]:
        return (self.load(path) for path in self._named)

    @cached_property
    def _named(self) -> dict[Path, str]:
        """Every source with a name that is safe for a folder and unlike all others, whatever the system's case."""
        given = self.image_path if isinstance(self.image_path, list) else [self.image_path]
        paths = list(dict.fromkeys(path for text in given for path in find_pictures(text)))
        if len(paths) == 1:  # one of many is told of when its turn comes
            images.check_file(paths[0])
        if not paths:
            raise InputError("dataset.image_path=[] names no picture: give a file, a folder, a pattern or a .txt list")
        plain = [safe_name(path.stem) for path in paths]
        often = Counter(name.casefold() for name in plain)
        # A number would depend on what else is in the list, and a continued run must find its results again.
        marks = [hashlib.sha256(bytes(path.absolute())).hexdigest()[:8] for path in paths]
        unique = [f"{n}-{m}" if often[n.casefold()] > 1 else n for n, m in zip(plain, marks, strict=True)]
        return dict(zip(paths, unique, strict=True))

    def _place(
        self, path: Path, pixels: Array, mask: Array | None, about: dict[str, Any]
    ) -> tuple[Array, Array | None]:
        """Put a partial panorama where its tags say; tags that contradict a complete picture are put aside."""
        height, width = pixels.shape[:2]
        try:
            place = placement(about["gpano"], width, height)
        except ValueError as error:
            if not _is_2_to_1(width, height):
                raise InputError(
                    f"{images.show(path)} has GPano tags that do not fit ({error}); mend the tags or save it as 2:1"
                ) from error
            _note(path, about, f"GPano tags ignored: {error}")
            return pixels, mask
        if place is None:
            return pixels, mask
        if place.scale != 1:
            _note(path, about, f"GPano tags are for another size: taken as scaled by {place.scale:.4g}")
        if 2 * place.height**2 > self.max_size[0] * self.max_size[1]:
            raise InputError(
                f"{images.show(path)} is a part of a panorama of {2 * place.height}x{place.height} pixels, more than "
                f"the limit of {self.max_size[0]}x{self.max_size[1]}; make it smaller or raise dataset.max_size"
            )
        whole = np.zeros((place.height, 2 * place.height, 3), pixels.dtype)
        seen = np.zeros(whole.shape[:2], bool)
        there = np.s_[place.top : place.top + height, place.left : place.left + width]
        whole[there], seen[there] = pixels, True if mask is None else mask
        return whole, None if seen.all() else seen

    def _shape(
        self, path: Path, pixels: Array, mask: Array | None, about: dict[str, Any]
    ) -> tuple[Array, Array | None]:
        """Exactly 2:1, in the size that was asked for."""
        height, width = pixels.shape[:2]
        if not _is_2_to_1(width, height):
            hint = _aspect_hint(width, height, about)
            raise InputError(f"{images.show(path)} is {width}x{height}, expected twice as wide as high; {hint}")
        if height < MIN_HEIGHT:
            raise InputError(
                f"{images.show(path)} is {width}x{height}, too small; expected {2 * MIN_HEIGHT}x{MIN_HEIGHT} or more"
            )
        if width != 2 * height:
            about["notes"].append(f"resized from {width}x{height} to exactly 2:1")
        new_width, new_height = self.image_resize or (2 * height, height)
        pixels = resize(pixels, new_width, new_height)
        if mask is not None:  # a pixel counts when all it was made of counts
            mask = resize(mask * np.uint8(255), new_width, new_height) == 255
            if not mask.any():
                raise InputError(f"{images.show(path)} shows nothing at {new_width}x{new_height}; use a larger size")
        return pixels, mask


# --- Which files


def find_pictures(text: str | None) -> list[Path]:
    """The files that one entry of `image_path` means."""
    if text is None:
        return [_sample()]
    if not text.strip():
        raise InputError("dataset.image_path is empty: give a file, a folder, a pattern or a .txt list")
    path = Path(text).expanduser()
    if "\0" not in text and path.is_dir():
        return _in_folder(path)
    if path.suffix.lower() == ".txt":
        images.check_file(path)
        return _in_list(path)
    if glob.has_magic(text) and not path.exists():
        found = sorted(Path(p) for p in glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute patterns too
        found = [p for p in found if _is_picture(p)]
        if not found:
            raise InputError(f"{images.show(text)} matches no picture; check the pattern, and quote it in the shell")
        return found
    return [path]


def _in_folder(folder: Path) -> list[Path]:
    try:
        found = sorted(p for p in folder.iterdir() if _is_picture(p))
    except OSError as error:
        raise InputError(f"{images.show(folder)} cannot be listed: {error.strerror or error}") from error
    if not found:
        kinds = " ".join(images.SUFFIXES)
        raise InputError(f"{images.show(folder)} holds no picture ({kinds}); for folders inside use {folder}/**/*.jpg")
    return found


def _is_picture(path: Path) -> bool:
    """By its name alone: damaged ones shall be told of, and maps beside pictures are no pictures."""
    name = path.name.lower()
    return name.endswith(images.SUFFIXES) and not name.endswith(MEASURED) and name[0] != "." and not path.is_dir()


def _in_list(path: Path) -> list[Path]:
    """One path per line, relative to the list; empty lines and lines that begin with "# " are skipped."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{images.show(path)} is no list of paths in UTF-8: {error}") from error
    lines = [line.strip() for line in text.splitlines()]
    found = [path.parent / Path(line).expanduser() for line in lines if line and not line.startswith("# ")]
    if not found:
        raise InputError(f"{images.show(path)} names no picture; write one path on each line")
    return found


def _sample() -> Path:
    for name in ("room.jpg", "room.png"):
        path = Path(str(resources.files("immersivedepth") / "assets" / name))
        if path.is_file():
            return path
    raise InputError("the sample panorama is missing from this installation; set dataset.image_path=...")


def safe_name(text: str) -> str:
    """A name for a folder: letters, digits and ._- only, not hidden, no option, at most 100 bytes."""
    name = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", text)).lstrip(".-_").rstrip("._")
    return name.encode()[:100].decode(errors="ignore") or "panorama"


# --- Where on the sphere


@dataclass(frozen=True)
class Placement:
    """Where a partial panorama lies, in pixels of the picture at hand."""

    left: int
    top: int
    height: int  # of the whole sphere, which is twice as wide
    scale: float  # pixels of the picture per pixel of the tags


def placement(gpano: dict[str, Any], width: int, height: int) -> Placement | None:
    """Where GPano tags put a picture of that size; None for a whole sphere; ValueError where they contradict."""
    projection = str(gpano.get("ProjectionType", "equirectangular"))
    if projection.lower() != "equirectangular":
        raise ValueError(f"ProjectionType is {projection}, expected equirectangular")
    keys = {
        "full_width": "FullPanoWidthPixels",
        "full_height": "FullPanoHeightPixels",
        "crop_width": "CroppedAreaImageWidthPixels",
        "crop_height": "CroppedAreaImageHeightPixels",
        "left": "CroppedAreaLeftPixels",
        "top": "CroppedAreaTopPixels",
    }
    if not any(key in gpano for key in keys.values()):
        return None
    tags = {name: gpano.get(key) for name, key in keys.items()}
    if tags["full_height"] is None and isinstance(tags["full_width"], int):
        tags["full_height"] = tags["full_width"] // 2
    for name, value in tags.items():
        if not isinstance(value, int | float) or value < (0 if name in ("left", "top") else 1) or value > 1e6:
            raise ValueError(f"{keys[name]} is {'missing' if value is None else value}")
    t = {name: float(value) for name, value in tags.items() if value is not None}
    if not _is_2_to_1(t["full_width"], t["full_height"]):
        raise ValueError(f"the whole is {t['full_width']:g}x{t['full_height']:g}, expected twice as wide as high")
    if t["left"] + t["crop_width"] > t["full_width"] + 1 or t["top"] + t["crop_height"] > t["full_height"] + 1:
        raise ValueError("the part reaches beyond the whole")
    scale = width / t["crop_width"]
    if abs(height - t["crop_height"] * scale) > max(1.5, TOLERANCE * height):
        raise ValueError(f"they say {t['crop_width']:g}x{t['crop_height']:g}, the picture is {width}x{height}")
    if t["crop_width"] >= t["full_width"] - 1 and t["crop_height"] >= t["full_height"] - 1:
        return None
    whole = max(round(t["full_width"] * scale / 2), math.ceil(width / 2), height)
    left = min(round(t["left"] * scale), 2 * whole - width)
    return Placement(left, min(round(t["top"] * scale), whole - height), whole, scale)


def _is_2_to_1(width: float, height: float) -> bool:
    return abs(width - 2 * height) <= max(1, TOLERANCE * width)


def _aspect_hint(width: int, height: int, about: dict[str, Any]) -> str:
    """What a picture of the wrong shape most likely is."""
    hints = {
        1: "this may be top-bottom stereo (dataset.part=top takes the upper eye) or fisheye (convert it first)",
        4: "this may be side-by-side stereo: dataset.part=left takes the left eye",
        6: "this may be a strip of six cube faces: convert it to an equirectangular picture first",
        1 / 6: "this may be a strip of six cube faces: convert it to an equirectangular picture first",
        3 / 2: "this may be six cube faces or a photograph: convert it to an equirectangular picture first",
        4 / 3: "this may be a cross of cube faces or a photograph: convert it to an equirectangular picture first",
        3 / 4: "this may be a cross of cube faces or a photograph: convert it to an equirectangular picture first",
        1 / 2: "it lies on its side: turn it, or mend its EXIF orientation"
        + (f" ({about['exif_orientation']})" if "exif_orientation" in about else ""),
    }
    for aspect, hint in hints.items():
        if abs(width / height / aspect - 1) < 2 * TOLERANCE:
            return hint
    return "crop or pad it to the whole sphere, or give it GPano tags if it is a part of one"


def _half(pixels: Array, part: str) -> Array:
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    if part in ("top", "bottom"):
        return pixels[:height] if part == "top" else pixels[-height:]
    return np.ascontiguousarray(pixels[:, :width] if part == "left" else pixels[:, -width:])


def looks_like_two_fisheyes(pixels: Array) -> bool:
    """Whether all that lies outside two circles side by side is black, and their caps are not, as under black bars."""
    small = cv2.resize(pixels, (128, 64), interpolation=cv2.INTER_AREA).max(-1)
    dark = small < (10 if small.dtype == np.uint8 else 10 / 255)
    y, x = np.mgrid[:64, :128] + 0.5
    radius = np.hypot(x % 64 - 32, y - 32) / 32
    caps = (radius < 0.92) & (np.abs(y - 32) > 0.7 * 32)
    return bool(dark[radius > 1.06].mean() > 0.98 and dark[caps].mean() < 0.5)


def edges_meet(pixels: Array) -> bool:
    """Whether the last column is followed by the first as columns are by their neighbours.

    Measured on nine panoramas, each turned by 60 angles: 2 % seem to be open, and 94 % of 60 crops of each, which are
    what a photograph looks like.
    """
    small = cv2.resize(pixels, (min(256, pixels.shape[1]), min(128, pixels.shape[0])), interpolation=cv2.INTER_AREA)
    small = small.astype(np.float32) / (255 if small.dtype == np.uint8 else 1)
    steps = np.abs(np.roll(small, 1, axis=1) - small).mean((0, 2))  # [W], the first one across the seam
    middle, high = np.quantile(steps[1:], (0.5, 0.98))
    return bool(steps[0] < max(0.05, 2.3 * middle, high))


def resize(pixels: Array, width: int, height: int) -> Array:  # [H, W] or [H, W, C]
    """Resize around the seam and over the poles: area means where it shrinks, bilinear where it grows."""
    old_height, old_width = pixels.shape[:2]
    if (old_width, old_height) == (width, height):
        return pixels
    if width <= old_width and height <= old_height:  # no new pixel reaches beyond the border
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    half = old_width // 2
    padded = np.concatenate([np.roll(pixels[:1], half, 1), pixels, np.roll(pixels[-1:], half, 1)])
    padded = np.concatenate([padded[:, -1:], padded, padded[:, :1]], axis=1)
    x, y = old_width / width, old_height / height
    to_old = np.array([[x, 0, 0.5 * x + 0.5], [0, y, 0.5 * y + 0.5]])  # pixel centres, and one pixel of padding
    return cv2.warpAffine(padded, to_old, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _note(path: Path, about: dict[str, Any], text: str) -> None:
    about["notes"].append(text)
    log.warning("%s: %s", images.show(path), text)


# --- What is known to be true


@dataclass(frozen=True)
class ErpTruth:
    """A measured panorama of distance; 0 and NaN are unknown, infinity is sky."""

    distance: Tensor  # [1, H, W]

    def trace(self, rays: Tensor) -> Hits:
        """The nearest pixel: a value between the two sides of an edge lies on no surface."""
        _, height, width = self.distance.shape
        uv = sphere.rays_to_erp(rays)
        column = (uv[..., 0] * width).floor().long() % width
        row = (uv[..., 1] * height).floor().long().clamp(0, height - 1)
        found = self.distance[0].to(rays.device)[row, column]
        known = torch.where(found > 0, found, torch.zeros_like(found))  # NaN is not above 0
        return Hits(distance=known, sky=known.isinf())


def truth_beside(path: Path) -> Truth | None:
    """The truth that lies beside a picture: the recipe of its world, or a measured map of distance."""
    recipe = path.with_name(path.stem + WORLD)
    if recipe.is_file():
        from .synthetic import load_world

        try:
            content = json.loads(recipe.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise TypeError(f"expected a mapping, got {type(content).__name__}")
            truth: Truth = load_world(content)
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise InputError(f"{images.show(recipe)} is no recipe of a world: {error!r}; mend or remove it") from error
        return truth
    for ending in MEASURED:
        measured = path.with_name(path.stem + ending)
        if measured.is_file():
            distance = images.read_map(measured)
            if distance.shape[2] != 2 * distance.shape[1]:
                shape = f"{distance.shape[2]}x{distance.shape[1]}"
                raise InputError(f"{images.show(measured)} is {shape}, expected a map twice as wide as high")
            return ErpTruth(distance)
    return None
