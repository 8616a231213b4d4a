"""The registry holds every file the networks can load, and states nothing that cannot be so."""

import re
from pathlib import Path

import pytest

from immersivedepth.weights import REGISTRY

MIDAS = (
    "dpt_beit_large_512", "dpt_beit_large_384", "dpt_beit_base_384", "dpt_swin2_large_384", "dpt_swin2_base_384",
    "dpt_swin2_tiny_256", "dpt_swin_large_384", "dpt_next_vit_large_384", "dpt_levit_224", "dpt_large_384",
    "dpt_hybrid_384", "midas_v21_384", "midas_v21_small_256",
)  # fmt: skip


def test_every_released_file_is_there():
    depth_anything = {f"depth_anything_v2_{size}" for size in ("vits", "vitb", "vitl", "vitg")}
    depth_anything |= {
        f"depth_anything_v2_metric_{scene}_{size}"
        for scene in ("hypersim", "vkitti")
        for size in ("vits", "vitb", "vitl")
    }
    omnidata = {"omnidata_dpt_depth_v2", "omnidata_dpt_normal_v2", "omnidata_unet_normal_v1"}
    bundled = {"depth_anything_v2_vitt", "midas_tiny", "whole_sphere"}
    assert set(REGISTRY) == depth_anything | set(MIDAS) | omnidata | bundled


@pytest.mark.parametrize("source", REGISTRY.values(), ids=REGISTRY)
def test_entries_are_sound(source):
    assert source.name == Path(source.file).stem
    assert REGISTRY[source.name] is source
    assert source.page.startswith("https://") or source.package == "bundled"
    assert source.url is None or (source.url.startswith("https://") and source.file in source.url)
    assert source.size is None or source.size > 10**6
    assert source.sha256 is None or re.fullmatch("[0-9a-f]{64}", source.sha256)
    assert bool(source.sha256) == bool(source.sha256_from)
    assert source.licence
    assert source.licence_note
    assert re.fullmatch(r"(predict|refine)\.\w+\.weights", source.key)


def test_no_hash_stands_twice():
    hashes = [source.sha256 for source in REGISTRY.values() if source.sha256]
    assert len(set(hashes)) == len(hashes)


def test_licences():
    """Only the small Depth Anything files are free for commercial use."""
    for source in REGISTRY.values():
        if source.package == "depth_anything_v2":
            assert source.licence == ("Apache-2.0" if source.name.endswith("vits") else "CC-BY-NC-4.0")
        if source.package == "midas":
            assert source.licence == "MIT"


def test_hashes_agree_with_the_older_names_of_the_publisher():
    """MiDaS once named its files after the first eight digits of their SHA-256."""
    digits = {
        "dpt_large_384": "2f21e586",
        "dpt_hybrid_384": "501f0c75",
        "midas_v21_384": "f6b98070",
        "midas_v21_small_256": "70d6b9c8",
    }
    assert {name: (REGISTRY[name].sha256 or "")[:8] for name in digits} == digits


def test_hub_files_are_pinned_to_a_commit():
    """A branch may move; where no commit is known, the SHA-256 or the first use pins the content."""
    branches = [s.name for s in REGISTRY.values() if s.url and "/resolve/main/" in s.url]
    assert branches == ["depth_anything_v2_metric_hypersim_vits", "depth_anything_v2_metric_hypersim_vitb"]
