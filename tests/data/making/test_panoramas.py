"""Made sets of panoramas are read by the loaders of the real ones, and hold what was rendered."""

import pytest
import torch

from immersivedepth.data import images
from immersivedepth.data.layouts import Matterport, Replica, Stanford
from immersivedepth.data.making import MakeData
from immersivedepth.data.measured import PairList, measured_of
from immersivedepth.geometry.sphere import erp_rays

READERS = {
    "matterport": (lambda root: Matterport(root, list="matterport3d_test.txt"), 0.5 / 4000, 65535 / 4000),
    "stanford": (lambda root: Stanford(root, list="stanford2d3d_all.txt"), 0.5 / 512, 65535 / 512),
    "replica": (lambda root: Replica(root, list="replica360.txt"), 0.0, float("inf")),
    "list": (lambda root: PairList(root, list=f"{root}/list.txt"), 0.0, float("inf")),
}


@pytest.mark.parametrize("kind", READERS)
def test_what_is_made_is_read_back(tmp_path, kind):
    settings = MakeData(kind, str(tmp_path), count=2, size=16, workers=1)
    settings()
    reader, step, most = READERS[kind]
    dataset = reader(str(tmp_path))
    assert len(dataset) == 2
    for task, source in enumerate(dataset.sources()):
        found = measured_of(dataset, source)
        world = settings.maker().world(task)
        exact = world.trace(erp_rays(16, 32)).distance[None]
        fits = exact < most
        assert torch.equal(found.valid, fits & exact.isfinite())
        assert (found.distance - exact)[fits].abs().max() <= step + 1e-6
        seen = found.panorama.truth.trace(erp_rays(16, 32)).distance
        assert torch.allclose(seen, exact[0], atol=1e-5)  # the recipe beside the picture is the world itself
        assert images.read_image(source).image.shape == (3, 16, 32)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.suffix in (".png", ".jpg")}
    settings()
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_a_plain_list_has_sky(tmp_path):
    world = MakeData("list", str(tmp_path), count=5, size=16).maker().world(4)
    assert world.trace(erp_rays(16, 32)).distance.isinf().any()
