"""The refinement by a network that looks at the whole panorama."""

from dataclasses import replace

import pytest
import torch

from immersivedepth.checks import WeightsError
from immersivedepth.geometry import sphere
from immersivedepth.nets.whole_sphere import WholeSphere
from immersivedepth.stages.export.quality import assess
from immersivedepth.stages.refine.whole_sphere import Whole

from .rooms import geometry, panorama, truth

H = 96
WHO = {"models": ["midas_tiny"]}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Weights of a network that says something, though nothing sensible."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    net = WholeSphere()
    torch.nn.init.normal_(net.last.weight, std=0.02)
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    save_file(net.state_dict(), path)
    return str(path)


def _given():
    given = geometry(truth(H).distance)
    distance = given.distance.clone()
    distance[:, :10, :40], distance[:, 50:60, 100:120] = torch.inf, 0
    return replace(given, distance=distance, mask=distance.isfinite() & (distance > 0), report=dict(WHO))


def test_distances_of_those_it_knows_are_mended(file):
    given = _given()
    found = Whole(weights=file)(given, panorama(H))
    assert found.report["whole_sphere"]["mended"]
    told = assess(found)["stages"]
    assert told["whole_sphere"] == found.report["whole_sphere"]
    assert told["models"] == ["midas_tiny"]
    assert not torch.equal(found.distance, given.distance)
    assert found.distance.shape == given.distance.shape
    assert torch.equal(found.distance == 0, given.distance == 0)  # what nobody knows stays unknown
    assert torch.equal(found.sky, found.distance.isinf())
    assert torch.equal(found.mask, found.distance.isfinite() & (found.distance > 0))


def test_normals_are_given_where_there_were_any(file):
    given = _given()
    assert Whole(weights=file)(given, panorama(H)).normal is None
    there = replace(given, normal=torch.zeros(3, H, 2 * H))
    found = Whole(weights=file)(there, panorama(H))
    length = found.normal.norm(dim=0, keepdim=True)
    torch.testing.assert_close(length, found.mask.float())
    rays = sphere.erp_rays(H, 2 * H).movedim(-1, 0)
    assert ((found.normal * rays).sum(0) <= 1e-5).all()


def test_more_is_sky_with_a_lower_bound(file):
    shares = [
        float(Whole(weights=file, sky_from=bound)(_given(), panorama(H)).sky.float().mean())
        for bound in (0.3, 0.5, 0.99)
    ]
    assert shares[0] >= shares[1] > shares[2]


@pytest.mark.parametrize("models", [["depth_anything_v2_vits"], ["midas_tiny", "dpt_hybrid_384"], [], None])
def test_what_others_said_is_left_alone(models, file):
    given = replace(_given(), report={} if models is None else {"models": models})
    for weights in (file, "/nowhere"):  # nor is the network even read
        found = Whole(weights=weights)(given, panorama(H))
        assert torch.equal(found.distance, given.distance)
        assert found.mask is given.mask
        assert found.report["whole_sphere"] == {"mended": False}


def test_anybody_is_mended_on_request(file):
    given = replace(_given(), report={})
    assert Whole(of=None, weights=file)(given, panorama(H)).report["whole_sphere"]["mended"]


def test_the_unit_of_length_does_not_matter(file):
    given = _given()
    one = Whole(weights=file)(given, panorama(H)).distance
    ten = Whole(weights=file)(replace(given, distance=10 * given.distance), panorama(H)).distance
    known = one.isfinite()
    torch.testing.assert_close(ten[known], 10 * one[known], rtol=0.02, atol=0)


def test_turning_the_panorama_turns_the_result(file):
    given, picture = _given(), panorama(H)
    turn = 2 * H * 32 // 512 * 4  # a multiple of 32 pixels of its own 512
    turned = replace(
        given, distance=given.distance.roll(turn, -1), mask=given.mask.roll(turn, -1), spread=None, sky=None
    )
    found = Whole(weights=file)(replace(given, spread=None), picture).distance.roll(turn, -1)
    there = Whole(weights=file)(turned, replace(picture, image=picture.image.roll(turn, -1))).distance
    both = found.isfinite() & there.isfinite()
    assert (found.isfinite() == there.isfinite()).float().mean() > 0.999
    torch.testing.assert_close(found[both], there[both], rtol=0.02, atol=0)


def test_missing_and_misfitting_files_are_told_by_name(tmp_path, file):
    with pytest.raises(WeightsError, match=r"refine\.whole_sphere\.weights"):
        Whole(weights=str(tmp_path / "none.ckpt")).load()
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="whole_sphere"):
        Whole(weights=str(tmp_path / "other.safetensors")).load()
