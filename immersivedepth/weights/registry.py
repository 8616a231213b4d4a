"""What is known of every released file: where it lies, how large it is, what proves it, what its licence allows."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import PurePath

from ..checks import ConfigError

HUB = "https://huggingface.co"
MIDAS_RELEASES = "https://github.com/isl-org/MiDaS/releases"
OMNIDATA_PAGE = "https://zenodo.org/records/10447888"  # named by the official download scripts
OMNIDATA_FILES = f"{OMNIDATA_PAGE}/files"


@dataclass(frozen=True)
class Source:
    """One released file. What nobody published is None: no hash and no size is guessed."""

    name: str
    package: str
    variant: str
    file: str
    page: str  # for a person with a browser
    licence: str
    licence_note: str
    key: str  # the config key that takes a path to this file
    url: str | None = None  # for the program; None where the publisher offers no direct link
    size: int | None = None  # bytes
    sha256: str | None = None
    sha256_from: str = ""  # who states the hash


def known(name: str) -> Source:
    """The record of a name (or of a file name)."""
    if name in REGISTRY:
        return REGISTRY[name]
    stem = PurePath(name).stem
    if stem in REGISTRY and REGISTRY[stem].file == name:
        return REGISTRY[stem]
    close = difflib.get_close_matches(stem, REGISTRY, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "mode=weights lists all names"
    raise ConfigError(f"weights: {name!r} is not a known file; {hint}")


_APACHE = ("Apache-2.0", "free use, also commercial, with attribution")
_NON_COMMERCIAL = ("CC-BY-NC-4.0", "NOT for commercial use; attribution required")
# The hub pages of the metric files say Apache-2.0, the project's README puts every Base and Large model under
# CC-BY-NC-4.0; the stricter of the two is shown.
_METRIC = ("CC-BY-NC-4.0", "NOT for commercial use by the project's README, though its hub page says Apache-2.0")
_MIT = ("MIT", "free use, also commercial, with attribution")
_OMNIDATA = (
    "Omnidata EULA",
    "the licence agreement of the Omnidata starter dataset; read it at https://github.com/EPFL-VILAB/omnidata",
)

HUB_PAGE = "the publisher's page on the hub"
_COPIES = "public copies of the file that agree; the publisher states none"
_PREFIX = "public copies, agreeing with the first eight digits in the publisher's older file name"
_SISTER = "a public copy whose sister files agree with the publisher; the publisher states none"

# model: (repository, commit or branch, bytes, SHA-256, who states it). Where no commit is recorded the branch is
# named; the SHA-256 pins the content all the same.
_DEPTH_ANYTHING: dict[str, tuple[str, str, int | None, str | None, str]] = {
    "vits": (
        "Small",
        "65ae6e3ee054faf5f2a0b3d079fbf181aaad86a0",
        99218434,
        "715fade13be8f229f8a70cc02066f656f2423a59effd0579197bbf57860e1378",
        HUB_PAGE,
    ),
    "vitb": (
        "Base",
        "f11825d6a03793a70dfb594c89a0e990986de230",
        389961218,
        "0d2b7002e62d39d655571c371333340bd88f67ab95050c03591555aa05645328",
        HUB_PAGE,
    ),
    "vitl": (
        "Large",
        "c88f92d49d0b635fb6c088199cce0c969807dccc",
        1341395338,
        "a7ea19fa0ed99244e67b624c72b8580b7e9553043245905be58796a608eb9345",
        _COPIES,
    ),
    "metric_hypersim_vits": ("Metric-Hypersim-Small", "main", None, None, ""),
    "metric_hypersim_vitb": (
        "Metric-Hypersim-Base",
        "main",
        None,
        "9dc9e274c5eff55c6daf27b660c0ced0eca4e8593a6da90cdcb04d2b4d3f3fa2",
        HUB_PAGE,
    ),
    "metric_hypersim_vitl": (
        "Metric-Hypersim-Large",
        "2c34ee4472cd0e02174fef0a39376cbdcbad295c",
        None,
        "6f82ff2bc543ac02ddff4aa31fa363676a8305dd3ccf04e80e2af115a044cb6d",
        HUB_PAGE,
    ),
    "metric_vkitti_vits": (
        "Metric-VKITTI-Small",
        "a49638011c708103f1f0fcbdf138392539558bca",
        None,
        "9203e538d35255c90dda4b7fedb47ff33fe725497bcca3b1e53b3a65ee63f0cb",
        HUB_PAGE,
    ),
    "metric_vkitti_vitb": (
        "Metric-VKITTI-Base",
        "c3208e5f0ea82b95f0e418ce28008d8aed48d205",
        389964656,
        "4dad67a7cc10b462bca48e6b8569c762b8eb3c1adada170a3851a6d3ba37bb3e",
        HUB_PAGE,
    ),
    "metric_vkitti_vitl": (
        "Metric-VKITTI-Large",
        "d749ee03c2788eea07378440e26a530442dc4fc9",
        1341401064,
        "239b1054a369e66da2576e9a118d6d7c12d90dc8ebe609579a9a09cd8e05fe38",
        HUB_PAGE,
    ),
}

# model: (release, bytes, SHA-256, who states it)
_MIDAS: dict[str, tuple[str, int | None, str | None, str]] = {
    "dpt_beit_large_512": (
        "v3_1",
        1581966003,
        "9e9e900747e9e8b3112df716979219836a27716277b3d0dc53889cbba8b82328",
        _COPIES,
    ),
    "dpt_beit_large_384": (
        "v3_1",
        1441465011,
        "9a86e82345dee25004eeacbc25db11fae827d32cd6939a9056eb7db6ef895413",
        _SISTER,
    ),
    "dpt_beit_base_384": (
        "v3_1",
        478198027,
        "b8ae0dd5ac6e80d7fa8ab4d4a370b75a3094d7ca110e20596ec5f817a238900f",
        _SISTER,
    ),
    "dpt_swin2_large_384": ("v3_1", None, None, ""),
    "dpt_swin2_base_384": ("v3_1", None, None, ""),
    "dpt_swin2_tiny_256": ("v3_1", None, None, ""),
    "dpt_swin_large_384": ("v3_1", None, None, ""),
    "dpt_next_vit_large_384": ("v3_1", None, None, ""),
    "dpt_levit_224": ("v3_1", None, None, ""),
    "dpt_large_384": (
        "v3",
        1376378527,
        "2f21e586477d90cb9624c7eef5df7891edca49a1c4795ee2cb631fd4daa6ca69",
        _PREFIX,
    ),
    "dpt_hybrid_384": (
        "v3",
        492757791,
        "501f0c75b3bca7daec6b3682c5054c09b366765aef6fa3a09d03a5cb4b230853",
        _PREFIX,
    ),
    "midas_v21_384": (
        "v2_1",
        422509849,
        "f6b980704cfd7259c7cc2b058c2f160159c55e84b3b6c08331b4156a84629f70",
        _PREFIX,
    ),
    "midas_v21_small_256": (
        "v2_1",
        85761505,
        "70d6b9c891758c67f974a6097fb0c608c7ee67fb81ac3e5588847d5596d56fca",
        _PREFIX,
    ),
}

# name: (file, bytes, SHA-256, who states it); the record that the official download scripts name
_OMNIDATA_FILES: dict[str, tuple[str, int | None, str | None, str]] = {
    "omnidata_dpt_depth_v2": (
        "omnidata_dpt_depth_v2.ckpt",
        1947430832,
        "a0fab23fee64aa9e4bbe0b520b18b196ea7594a7f719c1d8c10cf11dcb6e4a1e",
        _COPIES,
    ),
    "omnidata_dpt_normal_v2": (
        "omnidata_dpt_normal_v2.ckpt",
        1947430960,
        "38db3f7d952f48f900f0b32d6cce6749e41641045ebc5713cf29618f54aff3bb",
        _COPIES,
    ),
    "omnidata_unet_normal_v1": ("omnidata_unet_normal_v1.pth", None, None, ""),
}


def _depth_anything() -> list[Source]:
    key = "predict.depth_anything_v2.weights"
    sources = []
    for variant, (title, revision, size, sha256, stated) in _DEPTH_ANYTHING.items():
        name, page = f"depth_anything_v2_{variant}", f"{HUB}/depth-anything/Depth-Anything-V2-{title}"
        file = f"{name}.pth"
        licence, note = _APACHE if variant.endswith("vits") else _METRIC if "metric" in variant else _NON_COMMERCIAL
        url = f"{page}/resolve/{revision}/{file}"
        sources.append(
            Source(name, "depth_anything_v2", variant, file, page, licence, note, key, url, size, sha256, stated)
        )
    giant = "https://github.com/DepthAnything/Depth-Anything-V2 (announced, never released)"
    name = "depth_anything_v2_vitg"
    return [*sources, Source(name, "depth_anything_v2", "vitg", f"{name}.pth", giant, *_NON_COMMERCIAL, key)]


def _midas() -> list[Source]:
    return [
        Source(
            name, "midas", name, f"{name}.pt", f"{MIDAS_RELEASES}/tag/{release}", *_MIT, "predict.midas.weights",
            f"{MIDAS_RELEASES}/download/{release}/{name}.pt", size, sha256, stated,
        )
        for name, (release, size, sha256, stated) in _MIDAS.items()
    ]  # fmt: skip


def _omnidata() -> list[Source]:
    sources = []
    for name, (file, size, sha256, stated) in _OMNIDATA_FILES.items():
        key = "predict.omnidata_depth.weights" if "depth" in name else "predict.omnidata_normals.weights"
        url = f"{OMNIDATA_FILES}/{file}?download=1"
        variant = name.removeprefix("omnidata_")
        sources.append(
            Source(name, "omnidata", variant, file, OMNIDATA_PAGE, *_OMNIDATA, key, url, size, sha256, stated)
        )
    return sources


# The package's own: file, bytes, SHA-256, the key that replaces it. `python -m benchmarks.bundled --pack` prints them.
_BUNDLED: dict[str, tuple[int, str, str]] = {
    "depth_anything_v2_vitt": (
        11786258,
        "a5149874d13b5a06257eecb34c1d4aacc11066a5976f08c2e46197c2ecba3eeb",
        "predict.bundled_dav2.weights",
    ),
    "midas_tiny": (
        7715474,
        "b3e4e28fb7c5e18362d4242cac3f7cca27477150065536afe75c08d3c21863f2",
        "predict.bundled_midas.weights",
    ),
    "whole_sphere": (
        1343410,
        "4ef161b2d7f6897470d46b349486b69d68b14c660cc169e19ef73ba20323a538",
        "refine.whole_sphere.weights",
    ),
}


def _bundled() -> list[Source]:
    page = "comes with the package; docs/bundled.md says how it was made"
    return [
        Source(
            name, "bundled", name, f"{name}.safetensors", page, "MIT", "free use, also commercial", key, None, size,
            digest, "this program's release",
        )
        for name, (size, digest, key) in _BUNDLED.items()
    ]  # fmt: skip


REGISTRY: dict[str, Source] = {s.name: s for s in [*_depth_anything(), *_midas(), *_omnidata(), *_bundled()]}
