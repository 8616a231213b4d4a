"""The whole chain on worlds whose shape is known: the end-to-end test of the design."""

import pytest
import torch

from immersivedepth.data.synthetic import make_world, render_erp
from immersivedepth.geometry import sphere
from immersivedepth.metrics import abs_rel
from immersivedepth.pipeline import assemble


@pytest.fixture(scope="module")
def cube_room():
    return render_erp(make_world("cube_room", 0), 128, 256)


def result(compose, panorama, *overrides):
    with torch.inference_mode():
        return assemble(compose("predict=[oracle]", "project.resolution=96", *overrides))(panorama)


@pytest.mark.parametrize("project", ["icosahedron", "icosahedron_rings", "cube", "fibonacci"])
def test_alignment_undoes_affine_errors(compose, cube_room, project):
    found = result(compose, cube_room, f"project={project}")
    assert abs_rel(found, cube_room.truth) < 1e-3
    assert found.mask.float().mean() > 0.9


@pytest.mark.parametrize("align", ["global_affine", "grid_affine"])
@pytest.mark.parametrize("fov", [95, 100, 110])
def test_views_of_flat_walls_that_share_little(compose, cube_room, align, fov):
    """Hardly anything in such views lies below their middle, so that positivity does not bound their shift."""
    found = result(compose, cube_room, "project=cube", f"project.fov={fov}", f"align={align}")
    assert abs_rel(found, cube_room.truth) < 2e-3


@pytest.mark.parametrize("project", ["icosahedron", "icosahedron_rings", "cube", "fibonacci"])
def test_without_alignment_it_is_wrong(compose, cube_room, project):
    found = result(compose, cube_room, f"project={project}", "align=identity")
    assert abs_rel(found, cube_room.truth) > 0.05


def test_two_models_are_stacked(compose, cube_room):
    assert abs_rel(result(compose, cube_room, "predict=[oracle,oracle2]"), cube_room.truth) < 1e-3


@pytest.mark.parametrize("kind", ["affine_disparity", "affine_depth", "scale_distance", "metric_distance"])
def test_every_kind_of_prediction(compose, cube_room, kind):
    found = result(compose, cube_room, f"predict.oracle.kind={kind}")
    assert found.metric is (kind == "metric_distance")
    assert abs_rel(found, cube_room.truth) < 1e-3


def test_normals_of_the_result_are_those_of_the_walls(compose, cube_room):
    found = result(compose, cube_room)
    rays_hit = cube_room.truth.trace(sphere.erp_rays(128, 256))
    cosine = (found.normal.permute(1, 2, 0) * rays_hit.normal).sum(-1)[found.mask[0]]
    assert cosine.median() > 0.9999


def test_a_furnished_room(compose):
    panorama = render_erp(make_world("room", 3), 128, 256)
    found = result(compose, panorama)
    # Depth edges are blurred by 96-pixel views; without them the error is that of the cube room.
    assert abs_rel(found, panorama.truth) < 0.02
